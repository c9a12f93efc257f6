//! Where connections to the port come in, also when there is no descriptor left for one.

use std::io;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

/// How long nothing is accepted after the system had no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two lines that say so.
const SELDOM: Duration = Duration::from_secs(10);

/// Where connections come in.
pub(super) struct Door {
    listener: TcpListener,
    /// How often in a row nothing could be accepted.
    failed: u64,
    /// When that was last said.
    said: Option<Instant>,
}

impl Door {
    /// No connection has come in yet.
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            failed: 0,
            said: None,
        }
    }

    /// The next connection. Where the system has no descriptor left, that is said and tried again
    /// after a pause. Cancel safe.
    pub(super) async fn accept(&mut self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    self.failed = 0;
                    return stream;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    self.has_failed(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// It goes on as long as there is no descriptor, with some that come free in between: said when it begins, and
    /// seldom then.
    fn has_failed(&mut self, error: &io::Error) {
        let failed = self.failed;
        self.failed += 1;
        if self.said.is_none_or(|said| said.elapsed() >= SELDOM) {
            self.said = Some(Instant::now());
            tracing::error!(event = "probes.no_accept", %error, failed, "cannot accept connections of probes; trying again");
        }
    }
}
