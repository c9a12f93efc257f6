//! Restarts that take the Kubernetes API. Each is tried once: what forbids it is told, and whoever
//! has decided on it decides again later.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::config::Restart;
use crate::reactor::Guard;

use super::client::Call;
use super::failure::{Cause, Deed, Failure};
use super::hand::Hand;
use super::owner::{Memory, Owner};
use super::pod::Pod;

/// How often the owner is read anew where somebody else has changed it meanwhile: its controller
/// does with each step of its own.
const TRIES: usize = 4;

/// Why a pod that nobody replaces is not evicted.
const ENDS: &str = "no controller has made the pod, so that an eviction would be its end";

/// What is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// Something forbids it.
    Refused {
        /// What.
        guard: Guard,
        /// More than the guard says, where there is more.
        more: Option<String>,
    },
    /// The API did not do it.
    Failed(#[from] Failure),
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { guard, more: None } => guard.fmt(f),
            Self::Refused {
                guard,
                more: Some(more),
            } => write!(f, "{guard}: {more}"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl NotDone {
    fn refused(guard: Guard, more: impl Into<String>) -> Self {
        let more = Some(more.into());
        Self::Refused { guard, more }
    }

    /// A failure that is rather a refusal.
    fn of(failure: Failure) -> Self {
        match failure.cause {
            Cause::Forbidden => Self::refused(Guard::NotAllowed, failure.to_string()),
            Cause::NotFound => Self::refused(Guard::NotFound, failure.to_string()),
            _ => Self::Failed(failure),
        }
    }
}

/// The limits that the owner's stamp is held against, as in `reactor.cooldown` and
/// `reactor.max_restarts_per_hour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The shortest time between two restarts.
    pub cooldown: Duration,
    /// The most restarts within an hour.
    pub per_hour: u32,
}

/// Does what of a restart is the API's to do. Before each call that changes something `is_due` is asked whether it
/// still is to be done: what was read before may have taken its time.
pub(super) async fn restart<E, F>(
    hand: &Hand,
    restart: Restart,
    limits: Limits,
    is_due: impl Fn() -> F,
) -> Result<(), E>
where
    E: From<NotDone>,
    F: Future<Output = Result<(), E>>,
{
    match restart {
        Restart::Liveness => Ok(()),
        Restart::ExitCode => Ok(may_exit(hand).await?),
        Restart::Evict => {
            may_evict(hand).await?;
            is_due().await?;
            Ok(evict(hand).await?)
        }
        Restart::Rollout => rollout(hand, limits, is_due).await,
    }
}

/// Whether an exit with 88 restarts all containers. Where the API can't be asked nothing is known,
/// and so nothing forbids it.
async fn may_exit(hand: &Hand) -> Result<(), NotDone> {
    match hand.read(Deed::Read).await {
        Ok(pod) if !pod.has_rule => Err(NotDone::Refused {
            guard: Guard::NoRuleFor88,
            more: None,
        }),
        _ => Ok(()),
    }
}

/// Whether somebody puts another pod in the place of this one: else an eviction would be its end. It is
/// looked at first also because the server takes longer than we wait to find out that another one
/// has the name.
async fn may_evict(hand: &Hand) -> Result<(), NotDone> {
    let pod = hand.read(Deed::Read).await.map_err(NotDone::of)?;
    match pod.owner {
        Some(_) => Ok(()),
        None => Err(NotDone::refused(Guard::NoOwner, ENDS)),
    }
}

/// Evicts this very pod.
async fn evict(hand: &Hand) -> Result<(), NotDone> {
    let place = &hand.api.place;
    let body = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": place.pod, "namespace": place.namespace},
        "deleteOptions": {"preconditions": {"uid": place.uid}},
    });
    let path = hand.api.pod() + "/eviction";
    match hand
        .api
        .call(Deed::Evict, &Call::create(&path, &body))
        .await
    {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_disruption() => {
            Err(NotDone::refused(Guard::Disrupted, failure.words()))
        }
        // Another pod has the name.
        Err(failure) if failure.cause == Cause::Conflict => {
            Err(NotDone::refused(Guard::NotFound, failure.words()))
        }
        Err(failure) => Err(NotDone::of(failure)),
    }
}

/// Stamps the owner, unless it was within the limits: of two pods that decide at once, the second
/// finds the first one's stamp, as it has to have seen the object that it changes.
async fn rollout<E, F>(hand: &Hand, limits: Limits, is_due: impl Fn() -> F) -> Result<(), E>
where
    E: From<NotDone>,
    F: Future<Output = Result<(), E>>,
{
    let pod = hand.read(Deed::Read).await.map_err(NotDone::of)?;
    let no_owner = |why| NotDone::refused(Guard::NoOwner, why);
    let owner = Owner::of(&pod).map_err(no_owner)?;
    let mut changed = None;
    for _ in 0..TRIES {
        let stamp = stamp(hand, &owner, &pod, limits).await?;
        is_due().await?;
        match hand.api.call(Deed::Rollout, &stamp).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.cause == Cause::Conflict => changed = Some(failure),
            Err(failure) => return Err(NotDone::of(failure).into()),
        }
    }
    let words = changed.map(|failure| failure.words().to_owned());
    Err(NotDone::refused(Guard::OwnerChanged, words.unwrap_or_default()).into())
}

/// What stamps the owner as it is now, if its stamp allows for it.
async fn stamp(hand: &Hand, owner: &Owner, pod: &Pod, limits: Limits) -> Result<Call, NotDone> {
    let path = owner.path(&hand.api.place.namespace);
    let answer = hand.api.call(Deed::Owner, &Call::get(path.clone())).await;
    let answer = answer.map_err(NotDone::of)?;
    if !owner.is(&answer) {
        let odd = format!("it is no {} {} that has a version", owner.kind, owner.name);
        return Err(Failure::new(Deed::Owner, Cause::Odd, odd).into());
    }
    let memory = Memory::of(&answer, owner, pod);
    let memory = memory.map_err(|why| NotDone::refused(Guard::NoOwner, why))?;
    let now = SystemTime::now();
    if let Some(guard) = memory.forbids(limits.cooldown, limits.per_hour, now) {
        let more = format!("by the stamp of {} {}", owner.kind, owner.name);
        return Err(NotDone::refused(guard, more));
    }
    Ok(Call::merge(&path, &memory.stamp(now)))
}
