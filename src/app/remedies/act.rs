//! Carries out what was decided.
//!
//! What takes its time runs beside the looks, one of a kind at once, as [`decide`](crate::reactor::decide()) has it; what
//! became of it is told to them over a channel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::config::{Restart, Running};
use crate::execution::Remote;
use crate::execution::cleanup::Scope;
use crate::execution::tidying::{Cleaned, Order, Origin};
use crate::metrics::words::{Action as Counted, Outcome};
use crate::reactor::{
    Circumstances, Guard, Heard, Limits, Notice, Report, Restarts, Rung, Snapshot,
};
use crate::session::SessionId;
use crate::shutdown::Life;

use super::cluster::{Cluster, Denied};
use super::memory::Memory;
use super::tell::{self, Restarting};
use super::vigil::{Vigil, open};
use crate::app::exit::Leave;

/// How long an exit waits for its Event to be posted, where the API takes its time or is away.
const TO_POST: Duration = Duration::from_secs(1);

/// How many sessions are named at most.
const NAMED: usize = 20;

/// What carries out what was decided.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) remote: Remote,
    pub(super) vigil: Arc<Vigil>,
    pub(super) memory: Memory,
    pub(super) cluster: Cluster,
    pub(super) leave: Leave,
    pub(super) life: Arc<Life>,
    /// Whom it is told what became of it.
    pub(super) told: mpsc::Sender<Told>,
}

/// What became of something that was decided.
#[derive(Debug)]
pub(super) enum Told {
    /// For the history.
    Heard(Heard),
    /// A cleanup has ended this, or would have.
    Cleaned(Box<Cleaned>, bool),
    /// A restart came to nothing, and why.
    Failed(Restart, String),
    /// What forbids a restart says more than its guard.
    More(Guard, String),
    /// There were these restarts, too.
    Remembers(Restarts),
}

/// A restart that is to be carried out.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) mode: Restart,
    pub(super) dry_run: bool,
    pub(super) snapshot: Snapshot,
    pub(super) report: Report,
    /// The restarts up to now, without this one.
    pub(super) restarts: Restarts,
    /// The time of day.
    pub(super) time: SystemTime,
    /// What the stamp of the pod's owner is held against.
    pub(super) limits: Limits,
}

impl Hands {
    /// An emergency cleanup, in the background.
    pub(super) fn clean_up(self: &Arc<Self>, dry_run: bool) {
        let hands = Arc::clone(self);
        tokio::spawn(async move {
            let order = Order {
                dry_run,
                scope: Scope::All,
                origin: Origin::Reactor,
            };
            let cleaned = hands.remote.ask(|executions| executions.clean_up(order));
            // Untold only where the data plane ends, and then nobody looks any more.
            if let Ok(cleaned) = cleaned.await
                && let Ok(cleaned) = cleaned.await
            {
                hands.say(Told::Cleaned(Box::new(cleaned), dry_run)).await;
            }
            hands.say(Told::Heard(Heard::CleanedUp)).await;
        });
    }

    /// A restart, in the background.
    pub(super) fn restart(self: &Arc<Self>, wanted: Wanted) {
        let hands = Arc::clone(self);
        tokio::spawn(async move {
            let mode = wanted.mode;
            let told = match (wanted.dry_run, mode) {
                (true, _) => hands.rehearse(&wanted).await,
                (false, Restart::Liveness) => hands.by_liveness(&wanted).await,
                (false, Restart::ExitCode) => hands.by_exit_code(&wanted).await,
                (false, Restart::Evict | Restart::Rollout) => hands.by_api(&wanted).await,
            };
            let heard = match told {
                Ok(heard) => heard,
                Err(Denied::By(guard, more)) => {
                    if let Some(more) = more {
                        hands.say(Told::More(guard, more)).await;
                    }
                    Heard::RestartRefused(guard)
                }
                Err(Denied::Failed(why)) => {
                    hands.counts(Counted::Restart, Outcome::Error);
                    hands.say(Told::Failed(mode, why)).await;
                    Heard::RestartFailed
                }
            };
            hands.say(Told::Heard(heard)).await;
        });
    }

    /// Says what would be done, as exactly as it is known.
    async fn rehearse(&self, wanted: &Wanted) -> Result<Heard, Denied> {
        let open = self.open().await?;
        let what = match wanted.mode {
            Restart::Liveness => {
                format!(
                    "would have /livez/app answer 503 until {} is gone",
                    named(&open)
                )
            }
            Restart::ExitCode => format!(
                "would end with exit code 88, upon which the app is restarted as well, and cut off {}",
                named(&open)
            ),
            Restart::Evict => format!("would evict the pod {}", self.cluster.pod()?),
            Restart::Rollout => {
                format!(
                    "would roll out anew the owner of the pod {}",
                    self.cluster.pod()?
                )
            }
        };
        self.tell(wanted, what, open.len());
        self.counts(Counted::Restart, Outcome::DryRun);
        Ok(Heard::WouldRestart)
    }

    async fn by_liveness(&self, wanted: &Wanted) -> Result<Heard, Denied> {
        self.remembers(wanted)?;
        let open = self.vigil.begin().await.map_err(failed)?;
        let what = format!("/livez/app answers 503 until {} is gone", named(&open));
        self.tell(wanted, what, open.len());
        self.counts(Counted::Restart, Outcome::Ok);
        Ok(Heard::Restarted(wanted.time))
    }

