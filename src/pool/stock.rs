//! Idle server connections: in bb8, one pool per (execution, key), or parked for the session
//! that was told their process id.
//!
//! The gate counts both as idle. A parked connection is its session's as long as nobody needs
//! it more: others are given what is in bb8 first, then what has been parked longest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bb8::{PooledConnection, QueueStrategy};

use crate::server::Connection;

use super::dialer::{Dialer, Slot, Upkeep};
use super::key::Key;
use super::{KeyId, PoolId, WaiterId};

pub(super) type Store = bb8::Pool<Dialer>;
pub(super) type Place = PooledConnection<'static, Dialer>;

/// Takes the connection out of its slot; the empty slot then leaves bb8.
pub(super) fn taken_out(mut place: Place) -> Option<Connection> {
    let slot: &mut Slot = &mut place;
    slot.connection.take()
}

/// The same, with what is known of its age.
pub(super) fn slot_out(mut place: Place) -> Option<Slot> {
    let slot: &mut Slot = &mut place;
    Some(Slot {
        connection: Some(slot.connection.take()?),
        ..*slot
    })
}

/// What is idle of one key in one pool.
#[derive(Debug)]
struct Shelf {
    key: Arc<Key>,
    store: Store,
    /// Whose, and which; the one parked longest first.
    parked: VecDeque<(WaiterId, Place)>,
}

/// All that is idle.
#[derive(Debug, Default)]
pub(super) struct Stock {
    shelves: HashMap<(PoolId, KeyId), Shelf>,
}

impl Stock {
    /// The store of a key in a pool, made when it is first dialled for.
    pub(super) fn store(&mut self, pool: PoolId, key: &Arc<Key>) -> Store {
        let shelf = self.shelves.entry((pool, key.id())).or_insert_with(|| {
            let store = bb8::Pool::builder()
                .max_size(u32::MAX)
                .max_lifetime(None)
                .idle_timeout(None)
                .test_on_check_out(false)
                .retry_connection(false)
                .queue_strategy(QueueStrategy::Lifo)
                .build_unchecked(Dialer::new(Arc::clone(key.target())));
            Shelf {
                key: Arc::clone(key),
                store,
                parked: VecDeque::new(),
            }
        });
        shelf.store.clone()
    }

    /// Whether a connection is idle that was not parked for anybody.
    pub(super) fn has_stored(&self, pool: PoolId, key: KeyId) -> bool {
        let shelf = self.shelves.get(&(pool, key));
        shelf.is_some_and(|shelf| shelf.store.state().idle_connections > 0)
    }

    /// Keeps an idle connection for the session that was told of it.
    pub(super) fn park(&mut self, pool: PoolId, key: KeyId, session: WaiterId, place: Place) {
        // A shelf that is gone belonged to an ended pool: dropped, the place is closed.
        if let Some(shelf) = self.shelves.get_mut(&(pool, key)) {
            shelf.parked.push_back((session, place));
        }
    }

    /// What was parked for a session, for whoever is to have it now.
    pub(super) fn unpark(&mut self, pool: PoolId, key: KeyId, session: WaiterId) -> Option<Place> {
        let shelf = self.shelves.get_mut(&(pool, key))?;
        shelf.take_parked(session)
    }

    /// For a session: what was parked for it, else the most recently used one.
    pub(super) fn take_for(
        &mut self,
        pool: PoolId,
        key: KeyId,
        session: WaiterId,
    ) -> Option<Place> {
        let shelf = self.shelves.get_mut(&(pool, key))?;
        shelf
            .take_parked(session)
            .or_else(|| shelf.newest())
            .or_else(|| shelf.parked.pop_front().map(|(_, place)| place))
    }

    /// The one that is idle longest, parked ones last.
    pub(super) fn take_oldest(&mut self, pool: PoolId, key: KeyId) -> Option<Place> {
        let shelf = self.shelves.get_mut(&(pool, key))?;
        let mut stored = shelf.all_stored();
        let oldest = stored.pop();
        put_back(stored);
        oldest.or_else(|| shelf.parked.pop_front().map(|(_, place)| place))
    }

    /// Takes out all that are too old, idle for too long, or of another epoch.
    pub(super) fn take_overdue(&mut self, now: Instant, epoch: u64) -> Vec<(PoolId, KeyId, Place)> {
        self.take_where(|place, upkeep| place.is_overdue(upkeep, now) || place.epoch != epoch)
    }

    /// Takes out all that there is.
    pub(super) fn take_all(&mut self) -> Vec<(PoolId, KeyId, Place)> {
        self.take_where(|_, _| true)
    }

    fn take_where(
        &mut self,
        is_wanted: impl Fn(&Place, &Upkeep) -> bool,
    ) -> Vec<(PoolId, KeyId, Place)> {
        let mut wanted = Vec::new();
        for ((pool, key), shelf) in &mut self.shelves {
            let upkeep = shelf.key.target().upkeep;
            let is_one = |place: &Place| is_wanted(place, &upkeep);
            let (gone, stays) = shelf.all_stored().into_iter().partition(is_one);
            put_back(stays);
            let mut gone: Vec<Place> = gone;
            for _ in 0..shelf.parked.len() {
                match shelf.parked.pop_front() {
                    Some((_, place)) if is_one(&place) => gone.push(place),
                    kept => shelf.parked.extend(kept),
                }
            }
            wanted.extend(gone.into_iter().map(|place| (*pool, *key, place)));
        }
        wanted
    }

    /// Forgets the shelves of retired keys that have no connection left, none lent and none that is
    /// being dialled.
    pub(super) fn forget_retired(&mut self, is_dialling: impl Fn(PoolId, KeyId) -> bool) {
        self.shelves.retain(|(pool, key), shelf| {
            !shelf.key.is_retired()
                || shelf.store.state().connections > 0
                || is_dialling(*pool, *key)
        });
    }

    /// Forgets a pool that has no connection left.
    pub(super) fn forget(&mut self, pool: PoolId) {
        self.shelves.retain(|(of, _), _| *of != pool);
    }
}

impl Shelf {
    /// The most recently stored connection, without waiting.
    fn newest(&self) -> Option<Place> {
        if self.store.state().idle_connections == 0 {
            return None;
        }
        // With an idle connection, bb8 answers at the first poll.
        let mut get = std::pin::pin!(self.store.get_owned());
        match get.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => place.ok(),
            Poll::Pending => None,
        }
    }

    /// All that bb8 has, the newest first.
    fn all_stored(&self) -> Vec<Place> {
        std::iter::from_fn(|| self.newest()).collect()
    }

    fn take_parked(&mut self, session: WaiterId) -> Option<Place> {
        let at = self
            .parked
            .iter()
            .position(|(whose, _)| *whose == session)?;
        self.parked.remove(at).map(|(_, place)| place)
    }
}

/// Gives places back to bb8 in the order that they had: the newest, first here, goes last.
fn put_back(places: Vec<Place>) {
    places.into_iter().rev().for_each(drop);
}
