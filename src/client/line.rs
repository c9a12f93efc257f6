//! The client's socket, read by way of a buffer that all sessions share.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::{Mutex, MutexGuard};

use crate::protocol::frame::LOOK;
use crate::protocol::message::Report;
use crate::server::socket::Socket;

/// How much is read at once, in bytes, behind the beginning of a message.
const READ: usize = 64 * 1024;

/// The buffer that all sessions of a runtime read into, one after the other: none waits while
/// it has it.
#[derive(Debug, Clone)]
pub(super) struct Scratch(Arc<Mutex<Box<[u8]>>>);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(vec![0; LOOK + READ].into())))
    }

    /// Lends the buffer, for work that does not wait: the guard can't be kept across an await.
    pub(super) fn lend(&self) -> MutexGuard<'_, Box<[u8]>> {
        self.0.lock()
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: Socket,
    pub(super) scratch: Scratch,
}

impl Line {
    pub(super) fn new(connection: OwnedFd, scratch: Scratch) -> io::Result<Self> {
        let socket = Socket::new(connection)?;
        Ok(Self { socket, scratch })
    }

    /// Reads at most `most` bytes onto the end of `into`; 0 is the end of the stream. Cancel
    /// safe.
    pub(super) async fn read(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            loop {
                let readable = std::task::ready!(self.socket.poll_readable(cx))?;
                let mut buffer = self.scratch.lend();
                let most = most.min(buffer.len());
                if let Some(count) = readable.read(&mut buffer[..most])? {
                    into.extend_from_slice(&buffer[..count]);
                    return Poll::Ready(Ok(count));
                }
            }
        })
        .await
    }

    /// Writes all of `bytes`; waits while the client reads nothing. Not cancel safe.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Tells a client its last, as far as it can be told without waiting.
    pub(super) fn say_goodbye(&self, report: &Report) {
        let mut out = Vec::new();
        report.encode(&mut out);
        let _ = self.socket.try_write(&out);
    }
}
