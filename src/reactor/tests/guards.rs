//! What forbids a cleanup or a restart.

use super::*;

use crate::reactor::guard::against_restart;

use config::Restart::{Evict, ExitCode, Liveness, Rollout};

/// Nobody is served, and the database is the cause.
fn databases_fault(cause: Cause) -> Snapshot {
    let held = waits(6000);
    let snapshot = match cause {
        Cause::DatabaseUnreachable => Snapshot {
            database_unreachable: true,
            ..held
        },
        Cause::LimitedByDatabase => Snapshot {
            limited_by_database: true,
            ..held
        },
        Cause::Queries => Snapshot { active: 6, ..held },
        Cause::Held => held,
    };
    assert_eq!(snapshot.cause(), cause);
    snapshot
}

const DATABASES: [Cause; 3] = [
    Cause::DatabaseUnreachable,
    Cause::LimitedByDatabase,
    Cause::Queries,
];

#[test]
fn where_the_database_is_the_cause_nothing_is_cleaned_up_or_restarted_and_it_is_said_once() {
    for cause in DATABASES {
        for way in config::Restart::ALL {
            let mut ladder = Ladder::restarting(way);
            ladder.looks(3600, &databases_fault(cause));
            assert_eq!((ladder.cleanups(), ladder.restarts()), (vec![], vec![]));
            let guard = cause.as_str();
            assert_eq!(
                ladder.refused(),
                [(130, Rung::CleanUp, guard), (190, Rung::Restart, guard)]
            );
        }
    }
}

#[test]
fn when_the_database_is_well_again_a_cleanup_comes_at_once_and_a_restart_half_a_minute_later() {
    for cause in DATABASES {
        let mut ladder = Ladder::restarting(Liveness);
        ladder.looks(600, &databases_fault(cause));
        ladder.looks(60, &waits(6000));
        assert_eq!(ladder.cleanups()[..2], [600, 610], "{cause:?}");
        assert_eq!(ladder.restarts(), [630], "{cause:?}");
    }
}

#[test]
fn a_database_that_is_slow_now_and_then_is_slow() {
    let mut ladder = Ladder::restarting(Liveness);
    for _ in 0..100 {
        ladder.looks(20, &waits(6000));
        ladder.looks(1, &databases_fault(Cause::Queries));
    }
    assert_eq!(ladder.restarts(), NEVER);
}

#[test]
fn a_pod_that_is_on_its_way_out_is_not_restarted_but_cleaned_up() {
    let mut ladder = Ladder::restarting(Liveness);
    ladder.circumstances.draining = true;
    ladder.looks(600, &waits(6000));
    assert_eq!(ladder.restarts(), NEVER);
    assert_eq!(ladder.refused(), [(190, Rung::Restart, "draining")]);
    assert_eq!(ladder.cleanups().first(), Some(&130));
}

#[test]
fn a_young_pod_is_not_restarted_before_the_cool_down_has_passed() {
    for (way, age) in [(Liveness, 600), (ExitCode, 600), (Rollout, 600)] {
        let mut ladder = Ladder::restarting(way);
        ladder.circumstances.pod_age = Duration::ZERO;
        ladder.looks(age + 1, &waits(6000));
        assert_eq!(ladder.restarts(), [age], "{way:?}");
        assert_eq!(ladder.refused(), [(190, Rung::Restart, "pod_young")]);
    }
}

#[test]
fn a_pod_that_is_evicted_must_be_as_old_as_the_restarts_of_an_hour_are_apart() {
    // Its memory goes with it: its age is all that is known.
    for (most, cooldown, age) in [(2, 600, 1800), (6, 600, 600), (60, 600, 600), (1, 60, 3600)] {
        let mut ladder = Ladder::restarting(Evict);
        ladder.policy.max_restarts_per_hour = most;
        ladder.policy.cooldown = Duration::from_secs(cooldown);
        ladder.circumstances.pod_age = Duration::ZERO;
        ladder.looks(age + 1, &waits(6000));
        assert_eq!(ladder.restarts(), [age], "{most} an hour");
    }
}

