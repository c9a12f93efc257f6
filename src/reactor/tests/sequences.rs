//! Whatever comes: no history leads past a guard.

use proptest::strategy::ValueTree;

use super::*;

/// What a look may show, when, and how those who carry things out answer.
#[derive(Debug, Clone)]
struct Scene {
    passed: u64,
    snapshot: Snapshot,
    in_vain: bool,
    draining: bool,
    restarting: bool,
    hand: Hand,
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let way = prop_oneof![
        1 => Just(None),
        5 => prop::sample::select(config::Restart::ALL.to_vec()).prop_map(Some),
    ];
    let seconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    let times = (seconds(0..200), seconds(0..61), seconds(0..1200));
    (way, any::<bool>(), times, 1..4_u32).prop_map(|(restart, cleanup, times, most)| {
        let (restart_after, jitter, cooldown) = times;
        Policy {
            restart,
            cleanup,
            restart_after,
            jitter,
            cooldown,
            max_restarts_per_hour: most,
            ..policy()
        }
    })
}

fn any_scene() -> impl Strategy<Value = Scene> {
    let passed = prop_oneof![
        12 => Just(1000_u64),
        1 => 0..5000_u64,
        1 => 0..600_000_u64,
    ];
    let held = waits(6000);
    let snapshot = prop_oneof![
        12 => Just(held.clone()),
        1 => Just(Snapshot { active: 6, ..held.clone() }),
        1 => Just(Snapshot { database_unreachable: true, ..held.clone() }),
        1 => Just(Snapshot { limited_by_database: true, ..held }),
        1 => Just(waits(500)),
        1 => Just(used(10)),
        1 => Just(used(0)),
    ];
    let hand = prop_oneof![
        8 => Just(Hand::Does),
        1 => Just(Hand::Tells),
        1 => Just(Hand::Fails),
        1 => Just(Hand::IsSilent),
        2 => Just(Hand::Refuses(Guard::Disrupted)),
    ];
    let seldom = || prop_oneof![9 => Just(false), 1 => Just(true)];
    (passed, snapshot, seldom(), seldom(), seldom(), hand).prop_map(
        |(passed, snapshot, in_vain, draining, restarting, hand)| Scene {
            passed,
            snapshot,
            in_vain,
            draining,
            restarting,
            hand,
        },
    )
}

/// The same scene again and again, so that states are reached.
fn any_scenes() -> impl Strategy<Value = Vec<Scene>> {
    let runs = prop::collection::vec((any_scene(), 1..250_usize), 1..20);
    runs.prop_map(|runs| {
        let scenes = runs.into_iter();
        let scenes = scenes.flat_map(|(scene, many)| std::iter::repeat_n(scene, many));
        scenes.collect()
    })
}

/// What is known of a sequence from outside, without any of the code that decides.
#[derive(Default)]
struct Oracle {
    /// Since the beginning, in milliseconds.
    now: i64,
    /// When restarts were that count.
    restarts: Vec<i64>,
    /// Until when nothing may be decided, as something is under way.
    busy_until: i64,
    /// Until when no cleanup may be, and no restart.
    pauses: (i64, i64),
    /// How long looks stand for since it is sustained, and since the last restart.
    sustained: i64,
    /// What was refused in this spell.
    refused: Vec<(Rung, &'static str)>,
}

const HOUR: i64 = 3_600_000;

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

impl Oracle {
    fn restart(&mut self, scene: &Scene, ladder: &Ladder, way: config::Restart) {
        let Policy {
            cooldown,
            max_restarts_per_hour: most,
            restart,
            restart_after,
            jitter,
            ..
        } = ladder.policy;
        let now = self.now;
        assert_eq!(restart, Some(way), "switched off");
        assert!(!scene.draining && !scene.restarting);
        assert_eq!(scene.snapshot.cause(), Cause::Held, "the database");
        let apart = match way {
            config::Restart::Evict => millis(cooldown).max(HOUR / i64::from(most)),
            _ => millis(cooldown),
        };
        assert!(millis(ladder.circumstances.pod_age) >= apart, "too young");
        for before in &self.restarts {
            assert!(now - before >= millis(cooldown), "within the cool-down");
        }
        let within = self.restarts.iter().filter(|at| now - **at < HOUR).count();
        assert!(within < most as usize, "too many: {:?}", self.restarts);
        assert!(now >= self.busy_until, "something is under way");
        assert!(now >= self.pauses.1, "tried again too soon");
        assert!(self.sustained >= millis(restart_after + jitter), "too soon");
        match scene.hand {
            Hand::Does | Hand::Tells => {
                self.restarts.push(now);
                self.sustained = 0;
            }
            Hand::IsSilent => {
                self.restarts.push(now);
                self.busy_until = now + 300_000;
            }
            Hand::Fails | Hand::Refuses(_) => self.pauses.1 = now + 30_000,
        }
    }

    fn clean_up(&mut self, scene: &Scene, ladder: &Ladder) {
        assert!(ladder.policy.cleanup, "switched off");
        assert_eq!(scene.snapshot.cause(), Cause::Held, "the database");
        assert!(!scene.restarting && scene.snapshot.waiting > 0);
        assert!(self.now >= self.busy_until, "something is under way");
        assert!(self.now >= self.pauses.0, "again too soon");
        match scene.hand {
            Hand::IsSilent => self.busy_until = self.now + 300_000,
            _ => self.pauses.0 = self.now + 10_000,
        }
    }

