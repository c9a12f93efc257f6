//! Executions with what they have: sessions, pools, and how each is joined and left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use crate::events::{Event, Events, Text};
use crate::pool::{ExecutionNumber, Lender, PoolId, PoolLimits, UpstreamNumber};
use crate::protocol::startup::ExecutionId;
use crate::server::Backend;
use crate::session::{GraceGiver, Session, SessionId, Table, Totals};
use crate::story::{Recorder, What, Word};
use crate::telemetry::Traces;

use super::cancel::Cancellers;
use super::cleanup::Policy;
use super::maintenance::Leftover;
use super::membership::{Hold, Membership};
use super::rates::{Ever, PerSecond, Rates};
use super::resources::Resources;
use super::teardown::Ended;
use super::traced::Traced;
use super::{Conflict, Created, Kind, Reason, ReasonText, Refused, Registry, Rules};

/// An upstream, as executions need to know it.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its configured name.
    pub name: Arc<str>,
    /// The limits of a pool that has none of its own.
    pub limits: PoolLimits,
}

/// Ends backends of an upstream by force, in the background: what `pg_terminate_backend` does to
/// those of the process ids that are at least so old. Tells whether the server could be asked.
pub type Terminate =
    Box<dyn Fn(UpstreamNumber, Vec<Backend>, Duration) -> oneshot::Receiver<bool> + Send + Sync>;

/// What is asked for with a new execution.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its name; one is made up without.
    pub id: Option<ExecutionId>,
    /// Its deadline from now on; the default without.
    pub deadline: Option<Duration>,
    /// What the app wants to remember it by.
    pub labels: BTreeMap<String, String>,
    /// The limits of its pools; the upstream's without.
    pub limits: Option<PoolLimits>,
}

/// All executions and what they have. Belongs to the data plane's thread: whoever is elsewhere
/// asks by way of [`Remote`](super::Remote).
pub struct Executions {
    pub(super) inner: Mutex<Inner>,
    pub(super) lender: Arc<Lender>,
    pub(super) terminate: Terminate,
    pub(super) runtime: Handle,
    /// Told when time has something to do earlier than was known.
    pub(super) sooner: Notify,
    sessions: Arc<Table>,
    rates: Mutex<Rates>,
    pub(super) cancellers: Cancellers,
    /// Who makes spans; none: nobody.
    traces: Option<Traces>,
    /// Held by the cleanup that is under way.
    pub(super) cleanups: tokio::sync::Mutex<()>,
}

/// What is under the lock, which is never held across an await.
pub(super) struct Inner {
    pub(super) registry: Registry,
    pub(super) rooms: HashMap<ExecutionNumber, Room>,
    /// What apps have registered.
    pub(super) resources: Resources,
    /// By their numbers.
    pub(super) upstreams: Vec<Upstream>,
    /// How long running queries may go on at an end that says nothing about it.
    pub(super) grace: Duration,
    /// When whoever keeps the time looks again, as far as it knows.
    pub(super) looks_at: Option<Instant>,
    /// What the end of executions has left behind.
    pub(super) leftovers: Vec<Leftover>,
    /// What an emergency cleanup may end.
    pub(super) cleanup: Policy,
}

/// What one generation of an execution has.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) pools: BTreeSet<PoolId>,
    pub(super) sessions: BTreeMap<SessionId, Arc<Session>>,
    /// What sessions did that have left.
    pub(super) totals: Totals,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) limits: Option<PoolLimits>,
    /// What has happened.
    pub(super) recorder: Arc<Recorder>,
    /// Told when a session has left.
    pub(super) left: Arc<Notify>,
    /// How long running queries may go on at its end.
    pub(super) grace: GraceGiver,
    /// Told how it ended.
    pub(super) ended: watch::Sender<Option<Arc<Ended>>>,
    /// Its span.
    pub(super) traced: Traced,
}

impl Room {
    /// What its sessions have done, those that are still there included.
    pub(super) fn totals(&self, now: Instant) -> Totals {
        let mut totals = self.totals;
        for session in self.sessions.values() {
            totals += session.totals(now);
        }
        totals
    }
}

impl std::fmt::Debug for Executions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executions").finish_non_exhaustive()
    }
}

impl Executions {
    /// The standing execution alone. `grace` is how long running queries may go on when an
    /// execution ends, unless its end says otherwise; teardowns run on `runtime`.
    #[must_use]
    pub fn new(
        rules: Rules,
        grace: Duration,
        upstreams: Vec<Upstream>,
        lender: Arc<Lender>,
        sessions: Arc<Table>,
        terminate: Terminate,
        runtime: Handle,
    ) -> Arc<Self> {
        lender.name_upstreams(names(&upstreams));
        Arc::new(Self {
            inner: Mutex::new(Inner {
                registry: Registry::new(rules, Instant::now()),
                rooms: HashMap::new(),
                resources: Resources::default(),
                upstreams,
                grace,
                looks_at: None,
                leftovers: Vec::new(),
                cleanup: Policy::default(),
            }),
            lender,
            terminate,
            runtime,
            sooner: Notify::new(),
            sessions,
            rates: Mutex::default(),
            cancellers: Cancellers::default(),
            traces: None,
            cleanups: tokio::sync::Mutex::default(),
        })
    }

