//! Carrying out an emergency cleanup: rung by rung, with a look after each at who still waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::events::{Event, Seconds, Text};
use crate::metrics::Close;
use crate::protocol::message::{Report, Severity, SqlState, seconds};
use crate::session::{Ending, Grace, SessionId, Snapshot};

use super::cleanup::{Holder, Plan, Policy, Scene, Scope, Why, decide};
use super::dismissal::{Departure, PATIENCE};
use super::{Executions, Leftover};

/// How long room that is being made is waited for before more is made.
const SETTLING: Duration = Duration::from_secs(1);

/// How often it is looked whether there is.
const LOOK: Duration = Duration::from_millis(10);

/// What a cleanup is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whether it only tells what it would do.
    pub dry_run: bool,
    /// Whom it is about.
    pub scope: Scope,
    /// Who wants it.
    pub origin: Origin,
}

/// Who wants a cleanup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Somebody has asked for it: it is told, whatever comes of it.
    Asked,
    /// The reactor, which tells itself what came of it.
    Reactor,
}

/// What a cleanup has closed, or would.
#[derive(Debug, Clone)]
pub enum Closed {
    /// What an ended execution has left behind.
    Leftover(Leftover),
    /// A session, as it was, and why.
    Session(Box<Snapshot>, Why),
}

/// What a cleanup has done, or would do.
#[derive(Debug, Clone, Default)]
pub struct Cleaned {
    /// What was closed, in this order.
    pub closed: Vec<Closed>,
    /// How many waited for the budget when it began.
    pub waited: usize,
    /// How many wait for it now; would, without anything of its own being done.
    pub waiting: usize,
    /// How many suspects of no named execution were spared.
    pub spared: usize,
    /// Sessions that were told to end and have not gone in time.
    pub remaining: Vec<SessionId>,
}

impl Cleaned {
    /// How many of what was closed are sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        let is_session = |closed: &&Closed| matches!(closed, Closed::Session(..));
        self.closed.iter().filter(is_session).count()
    }
}

impl Executions {
    /// What a cleanup may end from now on.
    pub fn set_cleanup(&self, policy: Policy) {
        self.inner.lock().cleanup = policy;
    }

    /// An emergency cleanup: sessions are ended, executions live on. One runs at a time. Answers
    /// when it is done, after some 5 s at most.
    pub fn clean_up(self: &Arc<Self>, order: Order) -> oneshot::Receiver<Cleaned> {
        let (tell, told) = oneshot::channel();
        let executions = Arc::clone(self);
        self.runtime.spawn(async move {
            let _turn = executions.cleanups.lock().await;
            let cleaned = match order.dry_run {
                true => executions.rehearsed(&order.scope),
                false => executions.cleaned(&order.scope).await,
            };
            if order.origin == Origin::Asked {
                executions.events().tell(log(&cleaned, &order));
            }
            // Whoever asked may have gone: it is done all the same.
            let _ = tell.send(cleaned);
        });
        told
    }

    /// What would be done; changes nothing.
    fn rehearsed(&self, scope: &Scope) -> Cleaned {
        let leftovers = self.leftovers_of(scope);
        let (scene, plan) = self.look(scope, &leftovers, &BTreeSet::new());
        let leftovers = leftovers.into_iter().map(Closed::Leftover);
        let sessions = plan.sessions.iter();
        let sessions = sessions.filter_map(|(id, why)| self.closing(*id, *why));
        Cleaned {
            closed: leftovers.chain(sessions).collect(),
            waited: scene.waiting,
            waiting: scene.waiting.saturating_sub(plan.frees()),
            spared: plan.spared,
            remaining: Vec::new(),
        }
    }

    async fn cleaned(self: &Arc<Self>, scope: &Scope) -> Cleaned {
        let begun = Instant::now();
        let mut done = BTreeSet::new();
        let (scene, mut plan) = self.look(scope, &self.leftovers_of(scope), &done);
        let mut cleaned = Cleaned {
            waited: scene.waiting,
            ..Cleaned::default()
        };
        if plan.leftovers > 0 {
            let leftovers = self.end_leftovers(scope).into_iter();
            cleaned.closed.extend(leftovers.map(Closed::Leftover));
            self.settle().await;
            // Where their room has not come, it is not waited for.
            plan = self.look(scope, &[], &done).1;
        }
        while !plan.sessions.is_empty() && begun.elapsed() < PATIENCE {
            let rung = plan.first_rung();
            done.extend(rung.iter().map(|(id, _)| *id));
            let departures = self.reclaim(rung, scene.waiting, &mut cleaned);
            let patience = PATIENCE.saturating_sub(begun.elapsed());
            cleaned
                .remaining
                .extend(self.see_off(departures, patience).await);
            self.settle().await;
            plan = self.look(scope, &[], &done).1;
        }
        cleaned.spared = plan.spared;
        cleaned.waiting = self.lender.starving();
        cleaned
    }

