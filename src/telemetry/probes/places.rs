//! The places for connections to the port, and who goes where there are too many.
//!
//! Who has not asked yet goes for a newcomer: it may say nothing for as long as it likes, and others may not. Who has
//! asked is answered, however many come after it: a flood must not fail a probe whose answer takes a moment, as that
//! of the app's own probe does. Where too many are being answered a newcomer stays in the system's backlog. Who waits
//! for the app has half of these places at most, so that an app that hangs keeps nobody from the others' answers.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinSet};

/// How many may be there that have not asked yet: one more takes the place of the oldest of them. A client connects
/// before it asks, and is to have the time for that in which so many others come.
const ASKING: usize = 256;

/// How many are answered at once.
const ANSWERED: usize = 128;

/// The connections that there are. Dropped, it ends them.
#[derive(Debug, Default)]
pub(super) struct Places {
    connections: JoinSet<()>,
    /// The oldest first.
    seats: VecDeque<Seat>,
}

#[derive(Debug)]
struct Seat {
    place: Arc<Place>,
    task: AbortHandle,
}

/// Where one connection stands.
#[derive(Debug, Default)]
pub(super) struct Place {
    stage: Mutex<Stage>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Its request is not whole yet. Left when it is.
    #[default]
    Asks,
    /// It is being answered, until its connection is over.
    IsAnswered,
}

impl Place {
    /// The request is whole: from now on nobody takes this place.
    pub(super) fn has_asked(&self) {
        *self.stage.lock() = Stage::IsAnswered;
    }

    fn asks(&self) -> bool {
        *self.stage.lock() == Stage::Asks
    }
}

impl Places {
    /// Whether a newcomer may come in. If not, [`one_is_over`](Self::one_is_over) tells when to ask again.
    pub(super) fn have_room(&mut self) -> bool {
        // None of those that are over is kept, also where newcomers never cease.
        while self.connections.try_join_next().is_some() {}
        self.seats.retain(|seat| !seat.task.is_finished());
        let answered = self.seats.iter().filter(|seat| !seat.place.asks()).count();
        answered < ANSWERED
    }

    /// Serves a newcomer; answers whether another had to go for it.
    pub(super) fn seat<F>(&mut self, serve: impl FnOnce(Arc<Place>) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let asking = self.seats.iter().filter(|seat| seat.place.asks()).count();
        let has_gone = asking >= ASKING && self.oldest_goes();
        let place = Arc::<Place>::default();
        let task = self.connections.spawn(serve(Arc::clone(&place)));
        self.seats.push_back(Seat { place, task });
        has_gone
    }

    /// Waits until a connection is over; for ever where there is none. Cancel safe.
    pub(super) async fn one_is_over(&mut self) {
        if self.connections.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    fn oldest_goes(&mut self) -> bool {
        let oldest = self.seats.iter().position(|seat| seat.place.asks());
        let Some(oldest) = oldest.and_then(|at| self.seats.remove(at)) else {
            return false;
        };
        oldest.task.abort();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stays until it is told to go, or must; then it says so.
    struct Guest(Arc<Mutex<Vec<usize>>>, usize);

    impl Drop for Guest {
        fn drop(&mut self) {
            self.0.lock().push(self.1);
        }
    }

    #[tokio::test]
    async fn who_has_not_asked_goes_in_turn_and_who_has_stays() {
        let gone = Arc::new(Mutex::new(Vec::new()));
        let mut places = Places::default();
        let mut crowded = 0;
        // Two of ten have asked.
        for number in 0..450 {
            let guest = Guest(Arc::clone(&gone), number);
            crowded += usize::from(places.seat(|place| async move {
                if number % 10 < 2 {
                    place.has_asked();
                }
                let _guest = guest;
                std::future::pending().await
            }));
            tokio::task::yield_now().await;
            assert!(places.have_room(), "{number}");
        }
        tokio::task::yield_now().await;
        let silent: Vec<usize> = (0..450).filter(|number| number % 10 >= 2).collect();
        assert_eq!(*gone.lock(), silent[..360 - ASKING]);
        assert_eq!(crowded, 360 - ASKING);
    }

    #[tokio::test]
    async fn a_newcomer_waits_where_too_many_are_answered_and_no_longer() {
        let mut places = Places::default();
        let leave = Arc::new(tokio::sync::Notify::new());
        for _ in 0..ANSWERED {
            assert!(places.have_room());
            let leave = Arc::clone(&leave);
            places.seat(|place| async move {
                place.has_asked();
                leave.notified().await;
            });
            tokio::task::yield_now().await;
        }
        assert!(!places.have_room());
        leave.notify_one();
        places.one_is_over().await;
        assert!(places.have_room());
    }
}
