//! `execpool end`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::command::{Ask, duration};
use super::page::{Page, count_of, sum_of, text_of, time_of};
use super::plan::Question;
use super::{PATIENCE, cleanup, client};

/// How long an end is waited for that says nothing about its grace: that of the configuration may be
/// longer than we know.
const LONGEST: Duration = Duration::from_secs(3600);

/// End an execution or one session: cancel, close connections, wait until they are gone
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  execpool end run-1\n  \
    execpool end run-1 --grace 20s --reason \"the user cancelled\"\n  \
    execpool end shared        closes its sessions; it lives on\n  \
    execpool end --session 42  one session alone; its execution lives on\n\n\
    execpool sessions lists the numbers of sessions.\n\
    Exit status: 0 nothing of it is left, 1 failed or backends remain, 2 wrong usage.")]
pub struct Whom {
    /// The execution's name
    #[arg(value_name = "ID", required_unless_present = "session")]
    id: Option<String>,
    /// One session alone, by its number
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["id", "grace"])]
    session: Option<u64>,
    /// Why, for whoever reads its summary
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long running queries may go on, such as 20s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<(String, Duration)>,
    /// How to ask.
    #[command(flatten)]
    ask: Ask,
}

impl Whom {
    /// What is asked, and how.
    pub(super) fn question(self) -> (Question, Ask) {
        if let Some(session) = self.session {
            let path = format!("/v1/sessions/{session}");
            let path = client::path(&path, [("reason", self.reason)]);
            return (Question::delete(path, cleanup::ended), self.ask);
        }
        let (grace, wait) = self.grace.unzip();
        // It is there where no session is.
        let id = self.id.unwrap_or_default();
        let path = format!("/v1/executions/{}", client::encoded(&id));
        let path = client::path(&path, [("reason", self.reason), ("grace", grace)]);
        // It answers after 5 s and the grace at the latest.
        let patience = wait.map_or(LONGEST, |grace| grace + PATIENCE);
        (Question::delete(path, show).within(patience), self.ask)
    }
}

/// Writes the answer of `DELETE /v1/executions/{id}`; whether nothing of it is left.
pub(super) fn show(ended: &Value, page: &mut Page) -> bool {
    let complete = ended["complete"] == true;
    let (id, reason) = (text_of(ended, "id"), text_of(ended, "reason"));
    page.line(&format!(
        "{id} {} ({reason}) after {}: {} queries, held {}, at most {} connections",
        if text_of(ended, "state") == "ended" {
            "ended"
        } else {
            "is ending"
        },
        time_of(ended, "duration_seconds"),
        count_of(ended, "queries"),
        time_of(ended, "held_seconds"),
        count_of(ended, "peak_connections"),
    ));
    if !complete {
        let pids = ended["remaining_pids"].as_array().into_iter().flatten();
        let pids: Vec<String> = pids.map(ToString::to_string).collect();
        page.line(&format!(
            "Backends remain at the database: {}. The maintenance pass ends them, or do it with \
             pg_terminate_backend.",
            if pids.is_empty() {
                count_of(ended, "leftovers")
            } else {
                pids.join(", ")
            },
        ));
    }
    if let Some(left @ 1..) = sum_of(ended, "resources_left") {
        page.line(&format!(
            "Resources that the app has not released: {left} ({}).",
            by_kind(&ended["resources_left"]),
        ));
    }
    complete
}

/// Counts by kind, without the kinds of which there are none.
fn by_kind(counts: &Value) -> String {
    let counts = counts.as_object().into_iter().flatten();
    let counts = counts.filter(|(_, count)| count.as_u64() > Some(0));
    let counts: Vec<String> = counts
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    counts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_remains_is_named_and_is_no_success() {
        let mut ended = json!({"id": "run", "state": "ended", "reason": "deleted",
            "duration_seconds": 61, "queries": 4, "held_seconds": 3, "peak_connections": 2,
            "complete": true});
        let mut page = Page::new(false);
        assert!(show(&ended, &mut page));
        let told = "run ended (deleted) after 1m01s: 4 queries, held 3s, at most 2 connections\n";
        assert_eq!(page.finish(), told);
        ended["resources_left"] = json!({"http": 2, "file": 0, "browser": 1});
        let mut page = Page::new(false);
        assert!(show(&ended, &mut page), "they are not the database's");
        assert!(page.finish().contains("3 (1 browser, 2 http)"));
        ended["complete"] = json!(false);
        ended["remaining_pids"] = json!([7, 8]);
        let mut page = Page::new(false);
        assert!(!show(&ended, &mut page));
        assert!(page.finish().contains("7, 8"));
    }
}
