//! Where connections are that have not yet come in: so many at once, and who dawdles makes room.
//!
//! Nobody is turned away at the door. Where it is full, the next one waits outside, in the listener's
//! backlog, until somebody has come in or has left, or the first has been there for long enough to
//! be sent away: whoever means it has come in by then. So connections that say nothing take up a
//! bounded share of memory and descriptors, and keep nobody out for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// How long a connection is never sent away for another one: a login takes milliseconds.
pub(super) const FAIR: Duration = Duration::from_secs(1);

/// The connections of one kind that have not yet come in.
#[derive(Debug, Default)]
pub(super) struct Anteroom {
    /// Held for a few instructions.
    guests: Mutex<Guests>,
    /// Somebody has left.
    left: Notify,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    /// The first is the one that came first.
    by_number: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    since: Instant,
    /// Tells it that it is sent away; none once it was told. Its place is free when it has left.
    away: Option<oneshot::Sender<()>>,
}

/// A connection's place in an anteroom; dropped, it is another one's.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    room: Arc<Anteroom>,
    number: u64,
    away: oneshot::Receiver<()>,
}

impl Anteroom {
    /// A place, once fewer than `most` are taken; at least one is had. Cancel safe.
    pub(super) async fn enter(self: &Arc<Self>, most: usize) -> Place {
        loop {
            let left = self.left.notified();
            match self.take(most.max(1), Instant::now()) {
                Ok(place) => return place,
                Err(until) => tokio::select! {
                    () = left => {}
                    () = tokio::time::sleep_until(until) => {}
                },
            }
        }
    }

    /// A place, or when to look again at the latest: until then nobody is to be sent away, or one
    /// that was is leaving.
    fn take(self: &Arc<Self>, most: usize, now: Instant) -> Result<Place, Instant> {
        let mut guests = self.guests.lock();
        if guests.by_number.len() >= most {
            let mut all = guests.by_number.values_mut();
            let Some(first) = all.find(|guest| guest.away.is_some()) else {
                return Err(now + FAIR);
            };
            let until = first.since + FAIR;
            if until > now {
                return Err(until);
            }
            if let Some(away) = first.away.take() {
                // One that is leaving by itself has stopped listening.
                let _ = away.send(());
            }
            return Err(now + FAIR);
        }
        let number = guests.next;
        guests.next += 1;
        let (tell, away) = oneshot::channel();
        let guest = Guest {
            since: now,
            away: Some(tell),
        };
        guests.by_number.insert(number, guest);
        let room = Arc::clone(self);
        Ok(Place { room, number, away })
    }
}

impl Place {
    /// Waits until the place is needed for another one. Cancel safe.
    pub(super) async fn sent_away(&mut self) {
        if (&mut self.away).await.is_err() {
            // Whoever holds the place is there to be told.
            std::future::pending().await
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.guests.lock().by_number.remove(&self.number);
        self.room.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    fn room() -> Arc<Anteroom> {
        Arc::default()
    }

    /// Somebody who says nothing; when it was sent away is told by the task's end.
    async fn dawdler(room: &Arc<Anteroom>, most: usize) -> JoinHandle<Instant> {
        let mut place = room.enter(most).await;
        tokio::spawn(async move {
            place.sent_away().await;
            Instant::now()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_come_in_makes_room_at_once() {
        let room = room();
        let first = room.enter(1).await;
        let start = Instant::now();
        let entering = {
            let room = Arc::clone(&room);
            tokio::spawn(async move { room.enter(1).await })
        };
        tokio::time::sleep(FAIR / 2).await;
        assert!(!entering.is_finished());
        drop(first);
        let _second = entering.await.unwrap();
        assert_eq!(start.elapsed(), FAIR / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_those_who_dawdle_is_sent_away_and_nobody_before_his_time() {
        let room = room();
        let start = Instant::now();
        let first = dawdler(&room, 2).await;
        tokio::time::sleep(FAIR / 4).await;
        let second = dawdler(&room, 2).await;
        let _third = dawdler(&room, 2).await;
        assert_eq!(first.await.unwrap() - start, FAIR);
        tokio::time::sleep(FAIR / 8).await;
        assert!(!second.is_finished(), "one is enough for one");
        let _fourth = dawdler(&room, 2).await;
        assert_eq!(second.await.unwrap() - start, FAIR + FAIR / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_taken_until_who_was_sent_away_has_left() {
        let room = room();
        let mut first = room.enter(1).await;
        let next = {
            let room = Arc::clone(&room);
            tokio::spawn(async move { room.enter(1).await })
        };
        first.sent_away().await;
        tokio::time::sleep(3 * FAIR).await;
        assert!(!next.is_finished());
        drop(first);
        let _second = next.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn two_doors_of_one_room_each_get_a_place_though_all_dawdle() {
        let room = room();
        let start = Instant::now();
        let _there = (dawdler(&room, 2).await, dawdler(&room, 2).await);
        let _come = tokio::join!(dawdler(&room, 2), dawdler(&room, 2));
        assert_eq!(start.elapsed(), FAIR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_had_where_none_is_allowed() {
        let room = room();
        let _first = dawdler(&room, 0).await;
        let _second = dawdler(&room, 0).await;
    }
}
