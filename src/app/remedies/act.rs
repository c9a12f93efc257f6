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
    Circumstances, Guard, Heard, Limits, Moment, Notice, Report, Restarts, Rung, Snapshot,
};
use crate::session::SessionId;
use crate::shutdown::Life;

use super::clock;
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
    pub(super) running: watch::Receiver<Arc<Running>>,
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
    /// A restart was refused when it was tried.
    Refused(Box<Objection>),
    /// There were these restarts, too.
    Remembers(Restarts),
}

/// What was found against a restart when it was tried.
#[derive(Debug, Clone)]
pub(super) struct Objection {
    pub(super) guard: Guard,
    /// More than the guard says, where there is more.
    pub(super) more: Option<String>,
    /// How it stood then.
    pub(super) report: Report,
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
    /// The time of day at which it was decided, which may be set until it is carried out.
    pub(super) decided: Moment,
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
                    let report = wanted.report;
                    return hands.refused(guard, more, report).await;
                }
                Err(Denied::Late(guard, snapshot)) => {
                    let report = wanted.report.as_of(&snapshot);
                    return hands.refused(guard, None, report).await;
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

    /// Each try counts, though it is told once.
    async fn refused(&self, guard: Guard, more: Option<String>, report: Report) {
        self.counts(Counted::Restart, Outcome::Refused);
        let objection = Objection {
            guard,
            more,
            report,
        };
        self.say(Told::Refused(Box::new(objection))).await;
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
        let time = self.remembers(wanted)?;
        let open = self.vigil.begin().await.map_err(failed)?;
        let what = format!("/livez/app answers 503 until {} is gone", named(&open));
        self.tell(wanted, what, open.len());
        self.counts(Counted::Restart, Outcome::Ok);
        Ok(Heard::Restarted(time))
    }

    async fn by_exit_code(&self, wanted: &Wanted) -> Result<Heard, Denied> {
        let is_due = || self.is_still_due(wanted);
        self.cluster
            .restart(wanted.mode, wanted.limits, is_due)
            .await?;
        let open = self.open().await?;
        is_due().await?;
        let time = self.remembers(wanted)?;
        let what = format!(
            "it ends with exit code 88, upon which the app is restarted as well, and cuts off {}",
            named(&open)
        );
        self.tell(wanted, what, open.len());
        self.counts(Counted::Restart, Outcome::Ok);
        // The process after this one knows nothing of it.
        let _ = tokio::time::timeout(TO_POST, self.cluster.posted()).await;
        self.leave.decide();
        Ok(Heard::Restarted(time))
    }

    /// The pod goes with its directory, so that it is remembered elsewhere: by its owner, or by the age of the
    /// one that takes its place.
    async fn by_api(&self, wanted: &Wanted) -> Result<Heard, Denied> {
        let pod = self.cluster.pod()?;
        let open = self.open().await?;
        self.cluster
            .restart(wanted.mode, wanted.limits, || self.is_still_due(wanted))
            .await?;
        let what = match wanted.mode {
            Restart::Rollout => format!("the owner of the pod {pod} is rolled out anew"),
            _ => format!("the pod {pod} is evicted"),
        };
        self.tell(wanted, what, open.len());
        self.counts(Counted::Restart, Outcome::Ok);
        // The pod is on its way out by now: nobody else restarts it.
        let (restarts, time) = as_of(&wanted.restarts, &wanted.decided, &clock::moment());
        let _ = self.memory.write(&restarts);
        Ok(Heard::Restarted(time))
    }

    async fn open(&self) -> Result<BTreeSet<SessionId>, Denied> {
        let open = self.remote.ask(|executions| open(executions));
        open.await.map_err(failed)
    }

    /// The API may have taken ten seconds for each answer, in which all may have become well, or the configuration
    /// another one.
    async fn is_still_due(&self, wanted: &Wanted) -> Result<(), Denied> {
        let is_wanted = self.wants(wanted.mode);
        let draining = self.life.is_draining();
        let silence = self.vigil.silence();
        let look = self.remote.ask(move |executions| {
            let snapshot = Snapshot::of(executions, &silence, Instant::now());
            snapshot.under(Circumstances {
                draining,
                ..Circumstances::default()
            })
        });
        let snapshot = look.await.map_err(failed)?;
        let unwanted = (!is_wanted).then_some(Guard::Unwanted);
        match unwanted.or_else(|| snapshot.forbids_late()) {
            Some(guard) => Err(Denied::Late(guard, Box::new(snapshot))),
            None => Ok(()),
        }
    }

    /// Whether a restart is to be carried out, and in this way, as it is configured by now.
    fn wants(&self, mode: Restart) -> bool {
        let running = self.running.borrow();
        let reactor = &running.loaded.config.reactor;
        reactor.restart == Some(mode) && !reactor.dry_run
    }

    /// Writes down that there is a restart: one that nobody would remember could come again at once. Answers when it
    /// is, by the clock as it is by now.
    fn remembers(&self, wanted: &Wanted) -> Result<SystemTime, Denied> {
        let (restarts, time) = as_of(&wanted.restarts, &wanted.decided, &clock::moment());
        let written = self.memory.write(&restarts);
        written.map_err(|why| Denied::Failed(format!("nobody would remember it: {why}")))?;
        Ok(time)
    }

    fn tell(&self, wanted: &Wanted, what: String, sessions: usize) {
        let in_last_hour = wanted.restarts.in_last_hour(wanted.decided.time);
        let in_last_hour = in_last_hour.saturating_add(1);
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
    pub(super) fn remember(self: &Arc<Self>) {
        if !self.cluster.is_on() {
            return;
        }
        let hands = Arc::clone(self);
        let mut running = self.running.clone();
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

/// All restarts with the one that was decided at that moment, and when that is, by the clock as it is `now`: it may have
/// been set since.
fn as_of(before: &Restarts, decided: &Moment, now: &Moment) -> (Restarts, SystemTime) {
    let mut restarts = before.clone();
    restarts.add(decided.time);
    match now.set_since(decided).filter(|step| step.is_set()) {
        None => (restarts, decided.time),
        Some(step) => {
            restarts.moves(step);
            (restarts, step.moves(decided.time))
        }
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

#[cfg(test)]
mod tests {
    use crate::reactor::Up;

    use super::*;

    #[test]
    fn a_restart_of_before_the_clock_was_set_is_as_long_ago_as_it_was() {
        let moment = |time, up| Moment {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(time),
            up: Some(Up {
                boot: "one".to_owned(),
                since: Duration::from_secs(up),
            }),
        };
        let decided = moment(1_000_000, 5000);
        let mut before = Restarts::default();
        before.add(moment(999_000, 0).time);
        // Ten seconds later, by a clock that was set on, back, or not at all.
        for now in [1_003_610, 990_010, 1_000_010] {
            let now = moment(now, 5010);
            let (restarts, time) = as_of(&before, &decided, &now);
            assert_eq!(time, now.time - Duration::from_secs(10));
            assert_eq!(restarts.ages(now.time), [1010, 10].map(Duration::from_secs));
        }
    }
}
