//! All executions: who may join which, and when each ends.

use super::counts::{Counts, Stage};
use super::memory::Memory;
use super::{
    Conflict, Kind, Reason, ReasonText, Refused, Remains, Rules, Run, State, Summary, Untagged,
};
use crate::pool::ExecutionNumber;
use crate::protocol::startup::ExecutionId;
use crate::story::Story;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many names that have ended are refused at most, the oldest forgotten first.
pub const MAX_TOMBSTONES: usize = 65_536;
/// How many ended generations are kept as summaries.
pub const MAX_SUMMARIES: usize = 256;
/// How much room the stories of those may take that ended badly, in bytes, the oldest forgotten first.
pub const MAX_STORIES: usize = 4 * 1024 * 1024;

/// What a request for an execution came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// A new generation began.
    New(ExecutionNumber),
    /// The implicit one of that name is explicit now.
    Adopted(ExecutionNumber),
}

#[derive(Debug)]
struct Tombstone {
    reason: Reason,
    at: Instant,
}

/// All executions that have not ended, and what is remembered of those that have.
#[derive(Debug)]
pub struct Registry {
    rules: Rules,
    next: u64,
    next_session: u64,
    runs: HashMap<ExecutionNumber, Run>,
    /// The active generation of each name.
    active: HashMap<ExecutionId, ExecutionNumber>,
    schedule: BTreeSet<(Instant, ExecutionNumber)>,
    /// When whose sessions are told that their deadline is near.
    warnings: BTreeSet<(Instant, ExecutionNumber)>,
    tombstones: Memory<Tombstone>,
    /// The last generation of each name that is not active.
    generations: Memory<u64>,
    summaries: VecDeque<Summary>,
    counts: Counts,
}

impl Registry {
    /// A registry with the standing execution alone.
    pub fn new(rules: Rules, now: Instant) -> Self {
        let mut new = Self {
            rules,
            next: 0,
            next_session: 0,
            runs: HashMap::new(),
            active: HashMap::new(),
            schedule: BTreeSet::new(),
            warnings: BTreeSet::new(),
            tombstones: Memory::new(MAX_TOMBSTONES),
            generations: Memory::new(MAX_TOMBSTONES),
            summaries: VecDeque::new(),
            counts: Counts::default(),
        };
        new.begin(ExecutionId::shared(), Kind::Shared, None, now);
        new
    }

    /// Other rules from now on. Deadlines that are set stay; what is idle, or is no longer held, ends
    /// by the new rules.
    pub fn follow(&mut self, rules: Rules) {
        self.rules = rules;
        let due = self.runs.iter().filter_map(|(number, run)| {
            let (at, _) = run.due(&self.rules)?;
            Some((at, *number))
        });
        self.schedule = due.collect();
    }

    /// A session that names this execution joins it; an unknown name begins an implicit one.
    ///
    /// # Errors
    /// The execution has ended not long ago.
    pub fn join(&mut self, id: &ExecutionId, now: Instant) -> Result<ExecutionNumber, Refused> {
        let number = match self.active.get(id) {
            Some(number) => *number,
            None => {
                self.refuse_ended(id, now)?;
                let length = self.rules.max_duration;
                self.begin(id.clone(), Kind::Implicit, length, now)
            }
        };
        self.enter(number);
        Ok(number)
    }

    /// A session that names no execution joins what the rules say.
    ///
    /// # Errors
    /// The rules refuse it.
    pub fn join_untagged(&mut self, now: Instant) -> Result<ExecutionNumber, Refused> {
        match self.rules.untagged {
            Untagged::Shared => self.join(&ExecutionId::shared(), now),
            Untagged::Reject => Err(Refused::Untagged),
            Untagged::Session => {
                self.next_session += 1;
                let id = ExecutionId::session(self.next_session);
                let number = self.begin(id, Kind::Session, None, now);
                self.enter(number);
                Ok(number)
            }
        }
    }

    /// A session that had joined is gone. Tells the reason if that ends the execution.
    pub fn left(&mut self, number: ExecutionNumber, now: Instant) -> Option<Reason> {
        let run = self.runs.get_mut(&number)?;
        run.sessions = run.sessions.saturating_sub(1);
        if run.sessions > 0 {
            return None;
        }
        let ends = run.kind == Kind::Session && run.state == State::Active;
        self.change(number, |run| run.idle = Some(now));
        let ended = ends && self.end(number, Reason::SessionEnded, None, now);
        ended.then_some(Reason::SessionEnded)
    }

