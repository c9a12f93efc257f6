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
    /// No number is given twice: who was sent away may leave when another one has the place.
    next: u64,
    /// The first is the one that came first.
    by_number: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    since: Instant,
    /// Tells it that it is sent away.
    away: oneshot::Sender<()>,
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

    /// A place, or until when the first of those who have one must not be sent away.
    fn take(self: &Arc<Self>, most: usize, now: Instant) -> Result<Place, Instant> {
        let mut guests = self.guests.lock();
        if guests.by_number.len() >= most
            && let Some(first) = guests.by_number.first_entry()
        {
            let until = first.get().since + FAIR;
            if until > now {
                return Err(until);
            }
            // One that is leaving by itself has stopped listening.
            let _ = first.remove().away.send(());
        }
        let number = guests.next;
        guests.next += 1;
        let (tell, away) = oneshot::channel();
        let guest = Guest {
            since: now,
            away: tell,
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

    fn room() -> Arc<Anteroom> {
        Arc::default()
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
        let mut first = room.enter(2).await;
        tokio::time::sleep(FAIR / 4).await;
        let mut second = room.enter(2).await;
        let _third = room.enter(2).await;
        assert_eq!(start.elapsed(), FAIR);
        first.sent_away().await;
        let waits = tokio::time::timeout(FAIR / 8, second.sent_away());
        assert!(waits.await.is_err(), "two places are two places");
        let _fourth = room.enter(2).await;
        assert_eq!(start.elapsed(), FAIR + FAIR / 4);
        second.sent_away().await;
        // Their going frees no place that has another's name on it.
        drop((first, second));
        assert_eq!(room.guests.lock().by_number.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_had_where_none_is_allowed() {
        let room = room();
        for _ in 0..3 {
            let mut place = room.enter(0).await;
            let _next = room.enter(0).await;
            place.sent_away().await;
            drop(place);
            assert_eq!(room.guests.lock().by_number.len(), 1);
        }
    }
}
