//! What the pod tells.

use super::super::Holder;
use super::*;

/// The report after the last look, which was this one.
fn report(ladder: &Ladder, snapshot: &Snapshot) -> Report {
    let snapshot = snapshot.clone().under(ladder.circumstances);
    Report::of(&ladder.history, &snapshot, &ladder.policy)
}

fn annotations(report: &Report) -> Vec<(String, String)> {
    report.annotations()
}

fn pairs(said: &[(&str, &str)]) -> Vec<(String, String)> {
    let said = said.iter();
    said.map(|(name, value)| (format!("execpool.dev/{name}"), (*value).to_owned()))
        .collect()
}

fn held_by(execution: &str, caller: Option<&str>) -> Holder {
    Holder {
        execution: execution.to_owned(),
        caller: caller.map(str::to_owned),
        held: SECOND,
    }
}

#[test]
fn annotations_tell_how_it_stands_and_who_holds_it() {
    let mut ladder = Ladder::new();
    let held = Snapshot {
        holder: Some(held_by("run-1", Some("app.py:7 leak"))),
        ..waits(6000)
    };
    ladder.looks(20, &held);
    // 20,000 days after 1970, and 10 s.
    assert_eq!(
        annotations(&report(&ladder, &held)),
        pairs(&[
            ("state", "exhausted"),
            ("since", "2024-10-04T00:00:10Z"),
            ("used", "10"),
            ("limit", "10"),
            ("waiting", "1"),
            ("holder", "run-1"),
            ("holder-caller", "app.py:7 leak"),
            ("restarts", "0"),
        ])
    );
}

#[test]
fn annotations_remember_restarts_and_forget_the_holder_when_it_is_well() {
    let mut ladder = Ladder::restarting(config::Restart::Liveness);
    ladder.looks(191, &waits(6000));
    let held = Snapshot {
        holder: Some(held_by("run-1", None)),
        ..used(7)
    };
    ladder.looks(60, &held);
    assert_eq!(
        annotations(&report(&ladder, &held)),
        pairs(&[
            ("state", "healthy"),
            ("since", "2024-10-04T00:03:41Z"),
            ("used", "7"),
            ("limit", "10"),
            ("waiting", "0"),
            ("restarts", "1"),
            ("last-restart", "2024-10-04T00:03:10Z"),
        ])
    );
}

#[test]
fn what_the_app_says_of_itself_is_cut_between_characters() {
    let mut ladder = in_state(State::Exhausted);
    let long = format!("a{}", "é".repeat(5000));
    let held = Snapshot {
        holder: Some(held_by("run-1", Some(&long))),
        ..waits(6000)
    };
    ladder.looks(1, &held);
    let caller = report(&ladder, &held).holder_caller.unwrap();
    assert_eq!(caller.len(), 4095);
    assert!(long.starts_with(&caller));
}

#[test]
fn the_state_is_told_since_when_it_was_entered_whatever_the_clock_does_then() {
    let mut ladder = in_state(State::Exhausted);
    let before = report(&ladder, &waits(6000)).since;
    ladder.circumstances.time += DAY;
    ladder.looks(5, &waits(6000));
    assert_eq!(report(&ladder, &waits(6000)).since, before);
}

#[test]
fn the_condition_is_false_only_where_the_app_alone_keeps_it_exhausted() {
    let away = |snapshot: Snapshot| Snapshot {
        database_unreachable: true,
        ..snapshot
    };
    let limited = |snapshot: Snapshot| Snapshot {
        limited_by_database: true,
        ..snapshot
    };
    let busy = |snapshot: Snapshot| Snapshot {
        active: 9,
        ..snapshot
    };
    let cases = [
        (State::Healthy, used(3), true, "PoolAvailable"),
        (State::Healthy, away(used(3)), true, "DatabaseUnreachable"),
        (State::Healthy, limited(used(3)), true, "PoolAvailable"),
        (State::Warning, used(9), true, "PoolWarning"),
        (State::Warning, away(used(9)), true, "DatabaseUnreachable"),
        (State::Exhausted, waits(6000), true, "PoolExhausted"),
        (State::Exhausted, busy(waits(6000)), true, "PoolExhausted"),
        (
            State::Exhausted,
            away(waits(6000)),
            true,
            "DatabaseUnreachable",
        ),
        (State::Sustained, waits(6000), false, "PoolSustained"),
        (
            State::Sustained,
            away(waits(6000)),
            true,
            "DatabaseUnreachable",
        ),
        (
            State::Sustained,
            limited(waits(6000)),
            true,
            "DatabaseLimited",
        ),
        (State::Sustained, busy(waits(6000)), true, "DatabaseSlow"),
    ];
    for (state, snapshot, status, reason) in cases {
        let mut ladder = in_state(state);
        ladder.looks(1, &snapshot);
        assert_eq!(ladder.state(), state);
        let condition = report(&ladder, &snapshot).condition();
        assert_eq!(
            (condition.status, condition.reason),
            (status, reason),
            "{state:?}: {snapshot:?}"
        );
        let stands = format!("{} of 10 server connections are in use", snapshot.used);
        assert!(condition.message.starts_with(&stands), "{condition:?}");
        assert!(condition.message.ends_with('.'), "{condition:?}");
    }
}

#[test]
fn the_condition_is_not_false_before_the_app_has_been_the_cause_for_half_a_minute() {
    let mut ladder = in_state(State::Sustained);
    let busy = Snapshot {
        active: 9,
        ..waits(6000)
    };
    ladder.looks(1, &busy).looks(30, &waits(6000));
    let condition = report(&ladder, &waits(6000)).condition();
    assert_eq!(
        (condition.status, condition.reason),
        (true, "PoolExhausted")
    );
    ladder.looks(1, &waits(6000));
    assert!(!report(&ladder, &waits(6000)).condition().status);
}
