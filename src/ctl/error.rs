//! Why there is no answer, and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Why a command has no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Nothing listens there.
    #[error("no execpool at {}: {source}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The socket may not be opened.
    #[error("may not use {}: {source}", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else listens there.
    #[error("what answers at {} is not execpool's control API: {what}", path.display())]
    NotExecpool {
        /// The socket.
        path: PathBuf,
        /// What it did.
        what: String,
    },
    /// The answer did not come in time.
    #[error("execpool at {} did not answer within {} s", path.display(), after.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// It answered that it won't.
    #[error("{0}")]
    Refused(Problem),
}

/// What execpool says when it refuses.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", told(.json))]
pub struct Problem {
    /// The problem as it came.
    pub json: Value,
}

/// What has happened. PostgreSQL's errors have a message, which may be all of the detail.
fn told(problem: &Value) -> String {
    let detail = text(problem, "detail");
    match (problem["sqlstate"].as_str(), problem["message"].as_str()) {
        (Some(state), Some(message)) if message == detail => format!("{message} ({state})"),
        (Some(state), Some(message)) => format!("{message} ({state})\n{detail}"),
        _ => detail.to_owned(),
    }
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or("refused")
}

impl CtlError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotRunning { .. } => "Is execpool running here? Its socket is control.sock in \
                listen.dir: name it with --socket PATH, or set EXECPOOL_LISTEN__DIR."
                .to_owned(),
            Self::NotPermitted { .. } => "Run this as the user or in the group of the socket \
                (knobs listen.mode, listen.group)."
                .to_owned(),
            Self::NotExecpool { .. } => {
                "Name the control socket with --socket PATH: it is control.sock, not the \
                PostgreSQL socket."
                    .to_owned()
            }
            Self::Timeout { .. } => {
                "See execpool's log: it answers this in milliseconds.".to_owned()
            }
            Self::Refused(problem) => text(&problem.json, "hint").to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_execpools_own_words() {
        let json = serde_json::json!({"detail": "there is no execution a", "hint": "List them."});
        let refused = CtlError::Refused(Problem { json });
        assert_eq!(refused.to_string(), "there is no execution a");
        assert_eq!(refused.hint(), "List them.");
    }
}
