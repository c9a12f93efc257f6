//! A login that does not give the password away.
//!
//! tokio-postgres sends a password in clear text to whoever asks for it. So what the server
//! says until it has let us in is read along, and a demand that is not met ends the login.

use std::future::Ready;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Either kind of socket.
pub(super) type Stream = Box<dyn Socket>;

/// A socket of either kind.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What the server demands and does not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Demand {
    /// The password in clear text, over a network.
    #[error("the server wants the password in clear text over an unprotected network")]
    ClearText,
    /// A password, and there is none.
    #[error("the server wants a password, and none is configured")]
    Password,
}

/// A stream to a server that reads along until the login is over.
pub(super) struct Wary {
    stream: Stream,
    login: Option<Login>,
}

impl Wary {
    pub(super) fn new(stream: Stream, is_local: bool, has_password: bool) -> Self {
        let login = Login {
            is_local,
            has_password,
            unread: Vec::new(),
        };
        Self {
            stream,
            login: Some(login),
        }
    }
}

/// A connection that is in TLS already, and what binds SCRAM to it.
#[derive(Debug)]
pub(super) struct Secured(pub(super) Option<Vec<u8>>);

/// A stream in TLS, as tokio-postgres wants to know it.
pub(super) struct Encrypted(Wary, Option<Vec<u8>>);

impl TlsConnect<Wary> for Secured {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Ready<io::Result<Encrypted>>;

    fn connect(self, stream: Wary) -> Self::Future {
        std::future::ready(Ok(Encrypted(stream, self.0)))
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let end_point = self.1.clone();
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What the server has said of a login, as far as it is not yet taken apart.
struct Login {
    is_local: bool,
    has_password: bool,
    unread: Vec<u8>,
}

impl Login {
    /// Takes what the server said; whether the login is over.
    fn hear(&mut self, said: &[u8]) -> Result<bool, Demand> {
        self.unread.extend(said);
        while let Some(([kind, length @ ..], body)) = self.unread.split_first_chunk::<5>() {
            // The length counts itself; less than that is told by tokio-postgres.
            let length = (u32::from_be_bytes(*length) as usize).saturating_sub(4);
            if *kind == b'R' {
                let Some((code, _)) = body.split_first_chunk::<4>() else {
                    break;
                };
                match u32::from_be_bytes(*code) {
                    0 => return Ok(true),
                    3 if !self.is_local => return Err(Demand::ClearText),
                    3 | 5 | 10 if !self.has_password => return Err(Demand::Password),
                    _ => {}
                }
            }
            if body.len() < length {
                break;
            }
            self.unread.drain(..5 + length);
        }
        Ok(false)
    }
}

impl AsyncRead for Wary {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(login) = &mut self.login
            && login
                .hear(&buf.filled()[before..])
                .map_err(io::Error::other)?
        {
            self.login = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wary {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAR_TEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const NOTICE: &[u8] = b"N\0\0\0\x05\0";
    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";

    fn login(is_local: bool, has_password: bool) -> Login {
        Login {
            is_local,
            has_password,
            unread: Vec::new(),
        }
    }

    #[test]
    fn a_demand_is_seen_however_it_is_cut_and_whatever_comes_before_it() {
        let said = [NOTICE, CLEAR_TEXT].concat();
        for cut in 0..said.len() {
            let mut login = login(false, true);
            let first = login.hear(&said[..cut]);
            let heard = first.and_then(|_| login.hear(&said[cut..]));
            assert_eq!(heard, Err(Demand::ClearText), "cut after {cut}");
        }
    }

    #[test]
    fn clear_text_is_fine_over_a_local_socket_if_there_is_a_password() {
        assert_eq!(login(true, true).hear(CLEAR_TEXT), Ok(false));
        assert_eq!(login(true, false).hear(CLEAR_TEXT), Err(Demand::Password));
    }

    #[test]
    fn the_login_is_over_when_the_server_says_so() {
        assert_eq!(login(false, false).hear(OK), Ok(true));
        assert_eq!(login(false, true).hear(&[NOTICE, OK].concat()), Ok(true));
    }
}