#[test]
fn the_cool_down_and_the_most_of_an_hour_are_those_of_what_was_remembered() {
    let ago = |ladder: &Ladder, seconds| ladder.circumstances.time - Duration::from_secs(seconds);
    // Half of the cool-down has passed.
    let mut ladder = Ladder::restarting(Liveness);
    let mut memory = Restarts::default();
    memory.add(ago(&ladder, 300));
    let time = ladder.circumstances.time;
    ladder.history.remember(&memory, ladder.now, time);
    ladder.looks(301, &waits(6000));
    assert_eq!(ladder.refused(), [(190, Rung::Restart, "cooldown")]);
    assert_eq!(ladder.restarts(), [300]);
    // Two were within the hour, the first of them 50 minutes ago.
    let mut ladder = Ladder::restarting(Liveness);
    let mut memory = Restarts::default();
    memory.add(ago(&ladder, 3000));
    memory.add(ago(&ladder, 1500));
    let time = ladder.circumstances.time;
    ladder.history.remember(&memory, ladder.now, time);
    ladder.looks(601, &waits(6000));
    assert_eq!(ladder.refused(), [(190, Rung::Restart, "too_many")]);
    assert_eq!(ladder.restarts(), [600]);
}

#[test]
fn what_is_remembered_twice_was_once() {
    let mut ladder = Ladder::restarting(Liveness);
    ladder.looks(192, &waits(6000));
    assert_eq!(ladder.restarts(), [190]);
    let time = ladder.circumstances.time;
    // The file has it, and so have the annotations.
    let file = written_and_read(ladder.history.restarts());
    let annotations = Restarts::counted(1, file.last());
    for memory in [&file, &annotations, &file] {
        ladder.history.remember(memory, ladder.now, time);
    }
    assert_eq!(ladder.history.done.restarts.len(), 1);
    assert_eq!(ladder.history.restarts().total(), 1);
}

#[test]
fn a_restart_that_took_its_time_is_not_carried_out_where_all_has_become_well() {
    let draining = waits(6000).under(Circumstances {
        draining: true,
        ..Circumstances::default()
    });
    for (snapshot, guard) in [
        (waits(6000), None),
        (waits(1), None),
        (used(10), Some(Guard::Passed)),
        (draining, Some(Guard::Draining)),
        (
            databases_fault(Cause::DatabaseUnreachable),
            Some(Guard::DatabaseUnreachable),
        ),
        (databases_fault(Cause::Queries), Some(Guard::Queries)),
    ] {
        assert_eq!(snapshot.forbids_late(), guard, "{snapshot:?}");
    }
}

/// What the file makes of it.
fn written_and_read(memory: &Restarts) -> Restarts {
    let now = Moment {
        time: UNIX_EPOCH + DAY * 20_000,
        up: None,
    };
    Restarts::read(&memory.written(&now), &now).unwrap()
}

