//! Rungs 3 and 4: when there is a cleanup, when a restart.

use super::*;

use config::Restart::{Evict, ExitCode, Liveness, Rollout};

/// Exhausted from 10 s on, sustained from 130 s on, and so for `seconds` in all.
fn sustains(ladder: &mut Ladder, seconds: u64) -> &mut Ladder {
    ladder.looks(seconds, &waits(6000))
}

#[test]
fn a_cleanup_begins_when_exhaustion_is_sustained_and_again_every_ten_seconds() {
    let mut ladder = Ladder::new();
    sustains(&mut ladder, 165);
    assert_eq!(ladder.told().last(), Some(&(130, State::Sustained)));
    assert_eq!(ladder.cleanups(), [130, 140, 150, 160]);
}

#[test]
fn no_cleanup_begins_where_nobody_waits_or_the_shortage_passes() {
    let mut ladder = in_state(State::Sustained);
    // All is in use, and nobody wants more.
    ladder.looks(600, &used(10));
    assert_eq!(ladder.cleanups(), NEVER);
    let mut ladder = in_state(State::Sustained);
    let passes = Snapshot {
        waiting: 1,
        oldest_wait: SECOND,
        oldest_of_all: SECOND,
        ..used(8)
    };
    ladder.looks(29, &passes);
    assert_eq!(
        (ladder.state(), ladder.cleanups()),
        (State::Sustained, vec![])
    );
}

#[test]
fn below_sustained_nothing_is_cleaned_up_or_restarted() {
    for state in [State::Healthy, State::Warning] {
        let mut ladder = in_state(state);
        ladder.policy.restart = Some(Liveness);
        ladder.policy.restart_after = Duration::ZERO;
        ladder.looks(600, &waits(4999));
        assert_eq!((ladder.cleanups(), ladder.restarts()), (vec![], vec![]));
    }
    let mut ladder = in_state(State::Exhausted);
    ladder.policy.restart = Some(Liveness);
    ladder.looks(100, &waits(6000));
    assert_eq!((ladder.cleanups(), ladder.restarts()), (vec![], vec![]));
}

#[test]
fn no_cleanup_begins_before_the_last_one_is_over() {
    let mut ladder = Ladder::new();
    ladder.hand = Hand::IsSilent;
    sustains(&mut ladder, 200);
    assert_eq!(ladder.cleanups(), [130]);
    ladder.history.heard(Heard::CleanedUp, ladder.now);
    ladder.looks(30, &waits(6000));
    assert_eq!(ladder.cleanups(), [130, 210]);
}

#[test]
fn a_cleanup_of_which_nothing_is_heard_is_given_up_after_five_minutes() {
    let mut ladder = Ladder::new();
    ladder.hand = Hand::IsSilent;
    sustains(&mut ladder, 800);
    assert_eq!(ladder.cleanups(), [130, 430, 730]);
}

#[test]
fn each_way_to_restart_is_taken_a_minute_after_and_then_within_its_guards() {
    for way in config::Restart::ALL {
        let mut ladder = Ladder::restarting(way);
        sustains(&mut ladder, 4000);
        let restarts = ladder.acts.iter();
        let ways = restarts.filter(|(_, action)| matches!(action, Action::Restart(_)));
        assert!(
            ways.clone()
                .all(|(_, action)| *action == Action::Restart(way))
        );
        // The cool-down of 10 minutes, then two within an hour.
        assert_eq!(ladder.restarts(), [190, 790, 3790], "{way:?}");
        assert_eq!(
            ladder.refused(),
            [
                (250, Rung::Restart, "cooldown"),
                (850, Rung::Restart, "too_many")
            ]
        );
        assert_eq!(ladder.history.restarts().total(), 3);
    }
}

#[test]
fn the_rungs_above_the_first_have_their_switches() {
    let mut ladder = Ladder::new();
    sustains(&mut ladder, 4000);
    assert_eq!(ladder.restarts(), NEVER, "off is the default");
    let mut ladder = Ladder::restarting(Liveness);
    ladder.policy.cleanup = false;
    sustains(&mut ladder, 200);
    assert_eq!((ladder.cleanups(), ladder.restarts()), (vec![], vec![190]));
}

