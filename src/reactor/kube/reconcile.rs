//! Brings the newest report to the pod: annotations and condition, each by itself, so that what
//! is in the way of one is not in the way of the other.
//!
//! It is driven by levels: what is written is always all that is to be there, by server-side apply,
//! so that a key that is left out goes away. What failed is not kept: the newest report is tried.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::reactor::Report;

use super::backoff::{Backoff, random};
use super::client::Call;
use super::failure::{Deed, Failure};
use super::hand::Hand;
use super::pod::{CONDITION, Pod};
use super::time;

/// What is to be at the pod; `None`: nothing is to be written.
pub(super) type Wanted = Option<Arc<Published>>;

/// A report, and what of it is to be written.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) report: Report,
    /// Whether the condition is kept.
    pub(super) with_condition: bool,
}

/// What one task keeps at the pod.
trait Part {
    const DEED: Deed;

    /// What is to be applied, and where; `None`: nothing.
    fn body(&mut self, wanted: &Published) -> Option<Value>;

    /// It is there now.
    fn written(&mut self) {}

    /// Below the pod's path.
    const BELOW: &str;
}

/// Keeps the annotations until the pod is no more.
pub(super) async fn annotations(hand: Arc<Hand>, wanted: watch::Receiver<Wanted>) {
    if let Some(pod) = hand.pod().await {
        keep(&hand, wanted, Annotations { pod }).await;
    }
}

/// Keeps the condition until the pod is no more.
pub(super) async fn condition(hand: Arc<Hand>, wanted: watch::Receiver<Wanted>) {
    if let Some(pod) = hand.pod().await {
        let part = Condition {
            known: pod.condition,
            next: None,
        };
        keep(&hand, wanted, part).await;
    }
}

async fn keep<P: Part>(hand: &Hand, mut wanted: watch::Receiver<Wanted>, mut part: P) {
    // What was wanted before the pod had been read.
    wanted.mark_changed();
    let mut backoff = Backoff::default();
    let mut is_taken_told = false;
    while wanted.changed().await.is_ok() {
        loop {
            let newest = wanted.borrow_and_update().clone();
            let Some(body) = newest.and_then(|newest| part.body(&newest)) else {
                hand.keeper.idle(P::DEED);
                break;
            };
            match apply(hand, &mut is_taken_told, P::DEED, P::BELOW, body).await {
                Ok(()) => {
                    hand.keeper.succeeded(P::DEED);
                    part.written();
                    backoff.reset();
                    break;
                }
                Err(failure) if hand.is_gone(&failure).await => return,
                Err(failure) => {
                    hand.keeper.failed(&failure);
                    sleep(backoff.next(failure.after, random())).await;
                }
            }
        }
    }
}

/// Applies to the pod of our uid alone. Fields that another manager owns are ours by their names:
/// they are taken, and that is told once.
async fn apply(
    hand: &Hand,
    is_taken_told: &mut bool,
    deed: Deed,
    below: &str,
    mut body: Value,
) -> Result<(), Failure> {
    let place = &hand.api.place;
    body["apiVersion"] = "v1".into();
    body["kind"] = "Pod".into();
    // A pod of that name and another uid is never written, and none is ever created.
    body["metadata"]["name"] = place.pod.as_str().into();
    body["metadata"]["namespace"] = place.namespace.as_str().into();
    body["metadata"]["uid"] = place.uid.as_str().into();
    let path = hand.api.pod() + below;
    match hand.api.call(deed, &Call::apply(&path, false, &body)).await {
        Err(failure) if failure.is_of_managers() => {
            if !std::mem::replace(is_taken_told, true) {
                hand.keeper.taken(&failure);
            }
            let forced = Call::apply(&path, true, &body);
            hand.api.call(deed, &forced).await.map(drop)
        }
        other => other.map(drop),
    }
}

struct Annotations {
    pod: Arc<Pod>,
}

impl Part for Annotations {
    const DEED: Deed = Deed::Annotate;
    const BELOW: &str = "";

    fn body(&mut self, wanted: &Published) -> Option<Value> {
        let mut all = serde_json::Map::new();
        for (key, value) in wanted.report.annotations() {
            all.insert(key.to_owned(), value.into());
        }
        // What the pod remembers is not forgotten by a report that was made before it was read.
        let counted = all.get("execpool.dev/restarts").and_then(Value::as_str);
        let counted: u64 = counted.and_then(|count| count.parse().ok()).unwrap_or(0);
        if self.pod.restarts > counted {
            all.insert(
                "execpool.dev/restarts".into(),
                self.pod.restarts.to_string().into(),
            );
            if let Some(last) = self.pod.last_restart {
                all.insert(
                    "execpool.dev/last-restart".into(),
                    time::second(last).into(),
                );
            }
        }
        Some(json!({"metadata": {"annotations": all}}))
    }
}

/// Status, and since when it has been that.
type Level = (bool, k8s_openapi::jiff::Timestamp);

struct Condition {
    /// As it is at the pod.
    known: Option<Level>,
    /// As it is about to be.
    next: Option<Level>,
}

impl Part for Condition {
    const DEED: Deed = Deed::Condition;
    const BELOW: &str = "/status";

    fn body(&mut self, wanted: &Published) -> Option<Value> {
        let condition = wanted.report.condition();
        let (status, reason, message) = match wanted.with_condition {
            true => (condition.status, condition.reason, condition.message),
            // Nobody would ever set it to True again.
            false if self.known.is_some_and(|(status, _)| !status) => {
                (true, "NotWatched", "reactor.condition is off".to_owned())
            }
            false => return None,
        };
        let now = time::stamp(std::time::SystemTime::now());
        let since = match self.known {
            Some((known, since)) if known == status => since,
            _ => now,
        };
        self.next = Some((status, since));
        Some(json!({"status": {"conditions": [{
            "type": CONDITION,
            "status": if status { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastTransitionTime": time::second(since.into()),
        }]}}))
    }

    fn written(&mut self) {
        self.known = self.next;
    }
}
