//! What an execution tells its recorder, and how its story is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::ExecutionNumber;
use crate::protocol::startup::ExecutionId;
use crate::story::{Recorder, Span, Story, What, Word};

use super::executions::{Executions, Inner, Room};
use super::{Run, Summary};

impl Inner {
    /// What a generation has; with its first entry, where it is new.
    pub(super) fn room(&mut self, number: ExecutionNumber) -> &mut Room {
        let run = self.registry.get(number);
        self.rooms.entry(number).or_insert_with(|| Room {
            recorder: run.map(recorder).unwrap_or_default(),
            ..Room::default()
        })
    }

    /// Something has happened to a generation as a whole.
    pub(super) fn tell(&self, number: ExecutionNumber, what: What, at: Instant) {
        if let Some(room) = self.rooms.get(&number) {
            room.recorder.tell(None, what, at);
        }
    }

    /// The same, where it has a deadline that is told with it.
    pub(super) fn tell_adopted(&self, number: ExecutionNumber, at: Instant) {
        let run = self.registry.get(number);
        let deadline = run.and_then(|run| left(run, at));
        self.tell(number, What::Adopted { deadline }, at);
    }

    /// A stream that holds a generation has opened, or has closed.
    pub(super) fn tell_holds(&self, number: ExecutionNumber, opened: bool, at: Instant) {
        let holds = self.registry.get(number).map_or(0, |run| run.holds);
        let holds = few(holds);
        let what = match opened {
            true => What::HoldOpened { holds },
            false => What::HoldClosed { holds },
        };
        self.tell(number, what, at);
    }

    /// The last words on a generation that has ended; keeps its story with its summary, if it has
    /// ended badly.
    pub(super) fn conclude(&mut self, recorder: &Recorder, summary: &Summary, now: Instant) {
        let left = few(summary.remains.resources.total());
        if left > 0 {
            recorder.tell(None, What::ResourcesLeft { count: left }, now);
        }
        let (reason, leftovers) = (summary.reason, few(summary.remains.leftovers));
        let reason = Word::of(reason.as_str());
        recorder.tell(None, What::Ended { reason, leftovers }, now);
        if summary.ended_badly() {
            self.registry.remember(recorder.story(Vec::new()));
        }
    }
}

impl Executions {
    /// The story of the active execution of that name, or else of the one that is ending: up to now.
    #[must_use]
    pub fn story(&self, id: &ExecutionId) -> Option<Story> {
        let now = Instant::now();
        let inner = self.inner.lock();
        let active = inner.registry.find(id);
        let number = active.or_else(|| inner.registry.ending(id))?;
        let Some(room) = inner.rooms.get(&number) else {
            // Nobody has come to the standing execution yet.
            return inner
                .registry
                .get(number)
                .map(|run| recorder(run).story(Vec::new()));
        };
        let sessions = room.sessions.values();
        let open = sessions.flat_map(|session| session.untold(now));
        Some(room.recorder.story(open.collect()))
    }
}

/// The recorder of a generation that has begun.
fn recorder(run: &Run) -> Arc<Recorder> {
    let recorder = Recorder::new(run.started);
    let kind = Word::of(run.kind.as_str());
    let deadline = left(run, run.started);
    recorder.tell(None, What::Began { kind, deadline }, run.started);
    Arc::new(recorder)
}

fn left(run: &Run, now: Instant) -> Option<Span> {
    let left = run.deadline.map(|at| at.saturating_duration_since(now));
    left.map(Span::of)
}

/// A number of things, in four bytes.
pub(super) fn few(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A heartbeat as it is told.
pub(super) fn heartbeat() -> What {
    let last = Span::of(Duration::ZERO);
    What::Heartbeat { count: 1, last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::{Kind, Reason, ResourceKind};
    use crate::pool::{Limit, Returned};

    #[test]
    fn each_word_that_is_told_is_in_the_closed_set() {
        let kinds = [Kind::Explicit, Kind::Implicit, Kind::Shared, Kind::Session];
        let limits = [
            Limit::Pool,
            Limit::Budget,
            Limit::Database,
            Limit::Paused,
            Limit::Away,
            Limit::Dialling,
        ];
        let all = Reason::ALL.iter().map(|reason| reason.as_str());
        let all = all.chain(ResourceKind::ALL.iter().map(|kind| kind.as_str()));
        let all = all.chain(Returned::ALL.iter().map(|how| how.as_str()));
        let all = all.chain(kinds.iter().map(|kind| kind.as_str()));
        let all = all.chain(limits.iter().map(|limit| limit.as_str()));
        for word in all {
            assert_eq!(Word::of(word).as_str(), word);
        }
    }
}
