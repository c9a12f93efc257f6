//! What the pod's Events say.

use super::super::{Holder, Notice};
use super::*;

/// The report of a spell in this state, in which this holds the connections.
fn report(state: State, holder: Option<(&str, Option<&str>)>) -> Report {
    let mut ladder = in_state(state);
    let snapshot = Snapshot {
        holder: holder.map(|(execution, caller)| Holder {
            execution: execution.to_owned(),
            caller: caller.map(str::to_owned),
            held: SECOND,
        }),
        ..waits(6000)
    };
    ladder.looks(1, &snapshot);
    let snapshot = snapshot.under(ladder.circumstances);
    Report::of(&ladder.history, &snapshot, &ladder.policy)
}

#[test]
fn that_it_does_not_pass_has_words_of_its_own_and_is_no_repetition() {
    let [exhausted, sustained] = [State::Exhausted, State::Sustained]
        .map(|state| Notice::of_state(Reason::PoolExhausted, &report(state, None)));
    assert_eq!(
        exhausted.words,
        "Server connections have run out: 10 of 10 in use, 1 waiting."
    );
    assert_eq!(
        sustained.words,
        "Server connections have run out, and it does not pass: 10 of 10 in use, 1 waiting."
    );
    assert_eq!(exhausted.reason, sustained.reason);
    assert_ne!(exhausted.about, sustained.about);
}

#[test]
fn who_holds_is_named_by_what_can_be_acted_upon() {
    let cases = [
        (None, "1 waiting."),
        (Some(("run-7", None)), "Held longest by execution run-7."),
        (
            Some(("run-7", Some("a.py:1"))),
            "Held longest by execution run-7, opened at a.py:1.",
        ),
        (
            Some(("shared", Some("a.py:1"))),
            "Held longest by sessions that name no execution (shared), most of them opened at a.py:1.",
        ),
        (
            Some(("shared", None)),
            "Held longest by sessions that name no execution (shared), nor where they were opened \
             (execpool.caller).",
        ),
    ];
    for (holder, said) in cases {
        let notice = Notice::of_state(Reason::PoolExhausted, &report(State::Exhausted, holder));
        assert!(notice.words.ends_with(said), "{}", notice.words);
    }
    // Who held them is no matter when it is over.
    let over = report(State::Exhausted, Some(("run-7", Some("a.py:1"))));
    let over = Notice::of_state(Reason::PoolRecovered, &over);
    assert!(
        over.words.contains("10 of 10") && !over.words.contains("run-7"),
        "{}",
        over.words
    );
}

#[test]
fn a_restart_says_how_why_how_many_and_who_held_what() {
    let report = report(State::Sustained, Some(("run-7", Some("a.py:1"))));
    let notice = Notice::of_restart(
        config::Restart::Rollout,
        "the owner is rolled out anew",
        (1, 2),
        &report,
    );
    assert_eq!(
        (notice.reason, notice.about),
        (Reason::PoolRestart, "rollout")
    );
    assert_eq!(
        notice.words,
        "Restart by rollout, as nothing else has helped: the owner is rolled out anew. 10 of 10 server connections \
         are in use, 1 wait for one, sustained since 2024-10-04T00:02:10Z. Held longest by execution run-7, opened \
         at a.py:1. Restarts within an hour, with this one: 1 of at most 2."
    );
}

#[test]
fn a_restart_that_is_refused_says_why_and_each_reason_is_another() {
    let report = report(State::Sustained, None);
    let refused = |guard: Guard| Notice::of_refusal(&guard, &guard.to_string(), &report);
    let (draining, cooldown) = (
        refused(Guard::Draining),
        refused(Guard::Cooldown { left: SECOND }),
    );
    assert_eq!(
        draining.words,
        "A restart is due, and is not done: the pod is on its way out. 10 of 10 server connections are in use, \
         1 wait for one, sustained since 2024-10-04T00:02:10Z."
    );
    let report = report.as_of(&used(9));
    let passed = Notice::of_objection(&Guard::Passed, &Guard::Passed.to_string(), &report);
    assert_eq!(
        passed.words,
        "A restart was due, and was not done: nobody waits for a connection any more. 9 of 10 server connections are \
         in use, 0 wait for one, sustained since 2024-10-04T00:02:10Z."
    );
    assert_ne!(draining.about, cooldown.about);
    assert!(draining.reason.is_normal());
}

#[test]
fn a_cleanup_says_how_many_sessions_were_ended() {
    let said = |ended| Notice::of_cleanup(ended, 2, "sessions 3 (leak_suspect)").words;
    assert_eq!(
        said(1),
        "Emergency cleanup: 1 session was ended to make room, and 2 wait still. Closed: sessions 3 (leak_suspect)."
    );
    assert!(said(3).contains("3 sessions were ended"), "{}", said(3));
    assert_eq!(
        Notice::of_cleanup(0, 2, "leftovers of run-1").words,
        "Emergency cleanup: what ended executions have left on the server was closed to make room, and 2 wait still. \
         Closed: leftovers of run-1."
    );
}

#[test]
fn words_leave_room_for_where_to_look_whatever_the_app_calls_itself() {
    // What Kubernetes takes, less the longest names of a namespace, a pod and a container.
    const MOST: usize = 1000;
    let (long, holder) = ("ä".repeat(4000), "r".repeat(128));
    let report = report(State::Sustained, Some((&holder, Some(&long))));
    let restart = Notice::of_restart(config::Restart::ExitCode, &long, (60, 60), &report);
    assert!(restart.words.len() <= MOST, "{}", restart.words.len());
    let cleanup = Notice::of_cleanup(usize::MAX, usize::MAX, &long);
    assert!(cleanup.words.len() <= MOST, "{}", cleanup.words.len());
    // Of where to look: 253 of a pod, 63 of a namespace, 63 of a container, and the command.
    let look = 253 + 63 + 63 + 60;
    let exhausted = Notice::of_state(Reason::PoolExhausted, &report);
    let refused = Notice::of_refusal(&Guard::Draining, &long, &report);
    for notice in [exhausted, refused] {
        assert!(notice.words.len() + look <= MOST, "{}", notice.words.len());
    }
}