    async fn by_exit_code(&self, wanted: &Wanted) -> Result<Heard, Denied> {
        self.cluster.restart(wanted.mode, wanted.limits).await?;
        let open = self.open().await?;
        self.is_still_due().await?;
        self.remembers(wanted)?;
        let what = format!(
            "it ends with exit code 88, upon which the app is restarted as well, and cuts off {}",
            named(&open)
        );
        self.tell(wanted, what, open.len());
        self.counts(Counted::Restart, Outcome::Ok);
        // The process after this one knows nothing of it.
        let _ = tokio::time::timeout(TO_POST, self.cluster.posted()).await;
        self.leave.decide();
        Ok(Heard::Restarted(wanted.time))
    }

    /// The pod goes with its directory, so that it is remembered elsewhere: by its owner, or by the age of the
    /// one that takes its place.
    async fn by_api(&self, wanted: &Wanted) -> Result<Heard, Denied> {
        let pod = self.cluster.pod()?;
        let open = self.open().await?;
        self.cluster.restart(wanted.mode, wanted.limits).await?;
        let what = match wanted.mode {
            Restart::Rollout => format!("the owner of the pod {pod} is rolled out anew"),
            _ => format!("the pod {pod} is evicted"),
        };
        self.tell(wanted, what, open.len());
        self.counts(Counted::Restart, Outcome::Ok);
        // The pod is on its way out by now: nobody else restarts it.
        let _ = self.remembers(wanted);
        Ok(Heard::Restarted(wanted.time))
    }

    async fn open(&self) -> Result<BTreeSet<SessionId>, Denied> {
        let open = self.remote.ask(|executions| open(executions));
        open.await.map_err(failed)
    }

    /// The API may have taken ten seconds for its answer, in which all may have become well.
    async fn is_still_due(&self) -> Result<(), Denied> {
        let draining = self.life.is_draining();
        let silence = self.vigil.silence();
        let look = self.remote.ask(move |executions| {
            let snapshot = Snapshot::of(executions, &silence, Instant::now());
            snapshot.under(Circumstances {
                draining,
                ..Circumstances::default()
            })
        });
        match look.await.map_err(failed)?.forbids_late() {
            Some(guard) => Err(Denied::By(guard, None)),
            None => Ok(()),
        }
    }

    /// Writes down that there is a restart: one that nobody would remember could come again at once.
    fn remembers(&self, wanted: &Wanted) -> Result<(), Denied> {
        let mut restarts = wanted.restarts.clone();
        restarts.add(wanted.time);
        let written = self.memory.write(&restarts);
        written.map_err(|why| Denied::Failed(format!("nobody would remember it: {why}")))
    }

    fn tell(&self, wanted: &Wanted, what: String, sessions: usize) {
        let in_last_hour = wanted.restarts.in_last_hour(wanted.time).saturating_add(1);
        let count = (in_last_hour, wanted.limits.per_hour);
        let notice = Notice::of_restart(wanted.mode, &what, count, &wanted.report);
        let restart = Restarting {
            mode: wanted.mode.as_str(),
            dry_run: wanted.dry_run,
            what,
            sessions,
            in_last_hour,
        };
        tell::restart(&restart, &wanted.snapshot, self.remote.events());
        self.announce(&notice, wanted.dry_run);
    }

    /// Posts an Event; in a dry run it is told which.
    pub(super) fn announce(&self, notice: &Notice, dry_run: bool) {
        if !dry_run {
            self.cluster.announce(notice);
        } else if self.cluster.is_on() {
            tell::would_announce(notice);
            self.counts(Counted::Event, Outcome::DryRun);
        }
    }

    /// Learns what Kubernetes' API remembers, as soon as it may be asked and answers: in the background.
    pub(super) fn remember(self: &Arc<Self>, mut running: watch::Receiver<Arc<Running>>) {
        if !self.cluster.is_on() {
            return;
        }
        let hands = Arc::clone(self);
        tokio::spawn(async move {
            let may_ask = |running: &Arc<Running>| !running.loaded.config.reactor.dry_run;
            // Nobody configures any more where the process ends.
            let may_ask = running.wait_for(may_ask).await.is_ok();
            if may_ask && let Some(restarts) = hands.cluster.remembered().await {
                hands.say(Told::Remembers(restarts)).await;
            }
        });
    }

    /// Counts what became of an action.
    pub(super) fn counts(&self, action: Counted, outcome: Outcome) {
        self.remote.counters().acted(action, outcome);
    }

    async fn say(&self, told: Told) {
        // Who looks may have ended, with the data plane.
        let _ = self.told.send(told).await;
    }
}

fn failed(error: impl std::fmt::Display) -> Denied {
    Denied::Failed(error.to_string())
}

/// What an action of this rung is counted as.
pub(super) fn counted(rung: Rung) -> Counted {
    match rung {
        Rung::CleanUp => Counted::Cleanup,
        Rung::Restart => Counted::Restart,
    }
}

/// `all of the sessions 3, 7`: each by its number, up to a bound.
fn named(sessions: &BTreeSet<SessionId>) -> String {
    let all: Vec<String> = sessions
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    match (all.len(), sessions.len() - all.len()) {
        (0, _) => "nobody".to_owned(),
        (1, _) => format!("session {}", all[0]),
        (_, 0) => format!("each of the sessions {}", all.join(", ")),
        (_, more) => format!("each of the sessions {} and {more} more", all.join(", ")),
    }
}
