//! What input makes of the model, without a terminal.

use serde_json::json;

use super::super::samples::{Shown, exhausted, status};
use super::*;

const SIZE: (u16, u16) = (80, 24);

fn chosen(shown: &Shown) -> String {
    let rows = shown.model.shown_executions();
    rows[shown.model.chosen_execution().unwrap()].id.clone()
}

#[test]
fn the_chosen_row_is_followed_when_the_order_changes() {
    let mut shown = Shown::over(status(), SIZE);
    assert_eq!(chosen(&shown), "run-7f3a");
    shown.types("j");
    assert_eq!(chosen(&shown), "agent-2");
    let mut other = status();
    other["included"]["executions"]["listed"][1]["pools"][0]["lent"] = json!(20);
    shown.looks(other);
    assert_eq!(chosen(&shown), "agent-2");
    assert_eq!(shown.model.chosen_execution(), Some(0));
    shown.types("G");
    assert_eq!(chosen(&shown), "shared");
    shown.types("g");
    assert_eq!(chosen(&shown), "agent-2");
}

#[test]
fn nothing_is_ended_without_a_yes_to_a_question_that_names_it() {
    let mut shown = Shown::over(status(), SIZE);
    for no in [
        Key::Char('n'),
        Key::Esc,
        Key::Enter,
        Key::Char('q'),
        Key::Char('e'),
    ] {
        shown.types("e");
        assert!(matches!(shown.model.mode, Mode::Confirm(_)));
        assert_eq!(shown.presses(&[no]), None, "{no:?}");
        assert_eq!(shown.model.mode, Mode::Browse);
    }
    let Some(Command::Act(action)) = shown.types("ey") else {
        panic!("it was confirmed");
    };
    let (method, path) = action.request();
    assert_eq!(method, "DELETE");
    assert!(
        path.starts_with("/v1/executions/run-7f3a?reason="),
        "{path}"
    );
    let (look, _) = shown.model.seen.as_ref().unwrap();
    let asked = action.asked(look).join("\n");
    assert!(
        asked.contains("4 sessions closed, 1 running a query, 4 connections"),
        "{asked}"
    );
}

#[test]
fn who_has_gone_or_come_again_before_the_yes_is_not_ended() {
    for (name, value) in [("generation", json!(2)), ("id", json!("other"))] {
        let mut shown = Shown::over(status(), SIZE);
        shown.types("e");
        let mut later = status();
        later["included"]["executions"]["listed"][0][name] = value;
        shown.looks(later);
        assert_eq!(shown.types("y"), None);
        assert!(shown.model.note(shown.now).is_some_and(|note| !note.well));
    }
}

#[test]
fn sessions_are_ended_and_cancelled_where_they_do_something() {
    let mut shown = Shown::over(status(), SIZE);
    shown.types("K");
    assert_eq!(shown.model.mode, Mode::Browse, "no session is chosen");
    shown.presses(&[Key::Tab]);
    assert_eq!(
        shown.types("Ky"),
        Some(Command::Act(Action::EndSession { id: 11 }))
    );
    shown.types("c");
    let note = shown.model.note(shown.now).unwrap();
    assert_eq!(note.text, "Session 11 runs nothing: it is idle.");
    shown.types("/active");
    shown.presses(&[Key::Enter]);
    assert_eq!(
        shown.types("cy"),
        Some(Command::Act(Action::Cancel { id: 14 }))
    );
    let of_session = shown.types("ey");
    assert!(
        matches!(&of_session, Some(Command::Act(Action::EndExecution { id, .. })) if id == "run-7f3a"),
        "{of_session:?}"
    );
}

