use super::*;
use crate::protocol::message::SqlState;
use proptest::prelude::*;

const S: Duration = Duration::from_secs(1);

fn registry(untagged: Untagged) -> (Registry, Instant) {
    let rules = Rules {
        max_duration: Some(1800 * S),
        idle_timeout: 60 * S,
        tombstone: 600 * S,
        hold_grace: 2 * S,
        untagged,
    };
    let now = Instant::now();
    (Registry::new(rules, now), now)
}

fn id(name: &str) -> ExecutionId {
    name.parse().unwrap()
}

#[test]
fn a_straggler_does_not_revive_an_ended_execution_and_a_request_does() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join(&id("a"), t).unwrap();
    assert!(r.end(a, Reason::Deleted, None, t));
    let refused = r.join(&id("a"), t + 3 * S).unwrap_err();
    let report = refused.report();
    assert_eq!(report.sqlstate, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(report.message, "execpool: execution a has ended");
    assert!(matches!(r.create(id("a"), None, t), Ok(Created::New(_))));
    let b = r.join(&id("a"), t).unwrap();
    assert_eq!(r.get(b).unwrap().generation, 2);
}

#[test]
fn a_tombstone_lasts_its_time_and_no_longer() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join(&id("a"), t).unwrap();
    r.end(a, Reason::Cleanup, None, t);
    assert!(r.join(&id("a"), t + 599 * S).is_err());
    assert!(r.join(&id("a"), t + 600 * S).is_ok());
}

#[test]
fn an_idle_implicit_execution_leaves_and_its_next_generation_begins() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join(&id("a"), t).unwrap();
    r.left(a, t);
    assert_eq!(r.next_due(), Some(t + 60 * S));
    assert_eq!(r.due(t + 60 * S), [(a, Reason::Idle)]);
    r.end(a, Reason::Idle, None, t + 60 * S);
    let b = r.join(&id("a"), t + 61 * S).unwrap();
    assert_eq!(r.get(b).unwrap().generation, 2);
}

#[test]
fn other_rules_count_from_now_on_and_deadlines_stay() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join(&id("a"), t).unwrap();
    r.left(a, t);
    let b = r.create(id("b"), None, t).unwrap();
    assert_eq!(r.next_due(), Some(t + 60 * S));
    r.follow(Rules {
        max_duration: Some(5 * S),
        idle_timeout: 90 * S,
        ..r.rules.clone()
    });
    assert_eq!(r.next_due(), Some(t + 90 * S));
    assert_eq!(r.due(t + 90 * S), [(a, Reason::Idle)]);
    let Created::New(b) = b else { panic!("{b:?}") };
    assert_eq!(r.get(b).unwrap().deadline, Some(t + 1800 * S));
    let c = r.join(&id("c"), t).unwrap();
    assert_eq!(r.get(c).unwrap().deadline, Some(t + 5 * S));
}

#[test]
fn a_request_adopts_an_implicit_execution_and_conflicts_with_an_explicit_one() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join(&id("a"), t).unwrap();
    assert_eq!(r.create(id("a"), Some(9 * S), t), Ok(Created::Adopted(a)));
    assert_eq!(r.create(id("a"), None, t), Err(Conflict(id("a"))));
    r.left(a, t);
    assert_eq!(r.next_due(), Some(t + 9 * S), "idleness no longer ends it");
}

#[test]
fn the_standing_execution_lives_on_under_a_new_number() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join_untagged(t).unwrap();
    assert_eq!(r.next_due(), None);
    assert!(r.end(a, Reason::Deleted, None, t));
    assert_ne!(r.join_untagged(t).unwrap(), a);
}

#[test]
fn an_execution_of_one_session_ends_with_it() {
    let (mut r, t) = registry(Untagged::Session);
    let a = r.join_untagged(t).unwrap();
    assert_eq!(r.next_due(), None);
    assert_eq!(r.left(a, t), Some(Reason::SessionEnded));
    assert!(r.closed(a, Remains::default(), t).is_some());
    assert_eq!(r.summaries().last().unwrap().id.as_str(), "session-1");
}

#[test]
fn a_session_without_a_name_can_be_refused() {
    let (mut r, t) = registry(Untagged::Reject);
    let report = r.join_untagged(t).unwrap_err().report();
    assert_eq!(report.sqlstate.as_str(), "28000");
    assert!(report.hint.unwrap().contains("execpool.execution_id"));
}

#[test]
fn a_lost_hold_ends_after_the_grace_unless_another_opens() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join(&id("a"), t).unwrap();
    r.hold_opened(a);
    r.hold_closed(a, t);
    assert_eq!(r.due(t + 2 * S), [(a, Reason::HoldLost)]);
    r.hold_opened(a);
    assert_eq!(r.due(t + 2 * S), []);
}

#[test]
fn a_held_implicit_execution_is_not_idle_and_a_hold_does_not_end_the_standing_one() {
    let (mut r, t) = registry(Untagged::Shared);
    let shared = r.find(&ExecutionId::shared()).unwrap();
    r.hold_opened(shared);
    r.hold_closed(shared, t);
    assert_eq!(r.next_due(), None);
    let a = r.join(&id("a"), t).unwrap();
    r.hold_opened(a);
    r.left(a, t);
    assert_eq!(r.next_due(), Some(t + 1800 * S), "its deadline alone");
    r.hold_closed(a, t + 300 * S);
    assert_eq!(r.due(t + 301 * S), [], "the hold may come back");
    assert_eq!(r.due(t + 302 * S), [(a, Reason::HoldLost)]);
}