    fn refuse(&mut self, rung: Rung, guard: Guard) {
        let refused = (rung, guard.as_str());
        assert!(!self.refused.contains(&refused), "said already");
        self.refused.push(refused);
    }
}

/// Plays the scenes; panics where something is decided that must not be.
fn play(policy: &Policy, ages: &[u64], age: u64, scenes: &[Scene]) -> Ladder {
    let mut ladder = Ladder::new();
    ladder.policy = policy.clone();
    ladder.circumstances.pod_age = Duration::from_secs(age);
    let time = ladder.circumstances.time;
    let mut memory = Restarts::default();
    for age in ages {
        memory.add(time - Duration::from_secs(*age));
    }
    ladder.history.remember(&memory, ladder.now, time);
    let mut oracle = Oracle::default();
    let ago = ages.iter().map(|age| -i64::try_from(*age * 1000).unwrap());
    oracle.restarts.extend(ago);
    for (number, scene) in scenes.iter().enumerate() {
        ladder.passes(Duration::from_millis(scene.passed));
        let passed = i64::try_from(scene.passed).unwrap();
        oracle.now += passed;
        ladder.timed_out += u64::from(scene.in_vain);
        ladder.hand = scene.hand;
        ladder.circumstances.draining = scene.draining;
        ladder.circumstances.restarting = scene.restarting;
        let before = ladder.state();
        oracle.sustained = match before {
            // The first look stands for no time.
            State::Sustained if number > 0 => oracle.sustained + passed.min(2000),
            _ => 0,
        };
        ladder.acts.clear();
        ladder.look(&Snapshot {
            timed_out: ladder.timed_out,
            ..scene.snapshot.clone()
        });
        let after = ladder.state();
        let mut remedies = 0;
        for (_, action) in &ladder.acts.clone() {
            match action {
                Action::Restart(way) => {
                    assert_eq!((before, after), (State::Sustained, State::Sustained));
                    oracle.restart(scene, &ladder, *way);
                    remedies += 1;
                }
                Action::CleanUp => {
                    assert_eq!(after, State::Sustained);
                    oracle.clean_up(scene, &ladder);
                    remedies += 1;
                }
                Action::Refuse { rung, guard } => oracle.refuse(*rung, *guard),
                Action::Tell(_) | Action::Publish | Action::Announce(_) => {}
            }
        }
        assert!(remedies <= 1, "one thing at a time");
        if after < State::Exhausted {
            oracle.refused.clear();
        }
    }
    ladder
}

#[test]
fn the_sequences_reach_the_guards() {
    // Else what follows would hold of nothing.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut restarted = 0;
    for _ in 0..50 {
        let tree = (any_policy(), any_scenes()).new_tree(&mut runner).unwrap();
        let (policy, scenes) = tree.current();
        let ladder = play(&policy, &[], 86_400, &scenes);
        restarted += u32::from(ladder.history.restarts().total() > 0);
    }
    assert!(restarted >= 10, "{restarted} of 50 come to a restart");
}

proptest! {
    #[test]
    fn nothing_is_restarted_or_cleaned_up_outside_the_guards(
        policy in any_policy(),
        ages in prop::collection::vec(0..5000_u64, 0..3),
        age in prop_oneof![Just(86_400_u64), 0..2000_u64],
        scenes in any_scenes(),
    ) {
        play(&policy, &ages, age, &scenes);
    }

    #[test]
    fn dry_run_decides_the_same_whatever_comes(policy in any_policy(), scenes in any_scenes()) {
        let run = |dry_run: bool| {
            let mut ladder = Ladder::new();
            ladder.policy = Policy { dry_run, ..policy.clone() };
            ladder.hand = if dry_run { Hand::Tells } else { Hand::Does };
            for scene in &scenes {
                ladder.passes(Duration::from_millis(scene.passed));
                ladder.look(&scene.snapshot);
            }
            (ladder.changes, ladder.acts)
        };
        prop_assert_eq!(run(true), run(false));
    }

    #[test]
    fn it_is_published_no_more_often_than_it_may_be(scenes in any_scenes()) {
        let mut ladder = Ladder::new();
        let mut now = 0;
        // When it was last, and with which status.
        let mut last: Option<(u64, bool)> = None;
        let mut restarts = 0;
        for scene in &scenes {
            ladder.passes(Duration::from_millis(scene.passed));
            now += scene.passed;
            ladder.acts.clear();
            let told = ladder.changes.len();
            let known = ladder.history.done.restarted;
            ladder.look(&scene.snapshot);
            let status = status(&ladder, &scene.snapshot);
            let has_changed = ladder.changes.len() > told;
            let is_published = !ladder.published().is_empty();
            prop_assert!(is_published || !has_changed && last.is_some(), "each change is");
            if let (true, false, Some((at, before))) = (is_published, has_changed, last) {
                let apart = now - at;
                let may_be =
                    apart >= 60_000 || status != before && apart >= 10_000 || known != restarts;
                prop_assert!(may_be, "after {} ms", apart);
            }
            if is_published {
                restarts = known;
                last = Some((now, status));
            }
            let events = ladder.announced().len();
            prop_assert!(events <= ladder.changes.len() - told, "an Event for a change");
        }
    }
}

/// What the condition says after the last look, which was this one.
fn status(ladder: &Ladder, snapshot: &Snapshot) -> bool {
    let report = Report::of(&ladder.history, snapshot, &ladder.policy);
    report.condition().status
}
