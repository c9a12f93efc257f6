//! What is known of one session, and how it is told to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::protocol::message::Report;
use crate::protocol::startup::ExecutionId;

use super::table::Tally;
use super::{Grace, Held, Peer, SessionId, State};

/// How much of a statement is kept, in bytes: enough to know it again.
pub const MAX_STATEMENT: usize = 1024;

/// Who a session is; known when it is let in, and never changed.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its execution.
    pub execution: ExecutionId,
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// The database that it named.
    pub database: String,
    /// Its `application_name`, if it has one.
    pub application_name: Option<String>,
    /// Where the connection was opened in the app.
    pub caller: Option<String>,
    /// Free text of the app's.
    pub label: Option<String>,
    /// The W3C trace context that it belongs to.
    pub traceparent: Option<String>,
    /// Who opened it.
    pub peer: Peer,
}

/// Why and how a session is ended from outside.
#[derive(Debug)]
pub struct Ending {
    /// What the client is told.
    pub report: Report,
    /// How long a running query may go on.
    pub grace: Grace,
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queries: Query, FunctionCall and Execute messages.
    pub queries: u64,
    /// How long it held a server connection.
    pub held: Held,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.queries += other.queries;
        self.held += other.held;
    }
}

/// A session as it is at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its number.
    pub id: SessionId,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// How long it has been there.
    pub age: Duration,
    /// Where it stands.
    pub state: State,
    /// For how long.
    pub state_age: Duration,
    /// For how long it has held its server connection; none if it holds none.
    pub bound_age: Option<Duration>,
    /// The backend of its server connection, while it holds one.
    pub server_pid: Option<i32>,
    /// What it has done, up to now.
    pub totals: Totals,
    /// The beginning of its last statement, with its literals: to be hidden before anybody
    /// sees it. Empty before the first.
    pub statement: Vec<u8>,
}

/// What everybody may know of a session. Its own task changes it.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    identity: Arc<Identity>,
    opened: Instant,
    tally: Arc<Tally>,
    /// Told when a cancel request came while it waits.
    cancelled: Notify,
    /// Taken for a few instructions, on the data plane's thread alone.
    live: Mutex<Live>,
}

#[derive(Debug)]
struct Live {
    state: State,
    since: Instant,
    /// The backend of its server connection, and since when.
    bound: Option<(i32, Instant)>,
    totals: Totals,
    statement: Vec<u8>,
    end: Option<oneshot::Sender<Box<Ending>>>,
}

impl Session {
    /// A session that is being let in; it listens to `Ending` at the receiver.
    pub(super) fn new(
        id: SessionId,
        identity: Identity,
        tally: Arc<Tally>,
        now: Instant,
    ) -> (Arc<Self>, oneshot::Receiver<Box<Ending>>) {
        tally.opened(State::Startup);
        let (end, ending) = oneshot::channel();
        let live = Live {
            state: State::Startup,
            since: now,
            bound: None,
            totals: Totals::default(),
            statement: Vec::new(),
            end: Some(end),
        };
        let session = Self {
            id,
            identity: Arc::new(identity),
            opened: now,
            tally,
            cancelled: Notify::new(),
            live: Mutex::new(live),
        };
        (Arc::new(session), ending)
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.live.lock().state
    }

    /// It stands elsewhere now. All that is counted is counted here.
    pub fn transition(&self, to: State) {
        self.live.lock().transition(to, &self.tally, Instant::now());
    }

    /// It has a server connection, whose backend this is.
    pub fn bound(&self, pid: i32) {
        let now = Instant::now();
        let mut live = self.live.lock();
        live.bound = Some((pid, now));
        live.transition(State::Active, &self.tally, now);
    }

    /// It has sent something to work on, with `count` queries in it, the last of which is known by
    /// `statement`: the server works for it from now on.
    pub fn sent(&self, count: u64, statement: Option<&[u8]>) {
        let mut live = self.live.lock();
        if live.state != State::Active {
            live.transition(State::Active, &self.tally, Instant::now());
        }
        live.totals.queries += count;
        if let Some(text) = statement {
            live.statement.clear();
            live.statement
                .extend_from_slice(&text[..text.len().min(MAX_STATEMENT)]);
        }
    }

    /// Tells it to end. The first word counts.
    pub fn end(&self, ending: Ending) {
        if let Some(end) = self.live.lock().end.take() {
            // It may be ending by itself.
            let _ = end.send(Box::new(ending));
        }
    }

    /// Frees it from the queue, if it waits in one.
    pub fn cancel_wait(&self) {
        self.cancelled.notify_waiters();
    }

    /// Waits for [`Session::cancel_wait`]. Cancel safe.
    pub async fn wait_cancelled(&self) {
        self.cancelled.notified().await;
    }

    /// What it has done so far.
    #[must_use]
    pub fn totals(&self, now: Instant) -> Totals {
        self.live.lock().totals_at(now)
    }

    /// It as it is now.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let live = self.live.lock();
        Snapshot {
            id: self.id,
            identity: Arc::clone(&self.identity),
            age: now.saturating_duration_since(self.opened),
            state: live.state,
            state_age: now.saturating_duration_since(live.since),
            bound_age: live
                .bound
                .map(|(_, since)| now.saturating_duration_since(since)),
            server_pid: live.bound.map(|(pid, _)| pid),
            totals: live.totals_at(now),
            statement: live.statement.clone(),
        }
    }
}

impl Live {
    fn transition(&mut self, to: State, tally: &Tally, now: Instant) {
        tally.moved(self.state, to);
        self.totals
            .held
            .add(self.state, now.saturating_duration_since(self.since));
        self.state = to;
        self.since = now;
        if !to.is_bound() {
            self.bound = None;
        }
    }

    fn totals_at(&self, now: Instant) -> Totals {
        let mut totals = self.totals;
        totals
            .held
            .add(self.state, now.saturating_duration_since(self.since));
        totals
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tally.closed(self.live.get_mut().state);
    }
}
