//! What earlier looks have found, and what was done.

use std::time::{Duration, Instant, SystemTime};

use crate::budget::{Cause, Exhaustion, State};

use super::decide::found;
use super::report::Why;
use super::{Action, Guard, Policy, Reason, Restarts, Rung, Snapshot, clock};

/// The most time that one look stands for. Looks come every second; where some were missed, as the data
/// plane was busy or the machine suspended, nobody knows what was in between, and it counts for nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Between two cleanups.
const BETWEEN_CLEANUPS: Duration = Duration::from_secs(10);

/// Before a restart that came to nothing is tried again.
const BEFORE_NEXT_TRY: Duration = Duration::from_secs(30);

/// After that, who carries something out and says nothing is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many restarts are remembered: more than may be within an hour.
const REMEMBERED: usize = 64;

/// For how long something has been so at every look; none: it was not at the last one.
pub(super) type Streak = Option<Duration>;

/// What was found at the looks up to the last one, and what was done.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    pub(super) now: Exhaustion,
    pub(super) found: Found,
    pub(super) done: Done,
    /// The time of day at which the state was entered; none: there was no look.
    since: Option<SystemTime>,
    restarts: Restarts,
}

/// What looks add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// When the last look was; none: there was none.
    pub(super) at: Option<Instant>,
    /// How many budget waits had ended in vain by then.
    pub(super) timed_out: u64,
    /// More of the budget is in use than is well.
    pub(super) high: Streak,
    /// So little is that a warning is over.
    pub(super) low: Streak,
    /// Whether it was high for long enough, and was not low for long enough since.
    pub(super) is_warned: bool,
    /// Somebody waits long, or in vain.
    pub(super) starved: Streak,
    /// Nobody does, and there is room.
    pub(super) calm: Streak,
    /// How long it has been exhausted, as far as looks know.
    pub(super) exhausted: Duration,
    /// Nobody does, however much is in use.
    pub(super) quiet: Streak,
    /// How long it has been sustained, since the last restart, and since somebody has waited long at all.
    pub(super) sustained: Duration,
    /// The app holds connections and does nothing with them; the database is not the cause.
    pub(super) stuck: Streak,
}

/// What was done above the first rung.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// What was last published, and when; none: nothing was.
    pub(super) published: Option<(Instant, Why)>,
    /// How many restarts were heard of in all, or were only told.
    pub(super) restarted: u64,
    /// How many of them there were when it was published.
    pub(super) published_restarts: u64,
    /// The last Event.
    pub(super) announced: Option<Reason>,
    pub(super) cleanup: Step,
    pub(super) restart: Step,
    /// When each restart was that counts for the guards, the oldest first.
    pub(super) restarts: Vec<Instant>,
    /// What whoever carries restarts out has found against one, and was not told yet.
    pub(super) objection: Option<Guard>,
    /// What was refused in this spell, and by which guard.
    refused: Vec<(Rung, &'static str)>,
}

/// How it stands with something that takes its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is under way. Left when it is decided.
    #[default]
    Free,
    /// It was decided at this moment. Left when it is heard what became of it, or after a while.
    UnderWay(Instant),
    /// There is none for a while from this moment on. Left when it is decided anew.
    Pause(Instant),
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The cleanup is over, whatever it ended; or it was only told.
    CleanedUp,
    /// The restart was carried out, or begun, at this time of day. One of `liveness` is from its decision on, so
    /// that it counts even if the app recovers by itself: for as long as it takes,
    /// [`Circumstances::restarting`](super::Circumstances) says so.
    Restarted(SystemTime),
    /// It was only told. The guards count it, so that the next one is not told before it could be.
    WouldRestart,
    /// Whoever carries it out has found something against it. It does not count, and is tried again later.
    RestartRefused(Guard),
    /// It was tried in vain, as the Kubernetes API is away. It does not count, and is tried again later.
    RestartFailed,
}

