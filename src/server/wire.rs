//! A socket to a server as a stream, for who speaks PostgreSQL's protocol by way of a library.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;

/// Waits until the socket can be written.
type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// The stream.
pub struct Wire {
    socket: Socket,
    writable: Option<Writable>,
}

impl Wire {
    /// Over this socket.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            writable: None,
        }
    }

    /// Waits for room where there was none.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(writable) = &mut self.writable {
            let room = ready!(writable.as_mut().poll(cx));
            self.writable = None;
            room?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let readable = ready!(self.socket.poll_readable(cx))?;
            if let Some(read) = readable.read(buf.initialize_unfilled())? {
                buf.advance(read);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_room(cx))?;
            match self.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = Some(Box::pin(self.socket.writable()));
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_room(cx))?;
            if self.socket.flush()? {
                return Poll::Ready(Ok(()));
            }
            self.writable = Some(Box::pin(self.socket.writable()));
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.finish_writing();
        Poll::Ready(Ok(()))
    }
}
