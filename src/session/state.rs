//! Where a session stands, and how long it has held a server connection.

use std::time::Duration;

use crate::metrics::words::{HeldState, SessionState};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is being let in. Left by the first ReadyForQuery, or by being refused.
    Startup,
    /// It has not queried and holds nothing. Left by its first message.
    Unbound,
    /// It waits for a server connection. Left by getting one, or by being refused, which
    /// leads back to `Unbound`.
    Waiting,
    /// It holds a server connection that works for it. Left by ReadyForQuery.
    Active,
    /// It holds a server connection with an open transaction that waits for it.
    InTransaction,
    /// It holds a server connection that waits for it.
    Idle,
    /// It is over; what it held is on its way back. Never left.
    Closing,
}

impl State {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 7] = [
        Self::Startup,
        Self::Unbound,
        Self::Waiting,
        Self::Active,
        Self::InTransaction,
        Self::Idle,
        Self::Closing,
    ];

    /// The word for it in answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Unbound => "unbound",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::InTransaction => "idle_in_transaction",
            Self::Idle => "idle",
            Self::Closing => "closing",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// What it is counted as where that is told to the outside.
    #[must_use]
    pub fn counted(self) -> SessionState {
        match self {
            Self::Active => SessionState::Active,
            Self::InTransaction => SessionState::IdleInTransaction,
            Self::Idle => SessionState::Idle,
            Self::Waiting => SessionState::Waiting,
            Self::Unbound => SessionState::Unbound,
            Self::Startup | Self::Closing => SessionState::Other,
        }
    }

    /// What goes on while a server connection is held; none where none is.
    #[must_use]
    pub fn holding(self) -> Option<HeldState> {
        match self {
            Self::Active => Some(HeldState::Active),
            Self::InTransaction => Some(HeldState::IdleInTransaction),
            Self::Idle => Some(HeldState::Idle),
            Self::Startup | Self::Unbound | Self::Waiting | Self::Closing => None,
        }
    }

    /// Whether a server connection is held.
    #[must_use]
    pub fn is_bound(self) -> bool {
        matches!(self, Self::Active | Self::InTransaction | Self::Idle)
    }
}

/// How long a server connection was held, by what went on meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// It worked.
    pub active: Duration,
    /// It waited inside a transaction.
    pub in_transaction: Duration,
    /// It waited outside of one.
    pub idle: Duration,
}

impl Held {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.active + self.in_transaction + self.idle
    }

    /// The share of the held time in which the connection worked; none if none was held.
    #[must_use]
    pub fn efficiency(&self) -> Option<f64> {
        let total = self.total();
        (!total.is_zero()).then(|| self.active.as_secs_f64() / total.as_secs_f64())
    }

    /// Adds time spent in a state; states without a server connection hold nothing.
    pub(super) fn add(&mut self, state: State, time: Duration) {
        match state {
            State::Active => self.active += time,
            State::InTransaction => self.in_transaction += time,
            State::Idle => self.idle += time,
            State::Startup | State::Unbound | State::Waiting | State::Closing => {}
        }
    }
}

impl std::ops::AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.active += other.active;
        self.in_transaction += other.in_transaction;
        self.idle += other.idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_counted_in_the_order_in_which_they_are_listed() {
        for (place, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place);
            assert_eq!(State::of_word(state.as_str()), Some(state));
        }
    }

    #[test]
    fn efficiency_is_the_share_of_work_in_the_held_time() {
        let mut held = Held::default();
        assert_eq!(held.efficiency(), None);
        held.add(State::Waiting, Duration::from_secs(9));
        assert_eq!(held.efficiency(), None);
        held.add(State::Active, Duration::from_secs(1));
        held.add(State::InTransaction, Duration::from_secs(2));
        held.add(State::Idle, Duration::from_secs(1));
        assert_eq!(held.efficiency(), Some(0.25));
    }
}