impl History {
    /// All was well before `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            now: Exhaustion::healthy(now),
            found: Found::default(),
            done: Done::default(),
            since: None,
            restarts: Restarts::default(),
        }
    }

    /// How it stands by now.
    #[must_use]
    pub fn exhaustion(&self) -> Exhaustion {
        self.now
    }

    /// The time of day at which it became so; none: there was no look.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// The restarts that are known of: what is to be kept.
    #[must_use]
    pub fn restarts(&self) -> &Restarts {
        &self.restarts
    }

    /// There were these restarts, too: what a file or the pod's annotations remember. The same may be told
    /// again.
    pub fn remember(&mut self, memory: &Restarts, now: Instant, time: SystemTime) {
        let merged = self.restarts.merge(&memory.not_after(time));
        let mut news = merged.ages(time);
        for known in self.restarts.ages(time) {
            if let Some(at) = news.iter().position(|age| *age == known) {
                news.remove(at);
            }
        }
        // What was before the clock began counts as if it were now: it is rather too late than too early.
        let moments = news
            .into_iter()
            .map(|age| now.checked_sub(age).unwrap_or(now));
        self.done.restarts.extend(moments);
        self.done.sort();
        self.restarts = merged;
    }

    /// The clock was set. What is as long ago as it was, is so by that clock, too; the guards go by another one. What
    /// was published has the old times, which would be those of other restarts: it is due anew.
    pub fn clock_is_set(&mut self, step: clock::Step) {
        self.restarts.moves(step);
        self.since = self.since.map(|since| step.moves(since));
        self.done.published = None;
    }

    /// A look was taken, and this was decided at it.
    pub fn record(
        &mut self,
        snapshot: &Snapshot,
        policy: &Policy,
        now: Instant,
        decided: &[Action],
    ) {
        self.found = found(self, snapshot, policy, now);
        self.done.objection = None;
        let time = snapshot.circumstances.time;
        self.since.get_or_insert(time);
        for action in decided {
            match action {
                Action::Tell(change) => {
                    self.now.state = change.to;
                    self.now.since = now;
                    self.since = Some(time);
                }
                Action::Publish => {}
                Action::Announce(reason) => self.done.announced = Some(*reason),
                Action::CleanUp => self.done.cleanup = Step::UnderWay(now),
                Action::Restart(_) => {
                    self.done.restart = Step::UnderWay(now);
                    self.done.restarts.push(now);
                    self.done.sort();
                }
                Action::Refuse { rung, guard } => self.done.refused.push((*rung, guard.as_str())),
            }
        }
        let is_well = self.now.state == State::Healthy;
        self.now.cause = (!is_well).then(|| snapshot.cause());
        if self.now.state < State::Exhausted {
            self.done.refused.clear();
        }
        if decided.contains(&Action::Publish) {
            let why = Why::of(self.now.state, &self.found, snapshot, policy);
            self.done.published = Some((now, why));
            self.done.published_restarts = self.done.restarted;
        }
    }

    /// This became of what was decided.
    pub fn heard(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::CleanedUp => self.done.cleanup = Step::Pause(now),
            Heard::Restarted(time) => {
                self.restarts.add(time);
                // One that nobody waits for any more, or that was nobody's decision here, counts as well.
                if !matches!(self.done.restart, Step::UnderWay(_)) {
                    self.done.restarts.push(now);
                    self.done.sort();
                }
                self.is_restarted();
            }
            Heard::WouldRestart => self.is_restarted(),
            Heard::RestartRefused(guard) => {
                self.done.objection = Some(guard);
                self.done.comes_to_nothing(now);
            }
            Heard::RestartFailed => self.done.comes_to_nothing(now),
        }
    }

    /// The next one is due when it has been sustained for as long again.
    fn is_restarted(&mut self) {
        self.done.restart = Step::Free;
        self.done.restarted += 1;
        self.found.sustained = Duration::ZERO;
    }
}

impl Done {
    /// How long ago each restart was, the oldest first.
    pub(super) fn ages(&self, now: Instant) -> Vec<Duration> {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        self.restarts.iter().map(age).collect()
    }

    /// Whether this was refused by this guard in this spell.
    pub(super) fn was_refused(&self, rung: Rung, guard: Guard) -> bool {
        self.refused.contains(&(rung, guard.as_str()))
    }

    /// The restart that is under way comes to nothing, and does not count.
    fn comes_to_nothing(&mut self, now: Instant) {
        if let Step::UnderWay(since) = self.restart {
            self.restarts.retain(|at| *at != since);
        }
        self.restart = Step::Pause(now);
    }

    fn sort(&mut self) {
        self.restarts.sort_unstable();
        let over = self.restarts.len().saturating_sub(REMEMBERED);
        self.restarts.drain(..over);
    }
}

impl Step {
    /// Whether something is under way.
    pub(super) fn is_under_way(self, now: Instant) -> bool {
        match self {
            Self::UnderWay(since) => now.saturating_duration_since(since) < PATIENCE,
            Self::Free | Self::Pause(_) => false,
        }
    }

    /// Whether a cleanup may begin, as far as earlier ones go.
    pub(super) fn may_clean_up(self, now: Instant) -> bool {
        self.is_over(now, BETWEEN_CLEANUPS)
    }

    /// Whether a restart may be tried, as far as a try that came to nothing goes.
    pub(super) fn may_restart(self, now: Instant) -> bool {
        self.is_over(now, BEFORE_NEXT_TRY)
    }

    fn is_over(self, now: Instant, pause: Duration) -> bool {
        match self {
            Self::Free => true,
            Self::UnderWay(_) => !self.is_under_way(now),
            Self::Pause(since) => now.saturating_duration_since(since) >= pause,
        }
    }
}

impl Found {
    /// How much time a look at `now` stands for.
    pub(super) fn step(&self, now: Instant) -> Duration {
        let since = |at| now.saturating_duration_since(at);
        self.at.map_or(Duration::ZERO, since).min(LOOK)
    }

    /// Whether the app has been stuck for so long, with the database not being the cause.
    pub(super) fn is_stuck(&self, long: Duration) -> bool {
        self.stuck.is_some_and(|streak| streak >= long)
    }
}

/// A streak after a look that stands for `step`, at which it is so or not.
pub(super) fn go_on(streak: Streak, is_so: bool, step: Duration) -> Streak {
    is_so.then(|| streak.map_or(Duration::ZERO, |streak| streak.saturating_add(step)))
}

/// Whether the app is the cause.
pub(super) fn is_stuck(snapshot: &Snapshot) -> bool {
    snapshot.cause() == Cause::Held
}
