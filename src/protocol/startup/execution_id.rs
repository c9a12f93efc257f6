//! The name of an execution.

use super::error::shorten;
use std::{fmt, str::FromStr, sync::Arc};

/// The name of an execution: 1 to 128 of `A-Z a-z 0-9 _ @ . -`, not beginning with a dot. Cheap to
/// clone. Names that begin with `session-` are ours to give and never come from a client.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutionId(Arc<str>);

/// What begins the names of executions that belong to one session.
const SESSION: &str = "session-";

impl ExecutionId {
    /// The standing execution of sessions that name none.
    pub fn shared() -> Self {
        Self("shared".into())
    }

    /// The execution that belongs to the `number`th session alone.
    pub fn session(number: u64) -> Self {
        Self(format!("{SESSION}{number}").into())
    }

    /// A name for an execution that its app gives none, out of a random number.
    pub fn numbered(number: u128) -> Self {
        Self(format!("execution-{number:032x}").into())
    }

    /// Whether this is the standing execution.
    pub fn is_shared(&self) -> bool {
        &*self.0 == "shared"
    }

    /// Whether the app has chosen it, or asked for one: it is neither the standing execution nor one
    /// that belongs to a session that named none.
    pub fn is_named(&self) -> bool {
        !self.is_shared() && !self.0.starts_with(SESSION)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExecutionId {
    type Err = InvalidExecutionId;

    fn from_str(id: &str) -> Result<Self, InvalidExecutionId> {
        let invalid = |fault| {
            Err(InvalidExecutionId {
                id: shorten(id),
                fault,
            })
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_@.-".contains(c);
        if id.is_empty() {
            invalid(Fault::Empty)
        } else if let Some(c) = id.chars().find(|&c| !allowed(c)) {
            invalid(Fault::Character(c))
        } else if id.len() > 128 {
            invalid(Fault::Length(id.len()))
        } else if id.starts_with('.') {
            invalid(Fault::Dot)
        } else if id.starts_with(SESSION) {
            invalid(Fault::Reserved)
        } else {
            Ok(Self(id.into()))
        }
    }
}

impl AsRef<str> for ExecutionId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Why a text is no execution's name (SQLSTATE 22023).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid execution id \"{id}\": {fault}")]
pub struct InvalidExecutionId {
    id: String,
    fault: Fault,
}

impl InvalidExecutionId {
    /// What an execution's name may look like, as a sentence.
    pub const ALLOWED: &str = "An execution id is 1 to 128 of A-Z a-z 0-9 _ @ . - and begins neither with a dot nor with \"session-\".";
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it is empty")]
    Empty,
    #[error("{0:?} is not allowed in it")]
    Character(char),
    #[error("it is {0} characters long")]
    Length(usize),
    #[error("it begins with a dot")]
    Dot,
    #[error("names that begin with \"session-\" are given by execpool itself")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_of_the_allowed_characters_are_taken_as_they_are() {
        let longest = "a".repeat(128);
        for id in [
            "a",
            "shared",
            "run-1",
            "@x",
            "-",
            "_",
            "A.b@c_d-9",
            "sessions",
            "Session-1",
            &longest,
        ] {
            assert_eq!(id.parse::<ExecutionId>().unwrap().to_string(), id);
        }
        assert!("shared".parse::<ExecutionId>().unwrap().is_shared());
        assert_eq!("shared".parse(), Ok(ExecutionId::shared()));
    }

    #[test]
    fn the_error_quotes_what_is_wrong() {
        let too_long = "a".repeat(129);
        for (id, told) in [
            ("", "invalid execution id \"\": it is empty"),
            (
                "a b",
                "invalid execution id \"a b\": ' ' is not allowed in it",
            ),
            (
                "a\n",
                "invalid execution id \"a\\n\": '\\n' is not allowed in it",
            ),
            ("ä", "invalid execution id \"ä\": 'ä' is not allowed in it"),
            (".a", "invalid execution id \".a\": it begins with a dot"),
            (
                "session-1",
                "invalid execution id \"session-1\": names that begin with \"session-\" are given by execpool itself",
            ),
        ] {
            assert_eq!(id.parse::<ExecutionId>().unwrap_err().to_string(), told);
        }
        let told = too_long.parse::<ExecutionId>().unwrap_err().to_string();
        assert_eq!(
            told,
            format!(
                "invalid execution id \"{}…\": it is 129 characters long",
                "a".repeat(64)
            )
        );
    }

    #[test]
    fn only_we_name_an_execution_after_a_session() {
        assert_eq!(ExecutionId::session(7).as_str(), "session-7");
        assert!(
            ExecutionId::session(7)
                .as_str()
                .parse::<ExecutionId>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn an_id_that_is_taken_obeys_the_rule(id in "\\PC{0,140}|[A-Za-z0-9_@.-]{1,140}") {
            let rule = (1..=128).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_@.-".contains(&b))
                && !id.starts_with('.')
                && !id.starts_with("session-");
            prop_assert_eq!(id.parse::<ExecutionId>().is_ok(), rule);
        }
    }
}
