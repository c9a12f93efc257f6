//! TLS to the server, over a descriptor that never waits.
//!
//! | module | gives |
//! |---|---|
//! | `setup` | what a connect needs: the files, read anew |
//! | `verify` | whether a server's certificate is good |
//! | `binding` | what binds SCRAM to a connection |
//! | `der` | what a certificate says |
//! | [`error`] | why TLS could not be had |

mod binding;
mod der;
pub mod error;
mod setup;
mod verify;

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use rustls::ClientConnection;

pub use error::TlsProblem;
pub(super) use setup::begin;
pub use setup::system_roots;

/// What is read at once, in bytes: one record of the largest size.
const RECORD: usize = 18 * 1024;
/// What is encrypted at most and not yet taken by the socket, in bytes.
const BUFFER: usize = 64 * 1024;

/// A TLS session. All that it keeps is bounded.
pub(super) struct Session {
    rustls: ClientConnection,
    /// What was read while there was no room for what it says.
    kept: Vec<u8>,
    /// What broke it, to be told behind what came before.
    broken: Option<rustls::Error>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What a read found.
pub(super) enum Found {
    /// So many bytes of plain text; 0 is the end.
    Plain(usize),
    /// Nothing yet.
    Nothing,
}

impl Session {
    pub(super) fn new(mut rustls: ClientConnection) -> Self {
        rustls.set_buffer_limit(Some(BUFFER));
        Self {
            rustls,
            kept: Vec::new(),
            broken: None,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.rustls.is_handshaking()
    }

    pub(super) fn speaks_postgresql(&self) -> bool {
        self.rustls.alpn_protocol() == Some(setup::ALPN)
    }

    /// What binds SCRAM to this session, if its certificate allows for it.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        binding::end_point(self.rustls.peer_certificates()?.first()?)
    }

    /// Whether something can be read without the socket.
    pub(super) fn has_plain(&mut self) -> bool {
        let state = self.rustls.process_new_packets();
        let unread = state.map_or(true, |s| {
            s.plaintext_bytes_to_read() > 0 || s.peer_has_closed()
        });
        unread || !self.kept.is_empty()
    }

    /// Sends what is encrypted; whether all of it was taken.
    pub(super) fn flush(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        while self.rustls.wants_write() {
            match self.rustls.write_tls(&mut Wire(fd)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Encrypts and sends; how much of `bytes` was taken. What is encrypted and was not sent is to
    /// be flushed.
    pub(super) fn write(&mut self, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
        if !self.flush(fd)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.rustls.writer().write(bytes)?;
        self.flush(fd)?;
        Ok(taken)
    }

    /// Reads once from the socket, by way of `buf`, where nothing is left from before. The flag
    /// says whether the socket was emptied.
    pub(super) fn read(&mut self, buf: &mut [u8], fd: BorrowedFd<'_>) -> io::Result<(Found, bool)> {
        if let Found::Plain(read) = self.plain(buf)? {
            return Ok((Found::Plain(read), false));
        }
        if let Some(error) = &self.broken {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        }
        if !self.kept.is_empty() {
            let kept = std::mem::take(&mut self.kept);
            self.feed(&kept, fd)?;
            return Ok((self.plain(buf)?, false));
        }
        let most = buf.len().min(RECORD);
        let read = match recv(fd.as_raw_fd(), &mut buf[..most], MsgFlags::empty()) {
            Ok(0) => return Ok((Found::Plain(0), false)),
            Ok(read) => read,
            Err(Errno::EAGAIN) => return Ok((Found::Nothing, true)),
            Err(Errno::EINTR) => return Ok((Found::Nothing, false)),
            Err(error) => return Err(error.into()),
        };
        self.feed(&buf[..read], fd)?;
        Ok((self.plain(buf)?, read < most))
    }

    /// Takes what came, without waiting; false where that is nothing.
    pub(super) fn look(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        let mut buf = [0; 1024];
        match recv(fd.as_raw_fd(), &mut buf, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.feed(&buf[..read], fd).map(|()| true),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn plain(&mut self, buf: &mut [u8]) -> io::Result<Found> {
        match self.rustls.reader().read(buf) {
            Ok(read) => Ok(Found::Plain(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Takes what came over the wire. What there is no room for is kept.
    fn feed(&mut self, mut bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
        while !bytes.is_empty() {
            let state = match self.rustls.process_new_packets() {
                Ok(state) => state,
                Err(error) => return self.failed(error, fd),
            };
            if state.plaintext_bytes_to_read() > 16 * 1024 || state.peer_has_closed() {
                self.kept = bytes.to_vec();
                return Ok(());
            }
            if self.rustls.read_tls(&mut bytes)? == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        match self.rustls.process_new_packets() {
            Ok(_) => self.flush(fd).map(drop),
            Err(error) => self.failed(error, fd),
        }
    }

    /// Tells the peer what it did, as far as it listens. What came before it is read first.
    fn failed(&mut self, error: rustls::Error, fd: BorrowedFd<'_>) -> io::Result<()> {
        let _ = self.flush(fd);
        let is_behind = self.rustls.reader().fill_buf().is_ok_and(|b| !b.is_empty());
        self.broken = Some(error.clone());
        match is_behind {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Says goodbye, as far as it can be said without waiting. Where the socket takes nothing more
    /// it is not said: the other side then sees the end of the stream alone, and PostgreSQL, which
    /// ends a session by its own message, takes that for the same.
    pub(super) fn finish(&mut self, fd: BorrowedFd<'_>) {
        self.rustls.send_close_notify();
        let _ = self.flush(fd);
    }
}

/// Writes encrypted bytes to the socket.
struct Wire<'a>(BorrowedFd<'a>);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
