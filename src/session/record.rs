//! What is known of one session, and how it is told to end.

mod telling;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::field::DisplayValue;

use crate::events::Events;
use crate::metrics::Close;
use crate::protocol::message::Report;
use crate::protocol::startup::ExecutionId;
use crate::protocol::traceparent::{TraceId, Traceparent};
use crate::story::{Span, What, Word};

use super::leak::{self, Leak, Suspicion};
use super::limits::{Act, Limits, Overdue, Which};
use super::mailbox::{Mail, Mailbox};
use super::table::Tally;
use super::{Grace, Held, Peer, SessionId, State};
use telling::Strand;

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

impl Identity {
    /// The trace that it belongs to; none where it names none, or none that can be read.
    #[must_use]
    pub fn trace(&self) -> Option<Traceparent> {
        Traceparent::parse(self.traceparent.as_deref()?)
    }

    /// The trace's id, as log lines tell it.
    #[must_use]
    pub fn trace_id(&self) -> Option<DisplayValue<TraceId>> {
        self.trace()
            .map(|trace| tracing::field::display(trace.trace_id))
    }
}

/// Why and how a session is ended from outside.
#[derive(Debug)]
pub struct Ending {
    /// What the client is told.
    pub report: Report,
    /// How long a running query may go on.
    pub grace: Grace,
    /// What it is counted as.
    pub cause: Close,
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queries: Query, FunctionCall and Execute messages.
    pub queries: u64,
    /// How long it held a server connection.
    pub held: Held,
    /// How often it was suspected of having been forgotten.
    pub leaks: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.queries += other.queries;
        self.held += other.held;
        self.leaks += other.leaks;
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
    /// For how long it has asked nothing while it holds a server connection; none if it holds none,
    /// or if that works.
    pub idle_for: Option<Duration>,
    /// Whether it is suspected of having been forgotten.
    pub is_suspect: bool,
    /// How long its transaction has been open; none if none is.
    pub transaction_age: Option<Duration>,
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
    /// What it is told from outside.
    mailbox: Mailbox,
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
    /// When the last ReadyForQuery came.
    answered: Instant,
    transaction: Option<Transaction>,
    suspicion: Suspicion,
    /// Why it is over: the first word counts.
    close: Option<Close>,
    /// Where its suspicion was told, and is told to be over; none before the first.
    told: Option<Arc<Events>>,
    /// What it tells of itself; none: nobody listens.
    strand: Option<Strand>,
}

/// A transaction that is open.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    /// When what began it was sent.
    since: Instant,
    /// Whether the client was told that it is idle in it.
    told_idle: bool,
    /// Whether the client was told how long it takes.
    told_long: bool,
    /// Whether its execution's story tells of it.
    is_told: bool,
}

impl Session {
    /// A session that is being let in; it hears of its end, and of all else, by its mail.
    pub(super) fn new(
        id: SessionId,
        identity: Identity,
        tally: Arc<Tally>,
        now: Instant,
    ) -> (Arc<Self>, Mail) {
        tally.opened(State::Startup);
        let live = Live {
            state: State::Startup,
            since: now,
            bound: None,
            totals: Totals::default(),
            statement: Vec::new(),
            answered: now,
            transaction: None,
            suspicion: Suspicion::None,
            close: None,
            told: None,
            strand: None,
        };
        let session = Arc::new(Self {
            id,
            identity: Arc::new(identity),
            opened: now,
            tally,
            cancelled: Notify::new(),
            mailbox: Mailbox::default(),
            live: Mutex::new(live),
        });
        let mail = Mail::of(Arc::clone(&session));
        (session, mail)
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
        live.tell_lent(pid, now);
        live.transition(State::Active, &self.tally, now);
    }

    /// It has sent something to work on, with `count` queries in it, the last of which is known by
    /// `statement`: the server works for it from now on.
    pub fn sent(&self, count: u64, statement: Option<&[u8]>) {
        let mut live = self.live.lock();
        if live.state != State::Active {
            let now = Instant::now();
            let idle = now.saturating_duration_since(live.since);
            live.tell_asked(now);
            let leak = live.transition(State::Active, &self.tally, now);
            if leak == Some(Leak::Recovered) {
                let told = Span::of(idle);
                live.tell(What::Recovered { idle: told }, now);
                if let Some(events) = &live.told {
                    let line = events.line("session.leak_recovered", None);
                    events.tell(leak::log_recovered(self.id, &self.identity, idle, line));
                }
            }
        }
        live.totals.queries += count;
        if let Some(text) = statement {
            live.statement.clear();
            live.statement
                .extend_from_slice(&text[..text.len().min(MAX_STATEMENT)]);
        }
    }

    /// The server has sent ReadyForQuery: the last one says whether a transaction is open, and
    /// `between` whether one before it, in the same bytes, said that none was. `stands` is where
    /// the session stands by it; none, if more is to be answered. Answers how long the server took.
    pub fn ready(&self, in_transaction: bool, between: bool, stands: Option<State>) -> Duration {
        let now = Instant::now();
        let mut live = self.live.lock();
        // What was sent behind the answer before this one, if the server has worked on since then.
        let began = live.since.max(live.answered);
        if (!in_transaction || between)
            && let Some(over) = live.transaction.take()
        {
            live.tell_ended(over, now);
        }
        if in_transaction && live.transaction.is_none() {
            live.transaction = Some(Transaction {
                since: began,
                told_idle: false,
                told_long: false,
                is_told: false,
            });
        }
        live.answered = now;
        if let Some(to) = stands {
            live.transition(to, &self.tally, now);
        }
        now.saturating_duration_since(began)
    }

