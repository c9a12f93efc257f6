//! Cancelling what a session does: its query at the server, or its wait.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::pool::Canceller;
use crate::session::{Session, SessionId, State};

use super::Executions;

/// How many cancel requests are seen through at once: each is a connection to the server.
const AT_ONCE: usize = 64;

/// What the sessions that hold a server connection can be cancelled by.
#[derive(Debug)]
pub(super) struct Cancellers {
    turns: Arc<Semaphore>,
    by_session: Mutex<HashMap<SessionId, Canceller>>,
}

impl Default for Cancellers {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            by_session: Mutex::default(),
        }
    }
}

impl Cancellers {
    /// The session has a server connection, which is cancelled by this; or none any more.
    pub(super) fn put(&self, session: SessionId, canceller: Option<Canceller>) {
        let mut by_session = self.by_session.lock();
        match canceller {
            Some(canceller) => by_session.insert(session, canceller),
            None => by_session.remove(&session),
        };
    }
}

/// What there was to cancel.
#[derive(Debug)]
pub enum Cancelled {
    /// A wait, for a server connection or at a pause: it is over.
    Wait,
    /// A query: the server is still to be asked.
    Query(CancelRequest),
}

/// A cancel request that is to be sent to the server.
#[derive(Debug)]
#[must_use = "nothing is cancelled before it is sent"]
pub struct CancelRequest {
    turns: Arc<Semaphore>,
    session: SessionId,
    canceller: Canceller,
}

impl CancelRequest {
    /// Sends it, and sees it through.
    pub async fn send(self) {
        // Never closed.
        let _turn = self.turns.acquire().await;
        if let Err(error) = self.canceller.cancel().await {
            tracing::warn!(event = "cancel.failed", session_id = self.session.0, %error, "cancel request failed");
        }
    }
}

impl Executions {
    /// Cancels what a session does; none if it does nothing.
    pub fn cancel(&self, session: &Session) -> Option<Cancelled> {
        let state = session.state();
        tracing::debug!(
            session_id = session.id().0,
            state = state.as_str(),
            "cancel requested"
        );
        match state {
            State::Waiting | State::Startup => {
                session.cancel_wait();
                Some(Cancelled::Wait)
            }
            // One that is idle waits as well, if its next query is kept back by a pause.
            State::Idle => {
                session.cancel_wait();
                self.lender.paused().map(|_| Cancelled::Wait)
            }
            State::Active => {
                let canceller = self
                    .cancellers
                    .by_session
                    .lock()
                    .get(&session.id())
                    .cloned();
                canceller.map(|canceller| {
                    Cancelled::Query(CancelRequest {
                        turns: Arc::clone(&self.cancellers.turns),
                        session: session.id(),
                        canceller,
                    })
                })
            }
            // A server that waits for its client would ignore it; so the next query is safe.
            State::Unbound | State::InTransaction | State::Closing => None,
        }
    }
}
