//! The barrier between a cancel request and the next session.
//!
//! PostgreSQL signals a backend, not a query: a request that is still under way when its
//! server connection changes hands would cancel the next session's query. So requests go
//! through the checkout that they are for, and a connection is returned only after all of
//! them were seen through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Tls;
use crate::server::cancel::cancel;
use crate::server::{Address, ConnectError, Connection, Way};

/// Cancels what a checkout runs, for as long as it is lent.
#[derive(Debug, Clone)]
pub struct Canceller {
    address: Address,
    /// The machine that the connection leads to: the name may mean another one by now.
    machine: Option<SocketAddr>,
    way: (Arc<Tls>, Way),
    pid: i32,
    key: [u8; 4],
    requests: watch::Sender<Requests>,
}

/// The cancel requests of one checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requests {
    /// The checkout is lent. Left by its return.
    Taken { under_way: usize },
    /// It is being returned: those under way are seen through, no other is sent.
    Refused { under_way: usize },
}

/// What became of a cancel request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The server took it and has sent the signal.
    Sent,
    /// The connection is no longer lent: there is nothing to cancel.
    TooLate,
}

impl Canceller {
    pub(super) fn new(connection: &Connection) -> Self {
        Self {
            address: connection.address().clone(),
            machine: connection.machine(),
            way: connection.way(),
            pid: connection.pid(),
            key: connection.key(),
            requests: watch::Sender::new(Requests::Taken { under_way: 0 }),
        }
    }

    /// Asks the server to cancel, and waits until the signal has been sent.
    ///
    /// Cancel safe: a request that is dropped half-way no longer keeps the connection;
    /// callers that answer to a client run it to its end in a task of its own.
    ///
    /// # Errors
    /// The server could not be reached, or the connection broke.
    pub async fn cancel(&self) -> Result<Cancelled, ConnectError> {
        let Some(_under_way) = self.begin() else {
            tracing::debug!(server_pid = self.pid, "cancel request is too late");
            return Ok(Cancelled::TooLate);
        };
        let (tls, way) = &self.way;
        // It is seldom asked, and a session should not carry the room for a whole login along.
        let asked = cancel(&self.address, self.machine, tls, *way, self.pid, self.key);
        Box::pin(asked).await?;
        Ok(Cancelled::Sent)
    }

    fn begin(&self) -> Option<UnderWay> {
        let taken = self.requests.send_if_modified(|requests| match requests {
            Requests::Taken { under_way } => {
                *under_way += 1;
                true
            }
            Requests::Refused { .. } => false,
        });
        taken.then(|| UnderWay(self.requests.clone()))
    }

    /// Takes no more requests and waits until those under way were seen through. False if
    /// that takes longer than `patience`: the connection must be closed then.
    pub(super) async fn settle(&self, patience: Duration) -> bool {
        let mut changes = self.requests.subscribe();
        self.requests.send_modify(|requests| {
            if let Requests::Taken { under_way } = *requests {
                if under_way > 0 {
                    tracing::debug!(
                        server_pid = self.pid,
                        under_way,
                        "waits for cancel requests"
                    );
                }
                *requests = Requests::Refused { under_way };
            }
        });
        let seen_through =
            changes.wait_for(|requests| *requests == Requests::Refused { under_way: 0 });
        // The sender is ours, so the wait ends by the count alone.
        tokio::time::timeout(patience, seen_through).await.is_ok()
    }
}

/// A request under way; counted off when it is dropped, however it ended.
struct UnderWay(watch::Sender<Requests>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|requests| match requests {
            Requests::Taken { under_way } | Requests::Refused { under_way } => *under_way -= 1,
        });
    }
}
