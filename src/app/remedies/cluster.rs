//! Kubernetes' API, as far as remedies need it; or that there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{KubernetesUse, Restart};
use crate::control::remedies::KubernetesStatus;
use crate::metrics::Counters;
use crate::reactor::{
    Guard, Kubernetes, Limits, Missing, NotDone, Notice, Place, Report, Restarts, Snapshot,
};

/// Where Kubernetes' API is, or why it is not spoken to.
#[derive(Debug, Clone)]
pub(in crate::app) enum Whereabouts {
    /// There.
    At(Box<Place>),
    /// It is not, and why.
    Off(String),
}

impl Whereabouts {
    /// As `reactor.kubernetes` says, and the environment of the process.
    ///
    /// # Errors
    /// It is to be spoken to, and that is not possible.
    pub(in crate::app) fn find(
        wanted: KubernetesUse,
        env: &[(String, String)],
    ) -> Result<Self, Missing> {
        let value = |name: &str| {
            let known = env.iter().find(|(known, _)| known == name);
            known.map(|(_, value)| value.clone())
        };
        if wanted == KubernetesUse::Off {
            return Ok(Self::Off("reactor.kubernetes is off".to_owned()));
        }
        match Place::find(value) {
            Ok(place) => Ok(Self::At(Box::new(place))),
            Err(missing) if wanted == KubernetesUse::On => Err(missing),
            Err(missing) => Ok(Self::Off(missing.to_string())),
        }
    }
}

/// Kubernetes' API, where it is spoken to.
#[derive(Debug)]
pub(super) enum Cluster {
    /// It is.
    On(Kubernetes),
    /// It is not, and why.
    Off(String),
}

/// Why a restart was not to be had.
#[derive(Debug)]
pub(super) enum Denied {
    /// This forbids it; and more than it says, where there is more.
    By(Guard, Option<String>),
    /// This forbids it by now, as it stands by now.
    Late(Guard, Box<Snapshot>),
    /// It was tried in vain, and why.
    Failed(String),
}

impl Cluster {
    /// Nothing is asked yet. Within a runtime of tokio.
    pub(super) fn start(at: Whereabouts, counters: &Arc<Counters>) -> Self {
        match at {
            Whereabouts::At(place) => Self::On(Kubernetes::start(*place, Arc::clone(counters))),
            Whereabouts::Off(why) => Self::Off(why),
        }
    }

    /// Brings this to the pod, as soon as may be. Returns at once.
    pub(super) fn publish(&self, report: Report, with_condition: bool) {
        match self {
            Self::On(api) => api.publish(report, with_condition),
            Self::Off(_) => {}
        }
    }

    /// Posts an Event. Returns at once.
    pub(super) fn announce(&self, notice: &Notice) {
        match self {
            Self::On(api) => api.announce(notice),
            Self::Off(_) => {}
        }
    }

    /// Until all Events are posted; maybe never.
    pub(super) async fn posted(&self) {
        match self {
            Self::On(api) => api.posted().await,
            Self::Off(_) => {}
        }
    }

    /// What is not written yet is not to be.
    pub(super) fn withdraw(&self) {
        match self {
            Self::On(api) => api.withdraw(),
            Self::Off(_) => {}
        }
    }

    /// Whether it is spoken to.
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// Does of a restart what is the API's to do: an eviction, a rollout, a look for the rule for 88. Where there is
    /// no API, nobody can say that there is no such rule. `is_due` is asked before each call that changes something.
    pub(super) async fn restart<F>(
        &self,
        mode: Restart,
        limits: Limits,
        is_due: impl Fn() -> F,
    ) -> Result<(), Denied>
    where
        F: Future<Output = Result<(), Denied>>,
    {
        match self {
            Self::On(api) => api.restart(mode, limits, is_due).await,
            Self::Off(why) if mode.needs_api() => {
                Err(Denied::By(Guard::NoKubernetes, Some(why.clone())))
            }
            Self::Off(_) => Ok(()),
        }
    }

    /// Whose restart an eviction or a rollout is: a part of a sentence.
    ///
    /// # Errors
    /// There is no API that could do it.
    pub(super) fn pod(&self) -> Result<String, Denied> {
        match self {
            Self::On(api) => {
                let place = api.place();
                Ok(format!("{}/{}", place.namespace(), place.pod()))
            }
            Self::Off(why) => Err(Denied::By(Guard::NoKubernetes, Some(why.clone()))),
        }
    }

    /// What is remembered there, as soon as it answers; none where it remembers nothing.
    pub(super) async fn remembered(&self) -> Option<Restarts> {
        match self {
            Self::On(api) => api.remembered().await,
            Self::Off(_) => None,
        }
    }

    /// How it stands.
    pub(super) fn shown(&self, now: Instant) -> KubernetesStatus {
        let api = match self {
            Self::On(api) => api,
            Self::Off(why) => return KubernetesStatus::off(why),
        };
        if api.is_gone() {
            return KubernetesStatus::off("the pod is no more");
        }
        let standing = api.standing();
        let since = now.checked_sub(standing.age.unwrap_or(Duration::ZERO));
        match standing.failure.filter(|_| standing.is_away) {
            Some(failure) => KubernetesStatus::away(since.unwrap_or(now), &failure.to_string()),
            None => KubernetesStatus::on(),
        }
    }
}

impl From<NotDone> for Denied {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Refused { guard, more } => Self::By(guard, more),
            NotDone::Failed(failure) => Self::Failed(failure.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_api_is_told_why_and_who_insists_does_not_start() {
        let find = |wanted| Whereabouts::find(wanted, &[]);
        let off =
            |it| matches!(it, Ok(Whereabouts::Off(why)) if why.contains("reactor.kubernetes"));
        assert!(off(find(KubernetesUse::Off)));
        assert!(off(find(KubernetesUse::Auto)));
        let missing = find(KubernetesUse::On).unwrap_err().to_string();
        assert!(missing.contains("POD_NAME"), "{missing}");
    }
}
