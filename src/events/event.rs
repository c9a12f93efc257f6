//! The closed set of events. Names and fields are those of the log, whose lines of the same facts
//! have the name as their field `event`.

mod name;
#[cfg(test)]
mod samples;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Seconds, Text};

pub use name::NAMES;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "event")]
pub enum Event {
    /// The sockets are bound: the first event of a process.
    #[serde(rename = "start")]
    Start {
        /// The version of execpool.
        version: Text,
        /// The most server connections that there may be.
        budget: u64,
    },
    /// An upstream has answered for the first time.
    #[serde(rename = "ready")]
    Ready {
        /// Its name.
        upstream: Text,
    },
    /// The pod is about to end.
    #[serde(rename = "drain")]
    Drain {},
    /// The process is about to end: who is left is served for a while.
    #[serde(rename = "shutdown")]
    Shutdown {
        /// For how long at most.
        grace_seconds: Seconds,
    },
    /// An operator has paused everything.
    #[serde(rename = "pause")]
    Pause {
        /// When it ends by itself; null: never.
        for_seconds: Option<Seconds>,
    },
    /// It goes on.
    #[serde(rename = "resume")]
    Resume {
        /// How long the pause was.
        paused_seconds: Seconds,
        /// Who has ended it.
        by: By,
    },
    /// Every server connection is replaced.
    #[serde(rename = "reconnect")]
    Reconnect {
        /// Idle ones, which are being closed.
        closed: u64,
        /// Lent ones, which are closed when they come back.
        lent: u64,
    },
    /// An execution has begun; not told of the standing one, nor of those of one session.
    #[serde(rename = "execution.began")]
    ExecutionBegan {
        /// Its name.
        execution_id: Text,
        /// Which of that name.
        generation: u64,
        /// `explicit` or `implicit`.
        kind: Text,
        /// Its deadline from then on; null for none.
        deadline_seconds: Option<Seconds>,
    },
    /// An implicit execution is an explicit one from now on.
    #[serde(rename = "execution.adopted")]
    ExecutionAdopted {
        /// Its name.
        execution_id: Text,
        /// Which of that name.
        generation: u64,
        /// Its deadline from then on; null for none.
        deadline_seconds: Option<Seconds>,
    },
    /// Four fifths of an execution's time have passed.
    #[serde(rename = "execution.deadline_near")]
    ExecutionDeadlineNear {
        /// Its name.
        execution_id: Text,
        /// Which of that name.
        generation: u64,
        /// What is left.
        deadline_seconds: Seconds,
        /// How many sessions were told.
        sessions: u64,
    },
    /// An execution has ended; not told of one that ends with its only session.
    #[serde(rename = "execution.ended")]
    ExecutionEnded {
        /// Its name.
        execution_id: Text,
        /// Which of that name.
        generation: u64,
        /// Why.
        reason: Text,
        /// What the client said about it; null if nothing.
        reason_text: Option<Text>,
        /// How long it was there.
        duration_seconds: Seconds,
        /// How long its end took.
        teardown_seconds: Seconds,
        /// Sessions that ever joined.
        sessions: u64,
        /// Their queries.
        queries: u64,
        /// How long they held server connections.
        held_seconds: Seconds,
        /// How long these worked.
        active_seconds: Seconds,
        /// The most server connections at once.
        peak_connections: u64,
        /// Backends that were still there.
        leftovers: u64,
    },
    /// An execution has ended with resources that were not released: the app is to close them.
    #[serde(rename = "execution.resources_left")]
    ExecutionResourcesLeft {
        /// Its name.
        execution_id: Text,
        /// Which of that name.
        generation: u64,
        /// How many.
        count: u64,
        /// The first of them, each by kind and name.
        resources: Text,
    },
    /// A resource was not released within its ttl, and is forgotten.
    #[serde(rename = "resource.expired")]
    ResourceExpired {
        /// Whose it was; null if that has ended meanwhile.
        execution_id: Option<Text>,
        /// `connection`, `browser`, `http`, `file` or `other`.
        kind: Text,
        /// What the app calls it.
        name: Text,
        /// How long it was registered.
        age_seconds: Seconds,
        /// How many have expired since the event before, and were not told.
        unsaid: u64,
    },
    /// The maintenance pass ends by force what an ended execution has left behind.
    #[serde(rename = "execution.leftovers")]
    ExecutionLeftovers {
        /// Its name.
        execution_id: Text,
        /// How many backends.
        backends: u64,
    },
    /// A session has waited for a server connection in vain: 53300, or 08001.
    #[serde(rename = "checkout.refused")]
    CheckoutRefused {
        /// Its execution.
        execution_id: Text,
        /// The session.
        session_id: u64,
        /// The upstream's name.
        upstream: Text,
        /// The code of the error.
        sqlstate: Text,
        /// Which limit: `pool`, `budget`, `database`, `paused`, `away` or `dialling`.
        limit: Text,
        /// How long it waited.
        waited_seconds: Seconds,
        /// What the client was told.
        message: Text,
        /// How many were refused since the event before, and were not told.
        unsaid: u64,
    },
    /// The dial that was for a session has failed.
    #[serde(rename = "checkout.failed")]
    CheckoutFailed {
        /// Its execution.
        execution_id: Text,
        /// The session.
        session_id: u64,
        /// The upstream's name.
        upstream: Text,
        /// The code of the error.
        sqlstate: Text,
        /// Why.
        error: Text,
        /// How many failed since the event before, and were not told.
        unsaid: u64,
    },
    /// A session is over a limit in time.
    #[serde(rename = "session.limit")]
    SessionLimit {
        /// The session.
        session_id: u64,
        /// Its execution.
        execution_id: Text,
        /// The knob.
        limit: Text,
        /// What becomes of the session.
        act: Act,
        /// How long it has been so.
        seconds: Seconds,
        /// What the client is told.
        message: Text,
        /// How many sessions were over a limit since the event before, and were not told.
        unsaid: u64,
    },
    /// A session holds a server connection and asks nothing: it may have been forgotten.
    #[serde(rename = "session.leak_suspect")]
    SessionLeakSuspect {
        /// The session.
        session_id: u64,
        /// Its execution.
        execution_id: Text,
        /// The upstream's name.
        upstream: Text,
        /// Where it stands: `idle` or `idle_in_transaction`.
        state: Text,
        /// For how long it has asked nothing.
        idle_for_seconds: Seconds,
        /// For how long it has held its server connection.
        bound_for_seconds: Seconds,
        /// The backend of that.
        server_pid: Option<i32>,
        /// Who opened it: user and process, or an address.
        peer: Text,
        /// Where it was opened in the app; null where the app does not say.
        caller: Option<Text>,
        /// What the app calls it; null where the app does not say.
        label: Option<Text>,
        /// Its `application_name`; null where it has none.
        application_name: Option<Text>,
        /// The beginning of its last statement, without literals; null before the first.
        statement: Option<Text>,
        /// How many came under suspicion since the event before, and were not told.
        unsaid: u64,
    },
    /// A session that seemed forgotten is used again.
    #[serde(rename = "session.leak_recovered")]
    SessionLeakRecovered {
        /// The session.
        session_id: u64,
        /// Its execution.
        execution_id: Text,
        /// For how long it had asked nothing.
        idle_for_seconds: Seconds,
        /// How many were used again since the event before, and were not told.
        unsaid: u64,
    },
    /// A cleanup ends a session, to make room.
    #[serde(rename = "session.reclaimed")]
    SessionReclaimed {
        /// The session.
        session_id: u64,
        /// Its execution.
        execution_id: Text,
        /// The upstream's name.
        upstream: Text,
        /// On which ground: `idle_in_transaction`, `leak_suspect` or `unnamed_leak_suspect`.
        why: Text,
        /// For how long it had asked nothing; null if it asked something just then.
        idle_for_seconds: Option<Seconds>,
        /// The backend of its server connection; null if it was just given back.
        server_pid: Option<i32>,
        /// Where it was opened in the app; null where the app does not say.
        caller: Option<Text>,
        /// Its `application_name`; null where it has none.
        application_name: Option<Text>,
        /// How many were ended so since the event before, and were not told.
        unsaid: u64,
    },
    /// What a session does is cancelled through the control API.
    #[serde(rename = "session.cancelled")]
    SessionCancelled {
        /// The session.
        session_id: u64,
        /// Its execution.
        execution_id: Text,
        /// `query`, or `wait` for a server connection.
        cancelled: Text,
        /// Who asked for it.
        who: Text,
        /// How many were cancelled so since the event before, and were not told.
        unsaid: u64,
    },
    /// A session is ended through the control API.
    #[serde(rename = "session.ended")]
    SessionEnded {
        /// The session.
        session_id: u64,
        /// Its execution.
        execution_id: Text,
        /// What was said about it; null if nothing.
        reason_text: Option<Text>,
        /// Who asked for it.
        who: Text,
        /// How many were ended so since the event before, and were not told.
        unsaid: u64,
    },
    /// An emergency cleanup is done.
    #[serde(rename = "cleanup")]
    Cleanup {
        /// Whether it only told what it would do.
        dry_run: bool,
        /// The execution that it was about; null: all of them.
        execution_id: Option<Text>,
        /// How many sessions and leftovers were closed, or would be.
        closed: u64,
        /// How many checkouts waited for the budget when it began.
        waited: u64,
        /// How many wait for it now, or would.
        waiting: u64,
        /// How many suspects of no named execution were spared.
        spared: u64,
        /// How many sessions were told to end and have not gone in time.
        remaining: u64,
    },
    /// The monitor's question was not answered.
    #[serde(rename = "monitor.no_answer")]
    MonitorNoAnswer {
        /// The upstream's name.
        upstream: Text,
        /// Why.
        error: Text,
    },
    /// The monitor's question was answered, for the first time or again.
    #[serde(rename = "monitor.answer")]
    MonitorAnswer {
        /// The upstream's name.
        upstream: Text,
        /// The server's version, in its words.
        server_version: Text,
        /// The server's limit of connections.
        max_connections: u64,
    },
    /// A dial found nobody where somebody was: who needs the database waits.
    #[serde(rename = "database.away")]
    DatabaseAway {
        /// The upstream's name.
        upstream: Text,
        /// Why.
        error: Text,
    },
    /// A dial has succeeded again.
    #[serde(rename = "database.back")]
    DatabaseBack {
        /// The upstream's name.
        upstream: Text,
        /// How long nobody was there.
        away_seconds: Seconds,
    },
    /// The database refuses connections: the budget is what is open.
    #[serde(rename = "database.limited")]
    DatabaseLimited {
        /// The upstream's name.
        upstream: Text,
        /// How many connections there may be by now.
        budget_effective: u64,
        /// How many there might be.
        budget_limit: u64,
        /// What the server said.
        error: Text,
    },
    /// The database takes more connections than it last did.
    #[serde(rename = "database.limit_raised")]
    DatabaseLimitRaised {
        /// How many connections there may be by now.
        budget_effective: u64,
        /// How many there might be.
        budget_limit: u64,
        /// Whether it is the database that allows for no more.
        limited_by_database: bool,
    },
    /// The pod's server connections run out, or do not any more.
    #[serde(rename = "exhaustion.changed")]
    ExhaustionChanged {
        /// What it was: `healthy`, `warning`, `exhausted` or `sustained`.
        from: Text,
        /// What it is.
        state: Text,
        /// Why: `database_unreachable`, `limited_by_database`, `queries` or `held`; of what is over, if
        /// it is better now.
        cause: Text,
        /// Connections lent to sessions that have queried.
        used: u64,
        /// How many there may be.
        limit: u64,
        /// Who waits for the budget.
        waiting: u64,
        /// How long the first of them has.
        oldest_wait_seconds: Seconds,
        /// The execution that has held a connection for longest; null where none has.
        holder: Option<Text>,
        /// Where that was opened in the app; null if it was not said.
        holder_caller: Option<Text>,
        /// For how long it has been held; null where none is.
        held_seconds: Option<Seconds>,
    },
    /// The reactor has made room, or would: an emergency cleanup that nobody has asked for.
    #[serde(rename = "reactor.cleanup")]
    ReactorCleanup {
        /// Whether it is only told (`reactor.dry_run`).
        dry_run: bool,
        /// How many sessions and leftovers were closed, or would be.
        closed: u64,
        /// Which: the numbers of sessions, and the executions of leftovers.
        what: Text,
        /// How many checkouts wait for the budget now, or would.
        waiting: u64,
        /// How many suspects of no named execution were spared.
        spared: u64,
    },
    /// The reactor has the app or the pod restarted, or would.
    #[serde(rename = "reactor.restart")]
    ReactorRestart {
        /// Whether it is only told (`reactor.dry_run`).
        dry_run: bool,
        /// How: `liveness`, `exit-code`, `evict` or `rollout`.
        mode: Text,
        /// What is done, or would be.
        what: Text,
        /// How many sessions are open.
        sessions: u64,
        /// Connections lent to sessions that have queried.
        used: u64,
        /// How many there may be.
        limit: u64,
        /// Who waits for the budget.
        waiting: u64,
        /// The execution that has held a connection for longest; null where none has.
        holder: Option<Text>,
        /// Where that was opened in the app; null if it was not said.
        holder_caller: Option<Text>,
        /// How many restarts there were within the hour, with this one.
        restarts_last_hour: u64,
    },
    /// What came of a restart, as far as this process sees it.
    #[serde(rename = "reactor.restart_over")]
    ReactorRestartOver {
        /// How it was to be: `liveness`, `exit-code`, `evict` or `rollout`.
        mode: Text,
        /// `gone` (all that was open is), `came_back` (the app was restarted, and others' sessions are still open),
        /// `recovered` (without one), `in_vain` (nobody restarted the app in time), `withdrawn` or `failed`.
        outcome: Text,
        /// How long after the decision.
        after_seconds: Seconds,
        /// Why it failed; null where it did not.
        why: Option<Text>,
    },
    /// The reactor would act, and something speaks against it: told once for each reason.
    #[serde(rename = "reactor.refused")]
    ReactorRefused {
        /// What is not done: `cleanup` or `restart`.
        action: Text,
        /// What speaks against it, in a word.
        guard: Text,
        /// The same as a sentence, and until when.
        why: Text,
    },
    /// The configuration was read anew, and is what runs but for what takes a restart.
    #[serde(rename = "configuration.reloaded")]
    ConfigurationReloaded {
        /// How many changes were applied.
        applied: u64,
        /// How many wait for a restart.
        waiting_for_restart: u64,
        /// All of them, old and new values.
        changes: Text,
    },
    /// The configuration was read anew and is refused; what runs stays as it is.
    #[serde(rename = "configuration.refused")]
    ConfigurationRefused {
        /// What is wrong.
        problems: Text,
    },
}

/// What becomes of a session that is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Its client gets a NOTICE.
    Notice,
    /// It is ended.
    End,
}

/// Who has ended a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// An operator.
    Operator,
    /// Its own time.
    Time,
}

impl By {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Time => "time",
        }
    }
}
