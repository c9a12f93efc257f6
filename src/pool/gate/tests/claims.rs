//! The rules, one by one.

use super::*;
use Decision::{CloseReturned, Dial, Evict, Lend, Refuse};

const A: KeyId = KeyId(0);
const B: KeyId = KeyId(1);

fn gate(size: usize, overflow: usize, pool_most: usize) -> Gate {
    let mut gate = Gate::new(Budget::new(size, overflow));
    for execution in 1..=3 {
        let limits = PoolLimits {
            size: pool_most,
            overflow: 0,
        };
        gate.admit(pool(execution, 0), Some(limits));
    }
    gate
}

fn p(execution: u64) -> PoolId {
    pool(execution, 0)
}

/// A waiter that is served with a new connection at once.
fn lent(gate: &mut Gate, pool: PoolId, key: KeyId, waiter: u64) {
    let waiter = WaiterId(waiter);
    assert_eq!(gate.arrive(pool, key, waiter), [Dial { pool, key }]);
    assert_eq!(gate.opened(pool, key), [Lend { waiter, pool, key }]);
}

#[test]
fn an_idle_connection_of_the_key_is_lent_at_once() {
    let mut gate = gate(2, 0, 2);
    lent(&mut gate, p(1), A, 1);
    assert_eq!(gate.returned(p(1), A), []);
    let lend = Lend {
        waiter: WaiterId(2),
        pool: p(1),
        key: A,
    };
    assert_eq!(gate.arrive(p(1), A, WaiterId(2)), [lend]);
}

#[test]
fn a_full_pool_closes_an_idle_connection_of_another_key() {
    let mut gate = gate(9, 0, 1);
    lent(&mut gate, p(1), A, 1);
    gate.returned(p(1), A);
    assert_eq!(
        gate.arrive(p(1), B, WaiterId(2)),
        [Evict { pool: p(1), key: A }]
    );
    assert_eq!(gate.closed(p(1), A), [Dial { pool: p(1), key: B }]);
}

#[test]
fn a_full_budget_closes_as_many_idle_connections_as_are_needed_longest_idle_first() {
    let mut gate = gate(2, 0, 2);
    lent(&mut gate, p(1), A, 1);
    lent(&mut gate, p(2), A, 2);
    gate.returned(p(2), A);
    gate.returned(p(1), A);
    assert_eq!(
        gate.arrive(p(3), A, WaiterId(3)),
        [Evict { pool: p(2), key: A }]
    );
    assert_eq!(gate.leave(WaiterId(3)), []);
    assert_eq!(
        gate.arrive(p(3), A, WaiterId(4)),
        [],
        "one is closing already"
    );
    assert_eq!(gate.closed(p(2), A), [Dial { pool: p(3), key: A }]);
}

#[test]
fn a_returned_connection_goes_to_its_own_pool_when_no_other_execution_waits() {
    let mut gate = gate(1, 0, 1);
    lent(&mut gate, p(1), A, 1);
    assert_eq!(gate.arrive(p(1), A, WaiterId(2)), []);
    let lend = Lend {
        waiter: WaiterId(2),
        pool: p(1),
        key: A,
    };
    assert_eq!(gate.returned(p(1), A), [lend]);
}

#[test]
fn a_returned_connection_makes_room_for_an_execution_that_is_first_in_the_ring() {
    let mut gate = gate(1, 0, 1);
    lent(&mut gate, p(1), A, 1);
    gate.arrive(p(2), A, WaiterId(2));
    gate.arrive(p(1), A, WaiterId(3));
    assert_eq!(
        gate.returned(p(1), A),
        [CloseReturned { pool: p(1), key: A }]
    );
    assert_eq!(gate.closed(p(1), A), [Dial { pool: p(2), key: A }]);
}

#[test]
fn a_returned_connection_above_the_size_is_closed_when_nobody_waits() {
    let mut gate = gate(1, 1, 2);
    lent(&mut gate, p(1), A, 1);
    lent(&mut gate, p(1), A, 2);
    assert_eq!(
        gate.returned(p(1), A),
        [CloseReturned { pool: p(1), key: A }]
    );
    assert_eq!(gate.returned(p(1), A), []);
}

#[test]
fn room_is_free_only_when_the_server_is_gone() {
    let mut gate = gate(1, 0, 1);
    lent(&mut gate, p(1), A, 1);
    gate.arrive(p(2), A, WaiterId(2));
    assert_eq!(gate.discarded(p(1), A), []);
    assert_eq!(gate.budget().room(), 0);
    assert_eq!(gate.closed(p(1), A), [Dial { pool: p(2), key: A }]);
}

#[test]
fn a_full_database_keeps_waiters_waiting_and_is_probed_one_at_a_time() {
    let mut gate = gate(3, 0, 3);
    lent(&mut gate, p(1), A, 1);
    gate.arrive(p(1), A, WaiterId(2));
    assert_eq!(gate.database_full(p(1), A), []);
    assert_eq!(
        (gate.budget().effective(), gate.position(WaiterId(2))),
        (1, Some(1))
    );
    assert_eq!(gate.probe(), [Dial { pool: p(1), key: A }]);
    assert_eq!(gate.probe(), []);
    assert!(gate.budget().limited_by_database());
}

