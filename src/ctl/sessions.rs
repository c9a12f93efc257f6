//! `execpool sessions`.

use serde_json::Value;

use super::page::{Cell, Colour, Page, count_of, share_of, text_of, time_of};

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

/// How much of a caller and of a statement is shown, in characters.
const LONGEST: usize = 60;

/// Writes `GET /v1/sessions`.
pub(super) fn show(list: &Value, page: &mut Page) -> bool {
    let sessions = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if sessions.is_empty() {
        page.line("No sessions.");
        return true;
    }
    page.table(&HEADS, sessions.iter().map(row).collect());
    true
}

fn row(session: &Value) -> Vec<Cell> {
    let state = text_of(session, "state");
    let told = match session["leak_suspect"] == true {
        true => Cell::text(format!("{state}, suspect")).in_colour(Colour::Red),
        false => Cell::text(state).in_colour(Colour::of_state(state)),
    };
    vec![
        Cell::number(count_of(session, "id")),
        Cell::text(text_of(session, "execution")),
        Cell::text(text_of(session, "upstream")),
        told,
        Cell::number(time_of(session, "state_age_seconds")),
        Cell::number(time_of(session, "age_seconds")),
        Cell::number(time_of(session, "held_seconds")),
        Cell::number(share_of(session, "hold_efficiency")),
        Cell::number(count_of(session, "server_pid")),
        Cell::text(short(caller(session))),
        Cell::text(short(text_of(session, "statement"))),
    ]
}

/// Where it was opened, or else what it calls itself.
fn caller(session: &Value) -> &str {
    let names = ["caller", "label", "application_name"];
    let mut known = names.iter().filter_map(|name| session[*name].as_str());
    known.next().unwrap_or_default()
}

fn short(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let begin: String = text.chars().take(LONGEST - 1).collect();
    format!("{begin}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
}
