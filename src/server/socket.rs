//! A descriptor registered for reading only.
//!
//! Each read by the peer of a Unix socket raises a writable event on our side. With the
//! usual registration (reading and writing) that wakes the relay once more per message
//! for nothing, so writability is asked for only when a write would block, on a
//! duplicate of the descriptor that lives until it can be written again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A connected stream socket, non-blocking, of either family.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
}

/// What is known of a socket without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// The peer is there and has sent nothing.
    Nothing,
    /// Bytes can be read.
    Data,
    /// The peer has closed, or the socket failed.
    Closed,
}

/// A socket in which something may be there to read.
#[derive(Debug)]
pub struct Readable<'a>(AsyncFdReadyGuard<'a, OwnedFd>);

impl Readable<'_> {
    /// Reads what is there into `buf`; 0 is the end of the stream, `None` is nothing: the socket
    /// must be waited for again.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn read(mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.0.get_inner().as_raw_fd(), buf, MsgFlags::empty()) {
            Ok(read) => {
                // A short read has emptied the socket. Without this the next read is
                // one that fails; an event that came since has a newer tick and stays.
                if read > 0 && read < buf.len() {
                    self.0.clear_ready();
                }
                Ok(Some(read))
            }
            Err(Errno::EAGAIN) => {
                self.0.clear_ready();
                Ok(None)
            }
            Err(Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Socket {
    /// Takes over a connected, non-blocking stream socket.
    ///
    /// # Errors
    /// The descriptor could not be registered with the runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: register(fd, Interest::READABLE)?,
        })
    }

    /// Waits until something may be there to read. Whoever shares a buffer takes it only then.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        self.fd.poll_read_ready(cx).map_ok(Readable)
    }

    /// Reads what is there, or waits for it. Cancel safe: nothing is read and then lost.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let readable = std::future::poll_fn(|cx| self.poll_readable(cx)).await?;
            if let Some(read) = readable.read(buf)? {
                return Ok(read);
            }
        }
    }

    /// Writes as much as the socket takes at once.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes nothing; else those of `send(2)`.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
    }

    /// Waits until the socket takes bytes again. Cancel safe. It borrows nothing, so that it can
    /// be kept beside the socket.
    ///
    /// # Errors
    /// No descriptor is left for the duplicate, or it could not be registered.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let duplicate = self.fd.get_ref().try_clone();
        async {
            let registered = register(duplicate?, Interest::WRITABLE)?;
            registered.writable().await?.retain_ready();
            Ok(())
        }
    }

    /// Writes all of `bytes`. Not cancel safe: a part may have been written.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks, without waiting and without reading, for bytes or the peer's end.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let mut byte = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.fd.as_raw_fd(), &mut byte, flags) {
            Ok(0) => Pending::Closed,
            Ok(_) => Pending::Data,
            Err(Errno::EAGAIN | Errno::EINTR) => Pending::Nothing,
            Err(_) => Pending::Closed,
        }
    }

    /// Tells the peer that no more will be written.
    pub fn finish_writing(&self) {
        // A socket that is closed already has finished as well.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
    }
}

#[allow(
    unsafe_code,
    reason = "tokio has no safe registration for one direction"
)]
fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the `AsyncFd` from here on and nothing takes it
    // out again, so it stays open, and the same, for as long as it is registered.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}
