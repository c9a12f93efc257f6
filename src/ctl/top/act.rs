//! What can be done to what is shown, in words and as a request.

use serde_json::Value;

use super::super::page::Page;
use super::super::{cleanup, client, end};
use super::look::{Look, Session};

/// What executions and sessions are told.
const REASON: &str = "ended from execpool top";

/// What is done to one execution or session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// End an execution: this one, none that gets its name later.
    EndExecution { id: String, generation: u64 },
    /// End a session.
    EndSession { id: u64 },
    /// Cancel what a session does.
    Cancel { id: u64 },
}

impl Action {
    /// Whether whom it is about is still there, and there is something to do.
    pub(super) fn is_possible(&self, look: &Look) -> bool {
        let sessions = &look.included.sessions.listed;
        match self {
            Self::EndExecution { id, generation } => {
                let mut all = look.included.executions.listed.iter();
                all.any(|one| one.id == *id && one.generation == *generation)
            }
            Self::EndSession { id } => sessions.iter().any(|one| one.id == *id),
            Self::Cancel { id } => sessions.iter().any(|one| one.id == *id && works(one)),
        }
    }

    /// The question, and what would happen, a line each.
    pub(super) fn asked(&self, look: &Look) -> Vec<String> {
        let sessions = &look.included.sessions.listed;
        let session = |id: &u64| sessions.iter().find(|one| one.id == *id);
        match self {
            Self::EndExecution { id, .. } => end_execution(id, look),
            Self::EndSession { id } => {
                let mut lines = vec![format!("End session {id}?")];
                if let Some(one) = session(id) {
                    lines.push(format!(
                        "It belongs to {} and is {}.",
                        one.execution, one.state
                    ));
                    lines.push(match one.is_running() {
                        true => "Its query is cancelled; its client reads 57P01.".to_owned(),
                        false => "Its client reads 57P01; open work is rolled back.".to_owned(),
                    });
                }
                lines
            }
            Self::Cancel { id } => {
                let mut lines = vec![format!("Cancel what session {id} does?")];
                if let Some(one) = session(id) {
                    lines.push(match one.is_running() {
                        true => format!("Its query: {}", one.statement()),
                        false => "Its wait for a connection.".to_owned(),
                    });
                    lines.push("The session lives on (57014).".to_owned());
                }
                lines
            }
        }
    }

    /// The method and the path.
    pub(super) fn request(&self) -> (&'static str, String) {
        let reason = || [("reason", Some(REASON.to_owned()))];
        match self {
            Self::EndExecution { id, .. } => {
                let path = format!("/v1/executions/{}", client::encoded(id));
                ("DELETE", client::path(&path, reason()))
            }
            Self::EndSession { id } => {
                let path = format!("/v1/sessions/{id}");
                ("DELETE", client::path(&path, reason()))
            }
            Self::Cancel { id } => ("POST", format!("/v1/sessions/{id}/cancel")),
        }
    }

    /// What has come of it, in the words of the command that does the same; whether all is well.
    pub(super) fn told(&self, answer: &Value) -> (bool, String) {
        let mut page = Page::new(false);
        let well = match self {
            Self::EndExecution { .. } => end::show(answer, &mut page),
            Self::EndSession { .. } => cleanup::ended(answer, &mut page),
            Self::Cancel { .. } => cleanup::cancelled(answer, &mut page),
        };
        (well, page.finish().trim_end().replace('\n', " "))
    }
}

/// Whether there is something to cancel.
pub(super) fn works(session: &Session) -> bool {
    session.is_running() || session.state == "waiting"
}

fn end_execution(id: &str, look: &Look) -> Vec<String> {
    let mut lines = vec![format!("End execution {id}?")];
    let mut all = look.included.executions.listed.iter();
    let Some(one) = all.find(|one| one.id == id) else {
        return lines;
    };
    let at_least = match look.included.sessions.left_out {
        0 => "",
        _ => "at least ",
    };
    lines.push(format!(
        "{} closed, {at_least}{} running a query, {} released.",
        many(one.sessions, "session"),
        one.sum.running,
        many(one.lent(), "connection"),
    ));
    lines.push(match one.kind.as_str() {
        "shared" => "It lives on: new sessions may join it.".to_owned(),
        _ => "Its sessions read 57P01; open work is rolled back.".to_owned(),
    });
    lines
}

/// `1 session`, `2 sessions`.
pub(super) fn many(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
