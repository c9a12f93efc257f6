//! A kubelet that is made up, with probes of every timing, and an app that takes its time to die.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{LONGEST, Liveness, Over, Sight};
use crate::session::SessionId;

fn ids(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<SessionId> {
    numbers.into_iter().map(SessionId).collect()
}

fn sight(open: impl IntoIterator<Item = u64>) -> Sight {
    Sight {
        open: ids(open),
        ..Sight::default()
    }
}

#[test]
fn it_fails_from_the_decision_until_the_first_thing_that_ends_it() {
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let calm = |open: [u64; 2]| Sight {
        is_calm: true,
        ..sight(open)
    };
    let away = |open: [u64; 2]| Sight {
        is_unwanted: true,
        ..sight(open)
    };
    for (what, sight, at, over) in [
        ("nothing has changed", sight([1, 2]), 119, None),
        ("one of two has gone", sight([2]), 1, None),
        ("others have come", sight([1, 2, 3]), 1, None),
        ("all have gone", sight([]), 1, Some(Over::Gone)),
        ("all but others", sight([3, 4]), 1, Some(Over::Gone)),
        ("there is room", calm([1, 2]), 1, Some(Over::Recovered)),
        (
            "there is no database",
            away([1, 2]),
            1,
            Some(Over::Withdrawn),
        ),
        ("it took too long", sight([1, 2]), 120, Some(Over::InVain)),
        ("gone after all", sight([]), 500, Some(Over::Gone)),
    ] {
        let failing = Liveness::decided(ids([1, 2]), start);
        assert!(failing.pending(later(119)).is_some());
        assert!(failing.pending(later(120)).is_none(), "also unseen");
        let (after, told) = failing.after(&sight, later(at));
        assert_eq!(told, over, "{what}");
        assert_eq!(after.pending(later(at)).is_some(), over.is_none(), "{what}");
        assert_eq!(after == Liveness::Well, over.is_some(), "{what}");
    }
}

#[test]
fn where_the_app_has_come_back_it_fails_for_others_a_while_longer() {
    let start = Instant::now();
    let later = |millis| start + Duration::from_millis(millis);
    let back = |gone| Sight {
        came_back: Some(later(gone)),
        ..sight([1, 2])
    };
    // When it was gone, when it was back, and when the failure is over.
    for (gone, at, over) in [
        (60_000, 62_000, 82_000),
        (90_000, 95_000, 115_000),
        (3000, 4000, 5000),
        (0, 500, 500),
        (110_000, 115_000, 120_000),
    ] {
        let failing = Liveness::decided(ids([1, 2]), start);
        let (mut failing, told) = failing.after(&back(gone), later(at));
        if at < over {
            assert_eq!(told, None, "{gone}");
            // Once it is back it does not matter that it comes back again, nor that nobody looks.
            (failing, _) = failing.after(&back(over - 1), later(over - 1));
            assert!(failing.pending(later(over - 1)).is_some(), "{gone}");
            assert!(failing.pending(later(over)).is_none(), "{gone}");
            let gone_after_all = failing.clone().after(&sight([]), later(over - 1));
            assert_eq!(gone_after_all.1, Some(Over::Gone), "{gone}");
            let (_, told) = failing.after(&sight([1, 2]), later(over));
            assert_eq!(told, Some(Over::CameBack), "{gone}");
        } else {
            assert_eq!(told, Some(Over::CameBack), "{gone}");
        }
    }
}

#[test]
fn who_has_gone_does_not_come_back_and_nothing_is_pending_without_a_decision() {
    let now = Instant::now();
    let (after, _) = Liveness::decided(ids([1, 2]), now).after(&sight([1]), now);
    // A session's number is never given again; this is another process's, as it were.
    let (after, over) = after.after(&sight([2]), now);
    assert_eq!((after, over), (Liveness::Well, Some(Over::Gone)));
    let (after, over) = Liveness::Well.after(&sight([]), now);
    assert_eq!((after, over), (Liveness::Well, None));
}

/// A kubelet and its app.
#[derive(Debug, Clone)]
struct World {
    /// The probe: how often, after how many failures in a row, and when the first one comes.
    period: u64,
    threshold: u64,
    phase: u64,
    /// How long the app takes to die once it is told to, how long until there is another one, and how long that
    /// one is spared.
    dying: u64,
    starting: u64,
    initial_delay: u64,
    /// Whether it gives its sessions back as soon as it is told to die, or keeps them to its end.
    keeps: bool,
    /// How often looks come, beside those at probes.
    look: u64,
    /// Whether a session of somebody else's stays all the while, and connections are free once the app is dead.
    stranger: bool,
}

/// Everything in milliseconds from the decision on; how often the app was restarted.
fn restarts(world: &World) -> u64 {
    let start = Instant::now();
    let at = |time: u64| start + Duration::from_millis(time);
    let old: BTreeSet<u64> = if world.stranger { [1, 2, 9] } else { [1, 2, 3] }.into();
    let mut liveness = Liveness::decided(ids(old.iter().copied()), start);
    let (mut restarts, mut failures) = (0, 0);
    let mut next_probe = world.phase;
    let mut next_look = world.look;
    // When sessions of the old app go, and when the new one is probed.
    let mut gone_at = u64::MAX;
    let end = 900_000;
    while next_probe.min(next_look) < end {
        let now = next_probe.min(next_look);
        let mut open: BTreeSet<u64> = old.clone();
        if now >= gone_at {
            open.retain(|session| *session == 9);
            // The new app leaks as well, at once.
            open.extend([100 + restarts, 200 + restarts]);
        }
        let seen = Sight {
            is_calm: world.stranger && now >= gone_at,
            ..sight(open)
        };
        liveness = liveness.after(&seen, at(now)).0;
        if now == next_probe {
            next_probe = now + world.period;
            match liveness.pending(at(now)) {
                Some(_) => failures += 1,
                None => failures = 0,
            }
            if failures == world.threshold {
                failures = 0;
                restarts += 1;
                let dead = now + world.dying;
                gone_at = gone_at.min(if world.keeps { dead } else { now + 1 });
                // Not probed while it dies, nor before the next one is there.
                next_probe = dead + world.starting + world.initial_delay;
            }
        } else {
            next_look = now + world.look;
        }
    }
    restarts
}

fn any_world() -> impl Strategy<Value = World> {
    let probe = (1000..=30_000_u64, 1..=10_u64, 0..30_000_u64);
    let app = (
        prop_oneof![Just(0_u64), 0..2000_u64, 0..300_000_u64],
        1..20_000_u64,
        prop_oneof![Just(0_u64), 0..30_000_u64],
        any::<bool>(),
    );
    (
        probe,
        app,
        prop_oneof![Just(1000_u64), 1000..200_000_u64],
        any::<bool>(),
    )
        .prop_map(
            |(
                (period, threshold, phase),
                (dying, starting, initial_delay, keeps),
                look,
                stranger,
            )| World {
                period,
                threshold,
                phase: phase % period,
                dying,
                starting,
                initial_delay,
                keeps,
                look,
                stranger,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn one_decision_restarts_the_app_once_and_never_twice_whatever_the_probe(world in any_world()) {
        let gives_up = world.phase + world.period * (world.threshold - 1);
        let longest = LONGEST.as_millis() as u64;
        // A probe that gives up later than the failure may last never does: nobody is restarted then.
        let expected = u64::from(gives_up < longest);
        prop_assert_eq!(restarts(&world), expected);
    }
}

#[test]
fn the_probe_of_the_chart_restarts_an_app_once_however_long_it_takes_to_die() {
    for dying in [0, 1000, 30_000, 59_999, 60_000, 600_000] {
        for phase in [0, 1, 5000, 9999] {
            for keeps in [false, true] {
                let world = World {
                    period: 10_000,
                    threshold: 6,
                    phase,
                    dying,
                    starting: 500,
                    initial_delay: 0,
                    keeps,
                    look: 1000,
                    stranger: false,
                };
                assert_eq!(restarts(&world), 1, "{world:?}");
            }
        }
    }
}

/// Two containers are probed by tickers of their own, and only the first one's own probe is asked: how often each is
/// restarted while the second one keeps its sessions.
fn restarts_of_two(period: u64, threshold: u64, phases: [u64; 2], dying: u64) -> [u64; 2] {
    let start = Instant::now();
    let at = |time: u64| start + Duration::from_millis(time);
    let mut liveness = Liveness::decided(ids([1, 2]), start);
    let (mut restarts, mut failures) = ([0, 0], [0, 0]);
    let mut next = phases;
    // When each was gone, and is there again.
    let mut gone = [u64::MAX; 2];
    let mut back = [u64::MAX; 2];
    for now in (0..300_000).step_by(100) {
        let open = (0..2_u64).filter(|which| now < gone[*which as usize]);
        let seen = Sight {
            came_back: (now >= back[0]).then(|| at(gone[0])),
            // The innocent one has opened no session that stays.
            ..sight(open.filter(|which| *which == 1).map(|which| which + 1))
        };
        liveness = liveness.after(&seen, at(now)).0;
        for which in 0..2 {
            if now < next[which] {
                continue;
            }
            next[which] = now + period;
            failures[which] = match liveness.pending(at(now)) {
                Some(_) => failures[which] + 1,
                None => 0,
            };
            if failures[which] == threshold {
                failures[which] = 0;
                restarts[which] += 1;
                gone[which] = gone[which].min(now + dying);
                back[which] = back[which].min(now + dying + 2000);
                next[which] = now + dying + 2000 + period;
            }
        }
    }
    restarts
}

#[test]
fn of_two_containers_the_one_that_leaks_is_restarted_though_the_other_is_back_before_its_turn() {
    for (period, threshold) in [(10_000, 6), (10_000, 4), (5000, 6), (10_000, 10), (3000, 5)] {
        for first in [0, 100, period / 2, period - 100] {
            for second in [0, 100, period / 2, period - 100] {
                for dying in [0, 1000, 10_000] {
                    let restarts = restarts_of_two(period, threshold, [first, second], dying);
                    let what = (period, threshold, first, second, dying);
                    assert_eq!(restarts[1], 1, "{what:?}");
                    // Where the other's turn is first it need not be restarted at all.
                    assert!(restarts[0] <= 1, "{what:?}");
                }
            }
        }
    }
}
