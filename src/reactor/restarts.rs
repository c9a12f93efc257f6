//! The memory of restarts: what must outlive the process, and the pod.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Guard;
use super::clock::{self, Moment, Step};
use super::policy::HOUR;

/// The version of what is written.
const VERSION: u32 = 1;

/// The year 10000: no clock of ours goes so far, and no date of RFC 3339.
const END_OF_TIME: u64 = 253_402_300_800;

/// The most times that are kept: more than any policy allows for within an hour.
const KEPT: usize = 64;

/// Which restarts there were, by the time of day: seconds since 1970, as clocks of several machines do not
/// agree on more. Several memories of the same restarts are [merged](Restarts::merge) into one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restarts {
    /// Those that are known by their time, ascending.
    times: Vec<u64>,
    /// How many there were in all.
    total: u64,
    /// Whether there may be more within the last hour than are known by their time: only the last one and
    /// the count were written.
    is_partial: bool,
    /// Since when a sidecar of the pod has been there.
    pod_since: Option<u64>,
}

/// What `restarts.json` holds.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    total: u64,
    times: Vec<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_since: Option<u64>,
    /// When this was written. By it is known by how much the clock was set since, and so what the times are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clock: Option<clock::Written>,
}

/// Why a memory of restarts can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no such text.
    #[error("it is no memory of restarts: {0}")]
    Garbage(#[from] serde_json::Error),
    /// Another version has written it.
    #[error("it is of version {0}, and this one reads version {VERSION}")]
    Version(u32),
}

impl Restarts {
    /// What annotations tell: how many there were, and when the last one was.
    #[must_use]
    pub fn counted(total: u64, last: Option<SystemTime>) -> Self {
        let times: Vec<u64> = last.map(seconds).into_iter().collect();
        Self {
            is_partial: total > times.len() as u64,
            total: total.max(times.len() as u64),
            times,
            pod_since: None,
        }
    }

    /// The same, of a pod in which the first sidecar began then.
    #[must_use]
    pub fn of_pod_since(self, since: SystemTime) -> Self {
        Self {
            pod_since: Some(seconds(since)),
            ..self
        }
    }

    /// What is written into `restarts.json`, by the clock as it is `now`, whatever it was when that was written. Who
    /// can't read it goes on with [`Restarts::default`], which is safe: a pod of which nothing is known is as young as
    /// the process. Nor is known how old it is where the machine was started anew since, with all that is in the pod,
    /// or where nobody can tell: the clock may have been wrong at either time.
    ///
    /// # Errors
    /// If it is nothing that was written so.
    pub fn read(text: &str, now: &Moment) -> Result<Self, Unreadable> {
        let written: Written = serde_json::from_str(text)?;
        if written.version != VERSION {
            return Err(Unreadable::Version(written.version));
        }
        let Written {
            total,
            mut times,
            partial,
            pod_since,
            clock,
            ..
        } = written;
        times.retain(|at| *at < END_OF_TIME);
        times.sort_unstable();
        let mut restarts = Self {
            total: total.max(times.len() as u64),
            times,
            is_partial: partial,
            pod_since: pod_since.filter(|since| *since < END_OF_TIME),
        };
        restarts.forget();
        let before = clock.and_then(Moment::read);
        match before.and_then(|before| now.set_since(&before)) {
            Some(step) if step.is_set() => restarts.moves(step),
            Some(_) => {}
            None => restarts.pod_since = None,
        }
        Ok(restarts)
    }

    /// The clock was set: what was before is moved with it, so that it is as long ago as it was.
    pub fn moves(&mut self, step: Step) {
        let moved = |at: u64| seconds(step.moves(time(at)));
        for at in &mut self.times {
            *at = moved(*at);
        }
        self.pod_since = self.pod_since.map(moved);
    }

    /// The text that [`read`](Self::read) reads, written `now`: one line of JSON.
    #[must_use]
    pub fn written(&self, now: &Moment) -> String {
        let written = Written {
            version: VERSION,
            total: self.total,
            times: self.times.clone(),
            partial: self.is_partial,
            pod_since: self.pod_since,
            clock: now.written(),
        };
        // Numbers, a truth value and a text: nothing that JSON can't hold.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// One more, at this time.
    pub fn add(&mut self, at: SystemTime) {
        let at = seconds(at);
        let place = self.times.partition_point(|known| *known <= at);
        self.times.insert(place, at);
        self.total = self.total.saturating_add(1);
        self.forget();
    }

    /// What both know: a restart that both know of is one.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let times = union(&self.times, &other.times);
        let both = [self.pod_since, other.pod_since];
        let total = self.total.max(other.total).max(times.len() as u64);
        let mut merged = Self {
            times,
            total,
            // Who knows of the most, and all their times, knows those that the other one does not.
            is_partial: match self.total.cmp(&other.total) {
                Ordering::Less => other.is_partial,
                Ordering::Equal => self.is_partial && other.is_partial,
                Ordering::Greater => self.is_partial,
            },
            pod_since: both.into_iter().flatten().min(),
        };
        merged.forget();
        merged
    }