    /// For how long the server has worked on what was asked; none if it does not.
    #[must_use]
    pub fn unanswered_for(&self) -> Option<Duration> {
        let live = self.live.lock();
        let began = live.since.max(live.answered);
        (live.state == State::Active).then(|| began.elapsed())
    }

    /// It is over, for this reason. The first word counts.
    pub fn closes(&self, why: Close) {
        self.live.lock().close.get_or_insert(why);
    }

    /// Suspects it of having been forgotten, if it has asked nothing for so long while it holds a
    /// server connection and is not suspected yet. Answers whether it does. `told` hears of its
    /// recovery.
    pub(super) fn suspect(
        &self,
        after: Duration,
        now: Instant,
        told: Option<&Arc<Events>>,
    ) -> bool {
        let mut live = self.live.lock();
        let idle = leak::idle_for(live.state, live.since, now);
        let suspects = idle.is_some_and(|idle| idle >= after) && !live.suspicion.is_some();
        if suspects {
            live.suspicion = Suspicion::Suspected;
            live.told = told.cloned();
            live.totals.leaks += 1;
            let idle = Span::of(idle.unwrap_or_default());
            live.tell(What::Suspect { idle }, now);
            self.tally.leaked(Leak::Suspect);
        }
        suspects
    }

    /// Where it stands, how long it has asked nothing, and whether it is a leak suspect; none if it
    /// holds no server connection, or if that works.
    #[must_use]
    pub fn idleness(&self, now: Instant) -> Option<(State, Duration, bool)> {
        let live = self.live.lock();
        let idle = leak::idle_for(live.state, live.since, now)?;
        Some((live.state, idle, live.suspicion.is_some()))
    }

    /// Where it stands, and since when.
    pub(super) fn standing(&self) -> (State, Instant) {
        let live = self.live.lock();
        (live.state, live.since)
    }

    /// Tells it to end, to give the server connection that it holds to others. The first word counts.
    /// Whoever is ended like this is suspected, if he was not yet.
    pub fn reclaim(&self, ending: Ending) {
        self.suspect(Duration::ZERO, Instant::now(), None);
        {
            let mut live = self.live.lock();
            if live.suspicion.is_some() {
                live.suspicion = Suspicion::Reclaimed;
            }
            live.tell(What::Reclaimed, Instant::now());
        }
        self.end(ending);
    }

    /// Tells it to end. The first word counts.
    pub fn end(&self, ending: Ending) {
        self.closes(ending.cause);
        self.mailbox.end(ending);
    }

    /// Has it tell its client something, as soon as that falls between two messages; never, if the
    /// client reads nothing until its end.
    pub fn notice(&self, report: Report) {
        self.mailbox.notice(report);
    }

    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Which limit it is over, if it has not been told so. Answers each once.
    pub(super) fn overdue(&self, limits: &Limits, now: Instant) -> Option<Overdue> {
        let mut live = self.live.lock();
        let (which, act, time) = live.over(limits, now)?;
        if act == Act::End {
            live.transaction = None;
        }
        let overdue = Overdue {
            which,
            act,
            time,
            statement: live.statement.clone(),
        };
        let (limit, time) = (Word::of(overdue.word()), Span::of(time));
        live.tell(What::Limit { limit, time }, now);
        Some(overdue)
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
            idle_for: leak::idle_for(live.state, live.since, now),
            is_suspect: live.suspicion.is_some(),
            transaction_age: live
                .transaction
                .map(|it| now.saturating_duration_since(it.since)),
            server_pid: live.bound.map(|(pid, _)| pid),
            totals: live.totals_at(now),
            statement: live.statement.clone(),
        }
    }
}

impl Live {
    /// It stands elsewhere now. Answers what that makes of a suspicion.
    fn transition(&mut self, to: State, tally: &Tally, now: Instant) -> Option<Leak> {
        if self.state.is_bound() && !to.is_bound() {
            self.tell_unbound(now);
        }
        tally.moved(self.state, to, now);
        self.totals
            .held
            .add(self.state, now.saturating_duration_since(self.since));
        self.state = to;
        self.since = now;
        if !to.is_bound() {
            self.bound = None;
            self.transaction = None;
        }
        if !self.suspicion.is_some() {
            return None;
        }
        let leak = self.suspicion.moved(to);
        leak.inspect(|leak| tally.leaked(*leak))
    }

    /// The limit that it is over, an end before a notice; marks what the client is told.
    fn over(&mut self, limits: &Limits, now: Instant) -> Option<(Which, Act, Duration)> {
        let is_idle = self.state == State::InTransaction;
        let idle = now.saturating_duration_since(self.since);
        let transaction = self.transaction.as_mut()?;
        let long = now.saturating_duration_since(transaction.since);
        let is_over = |limit: Option<Duration>, time: Duration| limit.is_some_and(|it| time >= it);
        let (idles, longs) = (limits.idle_in_transaction, limits.transaction);
        if is_idle && is_over(idles.end, idle) {
            return Some((Which::IdleInTransaction, Act::End, idle));
        }
        if is_over(longs.end, long) {
            return Some((Which::Transaction, Act::End, long));
        }
        if is_idle && !transaction.told_idle && is_over(idles.notice, idle) {
            transaction.told_idle = true;
            return Some((Which::IdleInTransaction, Act::Notice, idle));
        }
        if !transaction.told_long && is_over(longs.notice, long) {
            transaction.told_long = true;
            return Some((Which::Transaction, Act::Notice, long));
        }
        None
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
        let live = self.live.get_mut();
        if let Some(leak) = live.suspicion.moved(State::Closing) {
            self.tally.leaked(leak);
        }
        let why = live.close.unwrap_or(Close::Other);
        self.tally.closed(live.state, why, Instant::now);
    }
}
