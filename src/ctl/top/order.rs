//! Which rows are shown, and in which order.

use std::cmp::Ordering;

use super::look::{Execution, Session};

/// What executions can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ByExecution {
    #[default]
    Lent,
    Waiting,
    Sessions,
    Oldest,
    Busy,
    Left,
    Suspects,
    Id,
}

/// What sessions can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum BySession {
    #[default]
    Held,
    For,
    Age,
    Busy,
    State,
    Execution,
    Id,
}

/// An order of rows of one kind.
pub(super) trait Order: Copy + Default + Eq + 'static {
    /// A row.
    type Row;
    /// All of them, in the order in which they come round.
    const ALL: &'static [Self];

    /// What comes first, at first: the most, or what is short of time or work.
    fn compare(self, one: &Self::Row, other: &Self::Row) -> Ordering;

    /// The head of its column.
    fn head(self) -> &'static str;

    /// The one that follows.
    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|order| *order == self);
        let at = at.map_or(0, |at| (at + 1) % Self::ALL.len());
        Self::ALL.get(at).copied().unwrap_or_default()
    }
}

/// What is unknown comes last.
fn least(one: Option<f64>, other: Option<f64>) -> Ordering {
    let known = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
    known(one).total_cmp(&known(other))
}

fn most(one: f64, other: f64) -> Ordering {
    other.total_cmp(&one)
}

impl Order for ByExecution {
    type Row = Execution;
    const ALL: &'static [Self] = &[
        Self::Lent,
        Self::Waiting,
        Self::Sessions,
        Self::Oldest,
        Self::Busy,
        Self::Left,
        Self::Suspects,
        Self::Id,
    ];

    fn compare(self, one: &Execution, other: &Execution) -> Ordering {
        let order = match self {
            Self::Lent => other.lent().cmp(&one.lent()),
            Self::Waiting => other.waiting().cmp(&one.waiting()),
            Self::Sessions => other.sessions.cmp(&one.sessions),
            Self::Oldest => most(
                one.sum.oldest.unwrap_or(-1.0),
                other.sum.oldest.unwrap_or(-1.0),
            ),
            Self::Busy => least(one.hold_efficiency, other.hold_efficiency),
            Self::Left => least(one.deadline_seconds, other.deadline_seconds),
            Self::Suspects => other.sum.suspects.cmp(&one.sum.suspects),
            Self::Id => Ordering::Equal,
        };
        let order = order.then_with(|| match self {
            Self::Id => Ordering::Equal,
            _ => most(one.held_seconds, other.held_seconds),
        });
        order.then_with(|| (&one.id, one.generation).cmp(&(&other.id, other.generation)))
    }

    fn head(self) -> &'static str {
        match self {
            Self::Lent => "LENT/OPEN",
            Self::Waiting => "WAIT",
            Self::Sessions => "SESS",
            Self::Oldest => "OLDEST",
            Self::Busy => "BUSY",
            Self::Left => "LEFT",
            Self::Suspects => "SUSP",
            Self::Id => "EXECUTION",
        }
    }
}

impl Order for BySession {
    type Row = Session;
    const ALL: &'static [Self] = &[
        Self::Held,
        Self::For,
        Self::Age,
        Self::Busy,
        Self::State,
        Self::Execution,
        Self::Id,
    ];

    fn compare(self, one: &Session, other: &Session) -> Ordering {
        let order = match self {
            Self::Held => most(one.held_seconds, other.held_seconds),
            Self::For => most(one.state_age_seconds, other.state_age_seconds),
            Self::Age => most(one.age_seconds, other.age_seconds),
            Self::Busy => least(one.hold_efficiency, other.hold_efficiency),
            Self::State => one.state.cmp(&other.state),
            Self::Execution => one.execution.cmp(&other.execution),
            Self::Id => Ordering::Equal,
        };
        order.then_with(|| one.id.cmp(&other.id))
    }

    fn head(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::For => "FOR",
            Self::Age => "AGE",
            Self::Busy => "BUSY",
            Self::State => "STATE",
            Self::Execution => "EXECUTION",
            Self::Id => "ID",
        }
    }
}

/// The order of a list, and which of its rows is chosen.
#[derive(Debug, Clone)]
pub(super) struct List<O: Order, K> {
    pub(super) by: O,
    pub(super) reversed: bool,
    /// The row that is chosen, wherever it moves; none: the first, whichever that is.
    key: Option<K>,
    /// Where it was, for when it goes.
    at: usize,
}