    /// Begins an explicit execution, or makes the implicit one of that name explicit. `length` is
    /// its deadline from now on, the default without. Lifts the tombstone of that name.
    ///
    /// # Errors
    /// An explicit one of that name, or the standing one, is active.
    pub fn create(
        &mut self,
        id: ExecutionId,
        length: Option<Duration>,
        now: Instant,
    ) -> Result<Created, Conflict> {
        let length = length.or(self.rules.max_duration);
        let Some(&number) = self.active.get(&id) else {
            self.tombstones.remove(&id);
            let number = self.begin(id, Kind::Explicit, length, now);
            return Ok(Created::New(number));
        };
        if self.runs.get(&number).map(|run| run.kind) != Some(Kind::Implicit) {
            return Err(Conflict(id));
        }
        self.change(number, |run| {
            run.kind = Kind::Explicit;
            run.length = length;
            run.set_deadline(length, now);
        });
        Ok(Created::Adopted(number))
    }

    /// Moves the deadline: to `extend` from now, or by the original length. An execution without a
    /// deadline keeps none. False if it is not active.
    pub fn heartbeat(
        &mut self,
        number: ExecutionNumber,
        extend: Option<Duration>,
        now: Instant,
    ) -> bool {
        self.change(number, |run| {
            if let Some(length) = run.length {
                run.set_deadline(Some(extend.unwrap_or(length)), now);
            }
        })
    }

    /// A stream that holds the execution opened. False if it is not active.
    pub fn hold_opened(&mut self, number: ExecutionNumber) -> bool {
        self.change(number, |run| {
            run.holds += 1;
            run.unheld = None;
        })
    }

    /// A stream that held the execution closed. The standing one doesn't end by it.
    pub fn hold_closed(&mut self, number: ExecutionNumber, now: Instant) {
        self.change(number, |run| {
            run.holds = run.holds.saturating_sub(1);
            if run.holds == 0 && run.kind != Kind::Shared {
                run.unheld = Some(now);
            }
        });
    }

    /// Begins the end of an active generation: nobody joins it from now on. The standing execution
    /// lives on under a new number. False if it is not active.
    pub fn end(
        &mut self,
        number: ExecutionNumber,
        reason: Reason,
        text: Option<ReasonText>,
        now: Instant,
    ) -> bool {
        let Some(run) = self.runs.get(&number) else {
            return false;
        };
        let (id, kind, generation) = (run.id.clone(), run.kind, run.generation);
        if !self.change(number, |run| run.state = State::Ending { reason, text }) {
            return false;
        }
        self.counts.transition(Stage::Active, Stage::Ending);
        self.active.remove(&id);
        if kind != Kind::Session {
            self.generations.insert(id.clone(), generation);
        }
        if kind == Kind::Shared {
            self.begin(id, Kind::Shared, None, now);
        } else if reason.leaves_tombstone() && kind != Kind::Session {
            self.tombstones.insert(id, Tombstone { reason, at: now });
        }
        true
    }

    /// The last server connection of an ending generation is gone, and so is the generation.
    /// None if it is not ending.
    pub fn closed(
        &mut self,
        number: ExecutionNumber,
        remains: Remains,
        now: Instant,
    ) -> Option<Summary> {
        let run = self.runs.get(&number)?;
        let State::Ending { reason, text } = run.state.clone() else {
            return None;
        };
        let summary = Summary {
            id: run.id.clone(),
            generation: run.generation,
            reason,
            text,
            started: run.started,
            ended: now,
            sessions: run.joined,
            remains,
            story: None,
        };
        self.runs.remove(&number);
        self.counts.transition(Stage::Ending, Stage::Ended(reason));
        if self.summaries.len() == MAX_SUMMARIES {
            self.summaries.pop_front();
        }
        self.summaries.push_back(summary.clone());
        Some(summary)
    }

    /// Keeps a story with the summary that was made last.
    pub fn remember(&mut self, story: Story) {
        let Some(summary) = self.summaries.back_mut() else {
            return;
        };
        summary.story = Some(Arc::new(story));
        let mut room = MAX_STORIES;
        for summary in self.summaries.iter_mut().rev() {
            let size = summary.story.as_ref().map_or(0, |story| story.size());
            match room.checked_sub(size) {
                Some(left) => room = left,
                None => (room, summary.story) = (0, None),
            }
        }
    }

    /// What time alone ends by now, earliest first; each is to be given to [`Registry::end`].
    /// Forgets the names whose refusal is over.
    pub fn due(&mut self, now: Instant) -> Vec<(ExecutionNumber, Reason)> {
        let lasts = self.rules.tombstone;
        self.tombstones
            .forget_while(|t| now.saturating_duration_since(t.at) >= lasts);
        let until_now = self.schedule.iter().take_while(|(at, _)| *at <= now);
        until_now
            .filter_map(|(_, number)| {
                let (_, reason) = self.runs.get(number)?.due(&self.rules)?;
                Some((*number, reason))
            })
            .collect()
    }

