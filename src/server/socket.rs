//! A descriptor registered for reading only.
//!
//! Each read by the peer of a Unix socket raises a writable event on our side. With the
//! usual registration (reading and writing) that wakes the relay once more per message
//! for nothing, so writability is asked for only when a write would block, on a
//! duplicate of the descriptor that lives until it can be written again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getpeername, recv, send, shutdown};
use parking_lot::Mutex;
use rustls::ClientConnection;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::tls::{Found, Session};

/// What is read of a handshake at once, in bytes.
const HANDSHAKE: usize = 4096;

/// A connected stream socket, non-blocking, of either family.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
    /// What is spoken over it, where that is TLS. Held for no longer than one call.
    tls: Option<Box<Mutex<Session>>>,
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
pub struct Readable<'a> {
    socket: &'a Socket,
    /// None where TLS has something that the descriptor no longer has.
    guard: Option<AsyncFdReadyGuard<'a, OwnedFd>>,
}

impl Readable<'_> {
    /// Reads what is there into `buf`; 0 is the end of the stream, `None` is nothing: the socket
    /// must be waited for again.
    ///
    /// # Errors
    /// Those of `recv(2)`, and of TLS.
    pub fn read(mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(session) = &self.socket.tls {
            let (found, is_emptied) = session.lock().read(buf, self.socket.fd.get_ref().as_fd())?;
            if is_emptied {
                self.clear();
            }
            return Ok(match found {
                Found::Plain(read) => Some(read),
                Found::Nothing => None,
            });
        }
        match recv(self.socket.fd.as_raw_fd(), buf, MsgFlags::empty()) {
            Ok(read) => {
                // A short read has emptied the socket. Without this the next read is
                // one that fails; an event that came since has a newer tick and stays.
                if read > 0 && read < buf.len() {
                    self.clear();
                }
                Ok(Some(read))
            }
            Err(Errno::EAGAIN) => {
                self.clear();
                Ok(None)
            }
            Err(Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn clear(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.clear_ready();
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
            tls: None,
        })
    }

    /// Shakes hands. Cancel safe in that dropping the future closes the socket.
    ///
    /// # Errors
    /// The other side is gone, or not to be trusted.
    pub(super) async fn secured(mut self, rustls: ClientConnection) -> io::Result<Self> {
        self.tls = Some(Box::new(Mutex::new(Session::new(rustls))));
        let mut none = [0; HANDSHAKE];
        loop {
            self.flushed().await?;
            if !self.with_tls(Session::is_handshaking) {
                return Ok(self);
            }
            let mut guard = self.fd.readable().await?;
            // Nothing but the handshake comes before its end.
            let (found, is_emptied) = match &self.tls {
                Some(session) => session.lock().read(&mut none, self.fd.get_ref().as_fd())?,
                None => return Ok(self),
            };
            if is_emptied {
                guard.clear_ready();
            }
            if let Found::Plain(_) = found {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn with_tls<T: Default>(&self, ask: impl FnOnce(&Session) -> T) -> T {
        let session = self.tls.as_ref();
        session.map_or_else(T::default, |session| ask(&session.lock()))
    }

    /// Whether it is spoken over in TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// What binds SCRAM to the connection, if anything does.
    #[must_use]
    pub fn end_point(&self) -> Option<Vec<u8>> {
        self.with_tls(Session::end_point)
    }

    /// Whether the other side has said that it speaks PostgreSQL's protocol.
    pub(super) fn speaks_postgresql(&self) -> bool {
        self.with_tls(Session::speaks_postgresql)
    }

    /// Sends what TLS has encrypted and the socket has not taken; whether nothing is left.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn flush(&self) -> io::Result<bool> {
        match &self.tls {
            None => Ok(true),
            Some(session) => session.lock().flush(self.fd.get_ref().as_fd()),
        }
    }

    async fn flushed(&self) -> io::Result<()> {
        while !self.flush()? {
            self.writable().await?;
        }
        Ok(())
    }

    /// Waits until something may be there to read. Whoever shares a buffer takes it only then.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        if let Some(session) = &self.tls
            && session.lock().has_plain()
        {
            return Poll::Ready(Ok(Readable {
                socket: self,
                guard: None,
            }));
        }
        self.fd.poll_read_ready(cx).map_ok(|guard| Readable {
            socket: self,
            guard: Some(guard),
        })
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

    /// Writes as much as the socket takes at once. In TLS, some of it may have to be flushed.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes nothing; else those of `send(2)`.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(session) = &self.tls {
            return session.lock().write(bytes, self.fd.get_ref().as_fd());
        }
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
        self.flushed().await
    }

    /// Looks, without waiting, for bytes or the peer's end.
    #[must_use]
    pub fn pending(&self) -> Pending {
        if let Some(session) = &self.tls {
            return pending_in(&mut session.lock(), self.fd.get_ref().as_fd());
        }
        let mut byte = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.fd.as_raw_fd(), &mut byte, flags) {
            Ok(0) => Pending::Closed,
            Ok(_) => Pending::Data,
            Err(Errno::EAGAIN | Errno::EINTR) => Pending::Nothing,
            Err(_) => Pending::Closed,
        }
    }

    /// The address at the other end; none for a Unix socket, or one that has broken.
    #[must_use]
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        let peer = getpeername::<SockaddrStorage>(self.fd.as_raw_fd()).ok()?;
        let v4 = peer
            .as_sockaddr_in()
            .map(|v4| std::net::SocketAddrV4::from(*v4).into());
        v4.or_else(|| {
            peer.as_sockaddr_in6()
                .map(|v6| std::net::SocketAddrV6::from(*v6).into())
        })
    }

    /// Tells the peer that no more will be written.
    pub fn finish_writing(&self) {
        if let Some(session) = &self.tls {
            session.lock().finish(self.fd.get_ref().as_fd());
        }
        // A socket that is closed already has finished as well.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
    }
}

/// The same in TLS. What is only TLS's own, such as a session ticket, is dealt with.
fn pending_in(session: &mut Session, fd: BorrowedFd<'_>) -> Pending {
    loop {
        if session.has_plain() {
            return Pending::Data;
        }
        match session.look(fd) {
            Ok(true) => {}
            Ok(false) => return Pending::Nothing,
            Err(_) => return Pending::Closed,
        }
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