/// The clock is set, while we look on or between two processes, and was wrong before that or is afterwards: what
/// forbids a restart is what would have forbidden it without.
#[test]
fn whenever_a_clock_is_set_the_guards_are_what_they_were() {
    let (cooldown, young) = ("cooldown", "pod_young");
    type Case = (u64, &'static [u64], Option<(&'static str, u64)>);
    let cases: [Case; 6] = [
        // How old the pod is, how long ago restarts were, what forbids another, and for how long.
        (10, &[], Some((young, 590))),
        (599, &[], Some((young, 1))),
        (600, &[], None),
        (7200, &[100], Some((cooldown, 500))),
        (7200, &[3000, 1000], Some(("too_many", 600))),
        (7200, &[4000, 1000], None),
    ];
    let right = 20_000 * 86_400;
    let clocks = [0, 7200, right - 3600, right, right + 3600, right * 2];
    let moment = |time, up| Moment {
        time: UNIX_EPOCH + Duration::from_secs(time),
        up: Some(Up {
            boot: "one".to_owned(),
            since: Duration::from_secs(up),
        }),
    };
    for (age, restarts, expected) in cases {
        for before in clocks.map(|clock| clock + 10_000) {
            for after in clocks.map(|clock| clock + 10_000) {
                // As it was written, some time before the machine's 20,000th second.
                let ago = |seconds: u64| UNIX_EPOCH + Duration::from_secs(before - seconds);
                let mut memory = Restarts::default().of_pod_since(ago(age));
                for seconds in restarts {
                    memory.add(ago(*seconds));
                }
                let written = memory.written(&moment(before - 5, 20_000 - 5));
                let between = Restarts::read(&written, &moment(after, 20_000)).unwrap();
                let step = moment(after, 20_000).set_since(&moment(before, 20_000));
                let mut meanwhile = memory;
                meanwhile.moves(step.unwrap());
                for memory in [between, meanwhile] {
                    let now = moment(after, 20_000).time;
                    let snapshot = waits(6000).under(Circumstances {
                        time: now,
                        pod_age: memory.pod_age(now, SECOND),
                        ..Circumstances::default()
                    });
                    let ages = memory.ages(now);
                    let found = against_restart(Liveness, &snapshot, &policy(), &ages);
                    let found = found.map(|guard| match guard {
                        Guard::Cooldown { left }
                        | Guard::PodYoung { left }
                        | Guard::TooMany { left, .. } => (guard.as_str(), left.as_secs()),
                        guard => (guard.as_str(), 0),
                    });
                    assert_eq!(found, expected, "{age} {restarts:?}: {before} {after}");
                }
            }
        }
    }
}

#[test]
fn a_pod_of_which_no_clock_tells_is_young_for_one_cool_down() {
    let moment = |boot: &str, up| Moment {
        time: UNIX_EPOCH + DAY * 20_000,
        up: Some(Up {
            boot: boot.to_owned(),
            since: Duration::from_secs(up),
        }),
    };
    let old = Restarts::default().of_pod_since(UNIX_EPOCH + DAY);
    let unknown = Moment {
        up: None,
        ..moment("one", 0)
    };
    for (before, now) in [
        (moment("one", 9), moment("two", 9000)),
        (moment("one", 9), moment("one", 8)),
        (moment("one", 9), unknown.clone()),
        (unknown, moment("one", 9)),
    ] {
        let read = Restarts::read(&old.written(&before), &now).unwrap();
        for (process, is_young) in [(0, true), (599, true), (600, false)] {
            let snapshot = waits(6000).under(Circumstances {
                time: now.time,
                pod_age: read.pod_age(now.time, Duration::from_secs(process)),
                ..Circumstances::default()
            });
            let found = against_restart(Liveness, &snapshot, &policy(), &[]);
            assert_eq!(found.is_some(), is_young, "{before:?} {now:?} {process}");
        }
    }
}

#[test]
fn a_clock_that_was_wrong_neither_opens_the_guard_nor_shuts_it_for_ever() {
    for ahead in [1, 3000, 86_400 * 365] {
        let mut ladder = Ladder::restarting(Liveness);
        let mut memory = Restarts::default();
        memory.add(ladder.circumstances.time + Duration::from_secs(ahead));
        let time = ladder.circumstances.time;
        ladder.history.remember(&memory, ladder.now, time);
        ladder.looks(601, &waits(6000));
        assert_eq!(ladder.restarts(), [600], "{ahead} s ahead");
    }
    // One that goes astray while we look on changes nothing at all.
    let mut ladder = Ladder::restarting(Liveness);
    ladder.looks(200, &waits(6000));
    ladder.circumstances.time += DAY;
    ladder.looks(100, &waits(6000));
    ladder.circumstances.time -= DAY * 2;
    ladder.looks(600, &waits(6000));
    assert_eq!(ladder.restarts(), [190, 790]);
}

