//! What `/livez/app` says of the app: values alone, no clock, no I/O.
//!
//! A restart by `liveness` is one decision. From then on the probe fails, until the sessions that were open at the
//! decision are gone: then either the kubelet has restarted the app's container, or the app has let go by itself.
//! A kubelet that has given up a container does not probe it again before it is another one, so the first answer
//! that a new container gets must be a good one, however soon it comes. Therefore it is looked anew at each probe,
//! and whatever shows that the reason is gone ends it.
//!
//! Where sessions stay though one container was restarted, others may not have been probed as often by then: it fails
//! for their sake a while longer, and for less than it takes to restart the same container again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::session::SessionId;

/// How long the probe fails at most: who has not restarted the app by then does not.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// How long it fails at most once a container that was restarted is back, though sessions stay: two periods of the
/// chart's probe. Kubelets ask for each container in turn, and another one's probe comes up to a period later.
const FOR_OTHERS: Duration = Duration::from_secs(20);

/// That is no more than this part of the time after which the container was gone. It took a whole round of failures,
/// so that a part of it is too short for another round, also where probes come faster than the chart's.
const PART: u32 = 3;

/// Whether the app is to be restarted by its liveness probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Liveness {
    /// No restart is pending. Left by a decision.
    #[default]
    Well,
    /// One is. Left when the sessions that were open then are gone, when connections are free again, when it is taken
    /// back, a while after the app was away and is there again, or after [`LONGEST`].
    Failing(Pending),
}

/// A restart that is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// When it was decided.
    pub(super) since: Instant,
    /// The sessions that were open then, and are still.
    pub(super) open: BTreeSet<SessionId>,
    /// Until when it fails for the sake of others, as the app that is probed has come back; none: it has not.
    others_until: Option<Instant>,
}

/// What is seen at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// The sessions that are open, without those on their way out.
    pub(super) open: BTreeSet<SessionId>,
    /// Whether nobody waits long and connections are free.
    pub(super) is_calm: bool,
    /// When the app that is probed was gone, where it is there again, though sessions stay.
    pub(super) came_back: Option<Instant>,
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
    /// The app was away and is there again, though not all that was open is gone: others have opened it, and were not
    /// restarted in the time that they had.
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
        Self::Failing(Pending {
            since: now,
            open,
            others_until: None,
        })
    }

    /// What it is after this was seen, and why a restart that was pending is not any more.
    pub(super) fn after(self, sight: &Sight, now: Instant) -> (Self, Option<Over>) {
        let Self::Failing(mut pending) = self else {
            return (self, None);
        };
        pending.open.retain(|session| sight.open.contains(session));
        pending.comes_back(sight.came_back, now);
        let over = if pending.open.is_empty() {
            Over::Gone
        } else if sight.is_calm {
            Over::Recovered
        } else if sight.is_unwanted {
            Over::Withdrawn
        } else if pending.others_until.is_some_and(|until| now >= until) {
            Over::CameBack
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
                let is_over =
                    age >= LONGEST || pending.others_until.is_some_and(|until| now >= until);
                (!is_over).then_some(pending)
            }
            Self::Well => None,
        }
    }
}

impl Pending {
    /// The app that is probed is there again, and was gone at this time; others have a while from now on.
    fn comes_back(&mut self, gone: Option<Instant>, now: Instant) {
        if let (Some(gone), None) = (gone, self.others_until) {
            let took = gone.saturating_duration_since(self.since);
            let until = now + FOR_OTHERS.min(took / PART);
            self.others_until = Some(until.min(self.since + LONGEST));
        }
    }
}

#[cfg(test)]
mod tests;