    /// What is known, where a time after `now` is taken for `now`: a clock was moved, and how long ago it was
    /// is not known. So it forbids what a restart of this moment does, and does not for ever.
    #[must_use]
    pub fn not_after(&self, now: SystemTime) -> Self {
        let now = seconds(now);
        let times = self.times.iter().map(|at| (*at).min(now)).collect();
        Self {
            times,
            ..self.clone()
        }
    }

    /// How many there were in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When the last one was.
    #[must_use]
    pub fn last(&self) -> Option<SystemTime> {
        self.times.last().map(|at| time(*at))
    }

    /// Since when a sidecar of the pod has been there, as far as it is known.
    #[must_use]
    pub fn pod_since(&self) -> Option<SystemTime> {
        self.pod_since.map(time)
    }

    /// How long the pod has been there at least, where this process has been there for `process`: what a clock says
    /// never makes it younger than that.
    #[must_use]
    pub fn pod_age(&self, now: SystemTime, process: Duration) -> Duration {
        let since = self.pod_since().map(|since| age(since, now));
        since.unwrap_or_default().max(process)
    }

    /// How long ago each was, the oldest first. Those whose times are not known are as
    /// old as the last: at the worst they were. One that lies ahead is as old as it lies ahead: so it forbids
    /// something for a while, and not until a clock that was wrong is right.
    #[must_use]
    pub fn ages(&self, now: SystemTime) -> Vec<Duration> {
        let now = seconds(now);
        let age = |at: u64| Duration::from_secs(now.abs_diff(at));
        let mut ages: Vec<Duration> = self.times.iter().map(|at| age(*at)).collect();
        if let (true, Some(last)) = (self.is_partial, ages.last().copied()) {
            let known = ages.len();
            let unknown = usize::try_from(self.total).map_or(KEPT, |total| total.min(KEPT));
            ages.extend(std::iter::repeat_n(last, unknown.saturating_sub(known)));
        }
        ages.sort_unstable_by(|one, other| other.cmp(one));
        ages
    }

    /// How many there were within the hour up to `now`.
    #[must_use]
    pub fn in_last_hour(&self, now: SystemTime) -> u32 {
        in_last_hour(&self.ages(now))
    }

    /// What forbids one more at `now`, as far as this memory goes.
    #[must_use]
    pub fn forbids(&self, cooldown: Duration, most: u32, now: SystemTime) -> Option<Guard> {
        forbids(&self.ages(now), cooldown, most)
    }

    /// Forgets the oldest of too many: the total knows of them.
    fn forget(&mut self) {
        let over = self.times.len().saturating_sub(KEPT);
        self.times.drain(..over);
    }
}

/// What forbids one more restart after those that were so long ago, the oldest first.
pub(super) fn forbids(ages: &[Duration], cooldown: Duration, most: u32) -> Option<Guard> {
    let restarts = in_last_hour(ages);
    if restarts >= most {
        // The next may be when the oldest of as many as may be is an hour old.
        let oldest = ages.len().checked_sub(most.max(1) as usize);
        let oldest = oldest.and_then(|at| ages.get(at)).copied();
        let left = HOUR.saturating_sub(oldest.unwrap_or_default());
        return Some(Guard::TooMany { restarts, left });
    }
    let left = cooldown.saturating_sub(*ages.last()?);
    (!left.is_zero()).then_some(Guard::Cooldown { left })
}

fn in_last_hour(ages: &[Duration]) -> u32 {
    let within = ages.iter().filter(|age| **age < HOUR).count();
    u32::try_from(within).unwrap_or(u32::MAX)
}

/// All of both, ascending as they are; what is in both is one, also of several in one second.
fn union(one: &[u64], other: &[u64]) -> Vec<u64> {
    let mut all = Vec::with_capacity(one.len().max(other.len()));
    let (mut one, mut other) = (one, other);
    while let ([first, left @ ..], [second, right @ ..]) = (one, other) {
        all.push(*first.min(second));
        if first <= second {
            one = left;
        }
        if second <= first {
            other = right;
        }
    }
    all.extend_from_slice(one);
    all.extend_from_slice(other);
    all
}

fn seconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().min(END_OF_TIME - 1)
}

fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(END_OF_TIME))
}

fn age(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}
