//! `GET /v1/status`: never waits for a database or a pool.

use std::collections::BTreeMap;
use std::time::Instant;

use http::StatusCode;

use crate::budget::Budget;
use crate::execution::{Counts, Executions, PerSecond, Reason, ResourceCounts};
use crate::metrics::resident_bytes;
use crate::pool::{Counts as PoolCounts, Paused, Queue};
use crate::session::{Counts as SessionCounts, Leak, Oldest, State};

use super::Control;
use super::include::{Include, Lists};
use super::router::{Answer, Asked, json};
use super::types::{self, Memory, Seconds, Status};

/// What the data plane tells, in one turn.
struct Look {
    budget: Budget,
    queue: Queue,
    connections: PoolCounts,
    reserve: usize,
    executions: Counts,
    sessions: SessionCounts,
    refused: BTreeMap<&'static str, u64>,
    /// What is registered, and how many have expired.
    resources: (ResourceCounts, u64),
    oldest: [Option<Oldest>; State::ALL.len()],
    rates: PerSecond,
    paused: Option<Paused>,
    lists: Lists,
}

impl Look {
    fn at(executions: &Executions, include: &Include) -> Self {
        let now = Instant::now();
        let (budget, queue) = executions.lender().budget();
        let mut connections = PoolCounts::default();
        for upstream in executions.connections() {
            connections += upstream;
        }
        Self {
            budget,
            queue,
            connections,
            reserve: executions.lender().reserved(),
            executions: executions.counts(),
            sessions: executions.sessions().counts(),
            refused: executions.sessions().refusals(),
            resources: executions.resources(),
            oldest: executions.sessions().oldest(now),
            rates: executions.rates(now),
            paused: executions.lender().paused(),
            lists: include.look(executions, now),
        }
    }
}

pub(super) async fn get(control: &Control, asked: &Asked) -> Answer {
    let include = Include::parse(asked.query.as_deref())?;
    let look = control
        .remote
        .ask(move |executions| Look::at(executions, &include))
        .await?;
    let outlook = control.outlook();
    let status = Status {
        version: outlook.facts.version,
        uptime_seconds: Seconds(outlook.facts.started.elapsed()),
        configuration: control.configuration.status(),
        paused: look.paused.is_some(),
        paused_seconds: look.paused.map(|paused| Seconds(paused.age)),
        resumes_in_seconds: look.paused.and_then(|paused| paused.left).map(Seconds),
        draining: outlook.facts.life.is_draining(),
        not_ready: outlook.facts.life.ready().err().map(|why| why.to_string()),
        telemetry: outlook.facts.telemetry,
        tcp: outlook.facts.tcp.clone(),
        budget: budget(&look),
        exhaustion: (*control.shown.exhaustion.borrow()).into(),
        reactor: (**control.shown.reactor.borrow()).clone(),
        upstreams: control.last_seen(Instant::now()),
        executions: execution_counts(&look.executions),
        sessions: session_counts(&look.sessions, look.refused, look.oldest),
        rates: look.rates.into(),
        resources: types::ResourceTotals {
            registered: look.resources.0.into(),
            expired: look.resources.1,
        },
        memory: Memory {
            resident_bytes: resident_bytes(),
        },
        included: look.lists.answer(),
    };
    json(StatusCode::OK, &status)
}

fn budget(look: &Look) -> types::Budget {
    types::Budget {
        size: look.budget.size(),
        limit: look.budget.limit(),
        effective: look.budget.effective(),
        used: look.sessions.bound(),
        open: look.budget.open(),
        idle: look.connections.idle,
        connecting: look.connections.connecting,
        reserve: look.reserve,
        waiting: look.queue.waiting,
        oldest_wait_seconds: Seconds(look.queue.oldest),
        limited_by_database: look.budget.limited_by_database(),
    }
}

fn execution_counts(counts: &Counts) -> types::ExecutionCounts {
    let ended = Reason::ALL.map(|reason| (reason.as_str(), counts.ended[reason as usize]));
    types::ExecutionCounts {
        active: counts.active,
        ending: counts.ending,
        ended: ended.into_iter().collect(),
    }
}

fn session_counts(
    counts: &SessionCounts,
    refused: BTreeMap<&'static str, u64>,
    oldest: [Option<Oldest>; State::ALL.len()],
) -> types::SessionCounts {
    let by_state = State::ALL.map(|state| (state.as_str(), counts.of(state)));
    let words = State::ALL.map(State::as_str);
    let oldest = oldest.map(|oldest| oldest.map(types::OldestSession::from));
    let leaks = |leak: Leak| counts.leaks[leak as usize];
    types::SessionCounts {
        total: counts.by_state.iter().sum(),
        by_state: by_state.into_iter().collect(),
        opened: counts.opened,
        closed: counts.closed(),
        refused,
        panics: counts.panics,
        leak_suspects: counts.suspects(),
        leaks: types::Leaks {
            suspect: leaks(Leak::Suspect),
            recovered: leaks(Leak::Recovered),
            reclaimed: leaks(Leak::Reclaimed),
            ended: leaks(Leak::Ended),
        },
        oldest: words.into_iter().zip(oldest).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_every_state_is_counted_by_its_word() {
        let ended = execution_counts(&Counts::default()).ended;
        assert_eq!(ended.len(), Reason::ALL.len());
        let sessions = session_counts(
            &SessionCounts::default(),
            BTreeMap::new(),
            [const { None }; State::ALL.len()],
        );
        assert_eq!(sessions.oldest.len(), State::ALL.len());
        assert_eq!(sessions.by_state.len(), State::ALL.len());
    }
}