#[test]
fn the_jitter_is_added() {
    let mut ladder = Ladder::restarting(Rollout);
    ladder.policy.jitter = Duration::from_secs(37);
    sustains(&mut ladder, 300);
    assert_eq!(ladder.restarts(), [227]);
}

#[test]
fn a_cleanup_comes_before_a_restart_that_waits_for_nothing() {
    let mut ladder = Ladder::restarting(Liveness);
    ladder.policy.restart_after = Duration::ZERO;
    sustains(&mut ladder, 140);
    assert_eq!(
        (ladder.cleanups(), ladder.restarts()),
        (vec![130], vec![131])
    );
}

#[test]
fn a_restart_waits_for_the_end_of_a_cleanup_and_a_cleanup_for_that_of_a_restart() {
    let mut ladder = Ladder::restarting(Liveness);
    ladder.hand = Hand::IsSilent;
    sustains(&mut ladder, 250);
    assert_eq!((ladder.cleanups(), ladder.restarts()), (vec![130], vec![]));
    ladder.history.heard(Heard::CleanedUp, ladder.now);
    ladder.looks(100, &waits(6000));
    assert_eq!(
        (ladder.cleanups(), ladder.restarts()),
        (vec![130], vec![250])
    );
    assert_eq!(ladder.refused(), []);
}

#[test]
fn nothing_is_decided_while_a_restart_takes_its_time() {
    let mut ladder = Ladder::restarting(Liveness);
    // Not even a cool-down would be in the way.
    ladder.policy.cooldown = Duration::ZERO;
    sustains(&mut ladder, 191);
    assert_eq!(ladder.restarts(), [190]);
    ladder.acts.clear();
    ladder.circumstances.restarting = true;
    ladder.looks(120, &waits(6000));
    assert_eq!((ladder.cleanups(), ladder.restarts()), (vec![], vec![]));
    assert_eq!(ladder.refused(), []);
    ladder.circumstances.restarting = false;
    ladder.looks(1, &waits(6000));
    assert_eq!(ladder.restarts(), [311]);
}

#[test]
fn a_restart_of_which_nothing_is_heard_counts_and_is_not_waited_for_for_ever() {
    let mut ladder = Ladder::restarting(Evict);
    ladder.policy.cleanup = false;
    ladder.hand = Hand::IsSilent;
    sustains(&mut ladder, 800);
    assert_eq!(ladder.restarts(), [190, 790]);
    assert_eq!(ladder.refused(), [(490, Rung::Restart, "cooldown")]);
}

#[test]
fn a_restart_that_was_refused_is_told_once_tried_again_and_does_not_count() {
    let mut ladder = Ladder::restarting(Evict);
    ladder.hand = Hand::Refuses(Guard::Disrupted);
    sustains(&mut ladder, 260);
    assert_eq!(ladder.restarts(), [190, 220, 250]);
    assert_eq!(ladder.refused(), [(191, Rung::Restart, "disrupted")]);
    assert_eq!(ladder.history.restarts().total(), 0);
    // Others go on meanwhile.
    assert!(ladder.cleanups().contains(&191), "{:?}", ladder.acts);
    // The budget allows for it now.
    ladder.hand = Hand::Does;
    ladder.looks(700, &waits(6000));
    assert_eq!(ladder.restarts(), [190, 220, 250, 280, 880]);
}

#[test]
fn a_restart_that_failed_is_tried_again_and_does_not_count() {
    let mut ladder = Ladder::restarting(Rollout);
    ladder.hand = Hand::Fails;
    sustains(&mut ladder, 230);
    assert_eq!(ladder.restarts(), [190, 220]);
    assert_eq!(ladder.refused(), []);
    assert_eq!(ladder.history.restarts().total(), 0);
}

