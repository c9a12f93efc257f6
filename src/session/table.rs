//! All sessions, and their counts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::events::Events;
use crate::metrics::Close;
use crate::metrics::words::HeldState;
use crate::protocol::startup::ExecutionId;
use parking_lot::Mutex;

use super::leak::{self, Leak};
use super::limits::Act;
use super::{Ending, Grace, Identity, Limits, Mail, Session, SessionId, Snapshot, State};

/// How many sessions there are and were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// By state, in the order of [`State::ALL`].
    pub by_state: [usize; State::ALL.len()],
    /// Ever opened.
    pub opened: u64,
    /// Ever closed, in the order of [`Close::ALL`].
    pub closed_by: [u64; Close::ALL.len()],
    /// Ended by a fault of ours.
    pub panics: u64,
    /// What happened to suspicions, in the order of [`Leak::ALL`].
    pub leaks: [u64; Leak::ALL.len()],
}

impl Counts {
    /// How many were ever closed.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.closed_by.iter().sum()
    }

    /// How many are in this state.
    #[must_use]
    pub fn of(&self, state: State) -> usize {
        self.by_state[state as usize]
    }

    /// How many are suspected of having been forgotten.
    #[must_use]
    pub fn suspects(&self) -> u64 {
        let over = [Leak::Recovered, Leak::Reclaimed, Leak::Ended];
        let over: u64 = over.map(|leak| self.leaks[leak as usize]).iter().sum();
        self.leaks[Leak::Suspect as usize].saturating_sub(over)
    }

    /// How many hold a server connection.
    #[must_use]
    pub fn bound(&self) -> usize {
        State::ALL
            .into_iter()
            .filter(|state| state.is_bound())
            .map(|state| self.of(state))
            .sum()
    }
}

/// The counts while they change; each session counts itself here.
#[derive(Debug)]
pub(super) struct Tally {
    by_state: [AtomicUsize; State::ALL.len()],
    opened: AtomicU64,
    closed: [AtomicU64; Close::ALL.len()],
    panics: AtomicU64,
    leaks: [AtomicU64; Leak::ALL.len()],
    /// From when times are counted.
    epoch: Instant,
    /// For each state in which a connection is held: when sessions left it less when they entered
    /// it, in nanoseconds from the epoch. With as many times now as are in it, it is the time held.
    held: [AtomicU64; HeldState::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            by_state: [const { AtomicUsize::new(0) }; State::ALL.len()],
            opened: AtomicU64::new(0),
            closed: [const { AtomicU64::new(0) }; Close::ALL.len()],
            panics: AtomicU64::new(0),
            leaks: [const { AtomicU64::new(0) }; Leak::ALL.len()],
            epoch: Instant::now(),
            held: [const { AtomicU64::new(0) }; HeldState::ALL.len()],
        }
    }
}

/// The session that has stood in one state for longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    /// Which.
    pub id: SessionId,
    /// Its execution.
    pub execution: ExecutionId,
    /// For how long.
    pub state_age: Duration,
}