#[test]
fn a_generation_that_ends_is_no_longer_due_and_lives_beside_the_next() {
    let (mut r, t) = registry(Untagged::Shared);
    let a = r.join(&id("a"), t).unwrap();
    let text = ReasonText::new("done");
    assert!(r.end(a, Reason::Deleted, Some(text.clone()), t));
    assert_eq!(r.next_due(), None);
    assert!(!r.heartbeat(a, None, t) && !r.hold_opened(a));
    r.create(id("a"), None, t).unwrap();
    let remains = Remains {
        leftovers: 3,
        ..Remains::default()
    };
    assert!(r.closed(a, remains, t + S).is_some());
    assert!(r.closed(a, remains, t + S).is_none());
    assert!(r.find(&id("a")).is_some());
    let summary = r.summaries().next().unwrap();
    assert_eq!((summary.remains.leftovers, summary.sessions), (3, 1));
    assert_eq!(summary.text, Some(text));
}

#[test]
fn a_heartbeat_moves_the_deadline_by_its_length_or_as_asked() {
    let (mut r, t) = registry(Untagged::Shared);
    r.create(id("a"), Some(10 * S), t).unwrap();
    let a = r.find(&id("a")).unwrap();
    r.heartbeat(a, None, t + 5 * S);
    assert_eq!(r.next_due(), Some(t + 15 * S));
    r.heartbeat(a, Some(100 * S), t + 5 * S);
    assert_eq!(r.due(t + 105 * S), [(a, Reason::Deadline)]);
}

#[test]
fn a_deadline_is_near_at_four_fifths_of_its_time_once_until_it_moves() {
    let (mut r, t) = registry(Untagged::Shared);
    r.create(id("a"), Some(10 * S), t).unwrap();
    let a = r.find(&id("a")).unwrap();
    assert_eq!(r.next_turn(), Some(t + 8 * S));
    assert_eq!(r.nearing(t + 7 * S), []);
    assert_eq!(r.nearing(t + 8 * S), [a]);
    assert_eq!(r.nearing(t + 9 * S), [], "once");
    assert_eq!(r.next_turn(), Some(t + 10 * S));
    r.heartbeat(a, Some(20 * S), t + 9 * S);
    assert_eq!(r.nearing(t + 24 * S), []);
    assert_eq!(r.nearing(t + 25 * S), [a], "of the new one again");
    r.heartbeat(a, None, t + 26 * S);
    assert_eq!(r.nearing(t + 36 * S), [], "it is over, not near");
    r.end(a, Reason::Deadline, None, t + 36 * S);
    assert_eq!(r.next_turn(), None);
}

#[test]
fn tombstones_and_summaries_are_bounded() {
    let (mut r, t) = registry(Untagged::Shared);
    for n in 0..MAX_TOMBSTONES + 2 {
        let a = r.join(&id(&format!("n{n}")), t).unwrap();
        r.end(a, Reason::Deleted, None, t);
        r.closed(a, Remains::default(), t);
    }
    assert_eq!(r.tombstones.len(), MAX_TOMBSTONES);
    assert_eq!(r.summaries().count(), MAX_SUMMARIES);
    assert!(r.join(&id("n0"), t).is_ok(), "the oldest is forgotten");
    assert!(r.join(&id("n2"), t).is_err());
}

proptest! {
    #[test]
    fn counts_agree_and_stragglers_stay_out(ops in prop::collection::vec((0..5u8, 0..4u8), 0..80)) {
        let (mut r, mut t) = registry(Untagged::Shared);
        let mut ended: HashMap<ExecutionId, Instant> = HashMap::new();
        let mut begun = 1;
        for (op, name) in ops {
            let id = id(&format!("n{name}"));
            let live = r.find(&id);
            match op {
                0 => {
                    let stays_out = ended.get(&id).is_some_and(|at| t - *at < 600 * S);
                    let joined = r.join(&id, t);
                    prop_assert_eq!(joined.is_err(), live.is_none() && stays_out);
                    begun += usize::from(live.is_none() && joined.is_ok());
                }
                1 => if let Ok(Created::New(_)) = r.create(id.clone(), None, t) {
                    ended.remove(&id);
                    begun += 1;
                },
                2 => if let Some(number) = live {
                    prop_assert!(r.end(number, Reason::Deleted, None, t));
                    prop_assert!(!r.end(number, Reason::Deleted, None, t));
                    ended.insert(id, t);
                },
                3 => if let Some(number) = live { r.left(number, t); },
                _ => {
                    t += 59 * S;
                    for (number, reason) in r.due(t) {
                        let id = r.get(number).unwrap().id.clone();
                        prop_assert!(r.end(number, reason, None, t));
                        prop_assert!(r.closed(number, Remains::default(), t).is_some());
                        if reason.leaves_tombstone() { ended.insert(id, t); }
                    }
                }
            }
            let c = r.counts();
            prop_assert_eq!(c.active + c.ending, r.runs().count());
            prop_assert_eq!(c.active, r.active.len());
            prop_assert_eq!(r.runs().count() + c.ended.iter().sum::<u64>() as usize, begun);
            let scheduled = r.runs().filter(|(_, run)| run.due(&r.rules).is_some()).count();
            prop_assert_eq!(scheduled, r.schedule.len());
        }
    }
}