    /// Who lends server connections to them.
    #[must_use]
    pub fn lender(&self) -> &Arc<Lender> {
        &self.lender
    }

    /// Where events are told.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        self.lender.events()
    }

    /// With spans made of them. To be said before anybody else has them: later it comes to nothing.
    #[must_use]
    pub fn traced(mut self: Arc<Self>, traces: Option<Traces>) -> Arc<Self> {
        if let Some(executions) = Arc::get_mut(&mut self) {
            executions.traces = traces;
        }
        self
    }

    /// Who makes spans; none: nobody.
    #[must_use]
    pub fn traces(&self) -> Option<&Traces> {
        self.traces.as_ref()
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Table> {
        &self.sessions
    }

    /// Keeps how many sessions and executions there ever were, so that [`Executions::rates`] can
    /// tell how fast they come and go. To be called every second or so.
    pub fn sample(&self, now: Instant) {
        let ever = self.ever();
        self.rates.lock().sample(ever, now);
    }

    /// How fast sessions and executions came and went over the last minute.
    #[must_use]
    pub fn rates(&self, now: Instant) -> PerSecond {
        let ever = self.ever();
        self.rates.lock().per_second(ever, now)
    }

    fn ever(&self) -> Ever {
        let sessions = self.sessions.counts();
        let inner = self.inner.lock();
        let executions = inner.registry.counts();
        Ever {
            sessions_opened: sessions.opened,
            sessions_closed: sessions.closed(),
            executions_begun: executions.begun(),
            executions_ended: executions.over(),
        }
    }

    /// Other rules, and other limits of pools that have none of their own, from now on. Numbers must
    /// mean the upstreams that they meant. Deadlines that are set stay.
    pub fn reconfigure(&self, rules: Rules, grace: Duration, upstreams: Vec<Upstream>) {
        let mut inner = self.inner.lock();
        inner.registry.follow(rules);
        self.rescheduled(&mut inner);
        inner.grace = grace;
        self.lender.name_upstreams(names(&upstreams));
        let before = std::mem::replace(&mut inner.upstreams, upstreams);
        let inner = &*inner;
        for (number, room) in &inner.rooms {
            let run = inner.registry.get(*number);
            let run = run.filter(|run| run.is_active());
            // The standing execution has no limits but the budget's.
            if room.limits.is_some() || run.is_none_or(|run| run.kind == Kind::Shared) {
                continue;
            }
            for pool in &room.pools {
                let at = pool.upstream.0 as usize;
                let (was, is) = (before.get(at), inner.upstreams.get(at));
                let (was, is) = (was.map(|one| one.limits), is.map(|one| one.limits));
                if is.is_some() && was != is {
                    self.lender.admit(*pool, is);
                }
            }
        }
    }

    /// A new session joins the execution that it names, or what the rules say where it names
    /// none.
    ///
    /// # Errors
    /// The execution has ended, or the rules demand a name.
    pub fn join(self: &Arc<Self>, id: Option<&ExecutionId>) -> Result<Membership, Refused> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let number = match id {
            Some(id) => inner.registry.join(id, now),
            None => inner.registry.join_untagged(now),
        }?;
        inner.room(number);
        self.rescheduled(&mut inner);
        let run = inner.registry.get(number);
        let began = run
            .filter(|run| run.kind == Kind::Implicit && run.joined == 1)
            .map(|run| run.began(now));
        // It was joined this moment.
        let (id, kind) = run.map_or((ExecutionId::shared(), Kind::Shared), |run| {
            (run.id.clone(), run.kind)
        });
        drop(inner);
        self.tell_began(began);
        Ok(Membership::new(Arc::clone(self), number, id, kind))
    }

    /// Begins an explicit execution, or makes the implicit one of that name explicit.
    ///
    /// # Errors
    /// One of that name is active and is not implicit.
    pub fn create(&self, request: Request) -> Result<Created, Conflict> {
        let mut inner = self.inner.lock();
        let id = request.id.unwrap_or_else(made_up);
        let now = Instant::now();
        let created = inner.registry.create(id, request.deadline, now)?;
        let (Created::New(number) | Created::Adopted(number)) = created;
        self.rescheduled(&mut inner);
        let room = inner.room(number);
        room.labels.extend(request.labels);
        if request.limits.is_some() {
            room.limits = request.limits;
            for pool in &room.pools {
                self.lender.admit(*pool, request.limits);
            }
        }
        if let Created::Adopted(_) = created {
            inner.tell_adopted(number, now);
        }
        let run = inner.registry.get(number);
        let began = run.map(|run| match created {
            Created::New(_) => run.began(now),
            Created::Adopted(_) => run.adopted(now),
        });
        drop(inner);
        self.tell_began(began);
        Ok(created)
    }

    /// Tells that an execution has begun, or is explicit now.
    fn tell_began(&self, began: Option<Event>) {
        let Some(event) = began else {
            return;
        };
        tracing::debug!(
            event = event.name(),
            execution_id = event.execution().map(Text::as_str),
            "execution began"
        );
        self.events().tell(event);
    }

    /// Holds an active execution: it ends soon after the last hold is dropped.
    pub fn hold(self: &Arc<Self>, id: &ExecutionId) -> Option<Hold> {
        let mut inner = self.inner.lock();
        let number = inner.registry.find(id)?;
        let held = inner.registry.hold_opened(number);
        let told = inner.room(number).ended.subscribe();
        if held {
            inner.tell_holds(number, true, Instant::now());
        }
        held.then(|| Hold::new(Arc::clone(self), number, told))
    }

    /// Ends an execution: see [`teardown`](super::teardown). Answers where its end will be told,
    /// also of one that is ending already, whose grace may get shorter by this; none if there is
    /// none of that name.
    pub fn end(
        self: &Arc<Self>,
        id: &ExecutionId,
        reason: Reason,
        text: Option<ReasonText>,
        grace: Option<Duration>,
    ) -> Option<watch::Receiver<Option<Arc<Ended>>>> {
        let number = {
            let inner = self.inner.lock();
            inner
                .registry
                .find(id)
                .or_else(|| inner.registry.ending(id))
        }?;
        self.end_number(number, reason, text, grace)
    }

    /// Ends all that are active, as execpool itself ends. Answers where each end will be told.
    pub fn end_all(self: &Arc<Self>, grace: Duration) -> Vec<watch::Receiver<Option<Arc<Ended>>>> {
        let numbers: Vec<ExecutionNumber> = {
            let inner = self.inner.lock();
            inner.registry.runs().map(|(number, _)| number).collect()
        };
        let ends = numbers.into_iter();
        ends.filter_map(|number| self.end_number(number, Reason::Shutdown, None, Some(grace)))
            .collect()
    }

    pub(super) fn end_number(
        self: &Arc<Self>,
        number: ExecutionNumber,
        reason: Reason,
        text: Option<ReasonText>,
        grace: Option<Duration>,
    ) -> Option<watch::Receiver<Option<Arc<Ended>>>> {
        let (told, begun, grace) = {
            let mut inner = self.inner.lock();
            let grace = grace.unwrap_or(inner.grace);
            let told = inner.room(number).ended.subscribe();
            let now = Instant::now();
            let begun = inner.registry.end(number, reason, text, now);
            if !begun && inner.registry.get(number).is_none() {
                inner.rooms.remove(&number);
                return None;
            }
            if !begun && let Some(room) = inner.rooms.get(&number) {
                // One that has begun may be hurried.
                room.grace.give(grace);
            }
            if begun {
                let reason = Word::of(reason.as_str());
                inner.tell(number, What::Ending { reason }, now);
            }
            (told, begun, grace)
        };
        if begun {
            self.tear_down(number, reason, grace);
        }
        Some(told)
    }

    /// The pool of a generation for an upstream, opened when it is first asked for. One of a
    /// generation that is ending stays shut.
    pub(super) fn pool(
        &self,
        number: ExecutionNumber,
        kind: Kind,
        upstream: UpstreamNumber,
    ) -> PoolId {
        let pool = PoolId {
            execution: number,
            upstream,
        };
        let mut inner = self.inner.lock();
        let usual = inner.upstreams.get(upstream.0 as usize);
        let usual = usual.map(|upstream| upstream.limits);
        let active = inner
            .registry
            .get(number)
            .is_some_and(super::Run::is_active);
        if let Some(room) = inner.rooms.get_mut(&number)
            && active
            && room.pools.insert(pool)
        {
            let limits = match kind {
                Kind::Shared => None,
                Kind::Explicit | Kind::Implicit | Kind::Session => room.limits.or(usual),
            };
            self.lender.admit(pool, limits);
        }
        pool
    }

    /// A member has left: with a session, what that has done is kept.
    pub(super) fn left(self: &Arc<Self>, number: ExecutionNumber, session: Option<&Arc<Session>>) {
        let now = Instant::now();
        let ended = {
            let mut inner = self.inner.lock();
            if let (Some(room), Some(session)) = (inner.rooms.get_mut(&number), session) {
                room.sessions.remove(&session.id());
                room.totals += session.totals(now);
                room.left.notify_waiters();
                session.tell_left(now);
            }
            let ended = inner.registry.left(number, now);
            if let Some(reason) = ended {
                let reason = Word::of(reason.as_str());
                inner.tell(number, What::Ending { reason }, now);
            }
            self.rescheduled(&mut inner);
            ended
        };
        if let Some(reason) = ended {
            self.tear_down(number, reason, Duration::ZERO);
        }
    }
}

/// The names of upstreams, by their numbers.
fn names(upstreams: &[Upstream]) -> Vec<Arc<str>> {
    let names = upstreams.iter().map(|upstream| Arc::clone(&upstream.name));
    names.collect()
}

/// A name that nobody else has.
fn made_up() -> ExecutionId {
    let mut number = [0; 16];
    // Without the system's random numbers there is no cancel key either; a name may repeat then,
    // which `create` refuses.
    let _ = getrandom::fill(&mut number);
    ExecutionId::numbered(u128::from_ne_bytes(number))
}