impl Tally {
    pub(super) fn opened(&self, state: State) {
        self.opened.fetch_add(1, Relaxed);
        self.by_state[state as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn moved(&self, from: State, to: State, now: Instant) {
        if from == to {
            return;
        }
        self.by_state[from as usize].fetch_sub(1, Relaxed);
        self.by_state[to as usize].fetch_add(1, Relaxed);
        let (from, to) = (from.holding(), to.holding());
        if from.is_none() && to.is_none() {
            return;
        }
        let now = self.nanos(now);
        if let Some(from) = from {
            self.held[from as usize].fetch_add(now, Relaxed);
        }
        if let Some(to) = to {
            self.held[to as usize].fetch_sub(now, Relaxed);
        }
    }

    /// Nanoseconds from the epoch: enough for centuries, also of all sessions together.
    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    pub(super) fn leaked(&self, leak: Leak) {
        self.leaks[leak as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self, state: State, why: Close, now: impl FnOnce() -> Instant) {
        self.closed[why as usize].fetch_add(1, Relaxed);
        self.by_state[state as usize].fetch_sub(1, Relaxed);
        if let Some(held) = state.holding() {
            self.held[held as usize].fetch_add(self.nanos(now()), Relaxed);
        }
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Table {
    tally: Arc<Tally>,
    next: AtomicU64,
    /// Connections that became no session, by why: words out of a closed set.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    sessions: Mutex<BTreeMap<SessionId, Arc<Session>>>,
}

/// A session's place in the table: it leaves when this is dropped.
#[derive(Debug)]
pub struct Seat {
    table: Arc<Table>,
    session: Arc<Session>,
}

impl Seat {
    /// The session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.sessions.lock().remove(&self.session.id());
    }
}

impl Table {
    /// Takes in a session that is being let in; it hears of its end by its mail.
    pub fn open(self: &Arc<Self>, identity: Identity, now: Instant) -> (Seat, Mail) {
        let id = SessionId(self.next.fetch_add(1, Relaxed) + 1);
        let (session, mail) = Session::new(id, identity, Arc::clone(&self.tally), now);
        self.sessions.lock().insert(id, Arc::clone(&session));
        let table = Arc::clone(self);
        (Seat { table, session }, mail)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are and were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            by_state: std::array::from_fn(|at| self.tally.by_state[at].load(Relaxed)),
            opened: self.tally.opened.load(Relaxed),
            closed_by: std::array::from_fn(|at| self.tally.closed[at].load(Relaxed)),
            panics: self.tally.panics.load(Relaxed),
            leaks: std::array::from_fn(|at| self.tally.leaks[at].load(Relaxed)),
        }
    }

    /// How long server connections were held up to now, by sessions that are there and that were, in
    /// the order of [`HeldState::ALL`]. To be asked on the data plane's thread.
    #[must_use]
    pub fn held(&self, now: Instant) -> [Duration; HeldState::ALL.len()] {
        let tally = &self.tally;
        let now = tally.nanos(now);
        let mut held = [Duration::ZERO; HeldState::ALL.len()];
        for state in State::ALL {
            let Some(place) = state.holding() else {
                continue;
            };
            let inside = tally.by_state[state as usize].load(Relaxed) as u64;
            let left = tally.held[place as usize].load(Relaxed);
            let nanos = left.wrapping_add(inside.wrapping_mul(now));
            held[place as usize] = Duration::from_nanos(nanos);
        }
        held
    }

    /// A connection became no session, for this reason.
    pub fn refused(&self, why: &'static str) {
        *self.refused.lock().entry(why).or_default() += 1;
    }

    /// How many connections became no session, by why.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }

    /// A session has ended by a fault of ours.
    pub fn panicked(&self) {
        self.tally.panics.fetch_add(1, Relaxed);
    }

    /// The session of this number.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.lock().get(&id).cloned()
    }

    /// All sessions, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// Tells sessions that are over a limit, and `events`: a notice once for each transaction, or their
    /// end; and finds those that seem to be forgotten. To be called every second or so.
    pub fn sweep(&self, limits: &Limits, now: Instant, events: &Arc<Events>) {
        // Only who holds a server connection can have a transaction, or forget it.
        if limits.is_off() || self.counts().bound() == 0 {
            return;
        }
        let sessions = self.sessions.lock();
        for session in sessions.values() {
            if let Some(after) = limits.leak_after
                && session.suspect(after, now, Some(events))
            {
                // All of an app's sessions may be forgotten in the same second.
                let line = events.line("session.leak_suspect", None);
                events.tell(leak::log_suspect(&session.snapshot(now), line));
            }
            let Some(overdue) = session.overdue(limits, now) else {
                continue;
            };
            let report = overdue.report(session.identity(), limits);
            let event = overdue.event(session, &report);
            if let Some(unsaid) = events.line(event.name(), None) {
                tracing::warn!(
                    event = event.name(),
                    session_id = session.id().0,
                    execution_id = %session.identity().execution,
                    trace_id = session.identity().trace_id(),
                    upstream = &*session.identity().upstream,
                    limit = overdue.word(),
                    act = overdue.act.as_str(),
                    seconds = overdue.time.as_secs_f64(),
                    detail = report.detail.as_deref().unwrap_or_default(),
                    unsaid,
                    "{}", report.message
                );
            }
            events.tell(event);
            match overdue.act {
                Act::Notice => session.notice(report),
                Act::End => session.end(Ending {
                    cause: Close::Limit,
                    report,
                    grace: Grace::none(),
                }),
            }
        }
    }

    /// The session that has stood for longest in each state, in the order of [`State::ALL`].
    #[must_use]
    pub fn oldest(&self, now: Instant) -> [Option<Oldest>; State::ALL.len()] {
        let mut first: [Option<(Instant, &Session)>; State::ALL.len()] = [None; State::ALL.len()];
        let sessions = self.sessions.lock();
        for session in sessions.values() {
            let (state, since) = session.standing();
            let oldest = &mut first[state as usize];
            if oldest.is_none_or(|(known, _)| since < known) {
                *oldest = Some((since, session));
            }
        }
        first.map(|oldest| {
            oldest.map(|(since, session)| Oldest {
                id: session.id(),
                execution: session.identity().execution.clone(),
                state_age: now.saturating_duration_since(since),
            })
        })
    }

    /// The `most` sessions that have held a server connection for longest, of one execution or
    /// of all, the longest first.
    #[must_use]
    pub fn holders(&self, of: Option<&ExecutionId>, most: usize, now: Instant) -> Vec<Snapshot> {
        let sessions = self.sessions.lock();
        let wanted = sessions.values().filter(|session| {
            session.state().is_bound() && of.is_none_or(|id| session.identity().execution == *id)
        });
        let mut holders: Vec<Snapshot> = wanted.map(|session| session.snapshot(now)).collect();
        holders.sort_by_key(|holder| (Reverse(holder.bound_age), holder.id));
        holders.truncate(most);
        holders
    }

    /// Where in the app most of the server connections were opened that sessions of an execution hold; of two
    /// places with as many, the one of the older session. None where nobody says.
    #[must_use]
    pub fn caller_of_most(&self, of: &ExecutionId) -> Option<String> {
        let sessions = self.sessions.lock();
        let mut places: BTreeMap<&str, (usize, Reverse<SessionId>)> = BTreeMap::new();
        for session in sessions.values() {
            let identity = session.identity();
            let Some(caller) = identity.caller.as_deref() else {
                continue;
            };
            if session.state().is_bound() && identity.execution == *of {
                let (count, oldest) = places.entry(caller).or_insert((0, Reverse(session.id())));
                *count += 1;
                *oldest = (*oldest).max(Reverse(session.id()));
            }
        }
        let most = places.into_iter().max_by_key(|(_, rank)| *rank);
        most.map(|(caller, _)| caller.to_owned())
    }

    /// The `most` sessions of one execution or of all that are worth a look first: those that hold a
    /// server connection, who has held one for longest first, then the others. And how many are left
    /// out.
    #[must_use]
    pub fn longest_held(
        &self,
        of: Option<&ExecutionId>,
        most: usize,
        now: Instant,
    ) -> (Vec<Snapshot>, usize) {
        let sessions = self.sessions.lock();
        let wanted = sessions
            .values()
            .filter(|session| of.is_none_or(|id| session.identity().execution == *id));
        let mut ranked: Vec<_> = wanted
            .map(|session| {
                let held = session.totals(now).held.total();
                let rank = (session.state().is_bound(), held);
                (Reverse(rank), session.id(), session)
            })
            .collect();
        let left_out = ranked.len().saturating_sub(most);
        if left_out > 0 {
            ranked.select_nth_unstable_by_key(most, |(rank, id, _)| (*rank, *id));
            ranked.truncate(most);
        }
        ranked.sort_unstable_by_key(|(rank, id, _)| (*rank, *id));
        let snapshots = ranked.iter().map(|(.., session)| session.snapshot(now));
        (snapshots.collect(), left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{Report, Severity, SqlState};
    use crate::session::{Grace, Peer};
    use std::time::Duration;

    fn identity(execution: &str) -> Identity {
        Identity {
            execution: execution.parse().unwrap(),
            upstream: "app".into(),
            database: "app".to_owned(),
            application_name: None,
            caller: None,
            label: None,
            traceparent: None,
            peer: Peer::Unix {
                uid: 0,
                gid: 0,
                pid: None,
            },
        }
    }

    #[test]
    fn who_holds_most_is_found_by_where_it_was_opened() {
        let table = Arc::new(Table::default());
        let open = |execution: &str, caller: Option<&str>, is_bound: bool| {
            let identity = Identity {
                caller: caller.map(str::to_owned),
                ..identity(execution)
            };
            let (seat, mail) = table.open(identity, Instant::now());
            seat.session().transition(State::Unbound);
            if is_bound {
                seat.session().bound(7);
            }
            (seat, mail)
        };
        let caller = || table.caller_of_most(&ExecutionId::shared());
        let mut kept = vec![open("shared", None, true)];
        assert_eq!(caller(), None, "nobody says");
        kept.push(open("shared", Some("b.py:1"), true));
        kept.push(open("shared", Some("a.py:1"), true));
        assert_eq!(caller().as_deref(), Some("b.py:1"), "as many, and older");
        kept.push(open("shared", Some("a.py:1"), true));
        for _ in 0..3 {
            kept.push(open("shared", Some("idle.py:1"), false));
            kept.push(open("other", Some("other.py:1"), true));
        }
        assert_eq!(caller().as_deref(), Some("a.py:1"));
        kept.drain(2..);
        assert_eq!(caller().as_deref(), Some("b.py:1"));
    }

    #[test]
    fn each_session_is_counted_in_one_state_from_its_opening_to_its_close() {
        let table = Arc::new(Table::default());
        let now = Instant::now();
        let (seat, mail) = table.open(identity("a"), now);
        assert_eq!(table.counts().of(State::Startup), 1);
        seat.session().transition(State::Unbound);
        seat.session().bound(7);
        assert_eq!(
            (table.counts().of(State::Active), table.counts().bound()),
            (1, 1)
        );
        drop((seat, mail));
        let counts = table.counts();
        assert_eq!(counts.by_state.iter().sum::<usize>(), 0);
        assert_eq!((counts.opened, counts.closed()), (1, 1));
        assert_eq!(counts.closed_by[Close::Other as usize], 1);
    }

    #[test]
    fn the_longest_holders_come_first_and_who_holds_nothing_is_none() {
        let table = Arc::new(Table::default());
        let now = Instant::now();
        let seats: Vec<_> = ["a", "b", "b", "c"]
            .map(|execution| table.open(identity(execution), now).0)
            .into();
        for pid in [0, 2, 1] {
            seats[pid].session().bound(pid as i32);
            std::thread::sleep(Duration::from_millis(2));
        }
        let pids = |of: Option<&ExecutionId>| -> Vec<_> {
            let holders = table.holders(of, 2, Instant::now());
            holders
                .iter()
                .map(|holder| holder.server_pid.unwrap())
                .collect()
        };
        assert_eq!(pids(None), [0, 2]);
        assert_eq!(pids(Some(&"b".parse().unwrap())), [2, 1]);
        assert!(pids(Some(&"c".parse().unwrap())).is_empty());
    }

    #[test]
    fn who_asks_nothing_is_suspected_once_until_it_asks_or_ends() {
        let table = Arc::new(Table::default());
        let limits = Limits {
            leak_after: Some(Duration::from_secs(60)),
            ..Limits::default()
        };
        let events = Arc::new(Events::default());
        let sweep = |later: u64| {
            table.sweep(
                &limits,
                Instant::now() + Duration::from_secs(later),
                &events,
            );
        };
        let leaks = || table.counts().leaks;
        let seats: Vec<Seat> = (0..4)
            .map(|_| table.open(identity("a"), Instant::now()).0)
            .collect();
        let [idle, open, works, unbound] = [0, 1, 2, 3].map(|at| seats[at].session());
        for (session, state) in [(idle, State::Idle), (open, State::InTransaction)] {
            session.bound(1);
            session.transition(state);
        }
        works.bound(2);
        unbound.transition(State::Unbound);
        sweep(59);
        assert_eq!(leaks(), [0; 4], "not yet");
        sweep(61);
        sweep(62);
        assert_eq!(
            leaks(),
            [2, 0, 0, 0],
            "not who works, not who holds nothing"
        );
        assert_eq!(table.counts().suspects(), 2);
        assert!(idle.snapshot(Instant::now()).is_suspect);
        idle.sent(1, None);
        assert_eq!(leaks(), [2, 1, 0, 0]);
        idle.ready(false, false, Some(State::Idle));
        sweep(61);
        assert_eq!(
            idle.totals(Instant::now()).leaks,
            2,
            "a suspicion of its own"
        );
        let report = || {
            let (severity, state) = (Severity::Fatal, SqlState::ADMIN_SHUTDOWN);
            Report::new(severity, state, "make room")
        };
        works.ready(false, false, Some(State::Idle));
        works.reclaim(Ending {
            cause: Close::Cleanup,
            report: report(),
            grace: Grace::none(),
        });
        assert_eq!(
            leaks(),
            [4, 1, 0, 0],
            "whoever is ended to make room is suspected"
        );
        works.transition(State::Closing);
        assert_eq!(leaks(), [4, 1, 1, 0]);
        open.transition(State::Closing);
        drop(seats);
        assert_eq!(leaks(), [4, 1, 1, 2], "also without a word");
        assert_eq!(table.counts().suspects(), 0);
        let told = events.after(0, 9).entries;
        let told: Vec<_> = told.iter().map(|it| it.record().event.name()).collect();
        let [suspect, recovered] = ["session.leak_suspect", "session.leak_recovered"];
        assert_eq!(told, [suspect, suspect, recovered, suspect]);
    }

    #[test]
    fn the_oldest_of_each_state_is_found() {
        let table = Arc::new(Table::default());
        let seats: Vec<Seat> = ["a", "b", "c"]
            .map(|execution| table.open(identity(execution), Instant::now()).0)
            .into();
        for at in [1, 0] {
            seats[at].session().transition(State::Waiting);
            std::thread::sleep(Duration::from_millis(2));
        }
        let oldest = table.oldest(Instant::now());
        let name = |state: State| Some(oldest[state as usize].as_ref()?.execution.as_str());
        assert_eq!(name(State::Waiting), Some("b"));
        assert_eq!(name(State::Startup), Some("c"));
        assert_eq!(name(State::Idle), None);
    }

    #[test]
    fn held_time_goes_to_the_state_in_which_it_passed() {
        let table = Arc::new(Table::default());
        let (seat, _mail) = table.open(identity("a"), Instant::now());
        let session = seat.session();
        session.bound(1);
        std::thread::sleep(Duration::from_millis(3));
        session.transition(State::InTransaction);
        std::thread::sleep(Duration::from_millis(3));
        session.transition(State::Closing);
        let of_all = table.held(Instant::now());
        let held = session.totals(Instant::now()).held;
        assert_eq!(of_all, [held.active, held.in_transaction, held.idle]);
        assert!(held.active >= Duration::from_millis(3), "{held:?}");
        assert!(held.in_transaction >= Duration::from_millis(3), "{held:?}");
        assert_eq!(held.idle, Duration::ZERO);
        assert_eq!(session.snapshot(Instant::now()).server_pid, None);
    }

    #[test]
    fn a_session_is_told_once_to_end() {
        let table = Arc::new(Table::default());
        let (seat, mut mail) = table.open(identity("a"), Instant::now());
        let because = |message: &str| Ending {
            cause: Close::Deleted,
            report: crate::protocol::message::Report::new(
                crate::protocol::message::Severity::Fatal,
                crate::protocol::message::SqlState::ADMIN_SHUTDOWN,
                message,
            ),
            grace: Grace::none(),
        };
        seat.session().end(because("first"));
        seat.session().end(because("second"));
        assert_eq!(mail.take_end().unwrap().report.message, "first");
    }
}
