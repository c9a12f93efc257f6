//! The closed set of events. Names and fields are those of the log, whose lines of the same facts
//! have the name as their field `event`.

mod name;
#[cfg(test)]
mod samples;

use serde::Serialize;

use super::{Seconds, Text};

pub use name::NAMES;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Its client gets a NOTICE.
    Notice,
    /// It is ended.
    End,
}

/// Who has ended a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