#[test]
fn what_whoever_restarts_has_found_is_told_even_if_it_is_well_by_then() {
    let mut ladder = Ladder::restarting(ExitCode);
    ladder.hand = Hand::IsSilent;
    ladder.policy.cleanup = false;
    sustains(&mut ladder, 191);
    ladder.looks(40, &used(0));
    assert_eq!(ladder.state(), State::Healthy);
    ladder
        .history
        .heard(Heard::RestartRefused(Guard::NoRuleFor88), ladder.now);
    ladder.looks(60, &used(0));
    assert_eq!(ladder.refused(), [(231, Rung::Restart, "no_rule_for_88")]);
}

#[test]
fn dry_run_decides_as_if_it_were_done() {
    let run = |dry_run: bool| {
        let mut ladder = Ladder::restarting(Liveness);
        ladder.policy.dry_run = dry_run;
        ladder.hand = match dry_run {
            true => Hand::Tells,
            false => Hand::Does,
        };
        sustains(&mut ladder, 4000).looks(100, &used(3));
        sustains(&mut ladder, 400);
        ladder
    };
    let (told, done) = (run(true), run(false));
    assert_eq!(told.acts, done.acts);
    assert_eq!(told.changes, done.changes);
    // And yet nothing was restarted.
    assert_eq!(told.history.restarts().total(), 0);
    assert!(done.history.restarts().total() > 0);
}

#[test]
fn a_machine_that_was_suspended_restarts_nothing() {
    let mut ladder = in_state(State::Sustained);
    ladder.policy.restart = Some(Liveness);
    ladder.looks(30, &waits(6000));
    for _ in 0..10 {
        ladder.passes(DAY).looks(1, &waits(90_000_000));
    }
    assert_eq!(ladder.restarts(), NEVER);
    // It goes on from where it was.
    ladder.looks(30, &waits(6000));
    assert_eq!(ladder.restarts().len(), 1);
}

#[test]
fn much_in_use_that_nobody_waits_for_restarts_nothing_however_long() {
    let mut ladder = in_state(State::Sustained);
    ladder.policy.restart = Some(Liveness);
    ladder.looks(7200, &used(10));
    assert_eq!(
        (ladder.state(), ladder.restarts()),
        (State::Sustained, vec![])
    );
    // A single long wait neither: it must last as any other.
    ladder.looks(59, &waits(6000));
    assert_eq!(ladder.restarts(), NEVER);
    ladder.looks(2, &waits(6000));
    assert_eq!(ladder.restarts().len(), 1);
}

#[test]
fn a_restart_that_is_due_waits_for_somebody_who_needs_it() {
    let mut ladder = in_state(State::Sustained);
    ladder.policy.restart = Some(Liveness);
    // Somebody comes every now and then, and waits in vain.
    for _ in 0..3 {
        ladder.looks(20, &waits(4000));
    }
    ladder.looks(5, &waits(4000));
    assert_eq!(ladder.restarts(), NEVER);
    ladder.in_vain(1, &waits(0));
    assert_eq!(ladder.restarts(), [65]);
}

#[test]
fn the_full_pool_of_one_execution_is_never_above_the_first_rung() {
    // Who waits for a place in it is in none of the fields; what it uses is in one.
    let mut ladder = Ladder::restarting(Liveness);
    ladder.looks(7200, &used(5));
    assert_eq!(ladder.acts, [(0, Action::Publish)], "that all is well");
    assert_eq!(ladder.told(), []);
}

#[test]
fn who_waited_in_vain_and_is_gone_has_nothing_restarted() {
    let restarts_after = |last: Snapshot| {
        let mut ladder = Ladder::restarting(Liveness);
        sustains(&mut ladder, 190);
        ladder.looks(3, &last);
        ladder.restarts()
    };
    assert_eq!(restarts_after(waits(6000)), [190]);
    // The app was ended, and with it all that it held and waited for.
    let gone = Snapshot {
        timed_out: 1,
        ..used(0)
    };
    assert_eq!(restarts_after(gone), NEVER);
}
