//! Accepting that survives a lack of descriptors.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// How long nothing is accepted after the system had no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(200);

/// Something that connections come in at.
pub trait Door {
    /// A connection.
    type Stream;

    /// The next connection, or why there is none. Cancel safe.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// After how many tries that is said again: ten seconds.
const AGAIN: u64 = 50;

/// The next connection. Where the system has no descriptor left, that is said and tried again
/// after a pause: connections wait in the socket's backlog meanwhile. Cancel safe.
pub async fn accept<D: Door>(door: &D) -> D::Stream {
    let mut failed = 0_u64;
    loop {
        match door.next().await {
            Ok(stream) => return stream,
            Err(error) if is_of_that_connection(&error) => {}
            Err(error) => {
                if failed.is_multiple_of(AGAIN) {
                    tracing::error!(event = "listener.no_accept", %error, failed, "cannot accept connections; trying again");
                }
                failed += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether it was that one connection that failed.
fn is_of_that_connection(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    // The last ones are pending errors of a TCP connection, which accept(2) passes on.
    matches!(
        code,
        Some(
            Errno::ECONNABORTED
                | Errno::EINTR
                | Errno::EPROTO
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
        )
    )
}