#[test]
fn a_failed_dial_refuses_one_waiter_and_does_not_dial_for_it_again() {
    let mut gate = gate(3, 0, 1);
    gate.arrive(p(1), A, WaiterId(1));
    gate.arrive(p(1), A, WaiterId(2));
    let refused = Refuse {
        waiter: WaiterId(1),
    };
    assert_eq!(
        gate.dial_failed(p(1), A),
        [refused, Dial { pool: p(1), key: A }]
    );
}

#[test]
fn who_needs_a_database_that_is_away_waits_without_room_and_one_looks_whether_it_is_back() {
    let mut gate = gate(2, 0, 1);
    for waiter in 1..=3 {
        gate.arrive(p(waiter), A, WaiterId(waiter));
    }
    let other = pool(1, 1);
    gate.admit(other, None);
    assert_eq!(gate.arrive(other, A, WaiterId(4)), [], "the budget is full");
    let dial = Dial {
        pool: other,
        key: A,
    };
    assert_eq!(gate.dial_postponed(p(1), A), [dial], "its room is free");
    assert_eq!(gate.dial_postponed(p(2), A), []);
    assert_eq!((gate.reached(p(1)), gate.waiting(p(1))), (Limit::Away, 1));
    assert!(!gate.has_room_to_stay(p(1)));
    let look = |gate: &mut Gate| match gate.look_again(p(1).upstream)[..] {
        [Dial { pool, key: A }] => pool,
        ref other => panic!("{other:?}"),
    };
    let looked = look(&mut gate);
    assert_eq!(gate.dial_postponed(looked, A), []);
    // It is back: who looked is served, and the others as there is room.
    let pool = look(&mut gate);
    let waiter = WaiterId(pool.execution.0 - 1);
    let lend = Lend {
        waiter,
        pool,
        key: A,
    };
    assert_eq!(gate.opened(pool, A), [lend]);
    assert_eq!(gate.reached(looked), Limit::Budget);
}

#[test]
fn an_ended_execution_serves_nobody_and_closes_what_comes_back() {
    let mut gate = gate(2, 0, 2);
    lent(&mut gate, p(1), A, 1);
    lent(&mut gate, p(1), A, 2);
    gate.returned(p(1), A);
    gate.arrive(p(1), B, WaiterId(3));
    let decisions = gate.shut(p(1));
    assert_eq!(
        decisions,
        [Refuse {
            waiter: WaiterId(3)
        }]
    );
    assert_eq!(
        gate.arrive(p(1), A, WaiterId(4)),
        [Refuse {
            waiter: WaiterId(4)
        }]
    );
    assert_eq!(
        gate.returned(p(1), A),
        [CloseReturned { pool: p(1), key: A }]
    );
    gate.closed(p(1), A);
    gate.closed(p(1), A);
    assert_eq!((gate.counts(p(1)), gate.budget().open()), (None, 0));
}

#[test]
fn a_lowered_budget_drains() {
    let mut gate = gate(2, 0, 2);
    lent(&mut gate, p(1), A, 1);
    lent(&mut gate, p(1), A, 2);
    gate.returned(p(1), A);
    assert_eq!(gate.set_effective(0), [Evict { pool: p(1), key: A }]);
    assert_eq!(
        gate.returned(p(1), A),
        [CloseReturned { pool: p(1), key: A }]
    );
}

#[test]
fn one_closing_is_not_promised_to_two_executions() {
    let mut gate = gate(2, 0, 2);
    lent(&mut gate, p(1), A, 1);
    lent(&mut gate, p(1), A, 2);
    gate.returned(p(1), A);
    gate.returned(p(1), A);
    let evict = Evict { pool: p(1), key: A };
    assert_eq!(gate.arrive(p(2), A, WaiterId(3)), [evict]);
    assert_eq!(gate.arrive(p(3), A, WaiterId(4)), [evict]);
}

#[test]
fn a_dial_whose_waiter_left_serves_the_next_or_stays() {
    let mut gate = gate(2, 0, 1);
    gate.arrive(p(1), A, WaiterId(1));
    gate.leave(WaiterId(1));
    assert_eq!(
        gate.arrive(p(1), A, WaiterId(2)),
        [],
        "the dial in flight is for it"
    );
    let lend = Lend {
        waiter: WaiterId(2),
        pool: p(1),
        key: A,
    };
    assert_eq!(gate.opened(p(1), A), [lend]);
}

#[test]
fn room_that_a_closing_will_make_is_a_turn_when_it_is_promised() {
    let mut gate = gate(3, 0, 3);
    for waiter in 1..=3 {
        lent(&mut gate, p(1), A, waiter);
    }
    for (execution, waiter) in [(2, 4), (2, 5), (1, 6), (1, 7)] {
        gate.arrive(p(execution), A, WaiterId(waiter));
    }
    let close = CloseReturned { pool: p(1), key: A };
    assert_eq!(gate.returned(p(1), A), [close]);
    let lend = Lend {
        waiter: WaiterId(6),
        pool: p(1),
        key: A,
    };
    assert_eq!(gate.returned(p(1), A), [lend]);
    // While the first still closes: it is the other's turn again.
    assert_eq!(gate.returned(p(1), A), [close]);
}

