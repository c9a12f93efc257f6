//! Accepting that survives a lack of descriptors.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{UnixListener, UnixStream};

/// How long nothing is accepted after the system had no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(200);

/// The next connection. Where the system has no descriptor left, that is said and tried again
/// after a pause: connections wait in the socket's backlog meanwhile. Cancel safe.
pub async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_that_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether it was that one connection that failed.
fn is_of_that_connection(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::ECONNABORTED | Errno::EINTR))
}
