//! What keeps a part in an execution: a session's membership, and a hold.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::pool::{Canceller, ExecutionNumber, PoolId, UpstreamNumber};
use crate::protocol::startup::ExecutionId;
use crate::session::{Grace, Session};
use crate::telemetry::Parent;

use super::teardown::{self, Ended};
use super::{Executions, Kind};

/// A session's part in an execution: it leaves when this is dropped.
#[derive(Debug)]
pub struct Membership {
    executions: Arc<Executions>,
    number: ExecutionNumber,
    id: ExecutionId,
    kind: Kind,
    session: Option<Arc<Session>>,
    /// What spans of the session's belong to that is no part of an agent's own trace.
    parent: Option<Parent>,
}

impl Membership {
    /// Of nobody yet: see [`Membership::attach`].
    pub(super) fn new(
        executions: Arc<Executions>,
        number: ExecutionNumber,
        id: ExecutionId,
        kind: Kind,
    ) -> Self {
        Self {
            executions,
            number,
            id,
            kind,
            session: None,
            parent: None,
        }
    }

    /// The execution's name.
    #[must_use]
    pub fn id(&self) -> &ExecutionId {
        &self.id
    }

    /// Whether it is the standing execution.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.kind == Kind::Shared
    }

    /// Makes the session known to the execution, so that it is told of the end. If that is under
    /// way already, it is told at once.
    pub fn attach(&mut self, session: &Arc<Session>) {
        self.session = Some(Arc::clone(session));
        let mut inner = self.executions.inner.lock();
        if let Some(traces) = self.executions.traces() {
            self.parent = inner.trace(traces, self.number, session);
        }
        let ending = inner.registry.ending_reason(self.number);
        if let Some(room) = inner.rooms.get_mut(&self.number) {
            session.tells(Arc::clone(&room.recorder));
            room.sessions.insert(session.id(), Arc::clone(session));
        }
        drop(inner);
        if let Some(reason) = ending {
            session.end(teardown::ending(&self.id, reason, Grace::none()));
        }
    }

    /// What spans of the session's belong to: the span that it names, or else its execution's; none in
    /// `shared`, which never ends.
    #[must_use]
    pub fn parent(&self) -> Option<Parent> {
        let named = self.session.as_ref().and_then(|it| it.identity().trace());
        named.map(Parent::from).or_else(|| self.parent.clone())
    }

    /// The session has a server connection, which is cancelled by this; or none any more.
    pub fn runs(&self, canceller: Option<Canceller>) {
        if let Some(session) = &self.session {
            self.executions.cancellers.put(session.id(), canceller);
        }
    }

    /// The execution's pool for an upstream.
    #[must_use]
    pub fn pool(&self, upstream: UpstreamNumber) -> PoolId {
        self.executions.pool(self.number, self.kind, upstream)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.runs(None);
        self.executions.left(self.number, self.session.as_ref());
    }
}

/// Keeps an execution from ending by the loss of its holds. May be dropped on any thread.
#[derive(Debug)]
pub struct Hold {
    executions: Arc<Executions>,
    number: ExecutionNumber,
    /// Tells how the execution has ended.
    told: watch::Receiver<Option<Arc<Ended>>>,
}

impl Hold {
    /// One that the registry has counted.
    pub(super) fn new(
        executions: Arc<Executions>,
        number: ExecutionNumber,
        told: watch::Receiver<Option<Arc<Ended>>>,
    ) -> Self {
        Self {
            executions,
            number,
            told,
        }
    }

    /// Waits until the execution that is held has ended. Cancel safe.
    pub async fn ended(&self) -> Option<Arc<Ended>> {
        let mut told = self.told.clone();
        let ended = told.wait_for(Option::is_some).await.ok()?;
        ended.clone()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (executions, number) = (Arc::clone(&self.executions), self.number);
        self.executions.runtime.spawn(async move {
            let mut inner = executions.inner.lock();
            let now = Instant::now();
            inner.registry.hold_closed(number, now);
            inner.tell_holds(number, false, now);
            executions.rescheduled(&mut inner);
        });
    }
}
