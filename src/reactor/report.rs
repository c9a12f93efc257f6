//! How it stands, as the pod's annotations and its condition tell it.

use std::time::SystemTime;

use crate::budget::{Cause, State};
use crate::events::time::date_and_time;

use super::history::Found;
use super::{History, Policy, Snapshot};

/// The most bytes of a text of the app's in an annotation.
const LONGEST: usize = 4096;

/// What begins the name of each annotation.
const PREFIX: &str = "execpool.dev/";

/// How it stands at one look, for whoever sees the pod from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The state.
    pub state: State,
    /// Why; none while it is healthy.
    pub cause: Option<Cause>,
    /// The time of day at which the state was entered.
    pub since: SystemTime,
    /// Connections lent to sessions that have queried.
    pub used: usize,
    /// The most that the budget allows for.
    pub limit: usize,
    /// How many wait for the budget.
    pub waiting: usize,
    /// The execution that has held a connection for longest; none while it is healthy, or nobody has.
    pub holder: Option<String>,
    /// Where that opened it in the app, where it is known; of `shared`, where most were opened.
    pub holder_caller: Option<String>,
    /// How many restarts there were in all.
    pub restarts: u64,
    /// When the last one was.
    pub last_restart: Option<SystemTime>,
    why: Why,
}

/// The pod's condition `execpool.dev/PoolAvailable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether the app can get connections, as far as the app itself is concerned: false only where
    /// exhaustion is sustained and the database is not the cause of it.
    pub status: bool,
    /// Why: a word in UpperCamelCase, of a closed set.
    pub reason: &'static str,
    /// The same for a person.
    pub message: String,
}

/// Why the condition is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    PoolAvailable,
    PoolWarning,
    PoolExhausted,
    /// The only one that makes it false.
    PoolSustained,
    DatabaseUnreachable,
    DatabaseLimited,
    DatabaseSlow,
}

impl Report {
    /// How it stands, after `history` has [recorded](History::record) the look that `snapshot` is of.
    #[must_use]
    pub fn of(history: &History, snapshot: &Snapshot, policy: &Policy) -> Self {
        let exhaustion = history.exhaustion();
        // While it is well nothing is written anew, and who held something once would stand there for ever.
        let holder = snapshot.holder.as_ref();
        let holder = holder.filter(|_| exhaustion.state != State::Healthy);
        Self {
            state: exhaustion.state,
            cause: exhaustion.cause,
            since: history.since().unwrap_or(snapshot.circumstances.time),
            used: snapshot.used,
            limit: snapshot.limit,
            waiting: snapshot.waiting,
            holder: holder.map(|holder| cut(&holder.execution, LONGEST).to_owned()),
            holder_caller: holder
                .and_then(|holder| holder.caller.as_deref())
                .map(|caller| cut(caller, LONGEST).to_owned()),
            restarts: history.restarts().total(),
            last_restart: history.restarts().last(),
            why: Why::of(exhaustion.state, &history.found, snapshot, policy),
        }
    }

    /// The same, with the numbers of another look.
    #[must_use]
    pub fn as_of(self, snapshot: &Snapshot) -> Self {
        Self {
            used: snapshot.used,
            limit: snapshot.limit,
            waiting: snapshot.waiting,
            ..self
        }
    }

    /// The annotations, by their whole names. What is not among them is not there.
    #[must_use]
    pub fn annotations(&self) -> Vec<(String, String)> {
        let said = [
            ("state", Some(self.state.as_str().to_owned())),
            ("since", Some(moment(self.since))),
            ("used", Some(self.used.to_string())),
            ("limit", Some(self.limit.to_string())),
            ("waiting", Some(self.waiting.to_string())),
            ("holder", self.holder.clone()),
            ("holder-caller", self.holder_caller.clone()),
            ("restarts", Some(self.restarts.to_string())),
            ("last-restart", self.last_restart.map(moment)),
        ];
        let named = said.into_iter();
        let named = named.filter_map(|(name, value)| Some((format!("{PREFIX}{name}"), value?)));
        named.collect()
    }

    /// The condition. While its status stays, so does the moment since when it is so.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let Self {
            used,
            limit,
            waiting,
            ..
        } = self;
        let stands =
            format!("{used} of {limit} server connections are in use, and {waiting} wait for one");
        let message = match self.why.sentence() {
            "" => format!("{stands}."),
            why => format!("{stands}: {why}."),
        };
        Condition {
            status: self.why.status(),
            reason: self.why.as_str(),
            message,
        }
    }
}

impl Why {
    /// What follows from the state, and from what looks have found.
    pub(super) fn of(state: State, found: &Found, snapshot: &Snapshot, policy: &Policy) -> Self {
        let is_stuck = found.is_stuck(policy.stuck_for(policy.sustained_after));
        match (snapshot.cause(), state) {
            (Cause::DatabaseUnreachable, _) => Self::DatabaseUnreachable,
            (Cause::LimitedByDatabase, State::Sustained) => Self::DatabaseLimited,
            (Cause::Queries, State::Sustained) => Self::DatabaseSlow,
            (Cause::Held, State::Sustained) if is_stuck => Self::PoolSustained,
            (_, State::Sustained | State::Exhausted) => Self::PoolExhausted,
            (_, State::Warning) => Self::PoolWarning,
            (_, State::Healthy) => Self::PoolAvailable,
        }
    }

    /// What the condition is: false only where the app alone is the cause.
    pub(super) fn status(self) -> bool {
        self != Self::PoolSustained
    }

    /// The condition's reason.
    fn as_str(self) -> &'static str {
        match self {
            Self::PoolAvailable => "PoolAvailable",
            Self::PoolWarning => "PoolWarning",
            Self::PoolExhausted => "PoolExhausted",
            Self::PoolSustained => "PoolSustained",
            Self::DatabaseUnreachable => "DatabaseUnreachable",
            Self::DatabaseLimited => "DatabaseLimited",
            Self::DatabaseSlow => "DatabaseSlow",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::PoolAvailable | Self::PoolWarning | Self::PoolExhausted => "",
            Self::PoolSustained => "the app holds them and asks nothing, and that does not pass",
            Self::DatabaseUnreachable => "the database does not answer",
            Self::DatabaseLimited => {
                "the database takes no more, however many the budget allows for"
            }
            Self::DatabaseSlow => "more than half of them run queries, as the database is slow",
        }
    }
}

/// A moment, to the second.
pub(super) fn moment(at: SystemTime) -> String {
    format!("{}Z", date_and_time(at))
}

/// The beginning of a text, of so many bytes at most.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    // A text begins with a character, so that this ends.
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
