//! `execpool sessions`.

use clap::Args;
use serde_json::Value;

use super::client;
use super::command::Ask;
use super::page::{Cell, Colour, Page, count_of, cut, share_of, text_of, time_of};
use super::plan::Question;

/// List sessions: who holds what, since when and from which line
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  execpool sessions\n  \
    execpool sessions --execution run-1\n  \
    execpool sessions --state idle_in_transaction --older-than 1m30s\n  \
    execpool sessions --suspect\n\n\
    A suspect holds a connection and has asked nothing for session.leak_after (60s).\n\
    FOR: how long it has been in that state; HELD and BUSY as in execpool executions;\n\
    PID: the backend that it holds. Statements are shown without literals.\n\
    Exit status: 0 answered, 1 not answered, 2 wrong usage.")]
pub struct Which {
    /// Of this execution alone
    #[arg(long, value_name = "ID")]
    execution: Option<String>,
    /// In this state alone, such as active, idle, idle_in_transaction or waiting
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// At least that old, such as 30s or 5m
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,
    /// Those alone that seem to be forgotten: they hold a connection and ask nothing
    #[arg(long)]
    suspect: bool,
    /// How to ask.
    #[command(flatten)]
    ask: Ask,
}

impl Which {
    /// What is asked, and how.
    pub(super) fn question(self) -> (Question, Ask) {
        let query = [
            ("execution", self.execution),
            ("state", self.state),
            ("older_than", self.older_than),
            ("suspect", self.suspect.then(|| "true".to_owned())),
        ];
        let path = client::path("/v1/sessions", query);
        (Question::get(path, show), self.ask)
    }
}

const HEADS: [&str; 11] = [
    "ID",
    "EXECUTION",
    "UPSTREAM",
    "STATE",
    "FOR",
    "AGE",
    "HELD",
    "BUSY",
    "PID",
    "CALLER",
    "STATEMENT",
];

/// The same where there is less room.
const NARROW_HEADS: [&str; 6] = ["ID", "EXECUTION", "STATE", "FOR", "HELD", "PID"];

/// The columns from which on all is on one line.
const WIDE: usize = 160;

/// How much of a caller and of a statement is shown, in characters.
const LONGEST: usize = 60;

/// Writes `GET /v1/sessions`.
pub(super) fn show(list: &Value, page: &mut Page) -> bool {
    let sessions = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if sessions.is_empty() {
        page.line("No sessions.");
        return true;
    }
    match page.width() {
        Some(width) if width < WIDE => {
            page.records(&NARROW_HEADS, sessions.iter().map(narrow).collect());
        }
        _ => page.table(&HEADS, sessions.iter().map(row).collect()),
    }
    true
}

/// Where it stands; suspects stand out.
fn state(session: &Value) -> Cell {
    let state = text_of(session, "state");
    match session["leak_suspect"] == true {
        true => Cell::text(format!("{state}, suspect")).in_colour(Colour::Red),
        false => Cell::text(state).in_colour(Colour::of_state(state)),
    }
}

/// For a terminal of 80 columns: from where and what on a line of its own.
fn narrow(session: &Value) -> (Vec<Cell>, String) {
    let row = vec![
        Cell::number(count_of(session, "id")),
        Cell::text(cut(text_of(session, "execution"), 18)),
        state(session),
        Cell::number(time_of(session, "state_age_seconds")),
        Cell::number(time_of(session, "held_seconds")),
        Cell::number(count_of(session, "server_pid")),
    ];
    let told = [caller(session), text_of(session, "statement")];
    let told: Vec<&str> = told.into_iter().filter(|text| !text.is_empty()).collect();
    (row, told.join(": "))
}

fn row(session: &Value) -> Vec<Cell> {
    vec![
        Cell::number(count_of(session, "id")),
        Cell::text(text_of(session, "execution")),
        Cell::text(text_of(session, "upstream")),
        state(session),
        Cell::number(time_of(session, "state_age_seconds")),
        Cell::number(time_of(session, "age_seconds")),
        Cell::number(time_of(session, "held_seconds")),
        Cell::number(share_of(session, "hold_efficiency")),
        Cell::number(count_of(session, "server_pid")),
        Cell::text(cut(caller(session), LONGEST)),
        Cell::text(cut(text_of(session, "statement"), LONGEST)),
    ]
}

/// Where it was opened, or else what it calls itself.
fn caller(session: &Value) -> &str {
    let names = ["caller", "label", "application_name"];
    let mut known = names.iter().filter_map(|name| session[*name].as_str());
    known.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn a_session_says_who_holds_what_since_when_and_from_where() {
        let list = json!([{
            "id": 7, "execution": "run", "upstream": "app", "state": "idle_in_transaction",
            "state_age_seconds": 62, "age_seconds": 130.5, "held_seconds": 100,
            "hold_efficiency": 0.01, "server_pid": 4711, "caller": "agent.py:7 run",
            "statement": "SELECT ?", "leak_suspect": true,
        }]);
        let mut page = Page::new(false);
        show(&list, &mut page);
        let page = page.finish();
        let row = page.lines().nth(1).unwrap();
        for told in [
            "run",
            "idle_in_transaction, suspect",
            "1m02s",
            "2m10s",
            "1%",
            "4711",
            "agent.py:7 run",
            "SELECT ?",
        ] {
            assert!(row.contains(told), "{told}: {row}");
        }
        let mut page = Page::new(false);
        show(&json!([]), &mut page);
        assert_eq!(page.finish(), "No sessions.\n");
    }

    #[test]
    fn at_a_terminal_of_80_columns_no_line_is_longer() {
        let list = json!([{
            "id": 123_456, "execution": "execution-1234567890abcdef", "upstream": "app",
            "state": "idle_in_transaction", "state_age_seconds": 4000, "age_seconds": 5000,
            "held_seconds": 4500, "hold_efficiency": 0.01, "server_pid": 4_194_304,
            "caller": "agent.py:7 run < flow.py:12 step", "statement": "SELECT ?, ".repeat(20),
            "leak_suspect": true,
        }, {
            "id": 2, "execution": "a", "state": "idle", "leak_suspect": false,
            "caller": "東京.py:7 \u{1b}[2J走る < ".repeat(200), "label": "\u{1b}]0;x\u{7}",
        }]);
        let mut page = Page::new(false).within(Some(80));
        show(&list, &mut page);
        let page = page.finish();
        assert!(page.lines().all(|line| line.width() <= 80), "{page}");
        assert!(!page.contains('\u{1b}'), "{page:?}");
        assert!(
            page.contains("agent.py:7 run < flow.py:12 step: SELECT ?"),
            "{page}"
        );
    }
}
