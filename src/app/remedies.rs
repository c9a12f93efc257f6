//! What is done when connections run out: a look at the data plane every second, a decision, and its carrying
//! out.
//!
//! | module | gives |
//! |---|---|
//! | `act` | carries out what was decided |
//! | `tell` | says it, in the log and as events |
//! | `standing` | the same for the status |
//! | `liveness` | what `/livez/app` says of the app: values alone |
//! | `comeback` | whether the app has gone and come back, by its own probe |
//! | `vigil` | the same, asked by probes and told by who decides |
//! | `memory` | the restarts that were, in a file that outlives the process |
//! | `cluster` | Kubernetes' API, as far as remedies need it |
//! | `chance` | by how much a restart is put off |
//! | `clock` | what time it is, and whether that was set |

mod act;
mod chance;
mod clock;
mod cluster;
mod comeback;
mod liveness;
mod memory;
mod standing;
mod tell;
mod vigil;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::budget::{Exhaustion, State};
use crate::config::{Reactor, Restart, Running};
use crate::control::{self, Control};
use crate::execution::Remote;
use crate::execution::tidying::Cleaned;
use crate::metrics::words::{Action as Counted, Outcome};
use crate::reactor::{
    Action, Circumstances, Guard, Heard, History, Limits, Notice, Policy, Report, Restarts, Rung,
    Snapshot, decide,
};
use crate::shutdown::Life;

use super::common::Common;
use super::exit::Leave;
use act::{Hands, Told, Wanted, counted};
use chance::Chance;
use clock::Clock;
use cluster::Cluster;
pub(super) use cluster::Whereabouts;
use memory::Memory;
use standing::Standing;
pub(super) use vigil::Vigil;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// How often the databases are asked while somebody waits long for a connection.
const ASK: Duration = Duration::from_secs(5);

/// How many results may wait until they are looked at.
const RESULTS: usize = 16;

/// What is shown to others.
pub(super) struct Shows {
    pub(super) exhaustion: watch::Sender<Exhaustion>,
    pub(super) reactor: watch::Sender<Arc<control::Reactor>>,
}

/// Who looks, decides and has it carried out.
pub(super) struct Remedies {
    remote: Remote,
    control: Arc<Control>,
    running: watch::Receiver<Arc<Running>>,
    life: Arc<Life>,
    shows: Shows,
    hands: Arc<Hands>,
    told: mpsc::Receiver<Told>,
    history: History,
    standing: Standing,
    chance: Chance,
    clock: Clock,
    /// When this process began.
    started: Instant,
    /// When the databases were last asked.
    asked: Instant,
}

/// What [`Remedies`] are made of.
pub(super) struct Parts {
    pub(super) common: Common,
    pub(super) control: Arc<Control>,
    pub(super) vigil: Arc<Vigil>,
    pub(super) leave: Leave,
    /// Where Kubernetes' API is.
    pub(super) at: Whereabouts,
    pub(super) shows: Shows,
}

impl Remedies {
    /// Remembers what the processes before this one have done in the same socket directory. Within a runtime of
    /// tokio.
    pub(super) fn new(parts: Parts) -> Self {
        let (say, told) = mpsc::channel(RESULTS);
        let now = Instant::now();
        let Common {
            remote,
            running,
            life,
            ..
        } = parts.common;
        let directory = running.borrow().loaded.config.listen.dir.clone();
        let (memory, restarts) = remembered(&directory, SystemTime::now());
        let mut history = History::new(now);
        history.remember(&restarts, now, SystemTime::now());
        let hands = Hands {
            remote: remote.clone(),
            vigil: parts.vigil,
            memory,
            cluster: Cluster::start(parts.at, remote.counters()),
            leave: parts.leave,
            life: Arc::clone(&life),
            running: running.clone(),
            told: say,
        };
        let hands = Arc::new(hands);
        hands.remember();
        Self {
            remote,
            control: parts.control,
            running,
            life,
            shows: parts.shows,
            hands,
            told,
            history,
            standing: Standing::default(),
            chance: Chance::draw(),
            clock: Clock::start(),
            started: now,
            asked: now,
        }
    }