#[test]
fn a_refusal_is_said_once_for_each_guard_and_spell() {
    let mut ladder = Ladder::restarting(Liveness);
    ladder.policy.cleanup = false;
    ladder.circumstances.draining = true;
    ladder.looks(300, &waits(6000));
    ladder.looks(60, &databases_fault(Cause::Queries));
    ladder.looks(300, &waits(6000));
    ladder.looks(60, &databases_fault(Cause::Queries));
    let once = [
        (190, Rung::Restart, "draining"),
        (300, Rung::Restart, "queries"),
    ];
    assert_eq!(ladder.refused(), once);
    // It is over, and comes again.
    ladder.looks(60, &used(0));
    assert_eq!(ladder.state(), State::Healthy);
    ladder.acts.clear();
    ladder.looks(300, &waits(6000));
    assert_eq!(ladder.refused(), [(780 + 190, Rung::Restart, "draining")]);
}

/// What is published has the times of before: a sidecar that begins anew would take them for other restarts'.
#[test]
fn when_a_clock_is_set_the_times_are_published_anew() {
    let moment = |time| Moment {
        time: UNIX_EPOCH + Duration::from_secs(time),
        up: Some(Up {
            boot: "one".to_owned(),
            since: SECOND,
        }),
    };
    let mut ladder = Ladder::restarting(Liveness);
    ladder.looks(5, &used(0));
    assert_eq!(ladder.published(), [0]);
    let step = moment(7200).set_since(&moment(3600)).unwrap();
    ladder.history.clock_is_set(step);
    ladder.looks(5, &used(0));
    assert_eq!(ladder.published(), [0, 5]);
}

#[test]
fn each_guard_says_why_and_until_when() {
    let left = Duration::from_millis(598_500);
    let restarts = 2;
    let cases = [
        (Guard::DatabaseUnreachable, "does not answer"),
        (Guard::LimitedByDatabase, "raise max_connections"),
        (Guard::Queries, "the database is slow"),
        (Guard::Draining, "on its way out"),
        (Guard::Passed, "nobody waits"),
        (Guard::Unwanted, "says otherwise"),
        (Guard::PodYoung { left }, "for 9m 59s more"),
        (Guard::Cooldown { left }, "none for 9m 59s more"),
        (
            Guard::TooMany {
                restarts,
                left: DAY,
            },
            "2 restarts within an hour: none for 24h more",
        ),
        (Guard::OwnerStamped { left }, "not again for 9m 59s more"),
        (Guard::OwnerChanged, "at the same moment"),
        (Guard::NoOwner, "choose another reactor.restart"),
        (Guard::NoRuleFor88, "exit code 88"),
        (Guard::Disrupted, "PodDisruptionBudget"),
        (Guard::NotAllowed, "lacks a right"),
        (Guard::NotFound, "does not know the pod"),
        (Guard::NoKubernetes, "reactor.kubernetes"),
    ];
    for (guard, part) in cases {
        let said = guard.to_string();
        assert!(said.contains(part), "{said}");
        assert!(!said.ends_with('.') && !said.contains("  "), "{said}");
        let word = guard.as_str();
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(word.chars().all(is_word), "{word}");
    }
    let mut words: Vec<&str> = cases.iter().map(|(guard, _)| guard.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), cases.len(), "one word for each");
}

#[test]
fn the_guard_of_a_refusal_says_how_long_it_lasts() {
    let mut ladder = Ladder::restarting(Liveness);
    ladder.looks(251, &waits(6000));
    let guard = Guard::Cooldown {
        left: Duration::from_secs(540),
    };
    let rung = Rung::Restart;
    let refused = (250, Action::Refuse { rung, guard });
    assert!(ladder.acts.contains(&refused), "{:?}", ladder.acts);
}
