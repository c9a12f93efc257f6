//! How short of server connections the pod is: what the reactor finds, and all others show.

use std::time::Instant;

/// The rungs of the ladder. Each is entered and left by conditions that hold for a while, never by a
/// single look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// There is room, or waits are short. Left for any of the next two.
    #[default]
    Healthy,
    /// Most of the budget is in use. Left when less of it is, or for `Exhausted`.
    Warning,
    /// Who needs a connection waits long, or in vain. Left when nobody waits and there is room again, or
    /// for `Sustained`.
    Exhausted,
    /// The same, for so long that it does not pass by itself. Left as `Exhausted`.
    Sustained,
}

impl State {
    /// All of them, from the ground up.
    pub const ALL: [Self; 4] = [
        Self::Healthy,
        Self::Warning,
        Self::Exhausted,
        Self::Sustained,
    ];

    /// The word for it in answers, events and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Warning => "warning",
            Self::Exhausted => "exhausted",
            Self::Sustained => "sustained",
        }
    }

    /// The number for it in metrics, from 0 for healthy to 3 for sustained.
    #[must_use]
    pub fn level(self) -> u64 {
        self as u64
    }
}

/// Why there is no room: a closed set, the first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A database does not answer: nobody gets done.
    DatabaseUnreachable,
    /// The database takes fewer connections than the budget allows for.
    LimitedByDatabase,
    /// More than half of the connections that are held run queries: the database is slow, or there is
    /// more to do than the budget lets through.
    Queries,
    /// At least half of the connections that are held do nothing: the app holds them.
    Held,
}

impl Cause {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 4] = [
        Self::DatabaseUnreachable,
        Self::LimitedByDatabase,
        Self::Queries,
        Self::Held,
    ];

    /// The word for it in answers, events and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DatabaseUnreachable => "database_unreachable",
            Self::LimitedByDatabase => "limited_by_database",
            Self::Queries => "queries",
            Self::Held => "held",
        }
    }
}

/// How it stands, since when, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhaustion {
    /// The rung.
    pub state: State,
    /// When it was entered.
    pub since: Instant,
    /// Why, as it was last seen; none while it is healthy.
    pub cause: Option<Cause>,
}

impl Exhaustion {
    /// All is well from `now` on.
    #[must_use]
    pub fn healthy(now: Instant) -> Self {
        Self {
            state: State::Healthy,
            since: now,
            cause: None,
        }
    }

    /// See [`State::level`].
    #[must_use]
    pub fn level(&self) -> u64 {
        self.state.level()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_listed_and_numbered_from_the_ground_up() {
        let levels = State::ALL.map(State::level);
        assert_eq!(levels, [0, 1, 2, 3]);
        assert!(State::ALL.is_sorted());
    }
}
