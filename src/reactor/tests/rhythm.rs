//! Rung 2: when annotations and condition are written, and which Events are posted.

use super::*;

#[test]
fn it_is_published_at_the_first_look_at_each_change_and_each_minute_while_it_is_not_well() {
    let mut ladder = Ladder::new();
    ladder.looks(300, &used(3));
    assert_eq!(ladder.published(), [0], "it is well");
    // Exhausted at 310, sustained at 430, healthy at 530.
    ladder.looks(200, &waits(6000)).looks(300, &used(3));
    assert_eq!(ladder.published(), [0, 310, 370, 430, 490, 530]);
    // A warning at 830.
    ladder.looks(170, &used(9));
    assert_eq!(ladder.published()[6..], [830, 890, 950]);
}

#[test]
fn a_restart_is_published_at_once() {
    let mut ladder = in_state(State::Sustained);
    ladder.looks(20, &waits(6000));
    ladder.acts.clear();
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    ladder.history.heard(Heard::Restarted(time), ladder.now);
    ladder.looks(5, &waits(6000));
    assert_eq!(ladder.published(), [20]);
}

#[test]
fn that_the_condition_is_another_is_published_soon_but_not_at_every_look() {
    let away = Snapshot {
        database_unreachable: true,
        ..waits(6000)
    };
    let mut ladder = in_state(State::Sustained);
    ladder.looks(20, &waits(6000));
    ladder.acts.clear();
    // It is the database's fault: true at once. The app's again: false when it has been so for 30 s.
    ladder.looks(5, &away).looks(40, &waits(6000));
    assert_eq!(ladder.published(), [20, 55]);
    // One that comes and goes.
    ladder.acts.clear();
    for _ in 0..100 {
        ladder.looks(1, &away).looks(35, &waits(6000));
    }
    let published = ladder.published();
    let apart = published.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(apart.clone().all(|apart| apart >= 5), "{published:?}");
    assert!(published.len() <= 200, "{published:?}");
}

#[test]
fn a_database_that_goes_away_is_published_also_while_all_is_well() {
    let away = Snapshot {
        database_unreachable: true,
        ..used(0)
    };
    let mut ladder = Ladder::new();
    ladder.looks(100, &used(0)).looks(10, &away);
    ladder.looks(300, &used(0));
    assert_eq!(ladder.published(), [0, 100, 160]);
}

#[test]
fn worse_is_announced_each_time_and_better_once() {
    use Reason::{PoolExhausted, PoolRecovered, PoolWarning};
    let mut ladder = Ladder::new();
    ladder.looks(31, &used(9)).looks(60, &used(0));
    assert_eq!(ladder.announced(), [(30, PoolWarning), (61, PoolRecovered)]);
    // Sustained, then a warning, which is over at last.
    let mut ladder = in_state(State::Warning);
    ladder.looks(131, &waits(6000));
    ladder.looks(60, &used(8)).looks(60, &used(0));
    assert_eq!(
        ladder.told(),
        [
            (10, State::Exhausted),
            (130, State::Sustained),
            (161, State::Warning),
            (221, State::Healthy)
        ]
    );
    assert_eq!(
        ladder.announced(),
        [
            (10, PoolExhausted),
            (130, PoolExhausted),
            (161, PoolRecovered)
        ]
    );
    // Worse again from there.
    let mut ladder = in_state(State::Warning);
    ladder.looks(11, &waits(6000)).looks(31, &used(8));
    ladder.looks(11, &waits(6000)).looks(60, &used(0));
    assert_eq!(
        ladder.announced(),
        [
            (10, PoolExhausted),
            (41, PoolRecovered),
            (52, PoolExhausted),
            (83, PoolRecovered)
        ]
    );
}
