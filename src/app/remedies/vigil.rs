//! What `/livez/app` answers: asked by probes, told by who decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::{AppProbe, Restart, Running};
use crate::control::Control;
use crate::execution::{Executions, Gone, Remote};
use crate::pool::UpstreamNumber;
use crate::reactor::Snapshot;
use crate::session::{SessionId, State};
use crate::shutdown::Life;
use crate::telemetry::app_probe::Asked;
use crate::telemetry::probes::{App, OfApp};

use super::comeback::Comeback;
use super::liveness::{Liveness, Over, Sight};
use crate::app::common::Common;

/// How long a probe waits for a look at the data plane; without one it is told what was last known.
const PATIENCE: Duration = Duration::from_millis(300);

/// How often the app is asked while its restart is pending: no container is another one within that time.
const FOLLOWS: Duration = Duration::from_millis(500);

/// A wait that is no shortage, at the most.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// Who knows whether the app is to be restarted by its liveness probe. Looks at each probe as well as each second.
#[derive(Debug)]
pub(in crate::app) struct Vigil {
    remote: Remote,
    running: watch::Receiver<Arc<Running>>,
    life: Arc<Life>,
    /// Who knows how the databases are.
    control: Arc<Control>,
    /// Locked for as long as values are exchanged.
    known: Mutex<Known>,
    /// What the app's own probe answers while a restart is pending.
    own: Asked,
    /// When the last look began, none: there was none. Held while it is looked: one at once.
    looked: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    liveness: Liveness,
    /// How the last restart ended, until somebody has asked.
    ended: Option<Ended>,
}

/// How a restart by `liveness` has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Why it is not pending any more.
    pub(super) over: Over,
    /// How long it was.
    pub(super) after: Duration,
}

/// A restart by `liveness` that is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waits {
    /// When it was decided.
    pub(super) since: Instant,
    /// How many of the sessions that were open then are still.
    pub(super) sessions: usize,
}

impl Vigil {
    /// Nothing is pending.
    pub(in crate::app) fn new(common: &Common, control: &Arc<Control>) -> Arc<Self> {
        Arc::new(Self {
            remote: common.remote.clone(),
            running: common.running.clone(),
            life: Arc::clone(&common.life),
            control: Arc::clone(control),
            known: Mutex::default(),
            own: Asked::default(),
            looked: tokio::sync::Mutex::default(),
        })
    }