impl<O: Order, K> Default for List<O, K> {
    fn default() -> Self {
        Self {
            by: O::default(),
            reversed: false,
            key: None,
            at: 0,
        }
    }
}

impl<O: Order, K: PartialEq> List<O, K> {
    /// The rows in order.
    pub(super) fn sorted<'a>(&self, mut rows: Vec<&'a O::Row>) -> Vec<&'a O::Row> {
        rows.sort_by(|one, other| match self.reversed {
            false => self.by.compare(one, other),
            true => self.by.compare(other, one),
        });
        rows
    }

    /// Which row is chosen; none where there is none.
    pub(super) fn chosen(&self, keys: &[K]) -> Option<usize> {
        let last = keys.len().checked_sub(1)?;
        let found = self.key.as_ref();
        let found = found.and_then(|key| keys.iter().position(|one| one == key));
        Some(found.unwrap_or(self.at).min(last))
    }

    /// Chooses so many rows further down, or up.
    pub(super) fn step(&mut self, keys: Vec<K>, by: isize) {
        let Some(at) = self.chosen(&keys) else {
            return;
        };
        let at = at.saturating_add_signed(by).min(keys.len() - 1);
        self.at = at;
        self.key = keys.into_iter().nth(at);
    }

    /// Follows the chosen row to where it is now; where it has gone, stays in its place.
    pub(super) fn settle(&mut self, keys: Vec<K>) {
        if self.key.is_some() {
            self.step(keys, 0);
        }
    }

    /// Chooses the first, whichever that is.
    pub(super) fn reset(&mut self) {
        self.key = None;
        self.at = 0;
    }
}

/// Whether the texts have every word of the filter in them, whatever the case.
pub(super) fn passes(filter: &str, texts: &[&str]) -> bool {
    let texts: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
    let mut words = filter.split_whitespace().map(str::to_lowercase);
    words.all(|word| texts.iter().any(|text| text.contains(&word)))
}

/// Whether an execution is to be shown.
pub(super) fn wants_execution(filter: &str, one: &Execution) -> bool {
    let labels = one.labels();
    filter.is_empty() || passes(filter, &[&one.id, &one.state, &one.kind, &labels])
}

/// Whether a session is to be shown.
pub(super) fn wants_session(filter: &str, one: &Session) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let suspect = if one.leak_suspect { "suspect" } else { "" };
    let pid = one.server_pid.map(|pid| pid.to_string());
    filter.is_empty()
        || passes(
            filter,
            &[
                &one.id.to_string(),
                &one.execution,
                &one.state,
                &text(&one.caller),
                &text(&one.label),
                &text(&one.application_name),
                one.statement(),
                suspect,
                &pid.unwrap_or_default(),
            ],
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u64, held: f64) -> Session {
        Session {
            id,
            held_seconds: held,
            ..Session::default()
        }
    }

    #[test]
    fn the_chosen_row_is_followed_and_leaves_its_place_to_the_next() {
        let mut list: List<BySession, u64> = List::default();
        assert_eq!(list.chosen(&[]), None);
        list.step(vec![1, 2, 3], 1);
        assert_eq!(list.chosen(&[2, 1, 3]), Some(0));
        list.settle(vec![3, 1, 2]);
        assert_eq!(list.chosen(&[3, 1]), Some(1), "it has gone");
        list.step(vec![3, 1], 10);
        list.step(vec![3, 1], -10);
        assert_eq!(list.chosen(&[3, 1]), Some(0));
    }

    #[test]
    fn every_order_comes_round_and_can_be_turned() {
        let mut by = ByExecution::default();
        for _ in ByExecution::ALL {
            by = by.next();
        }
        assert_eq!(by, ByExecution::default());
        let rows = [session(1, 5.0), session(2, 50.0)];
        let mut list: List<BySession, u64> = List::default();
        let ids = |list: &List<BySession, u64>| -> Vec<u64> {
            let rows = list.sorted(rows.iter().collect());
            rows.iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(&list), [2, 1]);
        list.reversed = true;
        assert_eq!(ids(&list), [1, 2]);
        for by in BySession::ALL {
            list.by = *by;
            assert_eq!(ids(&list).len(), 2);
        }
    }

    #[test]
    fn a_filter_wants_every_word_somewhere() {
        assert!(passes("", &[]));
        assert!(passes("AGENT idle", &["agent.py:7", "idle"]));
        assert!(!passes("agent busy", &["agent.py:7", "idle"]));
    }
}