    /// What there is to decide about, and what is decided, in one turn; who was told to end already is
    /// left out.
    fn look(
        &self,
        scope: &Scope,
        leftovers: &[Leftover],
        done: &BTreeSet<SessionId>,
    ) -> (Scene, Plan) {
        let now = Instant::now();
        let sessions = self.sessions().all();
        let holders = sessions.iter().filter_map(|session| {
            let (state, idle_for, is_suspect) = session.idleness(now)?;
            let identity = session.identity();
            Some(Holder {
                session: session.id(),
                execution: identity.execution.clone(),
                is_named: identity.execution.is_named(),
                state,
                idle_for,
                is_suspect,
            })
        });
        let executions = leftovers.iter().map(|leftover| leftover.execution.clone());
        let scene = Scene {
            leftovers: executions.collect(),
            holders: holders.filter(|one| !done.contains(&one.session)).collect(),
            waiting: self.lender.starving(),
        };
        let policy = self.inner.lock().cleanup;
        let plan = decide(&scene, &policy, scope);
        (scene, plan)
    }

    fn closing(&self, id: SessionId, why: Why) -> Option<Closed> {
        let snapshot = self.sessions().get(id)?.snapshot(Instant::now());
        Some(Closed::Session(Box::new(snapshot), why))
    }

    /// Tells these sessions to end.
    fn reclaim(
        &self,
        rung: &[(SessionId, Why)],
        waiting: usize,
        cleaned: &mut Cleaned,
    ) -> Vec<Departure> {
        let mut departures = Vec::new();
        for (id, why) in rung {
            let Some(session) = self.sessions().get(*id) else {
                continue;
            };
            let snapshot = session.snapshot(Instant::now());
            departures.push(self.departure(&session));
            session.reclaim(ending(&snapshot, *why, waiting));
            self.events().tell(log_reclaimed(&snapshot, *why));
            let closed = Closed::Session(Box::new(snapshot), *why);
            cleaned.closed.push(closed);
        }
        departures
    }

    /// Waits, not for long, until what is being closed is closed: that is room as well.
    async fn settle(&self) {
        let begun = Instant::now();
        while self.lender.budget().0.closing() > 0 && begun.elapsed() < SETTLING {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What a session is told that is ended to make room.
fn ending(session: &Snapshot, why: Why, waiting: usize) -> Ending {
    let what = match why {
        Why::IdleInTransaction => "it was idle in transaction",
        Why::Leftover | Why::LeakSuspect | Why::UnnamedLeakSuspect => "it asked nothing",
    };
    let execution = &session.identity.execution;
    let time = seconds(session.idle_for.unwrap_or_default());
    let waiting = match waiting {
        0 => String::new(),
        1 => ", and one checkout waited for the pod's budget".to_owned(),
        many => format!(", and {many} checkouts waited for the pod's budget"),
    };
    let idle = format!("{what} for {time}{waiting}");
    let message =
        format!("execpool: a session of execution {execution} was ended by a cleanup: {idle}");
    let hint =
        "Close connections, and end transactions, before waiting for anything but the database.";
    Ending {
        cause: Close::Cleanup,
        report: Report::new(Severity::Fatal, SqlState::ADMIN_SHUTDOWN, message).with_hint(hint),
        grace: Grace::none(),
    }
}

fn log_reclaimed(session: &Snapshot, why: Why) -> Event {
    let identity = &session.identity;
    let event = Event::SessionReclaimed {
        session_id: session.id.0,
        execution_id: Text::name(identity.execution.as_str()),
        upstream: Text::word(&identity.upstream),
        why: Text::word(why.as_str()),
        idle_for_seconds: session.idle_for.map(Seconds),
        server_pid: session.server_pid,
        caller: identity.caller.as_deref().map(Text::name),
        application_name: identity.application_name.as_deref().map(Text::word),
        unsaid: 0,
    };
    tracing::warn!(
        event = event.name(),
        session_id = session.id.0,
        execution_id = %identity.execution,
        upstream = &*identity.upstream,
        why = why.as_str(),
        idle_for_seconds = session.idle_for.map(|time| time.as_secs_f64()),
        server_pid = session.server_pid,
        caller = identity.caller.as_deref(),
        application_name = identity.application_name.as_deref(),
        "a session is ended to make room"
    );
    event
}

fn log(cleaned: &Cleaned, order: &Order) -> Event {
    let execution = match &order.scope {
        Scope::All => None,
        Scope::Execution(id) => Some(id.as_str()),
    };
    let event = Event::Cleanup {
        dry_run: order.dry_run,
        execution_id: execution.map(Text::name),
        closed: cleaned.closed.len() as u64,
        waited: cleaned.waited as u64,
        waiting: cleaned.waiting as u64,
        spared: cleaned.spared as u64,
        remaining: cleaned.remaining.len() as u64,
    };
    tracing::info!(
        event = event.name(),
        dry_run = order.dry_run,
        execution_id = execution,
        closed = cleaned.closed.len(),
        waited = cleaned.waited,
        waiting = cleaned.waiting,
        spared = cleaned.spared,
        remaining = cleaned.remaining.len(),
        "emergency cleanup"
    );
    event
}
