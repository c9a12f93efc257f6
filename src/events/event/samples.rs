//! One of each event, for tests.

use super::{Act, By, Event, Seconds, Text};

impl Event {
    /// One of each, with texts of their greatest length.
    pub(crate) fn samples() -> Vec<Self> {
        let word = || Text::word(&"ä".repeat(1000));
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
            Self::ExecutionResourcesLeft {
                execution_id: name(),
                generation: most,
                count: most,
                resources: text(),
            },
            Self::ResourceExpired {
                execution_id: Some(name()),
                kind: Text::name("connection"),
                name: text(),
                age_seconds: time,
                unsaid: most,
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
            Self::SessionLeakSuspect {
                session_id: most,
                execution_id: name(),
                upstream: word(),
                state: Text::name("idle_in_transaction"),
                idle_for_seconds: time,
                bound_for_seconds: time,
                server_pid: Some(i32::MIN),
                peer: word(),
                caller: Some(name()),
                label: Some(word()),
                application_name: Some(word()),
                statement: Some(name()),
                unsaid: most,
            },
            Self::SessionLeakRecovered {
                session_id: most,
                execution_id: name(),
                idle_for_seconds: time,
                unsaid: most,
            },
            Self::SessionReclaimed {
                session_id: most,
                execution_id: name(),
                upstream: word(),
                why: Text::name("unnamed_leak_suspect"),
                idle_for_seconds: Some(time),
                server_pid: Some(i32::MIN),
                caller: Some(name()),
                application_name: Some(word()),
                unsaid: most,
            },
            Self::SessionCancelled {
                session_id: most,
                execution_id: name(),
                cancelled: Text::name("query"),
                who: word(),
                unsaid: most,
            },
            Self::SessionEnded {
                session_id: most,
                execution_id: name(),
                reason_text: Some(text()),
                who: word(),
                unsaid: most,
            },
            Self::Cleanup {
                dry_run: false,
                execution_id: Some(name()),
                closed: most,
                waited: most,
                waiting: most,
                spared: most,
                remaining: most,
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
            Self::ReactorCleanup {
                dry_run: false,
                closed: most,
                what: text(),
                waiting: most,
                spared: most,
            },
            Self::ReactorRestart {
                dry_run: false,
                mode: Text::name("exit-code"),
                what: text(),
                sessions: 1 << 32,
                used: 1 << 32,
                limit: 1 << 32,
                waiting: 1 << 32,
                holder: Some(name()),
                holder_caller: Some(name()),
                restarts_last_hour: 1 << 32,
            },
            Self::ReactorRestartOver {
                mode: Text::name("exit-code"),
                outcome: Text::name("recovered"),
                after_seconds: time,
                why: Some(text()),
            },
            Self::ReactorRefused {
                action: Text::name("cleanup"),
                guard: Text::name("database_unreachable"),
                why: text(),
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
