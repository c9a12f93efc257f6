//! The reactor's hand on the Kubernetes API. Nothing else here speaks to it, and nothing waits for
//! it: what is to be told is left to tasks of its own, which try again for as long as it takes.
//!
//! | module | gives |
//! |---|---|
//! | `place` | who the pod is, and where its API is |
//! | `client` | calls that end in time and are not tried again by themselves |
//! | `failure` | why one has failed, and what to do about it |
//! | `backoff` | how long is waited until the next |
//! | `standing` | how it stands with the API, told once per change |
//! | `hand` | what the tasks share |
//! | `pod` | what the API says of the pod |
//! | `reconcile` | annotations and condition: the newest report is brought to the pod |
//! | `events` `note` | events of Kubernetes, in series, and what they say |
//! | `restart` | eviction, rollout, and whether exit code 88 has a rule |
//! | `owner` | the pod's owner and the stamp on it |
//! | `time` | moments as Kubernetes writes them |

mod backoff;
mod client;
mod events;
mod failure;
mod hand;
mod note;
mod owner;
mod place;
mod pod;
mod reconcile;
mod restart;
mod standing;
mod time;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Restart;
use crate::metrics::Counters;

use super::{Notice, Report, Restarts};

use client::Api;
use events::Outbox;
use hand::{Hand, Known};
use reconcile::{Published, Wanted};
use standing::Keeper;

pub use failure::Failure;
pub use place::{Missing, Place};
pub use restart::{Limits, NotDone};
pub use standing::Standing;

/// The Kubernetes API as the reactor uses it. Nothing is asked before the first report, event,
/// restart or memory; dropping it ends what is under way.
#[derive(Debug)]
pub struct Kubernetes {
    hand: Arc<Hand>,
    wanted: watch::Sender<Wanted>,
    outbox: Arc<Outbox>,
    /// Aborted with it.
    _tasks: JoinSet<()>,
}

impl Kubernetes {
    /// From the pod's place; outcomes are counted by `counters`. Call it within a runtime of tokio,
    /// in which its tasks run from then on.
    #[must_use]
    pub fn start(place: Place, counters: Arc<Counters>) -> Self {
        let hand = Arc::new(Hand::new(Api::new(place), Keeper::new(counters)));
        let wanted = watch::Sender::new(None);
        let outbox = Arc::new(Outbox::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(learn(Arc::clone(&hand)));
        tasks.spawn(reconcile::annotations(
            Arc::clone(&hand),
            wanted.subscribe(),
        ));
        tasks.spawn(reconcile::condition(Arc::clone(&hand), wanted.subscribe()));
        tasks.spawn(events::post(Arc::clone(&hand), Arc::clone(&outbox)));
        Self {
            hand,
            wanted,
            outbox,
            _tasks: tasks,
        }
    }

    /// The pod that this is about.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.hand.api.place
    }

    /// Brings a report to the pod's annotations and, with `with_condition` (`reactor.condition`), to
    /// its condition. Only the newest one counts; it is tried until it is there. It is up to the
    /// caller how often it comes.
    pub fn publish(&self, report: Report, with_condition: bool) {
        self.hand.want_pod();
        self.wanted.send_replace(Some(Arc::new(Published {
            report,
            with_condition,
        })));
    }

    /// Posts an event about the pod. Repeated within six minutes it is a series. The last few are
    /// kept while the API is away.
    pub fn announce(&self, notice: &Notice) {
        let note = note::note(notice, self.place());
        self.outbox.add(notice, &note, &self.place().pod);
    }

    /// Until the API has every event: maybe never, so that it is up to the caller how long that is
    /// waited for.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn posted(&self) {
        self.outbox.emptied().await;
    }

    /// Forgets what is not written yet: nothing is asked any more until there is something new. For
    /// `reactor.dry_run` that was switched on.
    pub fn withdraw(&self) {
        self.wanted.send_replace(None);
        self.outbox.clear();
    }

    /// Does of a restart what is the API's to do, once and without waiting for what forbids it:
    ///
    /// | restart | does |
    /// |---|---|
    /// | `liveness` | nothing |
    /// | `exit-code` | looks whether the pod has a rule for 88; where the API can't say, it may be |
    /// | `evict` | has this very pod evicted, if its PodDisruptionBudgets allow for it |
    /// | `rollout` | stamps the owner, unless the owner's stamp is within the limits |
    ///
    /// It takes ten seconds for each call at most, so that much may have changed since it was decided: before each call
    /// that evicts or stamps, `is_due` is asked whether it still is to be done.
    ///
    /// # Errors
    /// What forbids it, or has failed; what `is_due` says against it. To be decided again later.
    ///
    /// # Cancel safety
    /// It may or may not be done when this is dropped.
    pub async fn restart<E, F>(
        &self,
        restart: Restart,
        limits: Limits,
        is_due: impl Fn() -> F,
    ) -> Result<(), E>
    where
        E: From<NotDone>,
        F: Future<Output = Result<(), E>>,
    {
        restart::restart(&self.hand, restart, limits, is_due).await
    }

    /// What the pod's annotations remember of restarts, as soon as the API tells; not since when the pod has been
    /// there, as that is told by the clock of another machine. `None`: the pod is no more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn remembered(&self) -> Option<Restarts> {
        self.hand.want_pod();
        let pod = self.hand.pod().await?;
        Some(Restarts::counted(pod.restarts, pod.last_restart))
    }

    /// How it stands with the API.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.hand.keeper.standing()
    }

    /// Whether the pod is no more in the API, so that nothing is written any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(*self.hand.known().borrow(), Known::Gone)
    }
}

/// Reads the pod when somebody wants it.
async fn learn(hand: Arc<Hand>) {
    hand.is_wanted().await;
    hand.learn().await;
}
