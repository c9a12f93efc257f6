//! One generation of an execution.

use super::{Reason, ReasonText, ResourceCounts, Rules};
use crate::events::{Event, Seconds, Text};
use crate::protocol::startup::ExecutionId;
use crate::session::Totals;
use crate::story::Story;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of its time has passed when the sessions of an execution are warned.
const WARNED_AT: f64 = 0.8;

/// How an execution came to be, and so what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By request.
    Explicit,
    /// By a session that named it; it leaves when idle.
    Implicit,
    /// The standing one of sessions that name none; no time ends it.
    Shared,
    /// Of one session that names none; it ends with it.
    Session,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Implicit => "implicit",
            Self::Shared => "shared",
            Self::Session => "session",
        }
    }
}

/// Where a generation stands. Once ended it is a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Sessions may join. Left by `Registry::end`, for whatever reason.
    Active,
    /// No session joins and no checkout is given. Left by `Registry::closed`, once its last server
    /// connection is gone.
    Ending {
        /// Why.
        reason: Reason,
        /// What the client said about it.
        text: Option<ReasonText>,
    },
}

/// One generation of an execution that has not ended.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its name.
    pub id: ExecutionId,
    /// Which of that name, from 1.
    pub generation: u64,
    /// How it came to be.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// When it began.
    pub started: Instant,
    /// When its time is up.
    pub deadline: Option<Instant>,
    /// Sessions in it now.
    pub sessions: usize,
    /// Sessions that ever joined.
    pub joined: u64,
    /// Open streams that hold it.
    pub holds: usize,
    /// When the sessions are told that the deadline is near; none once they were.
    pub(super) warning: Option<Instant>,
    pub(super) length: Option<Duration>,
    pub(super) unheld: Option<Instant>,
    pub(super) idle: Option<Instant>,
}

impl Run {
    /// Whether sessions may join.
    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// The event of its beginning.
    pub(super) fn began(&self, now: Instant) -> Event {
        Event::ExecutionBegan {
            execution_id: Text::name(self.id.as_str()),
            generation: self.generation,
            kind: Text::name(self.kind.as_str()),
            deadline_seconds: self.left(now),
        }
    }

    /// The event that it is explicit now.
    pub(super) fn adopted(&self, now: Instant) -> Event {
        Event::ExecutionAdopted {
            execution_id: Text::name(self.id.as_str()),
            generation: self.generation,
            deadline_seconds: self.left(now),
        }
    }

    fn left(&self, now: Instant) -> Option<Seconds> {
        let left = self.deadline.map(|at| at.saturating_duration_since(now));
        left.map(Seconds)
    }

    /// Its deadline is so far from now on, none for none. What was told of the one before does not
    /// count for this one.
    pub(super) fn set_deadline(&mut self, length: Option<Duration>, now: Instant) {
        self.deadline = length.and_then(|length| now.checked_add(length));
        let until = length.map(|length| length.mul_f64(WARNED_AT));
        self.warning = until.and_then(|until| now.checked_add(until));
    }

    /// What ends it next by time alone, if nothing else happens.
    pub fn due(&self, rules: &Rules) -> Option<(Instant, Reason)> {
        if self.state != State::Active {
            return None;
        }
        let deadline = self.deadline.map(|at| (at, Reason::Deadline));
        let unheld = self.unheld.and_then(|at| at.checked_add(rules.hold_grace));
        // While it is held it is not idle, nor while the last hold may come back.
        let idle = match self.kind {
            Kind::Implicit if self.holds == 0 && self.unheld.is_none() => self.idle,
            _ => None,
        };
        let idle = idle.and_then(|at| at.checked_add(rules.idle_timeout));
        let unheld = unheld.map(|at| (at, Reason::HoldLost));
        let idle = idle.map(|at| (at, Reason::Idle));
        let all = [deadline, unheld, idle];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

/// What is kept of a generation that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub id: ExecutionId,
    /// Which of that name.
    pub generation: u64,
    /// Why it ended.
    pub reason: Reason,
    /// What the client said about it.
    pub text: Option<ReasonText>,
    /// When it began.
    pub started: Instant,
    /// When its last server connection was gone.
    pub ended: Instant,
    /// Sessions that ever joined.
    pub sessions: u64,
    /// What its connections were used for, and what was still there.
    pub remains: Remains,
    /// What happened, if it ended badly, and as long as there is room for it.
    pub story: Option<Arc<Story>>,
}

impl Summary {
    /// Whether somebody may want to know how it came to its end: nobody meant it to end then, or
    /// something was left or forgotten, or a session got nothing or was ended by somebody else.
    #[must_use]
    pub fn ended_badly(&self) -> bool {
        let unmeant = match self.reason {
            Reason::HoldLost | Reason::Deadline | Reason::Cleanup => true,
            Reason::Deleted | Reason::Shutdown | Reason::Idle | Reason::SessionEnded => false,
        };
        let remains = &self.remains;
        unmeant
            || remains.leftovers > 0
            || remains.resources.total() > 0
            || remains.totals.leaks > 0
            || remains.is_troubled
    }
}

/// What is known of a generation only when its last server connection is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// What its sessions did.
    pub totals: Totals,
    /// The most server connections that it had at once, over its pools.
    pub peak: usize,
    /// Server connections that were still there.
    pub leftovers: usize,
    /// Resources that were still registered.
    pub resources: ResourceCounts,
    /// Whether a session waited in vain, or was cancelled or ended on its own by somebody else, or force
    /// was used at the end.
    pub is_troubled: bool,
}