    /// Looks until the data plane ends.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => if self.look().await.is_none() {
                    return;
                },
                Some(told) = self.told.recv() => {
                    self.hear(told, Instant::now());
                    self.show();
                }
            }
        }
    }

    /// One look, and what comes of it. None: the data plane has ended.
    async fn look(&mut self) -> Option<()> {
        let running = Arc::clone(&self.running.borrow());
        let config = &running.loaded.config;
        let put_off = self.chance.puts_off(config.reactor.restart_after);
        let policy = Policy::of(&config.exhaustion, &config.reactor, put_off);
        let silence = self.control.silence();
        let look = self.remote.ask(move |executions| {
            let now = Instant::now();
            (Snapshot::of(executions, &silence, now), now)
        });
        let (snapshot, now) = look.await.ok()?;
        self.hands.vigil.look().await;
        self.hear_of_app();
        let snapshot = snapshot.under(self.circumstances());
        let actions = decide(&self.history, &snapshot, &policy, now);
        self.history.record(&snapshot, &policy, now, &actions);
        for action in actions {
            self.perform(action, &snapshot, &policy, now);
        }
        // Told by now, or not for the first time.
        self.standing.forgets_objection();
        self.follow(&config.reactor, &snapshot, &policy);
        self.show();
        self.ask_databases(&snapshot, &policy, now);
        for (of, unsaid) in self.remote.events().lines_left_out() {
            tracing::info!(
                event = "log.left_out",
                of,
                unsaid,
                "lines of the log were left out, as they came too fast"
            );
        }
        Some(())
    }

    fn circumstances(&mut self) -> Circumstances {
        let (time, step) = self.clock.look();
        if let Some(step) = step {
            self.history.clock_is_set(step);
            tracing::warn!(
                event = "clock.set",
                by_seconds = step.seconds(),
                "the clock of the machine was set: what was before is as long ago as it was"
            );
        }
        let process = self.started.elapsed();
        Circumstances {
            time,
            draining: self.life.is_draining(),
            restarting: self.hands.vigil.waits().is_some(),
            pod_age: self.history.restarts().pod_age(time, process),
        }
    }

    /// What came of a restart by `liveness`.
    fn hear_of_app(&self) {
        if let Some(ended) = self.hands.vigil.ended() {
            let mode = Restart::Liveness.as_str();
            let (outcome, events) = (ended.over.as_str(), self.remote.events());
            tell::restart_over(mode, outcome, ended.after, None, events);
        }
    }

    /// What became of what was decided before.
    fn hear(&mut self, told: Told, now: Instant) {
        match told {
            Told::Heard(heard) => {
                self.standing.heard(heard);
                self.history.heard(heard, now);
            }
            Told::Cleaned(cleaned, dry_run) => self.cleaned(&cleaned, dry_run),
            Told::Failed(mode, why) => {
                if self.standing.failed(mode, &why) {
                    let after = self.standing.under_way(now);
                    let events = self.remote.events();
                    tell::restart_over(mode.as_str(), "failed", after, Some(&why), events);
                }
            }
            Told::Refused(objection) => {
                let heard = Heard::RestartRefused(objection.guard);
                self.standing.heard(heard);
                self.history.heard(heard, now);
                self.standing.objects(*objection);
            }
            Told::Remembers(restarts) => {
                self.history.remember(&restarts, now, SystemTime::now());
            }
        }
    }

    /// A cleanup that ended something, or would, is told; of others there is one every few seconds.
    fn cleaned(&mut self, cleaned: &Cleaned, dry_run: bool) {
        let is_nothing = cleaned.closed.is_empty();
        let what = tell::closed(cleaned);
        let is_news = self.standing.cleaned(what.clone());
        if is_news || !is_nothing && !dry_run {
            tell::cleaned(cleaned, dry_run, self.remote.events());
            if !is_nothing {
                let notice = Notice::of_cleanup(cleaned.sessions(), cleaned.waiting, &what);
                self.hands.announce(&notice, dry_run);
            }
        }
        match (is_nothing, dry_run) {
            (true, _) => {}
            (false, true) => self.hands.counts(Counted::Cleanup, Outcome::DryRun),
            (false, false) => self.hands.counts(Counted::Cleanup, Outcome::Ok),
        }
    }

    fn perform(&mut self, action: Action, snapshot: &Snapshot, policy: &Policy, now: Instant) {
        match action {
            Action::Tell(change) => {
                tell::change(&change, snapshot, self.remote.events());
                if change.to < State::Exhausted {
                    self.chance = Chance::draw();
                    self.standing.spell_is_over();
                }
            }
            Action::Publish => self.publish(snapshot, policy),
            Action::Announce(reason) => {
                let report = Report::of(&self.history, snapshot, policy);
                let notice = Notice::of_state(reason, &report);
                self.hands.announce(&notice, policy.dry_run);
            }
            Action::CleanUp => self.hands.clean_up(policy.dry_run),
            Action::Restart(mode) => {
                self.standing.begins(mode, now);
                self.hands.restart(Wanted {
                    mode,
                    dry_run: policy.dry_run,
                    snapshot: snapshot.clone(),
                    report: Report::of(&self.history, snapshot, policy),
                    restarts: self.history.restarts().clone(),
                    decided: clock::moment(),
                    limits: Limits {
                        cooldown: policy.cooldown,
                        per_hour: policy.max_restarts_per_hour,
                    },
                });
            }
            Action::Refuse { rung, guard } => self.refuse(rung, guard, snapshot, policy, now),
        }
    }

    /// Tells what is due and not done: as it stands now, or as it stood when it was tried.
    fn refuse(
        &mut self,
        rung: Rung,
        guard: Guard,
        snapshot: &Snapshot,
        policy: &Policy,
        now: Instant,
    ) {
        let objection = self.standing.objection(rung, guard);
        let more = objection.as_ref().and_then(|found| found.more.as_deref());
        let why = match more {
            Some(more) => format!("{guard} ({more})"),
            None => guard.to_string(),
        };
        tell::refused(rung, &guard, &why, self.remote.events());
        self.standing.refused(rung, &guard, &why, now);
        // A try was counted where it was made.
        if objection.is_none() {
            self.hands.counts(counted(rung), Outcome::Refused);
        }
        if rung == Rung::Restart {
            let notice = match objection {
                Some(found) => Notice::of_objection(&guard, &why, &found.report),
                None => {
                    let report = Report::of(&self.history, snapshot, policy);
                    Notice::of_refusal(&guard, &why, &report)
                }
            };
            self.hands.announce(&notice, policy.dry_run);
        }
    }

    /// Brings the newest report to the pod; in a dry run it is told what would be there, when that is something else.
    fn publish(&mut self, snapshot: &Snapshot, policy: &Policy) {
        let report = Report::of(&self.history, snapshot, policy);
        let with_condition = self.running.borrow().loaded.config.reactor.condition;
        if !policy.dry_run {
            self.hands.cluster.publish(report, with_condition);
        } else if self.hands.cluster.is_on() && self.standing.would_publish(&report) {
            tell::would_publish(&report, with_condition);
            self.hands.counts(Counted::Annotate, Outcome::DryRun);
            if with_condition {
                self.hands.counts(Counted::Condition, Outcome::DryRun);
            }
        }
    }

    /// What a reload has changed of what is published.
    fn follow(&mut self, config: &Reactor, snapshot: &Snapshot, policy: &Policy) {
        match self.standing.follows(config) {
            true if config.dry_run => self.hands.cluster.withdraw(),
            true => self.publish(snapshot, policy),
            false => {}
        }
    }

    fn show(&self) {
        let running = self.running.borrow();
        let (reactor, now) = (&running.loaded.config.reactor, Instant::now());
        self.shows.exhaustion.send_if_modified(|known| {
            let is_news = *known != self.history.exhaustion();
            *known = self.history.exhaustion();
            is_news
        });
        let seen = standing::Seen {
            reactor,
            restarts: self.history.restarts(),
            waits: self.hands.vigil.waits(),
            kubernetes: self.hands.cluster.shown(now),
        };
        let reactor = self.standing.shown(seen, now, SystemTime::now());
        self.shows.reactor.send_replace(Arc::new(reactor));
    }

    /// Whether a database is the cause is worth knowing while somebody waits long.
    fn ask_databases(&mut self, snapshot: &Snapshot, policy: &Policy, now: Instant) {
        let is_long = snapshot.oldest_wait > policy.wait / 2;
        let is_bad = self.history.exhaustion().state >= State::Exhausted;
        if (is_long || is_bad) && now.saturating_duration_since(self.asked) >= ASK {
            self.control.look_sooner();
            self.asked = now;
        }
    }
}

/// The memory of this directory, and what it holds at `now`: a pod that nobody remembers, or not as it should be,
/// begins now, so that nothing is restarted for a while.
fn remembered(directory: &Path, now: SystemTime) -> (Memory, Restarts) {
    let memory = Memory::in_directory(directory);
    let restarts = match memory.read() {
        Ok(Some(restarts)) if restarts.pod_since().is_some() => return (memory, restarts),
        Ok(known) => known.unwrap_or_default(),
        Err(why) => {
            tracing::error!(
                event = "restarts.unreadable",
                why,
                "the memory of restarts can't be read: the pod counts as begun just now"
            );
            Restarts::default()
        }
    };
    let restarts = restarts.of_pod_since(now);
    if let Err(why) = memory.write(&restarts) {
        tracing::error!(
            event = "restarts.unwritten",
            why,
            "restarts can't be remembered in the socket directory: there will be none"
        );
    }
    (memory, restarts)
}
