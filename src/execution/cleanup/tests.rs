//! The order of a cleanup, by example and by property.

use super::*;
use proptest::prelude::*;

const POLICY: Policy = Policy {
    idle_in_transaction: Duration::from_secs(60),
    reclaim_leaks: false,
};
const RECLAIMS: Policy = Policy {
    reclaim_leaks: true,
    ..POLICY
};

/// A session by its number, execution, state, idle seconds, and whether it is a suspect.
fn holder(session: u64, execution: &str, state: State, idle: u64, is_suspect: bool) -> Holder {
    Holder {
        session: SessionId(session),
        execution: execution.parse().unwrap(),
        is_named: execution != "shared",
        state,
        idle_for: Duration::from_secs(idle),
        is_suspect,
    }
}

/// One of each rung, and two that are on none.
fn scene(waiting: usize) -> Scene {
    Scene {
        leftovers: vec!["gone".parse().unwrap()],
        holders: vec![
            holder(1, "shared", State::Idle, 900, true),
            holder(2, "a", State::Idle, 70, true),
            holder(3, "b", State::Idle, 80, true),
            holder(4, "shared", State::InTransaction, 61, true),
            holder(5, "a", State::InTransaction, 300, true),
            holder(6, "a", State::InTransaction, 59, false),
            holder(7, "b", State::Idle, 59, false),
        ],
        waiting,
    }
}

fn ids(plan: &Plan) -> Vec<u64> {
    plan.sessions.iter().map(|(id, _)| id.0).collect()
}

fn execution(id: &str) -> Scope {
    Scope::Execution(id.parse().unwrap())
}

#[test]
fn rungs_come_in_their_order_and_the_longest_idle_first() {
    let plan = decide(&scene(100), &RECLAIMS, &Scope::All);
    assert_eq!((plan.leftovers, plan.spared), (1, 0));
    let whys: Vec<(u64, Why)> = plan.sessions.iter().map(|(id, why)| (id.0, *why)).collect();
    let expected = [
        (5, Why::IdleInTransaction),
        (4, Why::IdleInTransaction),
        (3, Why::LeakSuspect),
        (2, Why::LeakSuspect),
        (1, Why::UnnamedLeakSuspect),
    ];
    assert_eq!(whys, expected);
    assert_eq!(plan.first_rung().len(), 2);
}

#[test]
fn as_many_are_ended_as_wait_and_leftovers_count() {
    for (waiting, expected) in [
        (0, &[][..]),
        (1, &[]),
        (2, &[5]),
        (3, &[5, 4]),
        (4, &[5, 4, 3]),
        (5, &[5, 4, 3, 2]),
        (9, &[5, 4, 3, 2]),
    ] {
        let plan = decide(&scene(waiting), &POLICY, &Scope::All);
        assert_eq!(ids(&plan), expected, "{waiting} wait");
        assert_eq!(plan.leftovers, 1, "it is nobody's");
        assert_eq!(plan.spared, 1);
    }
}

#[test]
fn one_execution_is_cleaned_whether_anybody_waits_or_not() {
    for (scope, policy, leftovers, expected) in [
        (execution("a"), POLICY, 0, &[5, 2][..]),
        (execution("b"), POLICY, 0, &[3]),
        (execution("gone"), POLICY, 1, &[]),
        (execution("shared"), POLICY, 0, &[4]),
        (execution("shared"), RECLAIMS, 0, &[4, 1]),
        (execution("nobody"), RECLAIMS, 0, &[]),
    ] {
        let plan = decide(&scene(0), &policy, &scope);
        assert_eq!(
            (plan.leftovers, &ids(&plan)[..]),
            (leftovers, expected),
            "{scope:?}"
        );
    }
}

fn holders() -> impl Strategy<Value = Vec<Holder>> {
    let names = prop::sample::select(vec!["shared", "a", "b", "session-3"]);
    let states = prop::sample::select(State::ALL.to_vec());
    let one = (names, states, 0..120u64, any::<bool>());
    prop::collection::vec(one, 0..12).prop_map(|all| {
        let numbered = (1..).zip(all);
        numbered
            .map(|(number, (name, state, idle, suspect))| {
                let id = ExecutionId::session(3);
                let session = holder(number, "a", state, idle, suspect);
                match name {
                    "session-3" => Holder {
                        execution: id,
                        is_named: false,
                        ..session
                    },
                    name => holder(number, name, state, idle, suspect),
                }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nobody_is_ended_without_need_and_nobody_out_of_turn(
        holders in holders(),
        leftovers in 0..4usize,
        waiting in 0..10usize,
        reclaim_leaks: bool,
    ) {
        let leftovers = vec!["gone".parse().unwrap(); leftovers];
        let scene = Scene { leftovers, holders, waiting };
        let policy = Policy { reclaim_leaks, ..POLICY };
        let plan = decide(&scene, &policy, &Scope::All);
        let of = |id: SessionId| scene.holders.iter().find(|it| it.session == id).unwrap();
        let rank = |holder: &Holder, why: Why| (why, Reverse(holder.idle_for), holder.session);
        // Each for a reason that holds.
        for (id, chosen) in &plan.sessions {
            let holder = of(*id);
            let holds = match chosen {
                Why::Leftover => false,
                Why::IdleInTransaction => {
                    holder.state == State::InTransaction && holder.idle_for >= POLICY.idle_in_transaction
                }
                Why::LeakSuspect => holder.is_suspect && holder.is_named,
                Why::UnnamedLeakSuspect => holder.is_suspect && !holder.is_named && reclaim_leaks,
            };
            prop_assert!(holds, "{holder:?}");
        }
        // In order, and none twice.
        let ranks: Vec<_> = plan.sessions.iter().map(|(id, why)| rank(of(*id), *why)).collect();
        prop_assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]));
        // Who is left is behind who is ended, and spared where the policy says so.
        let is_left = |holder: &&Holder| plan.sessions.iter().all(|(id, _)| *id != holder.session);
        let left = scene.holders.iter().filter(is_left);
        let left = left.filter_map(|holder| Some(rank(holder, why(holder, &policy)?)));
        let (spared, behind): (Vec<_>, Vec<_>) =
            left.partition(|(why, ..)| *why == Why::UnnamedLeakSuspect && !reclaim_leaks);
        prop_assert_eq!(spared.len(), plan.spared);
        prop_assert!(behind.iter().all(|rank| ranks.last().is_none_or(|last| rank > last)));
        // As many as wait, if there are so many.
        let need = waiting.saturating_sub(plan.leftovers);
        prop_assert_eq!(ranks.len(), need.min(ranks.len() + behind.len()));
        prop_assert!(plan.first_rung().iter().all(|(_, why)| *why == plan.sessions[0].1));
    }
}
