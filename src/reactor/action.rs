//! What may be done.

use crate::budget::{Cause, State};
use crate::config;

use super::Guard;

/// Something that is to be done, from the first rung of the ladder up. What is above the first is only told
/// where the policy says so ([`Policy::dry_run`](super::Policy)); it is decided all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Rung 1: log it, tell the event, and show it. Always.
    Tell(Change),
    /// Rung 2: bring the newest [`Report`](super::Report) to the pod's annotations and its condition. Comes at
    /// the first look and as often as they are to be written: not to be spared again.
    Publish,
    /// Rung 2: post an Event of the state. What is done on the rungs above has Events of its own.
    Announce(Reason),
    /// Rung 3: an emergency cleanup. [`Heard::CleanedUp`](super::Heard) when it is over; until then there is
    /// no other, and no restart.
    CleanUp,
    /// Rung 4: restart the app in this way. [`Heard`](super::Heard) what became of it; until then neither a
    /// cleanup nor a restart is decided.
    Restart(config::Restart),
    /// Something of this rung is due, and must not be. Once for each guard and spell of exhaustion.
    Refuse {
        /// What is due.
        rung: Rung,
        /// What forbids it.
        guard: Guard,
    },
}

/// It is another state from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What it was until now.
    pub from: State,
    /// What it is from now on.
    pub to: State,
    /// Why there was no room, at this look. Of what is over, if it is better now.
    pub cause: Cause,
}

/// The reason of an Event of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Connections run short.
    PoolWarning,
    /// They have run out; once more when that is sustained.
    PoolExhausted,
    /// Who waited is served, or they are not short any more.
    PoolRecovered,
    /// An emergency cleanup has ended something.
    PoolCleanup,
    /// The app, or the pod, is restarted.
    PoolRestart,
    /// A restart is due, and must not be.
    PoolRestartRefused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PoolWarning,
        Self::PoolExhausted,
        Self::PoolRecovered,
        Self::PoolCleanup,
        Self::PoolRestart,
        Self::PoolRestartRefused,
    ];

    /// The Event's reason.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PoolWarning => "PoolWarning",
            Self::PoolExhausted => "PoolExhausted",
            Self::PoolRecovered => "PoolRecovered",
            Self::PoolCleanup => "PoolCleanup",
            Self::PoolRestart => "PoolRestart",
            Self::PoolRestartRefused => "PoolRestartRefused",
        }
    }

    /// Whether nothing is wrong, or done to anybody: the Event's type is Normal, and else Warning.
    #[must_use]
    pub fn is_normal(self) -> bool {
        match self {
            Self::PoolRecovered | Self::PoolRestartRefused => true,
            Self::PoolWarning | Self::PoolExhausted | Self::PoolCleanup | Self::PoolRestart => {
                false
            }
        }
    }
}

/// The rungs that guards watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rung {
    /// The third.
    CleanUp,
    /// The fourth.
    Restart,
}

impl Rung {
    /// The word for it in events and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CleanUp => "cleanup",
            Self::Restart => "restart",
        }
    }
}
