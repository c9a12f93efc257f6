//! `execpool cleanup`, and what is printed when single sessions are cancelled or ended.

use clap::Args;
use serde_json::{Value, json};

use super::PATIENCE;
use super::command::Ask;
use super::page::{Page, count_of, text_of, time_of};
use super::plan::Question;

/// Make room: end sessions that hold a connection and ask nothing, while somebody waits
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  execpool cleanup --dry-run\n  \
    execpool cleanup\n  \
    execpool cleanup --execution run-1    whether anybody waits or not\n\n\
    In this order, until nobody waits for the budget: leftovers of ended executions; sessions\n\
    idle in transaction for cleanup.idle_in_transaction (60s); leak suspects of named\n\
    executions; other suspects only with session.reclaim_leaks.\n\
    Exit status: 0 nobody waits any more, 1 failed or somebody still waits, 2 wrong usage.")]
pub struct Whom {
    /// Only tell what would be ended
    #[arg(long)]
    dry_run: bool,
    /// Of this execution alone, whether anybody waits or not
    #[arg(long, value_name = "ID")]
    execution: Option<String>,
    /// How to ask.
    #[command(flatten)]
    ask: Ask,
}

impl Whom {
    /// What is asked, and how.
    pub(super) fn question(self) -> (Question, Ask) {
        let body = json!({"dry_run": self.dry_run, "execution": self.execution});
        let question = Question::post("/v1/cleanup", show).with(body);
        // One may be under way already.
        (question.within(3 * PATIENCE), self.ask)
    }
}

/// Writes the answer of `POST /v1/cleanup`; whether nobody waits any more.
pub(super) fn show(answer: &Value, page: &mut Page) -> bool {
    let dry_run = answer["dry_run"] == true;
    let closed = answer["closed"].as_array().map(Vec::as_slice);
    let closed = closed.unwrap_or_default();
    for one in closed {
        page.line(&line(one, dry_run));
    }
    let what = match (closed.len(), dry_run) {
        (0, false) => "Nothing was closed".to_owned(),
        (0, true) => "Nothing would be closed".to_owned(),
        (many, false) => format!("{many} closed"),
        (many, true) => format!("{many} would be closed"),
    };
    let wait = match answer["waiting"].as_u64().unwrap_or_default() {
        0 if answer["nobody_waits"] == true => "nobody waited for the budget".to_owned(),
        0 => "nobody waits for the budget any more".to_owned(),
        1 => "one still waits for the budget".to_owned(),
        many => format!("{many} still wait for the budget"),
    };
    page.line(&format!("{what}; {wait}."));
    if answer["spared"].as_u64() > Some(0) {
        page.line(&format!(
            "{} suspects of no named execution were spared; session.reclaim_leaks: true lets them end.",
            count_of(answer, "spared"),
        ));
    }
    let remaining = answer["remaining_sessions"].as_array();
    if let Some(remaining) = remaining.filter(|remaining| !remaining.is_empty()) {
        let ids: Vec<String> = remaining.iter().map(ToString::to_string).collect();
        page.line(&format!(
            "Told to end, and still there: {}.",
            ids.join(", ")
        ));
    }
    answer["complete"] == true
}

fn line(one: &Value, dry_run: bool) -> String {
    let (why, execution) = (text_of(one, "why"), text_of(one, "execution"));
    let verb = if dry_run { "would end" } else { "ended" };
    let pid = count_of(one, "server_pid");
    let session = &one["session"];
    if session.is_null() {
        return format!("{verb} backend {pid} of execution {execution} ({why})");
    }
    let callers = ["caller", "label", "application_name"];
    let caller = callers.iter().find_map(|name| session[*name].as_str());
    let caller = caller.map(|caller| format!(", {caller}"));
    format!(
        "{verb} session {} of execution {execution} ({why}, idle for {}, backend {pid}){}",
        count_of(session, "id"),
        time_of(session, "idle_for_seconds"),
        caller.unwrap_or_default(),
    )
}

/// Writes the answer of `POST /v1/sessions/{id}/cancel`.
pub(super) fn cancelled(answer: &Value, page: &mut Page) -> bool {
    let what = match text_of(answer, "cancelled") {
        "wait" => "its wait is over",
        _ => "its query is being cancelled",
    };
    page.line(&format!(
        "session {} of {}: {what}",
        count_of(answer, "id"),
        text_of(answer, "execution"),
    ));
    true
}

/// Writes the answer of `DELETE /v1/sessions/{id}`; whether it and its connection are gone.
pub(super) fn ended(answer: &Value, page: &mut Page) -> bool {
    let complete = answer["complete"] == true;
    page.line(&format!(
        "session {} of {} {} ({} for {}): {} queries, held {}",
        count_of(answer, "id"),
        text_of(answer, "execution"),
        if complete { "ended" } else { "is ending" },
        text_of(answer, "state"),
        time_of(answer, "state_age_seconds"),
        count_of(answer, "queries"),
        time_of(answer, "held_seconds"),
    ));
    if !complete && answer["remaining_pid"].is_number() {
        page.line(&format!(
            "Its backend {} is still at the database.",
            count_of(answer, "remaining_pid"),
        ));
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(show: fn(&Value, &mut Page) -> bool, answer: &Value) -> (bool, String) {
        let mut page = Page::new(false);
        let well = show(answer, &mut page);
        (well, page.finish())
    }

    #[test]
    fn a_cleanup_says_whom_it_ended_and_why_and_who_still_waits() {
        let mut answer = json!({"dry_run": false, "nobody_waits": false, "complete": false,
            "waiting": 2, "spared": 3, "remaining_sessions": [9], "closed": [
                {"why": "leftover", "execution": "old", "server_pid": 7, "session": null},
                {"why": "leak_suspect", "execution": "run", "server_pid": 8, "session":
                    {"id": 4, "idle_for_seconds": 72, "caller": "agent.py:7 run"}}]});
        let (well, text) = told(show, &answer);
        assert!(!well);
        assert_eq!(
            text,
            "ended backend 7 of execution old (leftover)\n\
             ended session 4 of execution run (leak_suspect, idle for 1m12s, backend 8), agent.py:7 run\n\
             2 closed; 2 still wait for the budget.\n\
             3 suspects of no named execution were spared; session.reclaim_leaks: true lets them end.\n\
             Told to end, and still there: 9.\n"
        );
        answer = json!({"dry_run": true, "nobody_waits": true, "complete": true, "waiting": 0,
            "spared": 0, "remaining_sessions": [], "closed": []});
        let (well, text) = told(show, &answer);
        assert!(well);
        assert_eq!(
            text,
            "Nothing would be closed; nobody waited for the budget.\n"
        );
    }

    #[test]
    fn what_became_of_a_session_is_a_line() {
        let answer = json!({"id": 4, "execution": "run", "cancelled": "wait"});
        assert_eq!(
            told(cancelled, &answer).1,
            "session 4 of run: its wait is over\n"
        );
        let answer = json!({"id": 4, "execution": "run", "state": "idle", "state_age_seconds": 72,
            "queries": 3, "held_seconds": 80, "complete": false, "remaining_pid": 8});
        let (well, text) = told(ended, &answer);
        assert!(!well);
        assert_eq!(
            text,
            "session 4 of run is ending (idle for 1m12s): 3 queries, held 1m20s\n\
             Its backend 8 is still at the database.\n"
        );
    }
}
