//! Ending single sessions, while their executions live on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::pool::PoolId;
use crate::server::Backend;
use crate::session::{Ending, Session, SessionId, Snapshot};
use crate::story::What;

use super::Executions;

/// When backends are ended by force that have not gone by themselves.
const FORCE_AFTER: Duration = Duration::from_secs(1);

/// How long a session is waited for: less than the 5 s after which whoever asked is answered.
pub(super) const PATIENCE: Duration = Duration::from_millis(4500);

/// How often it is looked after.
const LOOK: Duration = Duration::from_millis(10);

/// A session that was told to end, and what it holds.
#[derive(Debug)]
pub(super) struct Departure {
    session: SessionId,
    /// Its server connection, in which pool.
    held: Option<(PoolId, Backend)>,
}

/// What became of a session that was told to end.
#[derive(Debug)]
pub struct Dismissed {
    /// As it was when it was told.
    pub session: Snapshot,
    /// Whether it and its server connection are gone.
    pub is_complete: bool,
}

impl Executions {
    /// Ends a session: its query is cancelled, its server connection closed. Answers when both are
    /// gone, or are no longer waited for; none if there is no such session.
    pub fn dismiss(
        self: &Arc<Self>,
        id: SessionId,
        ending: impl FnOnce(&Session) -> Ending,
    ) -> Option<oneshot::Receiver<Dismissed>> {
        let session = self.sessions().get(id)?;
        let before = session.snapshot(Instant::now());
        let departure = self.departure(&session);
        session.tell(What::Dismissed);
        session.end(ending(&session));
        drop(session);
        let (tell, told) = oneshot::channel();
        let executions = Arc::clone(self);
        self.runtime.spawn(async move {
            let left = executions.see_off(vec![departure], PATIENCE).await;
            // Whoever asked may have gone.
            let _ = tell.send(Dismissed {
                session: before,
                is_complete: left.is_empty(),
            });
        });
        Some(told)
    }

    /// What is to be waited for once this session is told to end.
    pub(super) fn departure(&self, session: &Session) -> Departure {
        let pid = session.snapshot(Instant::now()).server_pid;
        let held = pid.and_then(|pid| {
            let inner = self.inner.lock();
            let mut rooms = inner.rooms.values();
            let room = rooms.find(|room| room.sessions.contains_key(&session.id()))?;
            room.pools.iter().find_map(|pool| {
                let backends = self.lender.backends(*pool).into_iter();
                let mut of_it = backends.filter(|backend| backend.pid == pid);
                let backend = of_it.next()?;
                Some((*pool, backend))
            })
        });
        Departure {
            session: session.id(),
            held,
        }
    }

    /// Waits until they and their server connections have gone, for at most `patience`; uses force on
    /// the way. Answers the sessions that have not.
    pub(super) async fn see_off(
        &self,
        mut departures: Vec<Departure>,
        patience: Duration,
    ) -> Vec<SessionId> {
        let begun = Instant::now();
        let mut is_forced = false;
        loop {
            departures.retain(|departure| !self.has_gone(departure));
            if departures.is_empty() || begun.elapsed() >= patience {
                return departures.iter().map(|one| one.session).collect();
            }
            if begun.elapsed() >= FORCE_AFTER && !is_forced {
                is_forced = true;
                for (pool, backend) in departures.iter().filter_map(|one| one.held) {
                    // Whether it could be asked shows by what remains.
                    drop((self.terminate)(
                        pool.upstream,
                        vec![backend],
                        Duration::ZERO,
                    ));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn has_gone(&self, departure: &Departure) -> bool {
        let holds = |(pool, backend): (PoolId, Backend)| {
            let backends = self.lender.backends(pool);
            backends.contains(&backend)
        };
        self.sessions().get(departure.session).is_none() && !departure.held.is_some_and(holds)
    }
}