    /// Those whose deadline is near by now and not over: their sessions are to be told. Each once,
    /// until its deadline moves.
    pub fn nearing(&mut self, now: Instant) -> Vec<ExecutionNumber> {
        let until_now = self.warnings.iter().take_while(|(at, _)| *at <= now);
        let mut near: Vec<ExecutionNumber> = until_now.map(|(_, number)| *number).collect();
        for number in &near {
            self.change(*number, |run| run.warning = None);
        }
        near.retain(|number| {
            let deadline = self.runs.get(number).and_then(|run| run.deadline);
            deadline.is_some_and(|at| at > now)
        });
        near
    }

    /// When [`Registry::due`] or [`Registry::nearing`] is to be asked next.
    pub fn next_turn(&self) -> Option<Instant> {
        let warning = self.warnings.first().map(|(at, _)| *at);
        self.next_due().into_iter().chain(warning).min()
    }

    /// When time alone ends the next one.
    pub fn next_due(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// The active generation of that name.
    pub fn find(&self, id: &ExecutionId) -> Option<ExecutionNumber> {
        self.active.get(id).copied()
    }

    /// The latest generation of that name that is on its way out.
    pub fn ending(&self, id: &ExecutionId) -> Option<ExecutionNumber> {
        let ending = self.runs.iter().filter(|(_, run)| !run.is_active());
        let same = ending.filter(|(_, run)| run.id == *id);
        same.map(|(number, _)| *number).max()
    }

    /// Why a generation is on its way out, or is gone; none while it is active.
    pub fn ending_reason(&self, number: ExecutionNumber) -> Option<Reason> {
        match self.runs.get(&number).map(|run| &run.state) {
            Some(State::Active) => None,
            Some(State::Ending { reason, .. }) => Some(*reason),
            None => Some(Reason::Deleted),
        }
    }

    /// A generation that has not ended.
    pub fn get(&self, number: ExecutionNumber) -> Option<&Run> {
        self.runs.get(&number)
    }

    /// All generations that have not ended, in no order.
    pub fn runs(&self) -> impl Iterator<Item = (ExecutionNumber, &Run)> {
        self.runs.iter().map(|(number, run)| (*number, run))
    }

    /// The last ended generations, oldest first.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.summaries.iter()
    }

    /// How many there are and were.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn refuse_ended(&self, id: &ExecutionId, now: Instant) -> Result<(), Refused> {
        let Some(tombstone) = self.tombstones.get(id) else {
            return Ok(());
        };
        let ago = now.saturating_duration_since(tombstone.at);
        if ago >= self.rules.tombstone {
            return Ok(());
        }
        Err(Refused::Ended {
            id: id.clone(),
            reason: tombstone.reason,
            ago,
        })
    }

    fn begin(
        &mut self,
        id: ExecutionId,
        kind: Kind,
        length: Option<Duration>,
        now: Instant,
    ) -> ExecutionNumber {
        self.next += 1;
        let number = ExecutionNumber(self.next);
        let mut run = Run {
            generation: self.generations.remove(&id).unwrap_or(0) + 1,
            id: id.clone(),
            kind,
            state: State::Active,
            started: now,
            deadline: None,
            warning: None,
            sessions: 0,
            joined: 0,
            holds: 0,
            length,
            unheld: None,
            idle: None,
        };
        run.set_deadline(length, now);
        if let Some((at, _)) = run.due(&self.rules) {
            self.schedule.insert((at, number));
        }
        self.warnings.extend(run.warning.map(|at| (at, number)));
        self.runs.insert(number, run);
        self.active.insert(id, number);
        self.counts.transition(Stage::Unborn, Stage::Active);
        number
    }

    fn enter(&mut self, number: ExecutionNumber) {
        self.change(number, |run| {
            run.sessions += 1;
            run.joined += 1;
            run.idle = None;
        });
    }

    /// Changes an active generation and keeps the schedule true. False if it is not active.
    fn change(&mut self, number: ExecutionNumber, change: impl FnOnce(&mut Run)) -> bool {
        let Some(run) = self.runs.get_mut(&number) else {
            return false;
        };
        if run.state != State::Active {
            return false;
        }
        if let Some((at, _)) = run.due(&self.rules) {
            self.schedule.remove(&(at, number));
        }
        if let Some(at) = run.warning {
            self.warnings.remove(&(at, number));
        }
        change(run);
        if run.state != State::Active {
            run.warning = None;
        }
        if let Some((at, _)) = run.due(&self.rules) {
            self.schedule.insert((at, number));
        }
        self.warnings.extend(run.warning.map(|at| (at, number)));
        true
    }
}

#[cfg(test)]
mod tests;