    /// From now on the app is to be restarted, on account of the sessions that are open at this moment. Answers
    /// these. Cancel safe: it is decided or not.
    ///
    /// # Errors
    /// The data plane has ended.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<BTreeSet<SessionId>, Gone> {
        let open = self.remote.ask(|executions| open(executions)).await?;
        let now = Instant::now();
        self.known.lock().liveness = Liveness::decided(open.clone(), now);
        tokio::spawn(Arc::clone(self).follow(now));
        Ok(open)
    }

    /// What is pending now.
    pub(super) fn waits(&self) -> Option<Waits> {
        let known = self.known.lock();
        let pending = known.liveness.pending(Instant::now())?;
        Some(Waits {
            since: pending.since,
            sessions: pending.open.len(),
        })
    }

    /// How it ended, once.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.known.lock().ended.take()
    }

    /// Looks, where something is pending; a look that began since is as good, so that many probes at once are two
    /// looks at the most. Cancel safe.
    pub(super) async fn look(&self) {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|began| began > asked) {
            return;
        }
        let began = Instant::now();
        self.look_anew().await;
        *looked = Some(began);
    }

    async fn look_anew(&self) {
        if self.known.lock().liveness == Liveness::Well {
            return;
        }
        let config = Arc::clone(&self.running.borrow());
        let config = &config.loaded.config;
        let warning = config.exhaustion.warning.thousandths;
        let is_wanted =
            config.reactor.restart == Some(Restart::Liveness) && !config.reactor.dry_run;
        let silence = self.silence();
        let look = self.remote.ask(move |executions| {
            let snapshot = Snapshot::of(executions, &silence, Instant::now());
            (
                open(executions),
                is_calm(&snapshot, warning),
                snapshot.database_unreachable,
            )
        });
        // Where it has ended, there is nobody to be restarted for.
        let Ok((open, is_calm, is_away)) = look.await else {
            return;
        };
        self.saw(Sight {
            open,
            is_calm,
            came_back: None,
            is_unwanted: is_away || !is_wanted || self.life.is_draining(),
        });
    }

    /// Of each database, whether it is silent.
    pub(super) fn silence(&self) -> BTreeMap<UpstreamNumber, bool> {
        self.control.silence()
    }

    /// Follows the app's own probe, where it has one, for as long as the restart of then is pending: an app that was
    /// away and is there again was restarted, whoever else holds sessions. It ends some time after that.
    async fn follow(self: Arc<Self>, since: Instant) {
        let mut comeback = Comeback::default();
        let mut gone = None;
        while self.waits().is_some_and(|waits| waits.since == since) {
            let Some(probe) = self.own_probe() else {
                return;
            };
            let told = self.own.ask(&probe).await;
            comeback = comeback.after(told.as_ref().map_err(|sick| &**sick));
            match comeback {
                Comeback::Away => gone = gone.or_else(|| Some(Instant::now())),
                Comeback::Back => return self.saw_come_back(gone),
                Comeback::Unseen | Comeback::There => {}
            }
            tokio::time::sleep(FOLLOWS).await;
        }
    }

    fn own_probe(&self) -> Option<AppProbe> {
        let running = self.running.borrow();
        running.loaded.config.reactor.app_probe.clone()
    }

    /// It was gone at this time. Of what is open, no more is known than before.
    fn saw_come_back(&self, gone: Option<Instant>) {
        let open = match &self.known.lock().liveness {
            Liveness::Failing(pending) => pending.open.clone(),
            Liveness::Well => return,
        };
        self.saw(Sight {
            open,
            came_back: gone,
            ..Sight::default()
        });
    }

    fn saw(&self, sight: Sight) {
        let now = Instant::now();
        let mut known = self.known.lock();
        let since = match &known.liveness {
            Liveness::Failing(pending) => pending.since,
            Liveness::Well => return,
        };
        let (liveness, over) = std::mem::take(&mut known.liveness).after(&sight, now);
        known.liveness = liveness;
        if let Some(over) = over {
            let after = now.saturating_duration_since(since);
            known.ended = Some(Ended { over, after });
        }
    }

    /// What a probe is told.
    async fn of_app(&self) -> App {
        // In time or not: what was last known is true as well.
        let _ = tokio::time::timeout(PATIENCE, self.look()).await;
        match self.waits() {
            Some(waits) if !self.life.is_draining() => App::ToBeRestarted(format!(
                "the app is to be restarted: it holds server connections that others wait for; \
                 sessions of before that are left: {}",
                waits.sessions
            )),
            _ => App::Well(self.own_probe()),
        }
    }

    /// The same for [`Probes`](crate::telemetry::probes::Probes).
    pub(in crate::app) fn probed(self: &Arc<Self>) -> OfApp {
        let vigil = Arc::clone(self);
        Box::new(move || {
            let vigil = Arc::clone(&vigil);
            Box::pin(async move { vigil.of_app().await })
        })
    }
}

/// The sessions that are open. Who is on its way out is gone, for its client is.
pub(super) fn open(executions: &Executions) -> BTreeSet<SessionId> {
    let sessions = executions.sessions().all().into_iter();
    sessions
        .filter(|session| session.state() != State::Closing)
        .map(|session| session.id())
        .collect()
}

/// Whether nobody waits long, and there is room: one look is enough, as a restart is no small thing.
fn is_calm(snapshot: &Snapshot, warning: u32) -> bool {
    let (used, limit) = (snapshot.used as u128, snapshot.limit as u128);
    let has_room = used * 1000 <= limit * u128::from(warning);
    has_room && snapshot.oldest_wait.max(snapshot.oldest_of_all) <= SHORT_WAIT
}