#[test]
fn a_filter_holds_for_both_tables_until_it_is_cleared() {
    let mut shown = Shown::over(status(), SIZE);
    shown.types("/AGENT-2 wait");
    assert_eq!(shown.model.shown_executions().len(), 0);
    assert_eq!(shown.model.shown_sessions().len(), 1);
    shown.presses(&[Key::Backspace; 5]);
    shown.presses(&[Key::Enter]);
    assert_eq!(shown.model.shown_executions().len(), 1);
    assert_eq!(shown.model.shown_sessions().len(), 2);
    assert_eq!(
        shown.types("q"),
        Some(Command::Quit),
        "it is a command again"
    );
    shown.presses(&[Key::Esc]);
    assert_eq!(shown.model.shown_executions().len(), 3);
    shown.types("/q");
    assert_eq!(shown.model.filter, "q", "it is typed, and no command");
    assert_eq!(shown.presses(&[Key::Ctrl('c')]), Some(Command::Quit));
}

#[test]
fn looking_closer_asks_for_the_sessions_of_that_execution_and_esc_goes_back() {
    let mut shown = Shown::over(status(), SIZE);
    assert_eq!(
        shown.model.question(),
        "/v1/status?include=executions,sessions"
    );
    assert_eq!(shown.types("j"), None);
    assert_eq!(shown.presses(&[Key::Enter]), Some(Command::Look));
    let question = "/v1/status?include=executions,sessions&execution=agent-2";
    assert_eq!(shown.model.question(), question);
    let ids = |shown: &Shown| -> Vec<u64> {
        shown
            .model
            .shown_sessions()
            .iter()
            .map(|one| one.id)
            .collect()
    };
    assert_eq!(ids(&shown), [21, 22]);
    shown.presses(&[Key::Enter]);
    assert!(matches!(shown.model.view, View::Session { id: 21, .. }));
    assert_eq!(shown.model.question(), question);
    shown.presses(&[Key::Esc]);
    assert_eq!(
        (ids(&shown), shown.model.focus),
        (vec![21, 22], Pane::Sessions)
    );
    shown.presses(&[Key::Esc]);
    assert_eq!(
        (ids(&shown).len(), shown.model.focus),
        (6, Pane::Executions)
    );
    assert_eq!(chosen(&shown), "agent-2");
}

#[test]
fn the_tab_goes_round_and_the_order_belongs_to_the_pane() {
    let mut shown = Shown::over(exhausted(), SIZE);
    shown.types("s");
    assert_eq!(shown.model.executions.by, ByExecution::Waiting);
    assert_eq!(chosen(&shown), "agent-2");
    shown.presses(&[Key::Tab]);
    shown.types("sS");
    assert_eq!(
        (shown.model.sessions.by, shown.model.sessions.reversed),
        (BySession::For, true)
    );
    assert_eq!(shown.model.shown_sessions()[0].id, 22);
    shown.presses(&[Key::Tab, Key::Tab]);
    assert_eq!(shown.model.focus, Pane::Executions);
    shown.presses(&[Key::BackTab]);
    assert_eq!(shown.model.focus, Pane::Events);
}

#[test]
fn events_are_bounded_and_stand_still_where_one_has_scrolled_to() {
    let mut shown = Shown::over(status(), SIZE);
    for number in 0..2 * EVENTS {
        let event = EventLine {
            name: number.to_string(),
            ..EventLine::default()
        };
        shown.takes(Input::Event(event));
    }
    assert_eq!(shown.model.events.len(), EVENTS);
    shown.presses(&[Key::BackTab, Key::Up]);
    assert_eq!(shown.model.back, 1);
    shown.takes(Input::Event(EventLine::default()));
    assert_eq!(shown.model.back, 2);
    shown.types("G");
    assert_eq!(shown.model.back, 0);
}

#[test]
fn keys_for_the_shell_and_the_painter_are_passed_on() {
    let mut shown = Shown::over(status(), SIZE);
    assert_eq!(shown.presses(&[Key::Ctrl('z')]), Some(Command::Suspend));
    assert_eq!(shown.presses(&[Key::Ctrl('l')]), Some(Command::Repaint));
    assert_eq!(shown.types("p"), None);
    assert_eq!(shown.types("p"), Some(Command::Look));
    assert_eq!(shown.types("?q"), None, "any key closes the help");
    assert_eq!(shown.types("q"), Some(Command::Quit));
    let acted = Input::Acted(true, "run-7f3a ended".to_owned());
    assert_eq!(shown.takes(acted), Some(Command::Look));
}
