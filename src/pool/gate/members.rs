//! One pool's counts, idle connections and queue.

use crate::pool::{KeyId, PoolLimits, WaiterId};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Where a server connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is none. Left by a decision to dial.
    Absent,
    /// Dialled, not answered. Left by its success, or by its failure.
    Connecting,
    /// In the pool. Left by a checkout, or to be closed.
    Idle,
    /// With a session. Left when returned, or to be closed.
    Lent,
    /// Told to close. Left when the server's end was seen.
    Closing,
}

impl Phase {
    /// What a connection in this phase counts for: open, closing.
    pub(super) fn weight(self) -> (usize, usize) {
        match self {
            Phase::Absent => (0, 0),
            Phase::Connecting | Phase::Idle | Phase::Lent => (1, 0),
            Phase::Closing => (1, 1),
        }
    }
}

/// How many of a pool's server connections are in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dialled, not answered.
    pub connecting: usize,
    /// In the pool.
    pub idle: usize,
    /// With a session.
    pub lent: usize,
    /// Told to close.
    pub closing: usize,
}

/// What goes on at one upstream, over all pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Its connections.
    pub counts: Counts,
    /// How many wait for one.
    pub waiting: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.connecting += other.connecting;
        self.idle += other.idle;
        self.lent += other.lent;
        self.closing += other.closing;
    }
}

impl Counts {
    /// All that are open.
    pub fn open(&self) -> usize {
        self.staying() + self.closing
    }

    /// Those that are open and not about to close.
    pub fn staying(&self) -> usize {
        self.connecting + self.idle + self.lent
    }

    /// The count of a phase.
    fn of(&mut self, phase: Phase) -> Option<&mut usize> {
        match phase {
            Phase::Absent => None,
            Phase::Connecting => Some(&mut self.connecting),
            Phase::Idle => Some(&mut self.idle),
            Phase::Lent => Some(&mut self.lent),
            Phase::Closing => Some(&mut self.closing),
        }
    }

    /// Counts one that goes from phase to phase.
    pub(super) fn shift(&mut self, from: Phase, to: Phase) {
        if let Some(count) = self.of(from) {
            debug_assert!(*count > 0, "no connection is {from:?}");
            *count -= 1;
        }
        if let Some(count) = self.of(to) {
            *count += 1;
        }
    }
}

/// Whether a pool takes sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// It does. Left when its execution ends.
    Open,
    /// Its execution ended; it is forgotten when its last connection is.
    Shut,
}

/// One that waits in a pool's queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Who.
    pub(super) waiter: WaiterId,
    /// For which connections.
    pub(super) key: KeyId,
    /// And which of them.
    pub(super) wants: Wants,
}

impl Waiting {
    pub(super) fn of(waiter: WaiterId, key: KeyId, wants: Wants) -> Self {
        Self { waiter, key, wants }
    }
}

/// Which connection somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// The first that can be had.
    Any,
    /// One of its own, as long as there is room for one more that stays: those that are idle are
    /// kept for others.
    New,
}

/// A pool as the gate sees it.
#[derive(Debug)]
pub(super) struct Members {
    /// None: no limit but the budget's.
    pub(super) limits: Option<PoolLimits>,
    pub(super) door: Door,
    /// Whether a session has left something in a connection that a reset does not undo: none of
    /// the pool's connections reaches another execution then.
    pub(super) is_tainted: bool,
    pub(super) counts: Counts,
    /// The most that were open at once.
    pub(super) peak: usize,
    /// Who waits, by the order of arrival.
    pub(super) queue: BTreeMap<u64, Waiting>,
    /// The stamps of idle connections, the longest idle first.
    pub(super) idle: HashMap<KeyId, VecDeque<u64>>,
    /// Dials in flight.
    pub(super) dials: HashMap<KeyId, usize>,
}

impl Members {
    pub(super) fn new(limits: Option<PoolLimits>) -> Self {
        Self {
            limits,
            door: Door::Open,
            is_tainted: false,
            counts: Counts::default(),
            peak: 0,
            queue: BTreeMap::new(),
            idle: HashMap::new(),
            dials: HashMap::new(),
        }
    }

    /// The most that may be open.
    pub(super) fn limit(&self) -> usize {
        self.limits.map_or(usize::MAX, |limits| {
            limits.size.saturating_add(limits.overflow)
        })
    }

    /// The most that may stay open idle.
    pub(super) fn size(&self) -> usize {
        self.limits.map_or(usize::MAX, |limits| limits.size)
    }

    /// How many dials for `key` are in flight.
    pub(super) fn dialling(&self, key: KeyId) -> usize {
        self.dials.get(&key).copied().unwrap_or(0)
    }

    /// How many connections of `key` are idle.
    pub(super) fn idle(&self, key: KeyId) -> usize {
        self.idle.get(&key).map_or(0, VecDeque::len)
    }

    /// The connection that is idle longest: its stamp.
    pub(super) fn longest_idle(&self) -> Option<u64> {
        self.idle
            .values()
            .filter_map(|stamps| stamps.front())
            .min()
            .copied()
    }

    /// The connection of `key` that is idle longest: its stamp.
    pub(super) fn longest_idle_of(&self, key: KeyId) -> Option<u64> {
        self.idle.get(&key)?.front().copied()
    }

    /// The first who waits for `key`: place and who.
    pub(super) fn first(&self, key: KeyId) -> Option<(u64, WaiterId)> {
        self.queue
            .iter()
            .find(|(_, waiting)| waiting.key == key)
            .map(|(place, waiting)| (*place, waiting.waiter))
    }
}
