//! The ladder, over made-up looks.

mod guards;
mod ladder;
mod notice;
mod report;
mod restarts;
mod rhythm;
mod sequences;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use crate::budget::{Cause, State};
use crate::config;

use super::{
    Action, Change, Circumstances, Guard, Heard, History, Moment, Policy, Reason, Report, Restarts,
    Rung, Snapshot, Up, decide,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// When something never was.
const NEVER: [u64; 0] = [];

fn policy() -> Policy {
    Policy {
        warning: 800,
        hold: Duration::from_secs(30),
        wait: Duration::from_secs(5),
        after: Duration::from_secs(10),
        sustained_after: Duration::from_secs(120),
        cleanup: true,
        restart: None,
        restart_after: Duration::from_secs(60),
        jitter: Duration::ZERO,
        cooldown: Duration::from_secs(600),
        max_restarts_per_hour: 2,
        dry_run: false,
    }
}

/// How whoever carries things out answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    /// It is done at once.
    Does,
    /// It is only told.
    Tells,
    /// A restart meets with this; a cleanup is done.
    Refuses(Guard),
    /// A restart fails; a cleanup is done.
    Fails,
    /// Nothing is heard.
    IsSilent,
}

/// Looks, and what came of them.
#[derive(Clone)]
struct Ladder {
    policy: Policy,
    history: History,
    circumstances: Circumstances,
    hand: Hand,
    start: Instant,
    now: Instant,
    timed_out: u64,
    changes: Vec<(u64, Change)>,
    /// What was decided above the first rung.
    acts: Vec<(u64, Action)>,
}

impl Ladder {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            policy: policy(),
            history: History::new(now),
            circumstances: Circumstances {
                time: UNIX_EPOCH + DAY * 20_000,
                // It is old enough.
                pod_age: DAY,
                ..Circumstances::default()
            },
            hand: Hand::Does,
            start: now,
            now,
            timed_out: 0,
            changes: Vec::new(),
            acts: Vec::new(),
        }
    }

    /// One that may restart the app.
    fn restarting(way: config::Restart) -> Self {
        let mut ladder = Self::new();
        ladder.policy.restart = Some(way);
        ladder
    }

    fn look(&mut self, snapshot: &Snapshot) {
        let snapshot = &snapshot.clone().under(self.circumstances);
        let decided = decide(&self.history, snapshot, &self.policy, self.now);
        assert_eq!(
            decided,
            decide(&self.history, snapshot, &self.policy, self.now)
        );
        self.history
            .record(snapshot, &self.policy, self.now, &decided);
        let passed = (self.now - self.start).as_secs();
        for action in decided {
            self.answer(&action);
            match action {
                Action::Tell(change) => self.changes.push((passed, change)),
                action => self.acts.push((passed, action)),
            }
        }
    }

    fn answer(&mut self, action: &Action) {
        let heard = match (action, self.hand) {
            (_, Hand::IsSilent) => return,
            (Action::CleanUp, _) => Heard::CleanedUp,
            (Action::Restart(_), Hand::Does) => Heard::Restarted(self.circumstances.time),
            (Action::Restart(_), Hand::Tells) => Heard::WouldRestart,
            (Action::Restart(_), Hand::Refuses(guard)) => Heard::RestartRefused(guard),
            (Action::Restart(_), Hand::Fails) => Heard::RestartFailed,
            _ => return,
        };
        self.history.heard(heard, self.now);
    }

    /// A look every second, so many of them.
    fn looks(&mut self, many: u64, snapshot: &Snapshot) -> &mut Self {
        for _ in 0..many {
            self.look(snapshot);
            self.passes(SECOND);
        }
        self
    }

    /// The same, where a budget wait ends in vain before each.
    fn in_vain(&mut self, many: u64, snapshot: &Snapshot) -> &mut Self {
        for _ in 0..many {
            self.timed_out += 1;
            let timed_out = self.timed_out;
            self.looks(
                1,
                &Snapshot {
                    timed_out,
                    ..snapshot.clone()
                },
            );
        }
        self
    }

    fn passes(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.circumstances.time += time;
        self.circumstances.pod_age += time;
        self
    }

    fn state(&self) -> State {
        self.history.exhaustion().state
    }

    /// When it came to which state.
    fn told(&self) -> Vec<(u64, State)> {
        let changes = self.changes.iter();
        changes.map(|(at, change)| (*at, change.to)).collect()
    }

    /// When something was decided for which this holds.
    fn when(&self, wanted: impl Fn(&Action) -> bool) -> Vec<u64> {
        let acts = self.acts.iter().filter(|(_, action)| wanted(action));
        acts.map(|(at, _)| *at).collect()
    }

    fn restarts(&self) -> Vec<u64> {
        self.when(|action| matches!(action, Action::Restart(_)))
    }

    fn cleanups(&self) -> Vec<u64> {
        self.when(|action| *action == Action::CleanUp)
    }

    /// When what was refused by which guard.
    fn refused(&self) -> Vec<(u64, Rung, &'static str)> {
        let refused = self.acts.iter().filter_map(|(at, action)| match action {
            Action::Refuse { rung, guard } => Some((*at, *rung, guard.as_str())),
            _ => None,
        });
        refused.collect()
    }

    /// What was announced, and when.
    fn announced(&self) -> Vec<(u64, Reason)> {
        let announced = self.acts.iter().filter_map(|(at, action)| match action {
            Action::Announce(reason) => Some((*at, *reason)),
            _ => None,
        });
        announced.collect()
    }

    /// When it was published.
    fn published(&self) -> Vec<u64> {
        self.when(|action| *action == Action::Publish)
    }
}

