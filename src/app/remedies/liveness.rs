//! What `/livez/app` says of the app: values alone, no clock, no I/O.
//!
//! A restart by `liveness` is one decision. From then on the probe fails, until the sessions that were open at the
//! decision are gone: then either the kubelet has restarted the app's container, or the app has let go by itself.
//! A kubelet that has given up a container does not probe it again before it is another one, so the first answer
//! that a new container gets must be a good one, however soon it comes. Therefore it is looked anew at each probe,
//! and whatever shows that the reason is gone ends it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::session::SessionId;

/// How long the probe fails at most: who has not restarted the app by then does not.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// Whether the app is to be restarted by its liveness probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Liveness {
    /// No restart is pending. Left by a decision.
    #[default]
    Well,
    /// One is. Left when the sessions that were open then are gone, when the app was away and is there again, when
    /// connections are free again, when it is taken back, or after [`LONGEST`].
    Failing(Pending),
}

/// A restart that is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// When it was decided.
    pub(super) since: Instant,
    /// The sessions that were open then, and are still.
    pub(super) open: BTreeSet<SessionId>,
}

/// What is seen at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// The sessions that are open, without those on their way out.
    pub(super) open: BTreeSet<SessionId>,
    /// Whether nobody waits long and connections are free.
    pub(super) is_calm: bool,
    /// Whether the app that is probed was away and is there again, though others' sessions stay.
    pub(super) has_come_back: bool,
    /// Whether a restart is not wanted any more: it would help nobody, as the database does not answer, the pod is
    /// on its way out, or the configuration says otherwise by now.
    pub(super) is_unwanted: bool,
}

/// Why a restart is not pending any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// All that was open is gone.
    Gone,
    /// Connections are free again, though not all that was open is gone.
    Recovered,
    /// The app was away and is there again, though not all that was open is gone: others have opened it.
    CameBack,
    /// Nobody restarted the app in time.
    InVain,
    /// It is not wanted any more.
    Withdrawn,
}

impl Over {
    /// The word for it in events and the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Recovered => "recovered",
            Self::CameBack => "came_back",
            Self::InVain => "in_vain",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl Liveness {
    /// A restart was decided while these sessions were open.
    pub(super) fn decided(open: BTreeSet<SessionId>, now: Instant) -> Self {
        Self::Failing(Pending { since: now, open })
    }

    /// What it is after this was seen, and why a restart that was pending is not any more.
    pub(super) fn after(self, sight: &Sight, now: Instant) -> (Self, Option<Over>) {
        let Self::Failing(mut pending) = self else {
            return (self, None);
        };
        pending.open.retain(|session| sight.open.contains(session));
        let over = if pending.open.is_empty() {
            Over::Gone
        } else if sight.has_come_back {
            Over::CameBack
        } else if sight.is_calm {
            Over::Recovered
        } else if sight.is_unwanted {
            Over::Withdrawn
        } else if now.saturating_duration_since(pending.since) >= LONGEST {
            Over::InVain
        } else {
            return (Self::Failing(pending), None);
        };
        (Self::Well, Some(over))
    }

    /// The restart that is pending at this time, if one is; nothing needs to be seen for it to end in time.
    pub(super) fn pending(&self, now: Instant) -> Option<&Pending> {
        match self {
            Self::Failing(pending) => {
                let age = now.saturating_duration_since(pending.since);
                (age < LONGEST).then_some(pending)
            }
            Self::Well => None,
        }
    }
}

#[cfg(test)]
mod tests;
