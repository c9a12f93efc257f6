//! What forbids a cleanup or a restart, and why.

use std::fmt;
use std::time::Duration;

use crate::budget::Cause;
use crate::config::Restart;

use super::restarts::forbids;
use super::{Circumstances, Policy, Snapshot};

/// What forbids a cleanup or a restart. As a text it is a sentence without its full stop: why, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// A database does not answer.
    DatabaseUnreachable,
    /// The database takes fewer connections than the budget allows for.
    LimitedByDatabase,
    /// More than half of the held connections run queries.
    Queries,
    /// The pod is on its way out.
    Draining,
    /// Nobody waits for a connection by now.
    Passed,
    /// The configuration says otherwise by now.
    Unwanted,
    /// The pod has not been there for long.
    PodYoung {
        /// How long it is still young.
        left: Duration,
    },
    /// The last restart was not long ago.
    Cooldown {
        /// How long that still is so.
        left: Duration,
    },
    /// There were as many in the last hour as may be.
    TooMany {
        /// So many.
        restarts: u32,
        /// When the next may be.
        left: Duration,
    },
    /// The owner was rolled out not long ago, by whichever of its pods.
    OwnerStamped {
        /// How long that still is so.
        left: Duration,
    },
    /// Another pod stamped the owner at this very moment.
    OwnerChanged,
    /// The pod has no owner that can be rolled out, or would put another in its place.
    NoOwner,
    /// No container of the pod has a rule for the exit code 88.
    NoRuleFor88,
    /// A PodDisruptionBudget forbids an eviction.
    Disrupted,
    /// The API does not let us.
    NotAllowed,
    /// The API knows no such pod, or owner.
    NotFound,
    /// The Kubernetes API is not used here.
    NoKubernetes,
}

impl Guard {
    /// The word for it in events and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DatabaseUnreachable => "database_unreachable",
            Self::LimitedByDatabase => "limited_by_database",
            Self::Queries => "queries",
            Self::Draining => "draining",
            Self::Passed => "passed",
            Self::Unwanted => "unwanted",
            Self::PodYoung { .. } => "pod_young",
            Self::Cooldown { .. } => "cooldown",
            Self::TooMany { .. } => "too_many",
            Self::OwnerStamped { .. } => "owner_stamped",
            Self::OwnerChanged => "owner_changed",
            Self::NoOwner => "no_owner",
            Self::NoRuleFor88 => "no_rule_for_88",
            Self::Disrupted => "disrupted",
            Self::NotAllowed => "not_allowed",
            Self::NotFound => "not_found",
            Self::NoKubernetes => "no_kubernetes",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::DatabaseUnreachable => {
                "the database does not answer, and nothing that is done to the app changes that"
            }
            Self::LimitedByDatabase => {
                "the database takes fewer connections than the budget allows for, which is not the app's doing: \
                 raise max_connections or lower budgets"
            }
            Self::Queries => {
                "more than half of the connections that are held run queries: the database is slow, the app is not \
                 stuck"
            }
            Self::Draining => "the pod is on its way out",
            Self::Passed => "nobody waits for a connection any more",
            Self::Unwanted => {
                "the configuration was changed while it was prepared: reactor.restart or reactor.dry_run says otherwise \
                 by now"
            }
            Self::PodYoung { left } => {
                return write!(f, "the pod is too young for {} more", spoken(*left));
            }
            Self::Cooldown { left } => {
                let left = spoken(*left);
                return write!(
                    f,
                    "the last restart was not long ago: none for {left} more (reactor.cooldown)"
                );
            }
            Self::TooMany { restarts, left } => {
                let left = spoken(*left);
                return write!(
                    f,
                    "there were {restarts} restarts within an hour: none for {left} more \
                     (reactor.max_restarts_per_hour)"
                );
            }
            Self::OwnerStamped { left } => {
                let left = spoken(*left);
                return write!(
                    f,
                    "the pod's owner was rolled out not long ago: not again for {left} more"
                );
            }
            Self::OwnerChanged => {
                "the pod's owner was changed at the same moment, maybe by another of its pods"
            }
            Self::NoOwner => {
                "the pod has no owner that would replace it: an eviction takes a controller, and a rollout a \
                 Deployment, a StatefulSet or a DaemonSet; choose another reactor.restart"
            }
            Self::NoRuleFor88 => {
                "no container of the pod has a restartPolicyRules entry that restarts all containers at exit code \
                 88, so that an exit would restart the sidecar alone: add it, or choose another reactor.restart"
            }
            Self::Disrupted => {
                "a PodDisruptionBudget forbids the eviction at present; it is tried again"
            }
            Self::NotAllowed => {
                "the Kubernetes API does not let the sidecar: its Role lacks a right, or an admission policy \
                 is against it"
            }
            Self::NotFound => "the Kubernetes API does not know the pod, or its owner, any more",
            Self::NoKubernetes => {
                "the Kubernetes API is not used here, as reactor.kubernetes or the lack of a service account says"
            }
        };
        f.write_str(why)
    }
}

/// What forbids both rungs at this look.
pub(super) fn against_both(snapshot: &Snapshot) -> Option<Guard> {
    match snapshot.cause() {
        Cause::DatabaseUnreachable => Some(Guard::DatabaseUnreachable),
        Cause::LimitedByDatabase => Some(Guard::LimitedByDatabase),
        Cause::Queries => Some(Guard::Queries),
        Cause::Held => None,
    }
}

/// What forbids at this look, after all, a restart that was decided some time ago: the database may have become the
/// cause meanwhile, or nobody may wait any more.
pub(super) fn against_late(snapshot: &Snapshot) -> Option<Guard> {
    let draining = snapshot.circumstances.draining;
    let has_passed = snapshot.waiting == 0;
    against_both(snapshot)
        .or(draining.then_some(Guard::Draining))
        .or(has_passed.then_some(Guard::Passed))
}

/// What forbids a restart at this look, after those that were so long ago, the oldest first.
pub(super) fn against_restart(
    restart: Restart,
    snapshot: &Snapshot,
    policy: &Policy,
    ages: &[Duration],
) -> Option<Guard> {
    let Circumstances {
        draining, pod_age, ..
    } = snapshot.circumstances;
    let left = policy.least_age(restart).saturating_sub(pod_age);
    let is_young = !left.is_zero();
    against_both(snapshot)
        .or(draining.then_some(Guard::Draining))
        .or(is_young.then_some(Guard::PodYoung { left }))
        .or_else(|| forbids(ages, policy.cooldown, policy.max_restarts_per_hour))
}

/// A duration as one says it: `9m 58s`, `1h`, `1s` for whatever is less.
fn spoken(time: Duration) -> String {
    // What is left of a second is not over.
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    match parts.is_empty() {
        true => "0s".to_owned(),
        false => parts.join(" "),
    }
}