/// So many of 10 in use, and nobody waits.
fn used(used: usize) -> Snapshot {
    Snapshot {
        used,
        limit: 10,
        ..Snapshot::default()
    }
}

/// All in use, and somebody has waited for the budget for so long.
fn waits(millis: u64) -> Snapshot {
    let wait = Duration::from_millis(millis);
    Snapshot {
        waiting: 1,
        oldest_wait: wait,
        oldest_of_all: wait,
        ..used(10)
    }
}

/// A ladder that is in this state.
fn in_state(state: State) -> Ladder {
    let mut ladder = Ladder::new();
    match state {
        State::Healthy => ladder.looks(1, &used(0)),
        State::Warning => ladder.looks(31, &used(9)),
        State::Exhausted => ladder.looks(11, &waits(6000)),
        State::Sustained => ladder.looks(131, &waits(6000)),
    };
    assert_eq!(ladder.state(), state);
    ladder.changes.clear();
    ladder.acts.clear();
    ladder.start = ladder.now;
    ladder
}

#[test]
fn each_transition_has_its_condition_and_its_time() {
    use State::{Exhausted, Healthy, Sustained, Warning};
    type Case = (State, &'static str, Snapshot, u64, Option<(u64, State)>);
    let cases: Vec<Case> = vec![
        (Healthy, "little in use", used(8), 600, None),
        (Healthy, "much in use", used(9), 600, Some((30, Warning))),
        (Healthy, "short waits", waits(4900), 30, None),
        (
            Healthy,
            "no wait over the knob",
            waits(5000),
            60,
            Some((30, Warning)),
        ),
        (
            Healthy,
            "long waits",
            waits(5001),
            60,
            Some((10, Exhausted)),
        ),
        (Warning, "still much", used(8), 600, None),
        (Warning, "not low enough", used(8), 600, None),
        (Warning, "low", used(7), 600, Some((30, Healthy))),
        (
            Warning,
            "long waits",
            waits(5001),
            60,
            Some((10, Exhausted)),
        ),
        (Exhausted, "waits over 1 s", waits(1001), 100, None),
        (
            Exhausted,
            "and still so",
            waits(1001),
            600,
            Some((109, Sustained)),
        ),
        (Exhausted, "nobody waits", used(8), 600, Some((30, Healthy))),
        (
            Exhausted,
            "nobody waits, and all is in use",
            used(9),
            100,
            None,
        ),
        (Sustained, "waits over 1 s", waits(1001), 600, None),
        (Sustained, "nobody waits", used(7), 600, Some((30, Healthy))),
        (
            Sustained,
            "nobody waits, and the warning is not over",
            used(8),
            600,
            Some((30, Warning)),
        ),
    ];
    for (from, what, snapshot, looks, expected) in cases {
        let mut ladder = in_state(from);
        ladder.looks(looks, &snapshot);
        let told = ladder.told();
        // Entering and leaving may go on; the first change is what is asked about.
        let first = told.first().map(|(at, state)| (*at, *state));
        match (from, expected) {
            (Exhausted, Some((at, Sustained))) => {
                let (when, state) = first.unwrap();
                assert_eq!(state, Sustained, "{what}");
                assert!(when.abs_diff(at) <= 11, "{what}: {when}");
            }
            _ => assert_eq!(first, expected, "from {from:?}: {what}"),
        }
    }
}

#[test]
fn a_wait_in_vain_at_every_look_exhausts_however_short_waits_are() {
    let mut ladder = in_state(State::Healthy);
    ladder.in_vain(9, &waits(500)).looks(1, &waits(500));
    ladder.in_vain(9, &waits(500));
    assert_eq!(ladder.told(), [], "not at every look");
    ladder.in_vain(2, &waits(500));
    assert_eq!(ladder.state(), State::Exhausted);
}

#[test]
fn waits_in_vain_before_the_first_look_are_nothing_new() {
    let mut ladder = Ladder::new();
    let before = Snapshot {
        timed_out: 1000,
        ..used(8)
    };
    ladder.looks(600, &before);
    assert_eq!(ladder.told(), []);
}

#[test]
fn many_short_waits_are_what_a_pool_is_for() {
    let mut ladder = Ladder::new();
    let busy = Snapshot {
        waiting: 500,
        ..waits(900)
    };
    ladder.looks(3600, &busy);
    assert_eq!(ladder.told(), [(30, State::Warning)], "all is in use");
}

#[test]
fn who_waits_for_a_place_in_one_pool_is_no_matter_and_who_waits_for_a_database_ends_nothing() {
    // The pool's waits are in none of the fields.
    let mut ladder = in_state(State::Healthy);
    ladder.looks(600, &used(5));
    assert_eq!(ladder.told(), []);
    let away = Snapshot {
        oldest_of_all: Duration::from_secs(20),
        database_unreachable: true,
        ..used(0)
    };
    let mut ladder = in_state(State::Healthy);
    ladder.looks(600, &away);
    assert_eq!(ladder.told(), [], "the budget has not run out");
    let mut ladder = in_state(State::Exhausted);
    ladder.looks(60, &away);
    assert_eq!(ladder.told(), [], "and nobody is served again");
    assert_eq!(
        ladder.history.exhaustion().cause,
        Some(Cause::DatabaseUnreachable)
    );
}

#[test]
fn what_is_exhausted_comes_back_to_a_warning_that_is_not_over() {
    let mut ladder = in_state(State::Warning);
    ladder.looks(11, &waits(6000)).looks(31, &used(8));
    assert_eq!(
        ladder.told(),
        [(10, State::Exhausted), (41, State::Warning)]
    );
    // It was low for long enough meanwhile.
    let mut ladder = in_state(State::Warning);
    ladder.looks(11, &waits(6000)).looks(31, &used(7));
    assert_eq!(ladder.told().last(), Some(&(41, State::Healthy)));
}

#[test]
fn what_is_about_to_pass_is_not_sustained() {
    let mut ladder = in_state(State::Exhausted);
    ladder.looks(100, &waits(6000)).looks(40, &used(3));
    assert_eq!(ladder.told(), [(130, State::Healthy)]);
}

#[test]
fn looks_that_were_missed_neither_begin_nor_end_a_state() {
    for (from, snapshot) in [
        (State::Healthy, used(10)),
        (State::Healthy, waits(60_000)),
        (State::Warning, used(0)),
        (State::Exhausted, waits(60_000)),
        (State::Exhausted, used(0)),
        (State::Sustained, used(0)),
    ] {
        let mut ladder = in_state(from);
        ladder.looks(1, &snapshot).passes(DAY).looks(3, &snapshot);
        assert_eq!(ladder.told(), [], "{from:?}: {snapshot:?}");
    }
    // What was so at every look goes on being so.
    let mut ladder = in_state(State::Healthy);
    ladder.looks(9, &waits(6000)).passes(DAY);
    ladder.looks(3, &waits(90_000_000));
    assert_eq!(ladder.state(), State::Exhausted);
}

#[test]
fn a_clock_that_stands_still_or_goes_back_changes_nothing() {
    let mut ladder = in_state(State::Healthy);
    for _ in 0..1000 {
        ladder.look(&waits(60_000));
    }
    assert_eq!(ladder.told(), []);
    let late = ladder.now;
    for _ in 0..1000 {
        ladder.now -= Duration::from_millis(1);
        ladder.look(&waits(60_000));
    }
    assert!(ladder.now < late);
    assert_eq!(ladder.told(), []);
}

#[test]
fn the_cause_is_the_first_that_holds() {
    let held = used(10);
    let queries = Snapshot {
        active: 6,
        ..held.clone()
    };
    let half = Snapshot {
        active: 5,
        ..held.clone()
    };
    let limited = Snapshot {
        limited_by_database: true,
        ..queries.clone()
    };
    let away = Snapshot {
        database_unreachable: true,
        ..limited.clone()
    };
    for (snapshot, cause) in [
        (held, Cause::Held),
        (half, Cause::Held),
        (queries, Cause::Queries),
        (limited, Cause::LimitedByDatabase),
        (away, Cause::DatabaseUnreachable),
    ] {
        assert_eq!(snapshot.cause(), cause);
    }
}

#[test]
fn the_cause_goes_with_the_state_and_a_recovery_names_what_is_over() {
    let mut ladder = Ladder::new();
    let limited = Snapshot {
        limited_by_database: true,
        ..waits(6000)
    };
    ladder.looks(11, &limited);
    assert_eq!(
        ladder.history.exhaustion().cause,
        Some(Cause::LimitedByDatabase)
    );
    ladder.looks(31, &used(0));
    let (_, last) = *ladder.changes.last().unwrap();
    assert_eq!(last.to, State::Healthy);
    assert_eq!(ladder.history.exhaustion().cause, None);
}

/// What a look may show.
fn any_look() -> impl Strategy<Value = (u64, Snapshot)> {
    let times = prop_oneof![
        8 => Just(1000_u64),
        1 => 0..5000_u64,
        1 => 0..600_000_u64,
    ];
    let waits = prop_oneof![Just(0_u64), 0..2000_u64, 4000..60_000_u64];
    (
        times,
        0..=10_usize,
        waits,
        prop_oneof![Just(0_u64), Just(0), 0..3_u64],
    )
        .prop_map(|(passed, used, wait, in_vain)| {
            let wait = Duration::from_millis(wait);
            let snapshot = Snapshot {
                used,
                limit: 10,
                waiting: usize::from(!wait.is_zero()),
                oldest_wait: wait,
                oldest_of_all: wait,
                timed_out: in_vain,
                ..Snapshot::default()
            };
            (passed, snapshot)
        })
}

/// The same look again and again, so that states are reached.
fn any_looks() -> impl Strategy<Value = Vec<(u64, Snapshot)>> {
    let runs = prop::collection::vec((any_look(), 1..50_usize), 1..20);
    runs.prop_map(|runs| {
        let looks = runs.into_iter();
        looks
            .flat_map(|(look, many)| std::iter::repeat_n(look, many))
            .collect()
    })
}

/// How long something has been so at every look up to the last, as time that looks stand for.
fn lasted(looks: &[(u64, Snapshot)], is_so: impl Fn(&Snapshot) -> bool) -> Option<u64> {
    let so = looks
        .iter()
        .rev()
        .take_while(|(_, snapshot)| is_so(snapshot));
    let so: Vec<u64> = so.map(|(passed, _)| (*passed).min(2000)).collect();
    // The first of a run stands for no time.
    so.split_last().map(|(_, rest)| rest.iter().sum())
}

proptest! {
    #[test]
    fn no_state_is_entered_or_left_without_its_condition(looks in any_looks()) {
        let policy = policy();
        let mut ladder = Ladder::new();
        let mut timed_out = 0;
        let high = |s: &Snapshot| s.used > 8;
        let low = |s: &Snapshot| s.used <= 7 && s.oldest_wait <= policy.wait && s.timed_out == 0;
        // `timed_out` of a made-up look is how many there were since the one before.
        let starved = |s: &Snapshot| s.oldest_wait > policy.wait || s.timed_out > 0;
        let calm = |s: &Snapshot| s.used <= 8 && s.oldest_wait <= SECOND && s.timed_out == 0;
        let hold = 30_000;
        let mut exhausted = 0;
        for (at, (passed, look)) in looks.iter().enumerate() {
            ladder.passes(Duration::from_millis(*passed));
            timed_out += look.timed_out;
            let before = ladder.state();
            if before >= State::Exhausted {
                exhausted += (*passed).min(2000);
            } else {
                exhausted = 0;
            }
            ladder.look(&Snapshot { timed_out, ..look.clone() });
            let after = ladder.state();
            let mut until: Vec<(u64, Snapshot)> = looks[..=at].to_vec();
            // Nobody knows what was before the first.
            until[0].1.timed_out = 0;
            let lasted = |is_so: &dyn Fn(&Snapshot) -> bool| lasted(&until, is_so);
            match (before, after) {
                (State::Healthy | State::Warning, State::Exhausted) =>
                    prop_assert!(lasted(&starved) >= Some(10_000)),
                (State::Healthy, State::Warning) => prop_assert!(lasted(&high) >= Some(hold)),
                (State::Warning, State::Healthy) => prop_assert!(lasted(&low) >= Some(hold)),
                (State::Exhausted, State::Sustained) => {
                    prop_assert!(exhausted >= 120_000);
                    prop_assert!(lasted(&calm).is_none());
                }
                (State::Exhausted | State::Sustained, State::Healthy | State::Warning) =>
                    prop_assert!(lasted(&calm) >= Some(hold)),
                (before, after) => prop_assert_eq!(before, after, "no such step"),
            }
            // And none that is due is left out.
            if after < State::Exhausted {
                prop_assert!(lasted(&starved) < Some(10_000));
            }
            if after == State::Healthy {
                prop_assert!(lasted(&high) < Some(hold));
            }
            if after >= State::Exhausted {
                prop_assert!(lasted(&calm) < Some(hold));
            }
            prop_assert_eq!(ladder.history.exhaustion().cause.is_some(), after != State::Healthy);
        }
    }

    #[test]
    fn it_never_flaps_faster_than_the_hold_times(looks in any_looks()) {
        let mut ladder = Ladder::new();
        let mut timed_out = 0;
        for (passed, look) in &looks {
            // Time that no look stands for is no hold time either.
            ladder.passes(Duration::from_millis((*passed).min(2000)));
            timed_out += look.timed_out;
            ladder.look(&Snapshot { timed_out, ..look.clone() });
        }
        for pair in ladder.changes.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            prop_assert_eq!(before.1.to, after.1.from);
            let up = |change: &Change| change.to > change.from;
            let least = match (up(&before.1), up(&after.1)) {
                // Up the ladder, and down again.
                (true, false) => 30,
                // Down, and up again.
                (false, true) => 10,
                // Further up: the streaks run side by side.
                (true, true) => 0,
                // From exhausted to a warning, and then out of that.
                (false, false) => 0,
            };
            prop_assert!(after.0 + 1 - before.0 >= least, "{:?}", ladder.changes);
        }
    }

    #[test]
    fn the_same_looks_give_the_same_actions(looks in any_looks()) {
        let run = || {
            let mut ladder = Ladder::restarting(config::Restart::Liveness);
            for (passed, look) in &looks {
                ladder.passes(Duration::from_millis(*passed));
                ladder.look(look);
            }
            (ladder.changes, ladder.acts, ladder.history.exhaustion().state)
        };
        prop_assert_eq!(run(), run());
    }
}
