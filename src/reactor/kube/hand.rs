//! What every task here has at hand: the API, what is known of the pod, and how it stands.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::backoff::{Backoff, random};
use super::client::{Api, Call};
use super::failure::{Cause, Deed, Failure};
use super::pod::Pod;
use super::standing::Keeper;

/// What is known of the own pod.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// It has not been read, or not yet.
    Unread,
    /// It was there when it was read.
    Here(Arc<Pod>),
    /// It is no more. That is for ever: the next pod of that name has another uid.
    Gone,
}

#[derive(Debug)]
pub(super) struct Hand {
    pub(super) api: Api,
    pub(super) keeper: Keeper,
    known: watch::Sender<Known>,
    wanted: Notify,
}

impl Hand {
    pub(super) fn new(api: Api, keeper: Keeper) -> Self {
        Self {
            api,
            keeper,
            known: watch::Sender::new(Known::Unread),
            wanted: Notify::new(),
        }
    }

    /// Somebody needs to know of the pod.
    pub(super) fn want_pod(&self) {
        self.wanted.notify_one();
    }

    /// Until somebody does.
    pub(super) async fn is_wanted(&self) {
        self.wanted.notified().await;
    }

    /// What is known of the pod, and what will be.
    pub(super) fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// The pod as it was first read, waiting for that; `None`: it is no more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn pod(&self) -> Option<Arc<Pod>> {
        let mut known = self.known();
        let is_read = |known: &Known| !matches!(known, Known::Unread);
        // The sender is this one's own.
        match &*known.wait_for(is_read).await.ok()? {
            Known::Here(pod) => Some(Arc::clone(pod)),
            Known::Unread | Known::Gone => None,
        }
    }

    /// Reads the pod until that has succeeded, however long it takes.
    pub(super) async fn learn(&self) {
        let mut backoff = Backoff::default();
        loop {
            match self.read(Deed::Read).await {
                Ok(pod) => {
                    self.keeper.succeeded(Deed::Read);
                    self.known.send_if_modified(|known| {
                        let is_unread = matches!(known, Known::Unread);
                        if is_unread {
                            *known = Known::Here(Arc::new(pod));
                        }
                        is_unread
                    });
                    return;
                }
                Err(failure) if failure.is_no_pod() => {
                    self.gone(&failure);
                    return;
                }
                Err(failure) => {
                    self.keeper.failed(&failure);
                    sleep(backoff.next(failure.after, random())).await;
                }
            }
        }
    }

    /// Reads the pod once. Another pod of the same name is as good as none.
    pub(super) async fn read(&self, deed: Deed) -> Result<Pod, Failure> {
        let place = &self.api.place;
        let answer = self.api.call(deed, &Call::get(self.api.pod())).await?;
        if answer["kind"] != "Pod" {
            return Err(Failure::new(deed, Cause::Odd, "it is no pod"));
        }
        let pod = Pod::of(&answer, place.container.as_deref());
        if pod.uid == place.uid {
            return Ok(pod);
        }
        let words = format!(
            "pod {}/{} has the uid {} now, and this one's is {}",
            place.namespace, place.pod, pod.uid, place.uid
        );
        Err(Failure::no_pod(deed, words))
    }

    /// Whether a failed write is due to the pod's being no more. The API tells that in several ways:
    /// 404; 403 where we may not create it; 409 where we may; 422 where another one has the name. So
    /// it is asked. If the pod is no more, that is told.
    pub(super) async fn is_gone(&self, failure: &Failure) -> bool {
        let is_possible = matches!(
            failure.cause,
            Cause::NotFound | Cause::Conflict | Cause::Forbidden | Cause::Refused
        );
        if matches!(*self.known.borrow(), Known::Gone) {
            return true;
        }
        if !is_possible {
            return false;
        }
        match self.read(failure.deed).await {
            Err(read) if read.is_no_pod() => {
                self.gone(&read);
                true
            }
            _ => false,
        }
    }

    /// Tells it once.
    fn gone(&self, failure: &Failure) {
        let was = self.known.send_replace(Known::Gone);
        if !matches!(was, Known::Gone) {
            self.keeper.gone(&self.api.place.pod, failure);
        }
    }
}
