//! The closed set of events. Names and fields are those of the log, whose lines of the same facts
//! have the name as their field `event`.

use serde::Serialize;

use super::{Seconds, Text};

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

/// The names of all events.
pub const NAMES: [&str; 24] = [
    "start",
    "ready",
    "drain",
    "shutdown",
    "pause",
    "resume",
    "reconnect",
    "execution.began",
    "execution.adopted",
    "execution.deadline_near",
    "execution.ended",
    "execution.leftovers",
    "checkout.refused",
    "checkout.failed",
    "session.limit",
    "monitor.no_answer",
    "monitor.answer",
    "database.away",
    "database.back",
    "database.limited",
    "database.limit_raised",
    "exhaustion.changed",
    "configuration.reloaded",
    "configuration.refused",
];

impl Event {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Ready { .. } => "ready",
            Self::Drain {} => "drain",
            Self::Shutdown { .. } => "shutdown",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Reconnect { .. } => "reconnect",
            Self::ExecutionBegan { .. } => "execution.began",
            Self::ExecutionAdopted { .. } => "execution.adopted",
            Self::ExecutionDeadlineNear { .. } => "execution.deadline_near",
            Self::ExecutionEnded { .. } => "execution.ended",
            Self::ExecutionLeftovers { .. } => "execution.leftovers",
            Self::CheckoutRefused { .. } => "checkout.refused",
            Self::CheckoutFailed { .. } => "checkout.failed",
            Self::SessionLimit { .. } => "session.limit",
            Self::MonitorNoAnswer { .. } => "monitor.no_answer",
            Self::MonitorAnswer { .. } => "monitor.answer",
            Self::DatabaseAway { .. } => "database.away",
            Self::DatabaseBack { .. } => "database.back",
            Self::DatabaseLimited { .. } => "database.limited",
            Self::DatabaseLimitRaised { .. } => "database.limit_raised",
            Self::ExhaustionChanged { .. } => "exhaustion.changed",
            Self::ConfigurationReloaded { .. } => "configuration.reloaded",
            Self::ConfigurationRefused { .. } => "configuration.refused",
        }
    }

    /// The execution that it is about.
    #[must_use]
    pub fn execution(&self) -> Option<&Text> {
        match self {
            Self::ExecutionBegan { execution_id, .. }
            | Self::ExecutionAdopted { execution_id, .. }
            | Self::ExecutionDeadlineNear { execution_id, .. }
            | Self::ExecutionEnded { execution_id, .. }
            | Self::ExecutionLeftovers { execution_id, .. }
            | Self::CheckoutRefused { execution_id, .. }
            | Self::CheckoutFailed { execution_id, .. }
            | Self::SessionLimit { execution_id, .. } => Some(execution_id),
            _ => None,
        }
    }

    /// How many of its like were not told before it: of events that an app may cause at any rate.
    pub(super) fn unsaid(&mut self) -> Option<&mut u64> {
        match self {
            Self::CheckoutRefused { unsaid, .. }
            | Self::CheckoutFailed { unsaid, .. }
            | Self::SessionLimit { unsaid, .. } => Some(unsaid),
            _ => None,
        }
    }

    /// Whether it is told once for each execution meanwhile: all of them say the same.
    pub(super) fn is_spared_by_execution(&self) -> bool {
        matches!(
            self,
            Self::CheckoutRefused { .. } | Self::CheckoutFailed { .. }
        )
    }

    /// One of each, with texts of their greatest length.
    #[cfg(test)]
    pub(crate) fn samples() -> Vec<Self> {
        let name = || Text::name(&"\"".repeat(1000));
        let text = || Text::sentence(&"ä".repeat(1000));
        let time = Seconds(std::time::Duration::from_micros(u64::MAX / 1_000_001));
        let most = u64::MAX;
        vec![
            Self::Start {
                version: name(),
                budget: most,
            },
            Self::Ready { upstream: name() },
            Self::Drain {},
            Self::Shutdown {
                grace_seconds: time,
            },
            Self::Pause {
                for_seconds: Some(time),
            },
            Self::Resume {
                paused_seconds: time,
                by: By::Operator,
            },
            Self::Reconnect {
                closed: most,
                lent: most,
            },
            Self::ExecutionBegan {
                execution_id: name(),
                generation: most,
                kind: Text::name("explicit"),
                deadline_seconds: Some(time),
            },
            Self::ExecutionAdopted {
                execution_id: name(),
                generation: most,
                deadline_seconds: Some(time),
            },
            Self::ExecutionDeadlineNear {
                execution_id: name(),
                generation: most,
                deadline_seconds: time,
                sessions: most,
            },
            Self::ExecutionEnded {
                execution_id: name(),
                generation: most,
                reason: Text::name("session_ended"),
                reason_text: Some(text()),
                duration_seconds: time,
                teardown_seconds: time,
                sessions: most,
                queries: most,
                held_seconds: time,
                active_seconds: time,
                peak_connections: 1 << 32,
                leftovers: 1 << 32,
            },
            Self::ExecutionLeftovers {
                execution_id: name(),
                backends: most,
            },
            Self::CheckoutRefused {
                execution_id: name(),
                session_id: most,
                upstream: name(),
                sqlstate: Text::name("53300"),
                limit: Text::name("dialling"),
                waited_seconds: time,
                message: text(),
                unsaid: most,
            },
            Self::CheckoutFailed {
                execution_id: name(),
                session_id: most,
                upstream: name(),
                sqlstate: Text::name("53300"),
                error: text(),
                unsaid: most,
            },
            Self::SessionLimit {
                session_id: most,
                execution_id: name(),
                limit: Text::name("session.idle_in_transaction.notice"),
                act: Act::Notice,
                seconds: time,
                message: text(),
                unsaid: most,
            },
            Self::MonitorNoAnswer {
                upstream: name(),
                error: text(),
            },
            Self::MonitorAnswer {
                upstream: name(),
                server_version: name(),
                max_connections: most,
            },
            Self::DatabaseAway {
                upstream: name(),
                error: text(),
            },
            Self::DatabaseBack {
                upstream: name(),
                away_seconds: time,
            },
            Self::DatabaseLimited {
                upstream: name(),
                budget_effective: most,
                budget_limit: most,
                error: text(),
            },
            Self::DatabaseLimitRaised {
                budget_effective: most,
                budget_limit: most,
                limited_by_database: false,
            },
            Self::ExhaustionChanged {
                from: Text::name("exhausted"),
                state: Text::name("sustained"),
                cause: Text::name("database_unreachable"),
                used: 1 << 32,
                limit: 1 << 32,
                waiting: 1 << 32,
                oldest_wait_seconds: time,
                holder: Some(name()),
                holder_caller: Some(text()),
                held_seconds: Some(time),
            },
            Self::ConfigurationReloaded {
                applied: most,
                waiting_for_restart: most,
                changes: text(),
            },
            Self::ConfigurationRefused { problems: text() },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_sent_by_its_one_name() {
        let samples = Event::samples();
        let names: Vec<&str> = samples.iter().map(Event::name).collect();
        assert_eq!(names, NAMES);
        for sample in samples {
            let json = serde_json::to_value(&sample).unwrap();
            assert_eq!(json["event"], sample.name());
            let execution = sample.execution().map(Text::as_str);
            assert_eq!(json["execution_id"].as_str(), execution);
        }
    }
}
