//! `GET /v1/status?include=…`: lists beside the counts, of the same moment.

use std::cmp::Reverse;
use std::time::Instant;

use crate::execution::{Executions, View};
use crate::protocol::startup::ExecutionId;
use crate::session::Snapshot;

use super::problem::{Kind, Problem, near, repeated};
use super::query::{Query, wrong};
use super::router::{execution_named, invalid_id};
use super::sessions::session;
use super::types::{Execution, Included, IncludedExecutions, IncludedSessions};

/// How many of a list are answered: they are looked at in one turn of the data plane.
const MOST: usize = 500;

/// What can be included.
const WORDS: [&str; 2] = ["executions", "sessions"];

/// What is asked for beside the counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Include {
    executions: bool,
    sessions: bool,
    /// Whose sessions alone; all without.
    of: Option<ExecutionId>,
}

/// The lists, as the data plane has them.
#[derive(Debug, Default)]
pub(super) struct Lists {
    executions: Option<(Vec<View>, usize)>,
    sessions: Option<(Vec<Snapshot>, usize)>,
}

impl Include {
    /// Reads the query string of a status.
    ///
    /// # Errors
    /// It asks for something that is not there.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let query = Query::parse(query, &["include", "execution"])?;
        let mut include = Self {
            of: query.get("execution").map(of).transpose()?,
            ..Self::default()
        };
        for word in query
            .get("include")
            .into_iter()
            .flat_map(|it| it.split(','))
        {
            match word {
                "executions" => include.executions = true,
                "sessions" => include.sessions = true,
                other => return Err(unknown(other)),
            }
        }
        if include.of.is_some() && !include.sessions {
            return Err(wrong(
                "execution is there without include=sessions",
                "It says whose sessions are included: say include=sessions, too.",
            ));
        }
        Ok(include)
    }

    /// Looks, within one turn of the data plane.
    pub(super) fn look(&self, executions: &Executions, now: Instant) -> Lists {
        let sessions = executions.sessions();
        Lists {
            executions: self.executions.then(|| most_lent(executions.views())),
            sessions: self
                .sessions
                .then(|| sessions.longest_held(self.of.as_ref(), MOST, now)),
        }
    }
}

impl Lists {
    /// What is answered of them; none where nothing was asked for.
    pub(super) fn answer(self) -> Option<Included> {
        let executions = self.executions.map(|(views, left_out)| IncludedExecutions {
            listed: views.into_iter().map(Execution::from).collect(),
            left_out,
        });
        let sessions = self.sessions.map(|(snapshots, left_out)| IncludedSessions {
            listed: snapshots.iter().map(session).collect(),
            left_out,
        });
        (executions.is_some() || sessions.is_some()).then_some(Included {
            executions,
            sessions,
        })
    }
}

/// Those that hold most come first, and how many are left out.
fn most_lent(mut views: Vec<View>) -> (Vec<View>, usize) {
    let left_out = views.len().saturating_sub(MOST);
    views.sort_by_cached_key(|view| {
        let lent: usize = view.pools.iter().map(|pool| pool.counts.lent).sum();
        Reverse((lent, view.totals.held.total()))
    });
    views.truncate(MOST);
    (views, left_out)
}

fn of(text: &str) -> Result<ExecutionId, Problem> {
    execution_named(text).map_err(|error| invalid_id(Kind::InvalidParameter, &error))
}

fn unknown(word: &str) -> Problem {
    let known = WORDS.join(", ");
    let hint = match near(word, &WORDS, 1).first() {
        Some(nearest) => format!("Did you mean {nearest}? Known: {known}."),
        None => format!("Known: {known}."),
    };
    wrong(format!("there is no {} to include", repeated(word)), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_included_is_read() {
        let all = Include::parse(Some("include=executions,sessions&execution=a")).unwrap();
        assert!(all.executions && all.sessions);
        assert_eq!(all.of.map(|id| id.to_string()), Some("a".to_owned()));
        assert_eq!(Include::parse(None), Ok(Include::default()));
        let one = Include::parse(Some("include=sessions")).unwrap();
        assert!(one.sessions && !one.executions);
    }

    #[test]
    fn a_word_that_is_not_known_is_told_those_that_are() {
        for (query, told) in [
            (
                "include=session",
                "Did you mean sessions? Known: executions, sessions.",
            ),
            ("include=", "Known: executions, sessions."),
            ("include=executions,%00", "Known: executions, sessions."),
            ("include=executions&execution=a", "include=sessions, too"),
            ("include=sessions&execution=a%20b", "1 to 128"),
            ("inclde=sessions", "Did you mean include?"),
        ] {
            let problem = Include::parse(Some(query)).unwrap_err();
            assert_eq!(problem.kind(), Kind::InvalidParameter, "{query}");
            assert!(format!("{problem:?}").contains(told), "{problem:?}");
        }
    }
}