#[test]
fn an_execution_whose_pool_is_full_does_not_hold_up_the_ring() {
    let mut gate = gate(2, 0, 1);
    lent(&mut gate, p(1), A, 1);
    gate.arrive(p(1), A, WaiterId(2));
    lent(&mut gate, p(2), A, 3);
    gate.arrive(p(3), A, WaiterId(4));
    assert_eq!(
        gate.returned(p(2), A),
        [CloseReturned { pool: p(2), key: A }]
    );
    assert_eq!(gate.closed(p(2), A), [Dial { pool: p(3), key: A }]);
}

#[test]
fn room_that_comes_all_at_once_is_dealt_turn_by_turn() {
    let mut gate = gate(2, 0, 2);
    gate.set_effective(0);
    for (execution, waiter) in [(1, 1), (1, 2), (2, 3), (2, 4)] {
        gate.arrive(p(execution), A, WaiterId(waiter));
    }
    let dials = [1, 2].map(|execution| Dial {
        pool: p(execution),
        key: A,
    });
    assert_eq!(gate.set_effective(2), dials);
}

#[test]
fn each_waiter_has_a_dial_of_its_own() {
    let mut gate = gate(9, 0, 2);
    let dial = Dial { pool: p(1), key: A };
    assert_eq!(gate.arrive(p(1), A, WaiterId(1)), [dial]);
    assert_eq!(gate.arrive(p(1), A, WaiterId(2)), [dial]);
    assert_eq!(gate.arrive(p(1), A, WaiterId(3)), []);
}

#[test]
fn a_full_pool_closes_one_idle_connection_for_each_waiter_of_another_key() {
    let mut gate = gate(9, 0, 2);
    lent(&mut gate, p(1), A, 1);
    lent(&mut gate, p(1), A, 2);
    gate.returned(p(1), A);
    gate.returned(p(1), A);
    let evict = Evict { pool: p(1), key: A };
    assert_eq!(gate.arrive(p(1), B, WaiterId(3)), [evict]);
    assert_eq!(gate.arrive(p(1), B, WaiterId(4)), [evict]);
}

#[test]
fn who_was_given_a_dead_connection_is_served_before_those_who_came_later() {
    let mut gate = gate(3, 0, 1);
    lent(&mut gate, p(1), A, 1);
    assert_eq!(gate.arrive(p(1), A, WaiterId(2)), []);
    assert_eq!(gate.arrive_again(p(1), A, WaiterId(1)), []);
    assert_eq!(gate.position(WaiterId(1)), Some(1));
    assert_eq!(gate.discarded(p(1), A), []);
    let pool = p(1);
    assert_eq!(gate.closed(pool, A), [Dial { pool, key: A }]);
    let lend = Lend {
        waiter: WaiterId(1),
        pool,
        key: A,
    };
    assert_eq!(gate.opened(pool, A), [lend]);
}

#[test]
fn who_starves_is_who_waits_for_the_budget_and_nothing_else() {
    let mut gate = gate(2, 0, 1);
    lent(&mut gate, p(1), A, 1);
    gate.arrive(p(1), A, WaiterId(2));
    assert_eq!(gate.starving(), 0, "its own pool is full");
    assert_eq!(
        gate.arrive(p(2), A, WaiterId(3)),
        [Dial { pool: p(2), key: A }]
    );
    assert_eq!(gate.starving(), 0, "a dial is for it");
    gate.opened(p(2), A);
    gate.arrive(p(3), A, WaiterId(4));
    gate.arrive(p(3), A, WaiterId(5));
    assert_eq!(gate.starving(), 1, "its pool has room for one");
    gate.pause();
    assert_eq!(gate.starving(), 0, "paused");
    gate.resume();
    assert_eq!(gate.starving(), 1);
    // One that closes is room soon, and none yet.
    gate.discarded(p(2), A);
    assert_eq!(gate.starving(), 1);
    gate.closed(p(2), A);
    assert_eq!(gate.starving(), 0, "dialled");
}

#[test]
fn who_waits_for_a_database_that_allows_less_starves() {
    let mut gate = gate(2, 0, 1);
    lent(&mut gate, p(1), A, 1);
    gate.arrive(p(2), A, WaiterId(2));
    gate.database_full(p(2), A);
    assert_eq!(gate.starving(), 1);
}

#[test]
fn surplus_is_what_is_idle_while_more_are_open_than_may_stay() {
    let mut gate = gate(2, 2, 2);
    lent(&mut gate, p(1), A, 1);
    gate.returned(p(1), A);
    for waiter in [2, 3] {
        lent(&mut gate, p(2), A, waiter);
    }
    assert_eq!(gate.close_surplus(), [Evict { pool: p(1), key: A }]);
    assert_eq!(gate.close_surplus(), [], "what is lent stays");
    gate.closed(p(1), A);
    gate.returned(p(2), A);
    assert_eq!(gate.close_surplus(), [], "as many as may stay");
}
