//! `POST /v1/pause`, `/v1/resume` and `/v1/reconnect`: for who restarts or moves the database.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::execution::Executions;
use crate::pool::Paused;
use crate::session::{Snapshot, State};

use super::Control;
use super::query::Query;
use super::router::{Answer, Asked, json};
use super::sessions;
use super::types::{self, Reconnected, Resumed, Seconds};

/// How long the running transactions are waited for, unless something else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How many of the sessions are named that still run.
const NAMED: usize = 100;

/// How far a pause has come.
struct Look {
    paused: Option<Paused>,
    /// Connections that work, or may.
    at_work: usize,
    held: usize,
    waiting: usize,
    running: Vec<Snapshot>,
}

impl Look {
    /// Every lent connection works but those of idle sessions: the query of a client that has left,
    /// and the cleaning of a connection, are work as well. So is a dial.
    fn at(executions: &Executions) -> Self {
        let totals = executions.lender().totals();
        let idle = executions.sessions().counts().of(State::Idle);
        Self {
            paused: executions.lender().paused(),
            at_work: (totals.lent + totals.connecting).saturating_sub(idle),
            held: totals.lent,
            waiting: executions.lender().budget().1.waiting,
            running: Vec::new(),
        }
    }

    fn with_names(executions: &Executions) -> Self {
        let now = Instant::now();
        let runs = |state| matches!(state, State::Active | State::InTransaction | State::Closing);
        let sessions = executions.sessions().all();
        let running = sessions.iter().filter(|session| runs(session.state()));
        Self {
            running: running.take(NAMED).map(|one| one.snapshot(now)).collect(),
            ..Self::at(executions)
        }
    }

    fn is_over(&self) -> bool {
        self.at_work == 0 || self.paused.is_none()
    }
}

/// Pauses, and waits until no transaction runs any more, for a while.
pub(super) async fn pause(control: &Control, asked: &Asked) -> Answer {
    let query = Query::parse(asked.query.as_deref(), &["timeout", "for"])?;
    let time = query.duration("for")?;
    let patience = query.duration("timeout")?.unwrap_or(PATIENCE);
    let begun = Instant::now();
    let paused = control.remote.ask(move |executions| {
        executions.lender().pause(time);
        Look::at(executions)
    });
    let mut look = paused.await?;
    while !look.is_over() && begun.elapsed() < patience {
        tokio::time::sleep(LOOK).await;
        look = control
            .remote
            .ask(|executions| Look::at(executions))
            .await?;
    }
    if !look.is_over() {
        let named = control
            .remote
            .ask(|executions| Look::with_names(executions));
        look = named.await?;
    }
    let answer = types::Pause {
        paused: look.paused.is_some(),
        complete: look.paused.is_some() && look.at_work == 0,
        paused_seconds: look.paused.map(|paused| Seconds(paused.age)),
        resumes_in_seconds: look.paused.and_then(|paused| paused.left).map(Seconds),
        held: look.held,
        at_work: look.at_work,
        waiting: look.waiting,
        running: look.running.iter().map(sessions::session).collect(),
    };
    json(StatusCode::OK, &answer)
}

/// Goes on.
pub(super) async fn resume(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let resumed = control
        .remote
        .ask(|executions| executions.lender().resume());
    let answer = Resumed {
        paused: false,
        was_paused: resumed.await?,
    };
    json(StatusCode::OK, &answer)
}

/// Replaces every server connection.
pub(super) async fn reconnect(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let replaced = control
        .remote
        .ask(|executions| executions.lender().reconnect());
    let replaced = replaced.await?;
    let answer = Reconnected {
        closed: replaced.closed,
        lent: replaced.lent,
    };
    json(StatusCode::OK, &answer)
}
