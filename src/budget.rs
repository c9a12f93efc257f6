//! The pod's budget of server connections, the turns that executions take at it, and how short of
//! connections the pod is.

mod exhaustion;

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

pub use exhaustion::{Cause, Exhaustion, State};

/// Counts of the pod's server connections, in connections. A connection counts from the moment
/// that it may be dialled until its server's end was seen: one that is closing is still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    size: usize,
    overflow: usize,
    warm: usize,
    effective: usize,
    open: usize,
    closing: usize,
}

impl Budget {
    /// A budget of `size` connections that may stay open idle, and `overflow` more while in use.
    pub fn new(size: usize, overflow: usize) -> Self {
        Self {
            size,
            overflow,
            warm: 0,
            effective: size.saturating_add(overflow),
            open: 0,
            closing: 0,
        }
    }

    /// The same with a reserve of at most `warm` idle connections that belong to no execution.
    #[must_use]
    pub fn with_reserve(self, warm: usize) -> Self {
        Self { warm, ..self }
    }

    /// The same connections within other limits. Where the database allows less than was
    /// configured, that stays what it allows, the new limit at most.
    pub(crate) fn resize(&mut self, size: usize, overflow: usize, warm: usize) {
        let limited = self.limited_by_database().then_some(self.effective);
        (self.size, self.overflow, self.warm) = (size, overflow, warm);
        self.set_effective(limited.unwrap_or(usize::MAX));
    }

    /// How many idle connections may wait in the reserve; none: it is not used.
    pub fn warm(&self) -> usize {
        self.warm
    }

    /// Another number of idle connections in the reserve.
    pub(crate) fn set_warm(&mut self, warm: usize) {
        self.warm = warm;
    }

    /// How many connections may stay open idle.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The most connections that are configured to be open: size and overflow.
    pub fn limit(&self) -> usize {
        self.size.saturating_add(self.overflow)
    }

    /// The most that may be open now: the limit, or less where the database allows less.
    pub fn effective(&self) -> usize {
        self.effective
    }

    /// How many are open: connecting, idle, lent or closing.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many of the open ones are closing.
    pub fn closing(&self) -> usize {
        self.closing
    }

    /// How many are open and not about to close.
    pub fn staying(&self) -> usize {
        self.open - self.closing
    }

    /// How many more may be dialled now.
    pub fn room(&self) -> usize {
        self.effective.saturating_sub(self.open)
    }

    /// Whether the database allows less than is configured.
    pub fn limited_by_database(&self) -> bool {
        self.effective < self.limit()
    }

    /// Allows `effective` connections, the configured limit at most. Open ones stay open.
    pub(crate) fn set_effective(&mut self, effective: usize) {
        self.effective = effective.min(self.limit());
    }

    /// Follows a connection that was counted as `(open, closing)` before and is counted so after.
    pub(crate) fn recount(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.open = self.open + after.0 - before.0;
        self.closing = self.closing + after.1 - before.1;
    }
}

/// The ring of those that wait: who has waited longest since its last grant is at the front.
///
/// Who is granted something goes to the back, so that between two grants to one that waits no
/// other is granted more than one that it could have used.
#[derive(Clone, Debug)]
pub struct Turns<Id> {
    next: u64,
    places: HashMap<Id, u64>,
    ring: BTreeMap<u64, Id>,
}

impl<Id> Default for Turns<Id> {
    fn default() -> Self {
        Self {
            next: 0,
            places: HashMap::new(),
            ring: BTreeMap::new(),
        }
    }
}

impl<Id: Copy + Eq + Hash> Turns<Id> {
    /// Lines `id` up at the back; one that is in the ring keeps its place.
    pub fn join(&mut self, id: Id) {
        if !self.places.contains_key(&id) {
            self.places.insert(id, self.next);
            self.ring.insert(self.next, id);
            self.next += 1;
        }
    }

    /// Takes `id` out, if it is in.
    pub fn leave(&mut self, id: Id) {
        if let Some(place) = self.places.remove(&id) {
            self.ring.remove(&place);
        }
    }

    /// Had its turn: sends `id` to the back, if it is in.
    pub fn granted(&mut self, id: Id) {
        if self.places.contains_key(&id) {
            self.leave(id);
            self.join(id);
        }
    }

    /// Those that wait, from the front to the back.
    pub fn iter(&self) -> impl Iterator<Item = Id> + '_ {
        self.ring.values().copied()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_granted_goes_to_the_back() {
        let mut turns = Turns::default();
        for id in [1, 2, 3] {
            turns.join(id);
        }
        turns.granted(1);
        turns.join(2);
        assert_eq!(turns.iter().collect::<Vec<_>>(), [2, 3, 1]);
        turns.leave(3);
        turns.granted(3);
        assert_eq!(turns.iter().collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_closing_connection_keeps_its_room() {
        let mut budget = Budget::new(1, 1);
        budget.recount((0, 0), (1, 0));
        budget.recount((1, 0), (1, 1));
        assert_eq!((budget.room(), budget.staying()), (1, 0));
        budget.recount((1, 1), (0, 0));
        assert_eq!(budget.room(), 2);
    }

    #[test]
    fn another_size_keeps_what_is_open_and_what_the_database_allows() {
        let mut budget = Budget::new(2, 1);
        budget.recount((0, 0), (3, 0));
        budget.resize(1, 0, 1);
        assert_eq!(
            (budget.open(), budget.effective(), budget.room()),
            (3, 1, 0)
        );
        budget.resize(4, 4, 0);
        assert_eq!((budget.effective(), budget.room()), (8, 5));
        budget.set_effective(3);
        budget.resize(20, 10, 0);
        assert_eq!(
            (budget.effective(), budget.limited_by_database()),
            (3, true)
        );
        budget.resize(2, 0, 0);
        assert_eq!(
            (budget.effective(), budget.limited_by_database()),
            (2, false)
        );
    }

    #[test]
    fn the_database_only_lowers_the_limit() {
        let mut budget = Budget::new(2, 1);
        budget.set_effective(9);
        assert_eq!(
            (budget.effective(), budget.limited_by_database()),
            (3, false)
        );
        budget.set_effective(0);
        assert_eq!((budget.room(), budget.limited_by_database()), (0, true));
    }
}
