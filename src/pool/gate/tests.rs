//! A model of sessions and servers plays against the gate.

use super::*;
use crate::pool::UpstreamNumber;
use proptest::{collection::vec, prelude::*, sample::Index};
use std::collections::HashSet;

mod claims;

fn pool(execution: u64, upstream: u32) -> PoolId {
    PoolId {
        execution: ExecutionNumber(execution + 1),
        upstream: UpstreamNumber(upstream),
    }
}

/// What sessions and servers do; each index picks one of those that can.
#[derive(Clone, Debug)]
enum Act {
    Arrive(u64, u32, u32),
    Leave(Index),
    Return(Index),
    Discard(Index),
    Open(Index),
    Fail(Index),
    Full(Index),
    Postpone(Index),
    LookAgain(u32),
    Close(Index),
    CloseIdle(Index),
    Effective(usize),
    Probe,
    Shut(u64, u32),
    Taint(u64, u32),
    Resize(usize, usize, usize),
    Limit(u64, Option<PoolLimits>),
    /// The key's connections are not kept; whether another takes its place.
    Retire(u32, bool),
    Pause,
    Resume,
    GiveUpReserve,
    CloseSurplus,
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<Index>;
    prop_oneof![
        8 => (0..4u64, 0..2u32, 0..2u32).prop_map(|(e, u, k)| Act::Arrive(e, u, k)),
        2 => index().prop_map(Act::Leave),
        6 => index().prop_map(Act::Return),
        1 => index().prop_map(Act::Discard),
        6 => index().prop_map(Act::Open),
        1 => index().prop_map(Act::Fail),
        1 => index().prop_map(Act::Full),
        2 => index().prop_map(Act::Postpone),
        2 => (0..2u32).prop_map(Act::LookAgain),
        6 => index().prop_map(Act::Close),
        1 => index().prop_map(Act::CloseIdle),
        1 => (0..8usize).prop_map(Act::Effective),
        1 => Just(Act::Probe),
        1 => (0..4u64, 0..2u32).prop_map(|(e, u)| Act::Shut(e, u)),
        1 => (0..4u64, 0..2u32).prop_map(|(e, u)| Act::Taint(e, u)),
        1 => (0..4usize, 1..4usize, 0..3usize).prop_map(|(s, o, w)| Act::Resize(s, o, w.min(s))),
        1 => (0..4u64, proptest::option::weighted(0.8, some_limits()))
            .prop_map(|(e, l)| Act::Limit(e, l)),
        1 => (0..2u32, any::<bool>()).prop_map(|(k, new)| Act::Retire(k, new)),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => Just(Act::GiveUpReserve),
        1 => Just(Act::CloseSurplus),
    ]
}

type Connection = (PoolId, KeyId);

/// Sessions and servers as they are, kept apart from the gate's own counts.
struct Model {
    gate: Gate,
    waiters: u64,
    waiting: Vec<(WaiterId, PoolId, KeyId)>,
    dialling: Vec<Connection>,
    idle: Vec<Connection>,
    lent: Vec<Connection>,
    closing: Vec<Connection>,
    shut: HashSet<PoolId>,
    tainted: HashSet<PoolId>,
    away: HashSet<UpstreamNumber>,
    limits: Vec<Option<PoolLimits>>,
    /// What the keys that sessions name are by now.
    keys: [KeyId; 2],
    retired: HashSet<KeyId>,
    /// Executions in the order in which they were lent connections.
    grants: Vec<ExecutionNumber>,
}

fn pick(of: &mut Vec<Connection>, index: &Index) -> Option<Connection> {
    (!of.is_empty()).then(|| of.swap_remove(index.index(of.len())))
}

fn take(of: &mut Vec<Connection>, which: Connection) {
    let at = of.iter().position(|c| *c == which);
    of.swap_remove(at.unwrap_or_else(|| panic!("no {which:?}")));
}

impl Model {
    fn new(budget: Budget, limits: Vec<Option<PoolLimits>>) -> Self {
        let mut gate = Gate::new(budget);
        for (execution, limits) in (0..).zip(&limits) {
            for upstream in 0..2 {
                assert_eq!(gate.admit(pool(execution, upstream), *limits), []);
            }
        }
        Self {
            gate,
            waiters: 0,
            waiting: Vec::new(),
            dialling: Vec::new(),
            idle: Vec::new(),
            lent: Vec::new(),
            closing: Vec::new(),
            shut: HashSet::new(),
            tainted: HashSet::new(),
            away: HashSet::new(),
            limits,
            keys: [KeyId(0), KeyId(1)],
            retired: HashSet::new(),
            grants: Vec::new(),
        }
    }

    /// How many each pool has open.
    fn open_of(&self, pool: PoolId) -> usize {
        self.all().filter(|c| c.0 == pool).count()
    }

    fn resize(&mut self, size: usize, overflow: usize, warm: usize) {
        if self.gate.budget.warm() == 0 && warm > 0 {
            for execution in 0..4 {
                self.tainted
                    .extend([pool(execution, 0), pool(execution, 1)]);
            }
        }
        let decisions = self.gate.resize(size, overflow, warm);
        self.carry_out(None, decisions);
        assert!(
            self.idle.is_empty() || self.gate.budget.staying() <= size,
            "idle above the size"
        );
    }

    fn limit(&mut self, execution: u64, limits: Option<PoolLimits>) {
        self.limits[usize::try_from(execution).unwrap()] = limits;
        for pool in [pool(execution, 0), pool(execution, 1)] {
            if !self.shut.contains(&pool) {
                let decisions = self.gate.admit(pool, limits);
                self.carry_out(None, decisions);
            }
        }
    }

    fn retire(&mut self, key: u32, is_followed: bool) {
        let at = usize::try_from(key).unwrap();
        let old = self.keys[at];
        let new = KeyId(old.0 + 2);
        self.keys[at] = new;
        self.retired.insert(old);
        if is_followed {
            for (.., key) in self.waiting.iter_mut().filter(|w| w.2 == old) {
                *key = new;
            }
        }
        let decisions = self.gate.retire(old, is_followed.then_some(new));
        self.carry_out(None, decisions);
    }

    fn arrive(&mut self, pool: PoolId, key: KeyId) {
        self.waiters += 1;
        let waiter = WaiterId(self.waiters);
        self.waiting.push((waiter, pool, key));
        let decisions = self.gate.arrive(pool, key, waiter);
        self.carry_out(None, decisions);
    }

    fn act(&mut self, act: &Act) {
        let before = self.gate.budget.open();
        let all = (0..4).flat_map(|e| [pool(e, 0), pool(e, 1)]);
        let had: HashMap<PoolId, usize> = all.map(|pool| (pool, self.open_of(pool))).collect();
        match act {
            Act::Arrive(e, u, k) => {
                self.arrive(pool(*e, *u), self.keys[usize::try_from(*k).unwrap()]);
            }
            Act::Resize(size, overflow, warm) => self.resize(*size, *overflow, *warm),
            Act::Limit(e, limits) => self.limit(*e, *limits),
            Act::Retire(k, is_followed) => self.retire(*k, *is_followed),
            Act::Leave(index) if !self.waiting.is_empty() => {
                let (waiter, ..) = self.waiting.remove(index.index(self.waiting.len()));
                let decisions = self.gate.leave(waiter);
                self.carry_out(None, decisions);
            }
            Act::Leave(_) => {}
            Act::Return(i) => drop(pick(&mut self.lent, i).map(|c| self.give_back(c))),
            Act::Discard(i) => {
                if let Some(c) = pick(&mut self.lent, i) {
                    self.closing.push(c);
                    let decisions = self.gate.discarded(c.0, c.1);
                    self.carry_out(None, decisions);
                }
            }
            Act::Open(i) => drop(pick(&mut self.dialling, i).map(|c| self.open(c))),
            Act::Fail(i) => {
                if let Some(c) = pick(&mut self.dialling, i) {
                    self.away.remove(&c.0.upstream);
                    let decisions = self.gate.dial_failed(c.0, c.1);
                    self.carry_out(None, decisions);
                }
            }
            Act::Full(i) => {
                if let Some(c) = pick(&mut self.dialling, i) {
                    self.away.remove(&c.0.upstream);
                    let decisions = self.gate.database_full(c.0, c.1);
                    self.carry_out(None, decisions);
                }
            }
            Act::Postpone(i) => {
                if let Some(c) = pick(&mut self.dialling, i) {
                    let decisions = self.gate.dial_postponed(c.0, c.1);
                    self.carry_out(None, decisions);
                    self.away.insert(c.0.upstream);
                }
            }
            Act::LookAgain(u) => self.look_again(UpstreamNumber(*u)),
            Act::Close(i) => drop(pick(&mut self.closing, i).map(|c| self.close(c))),
            Act::CloseIdle(i) => {
                if let Some(c) = pick(&mut self.idle, i) {
                    self.closing.push(c);
                    let decisions = self.gate.idle_closed(c.0, c.1);
                    self.carry_out(None, decisions);
                }
            }
            Act::Effective(n) => {
                let decisions = self.gate.set_effective(*n);
                self.carry_out(None, decisions);
            }
            Act::Probe => {
                let decisions = self.gate.probe();
                self.carry_out(None, decisions);
            }
            Act::Taint(e, u) => {
                self.tainted.insert(pool(*e, *u));
                self.gate.taint(pool(*e, *u));
            }
            Act::Pause => self.gate.pause(),
            Act::Resume => self.resume(),
            Act::CloseSurplus => {
                let decisions = self.gate.close_surplus();
                self.carry_out(None, decisions);
                let size = self.gate.budget.size();
                assert!(self.idle.is_empty() || self.gate.budget.staying() <= size);
            }
            Act::GiveUpReserve => {
                let decisions = self.gate.give_up_reserve();
                self.carry_out(None, decisions);
            }
            Act::Shut(e, u) => {
                self.shut.insert(pool(*e, *u));
                let decisions = self.gate.shut(pool(*e, *u));
                self.carry_out(None, decisions);
            }
        }
        self.check(before, &had);
    }

    fn resume(&mut self) {
        let decisions = self.gate.resume();
        self.carry_out(None, decisions);
    }

    fn look_again(&mut self, upstream: UpstreamNumber) {
        let before = self.dialling_for(upstream);
        let is_away = self.away.contains(&upstream);
        let decisions = self.gate.look_again(upstream);
        self.carry_out(None, decisions);
        let more = self.dialling_for(upstream) - before;
        assert!(!is_away || more <= 1, "{more} dials to look");
    }

    fn dialling_for(&self, upstream: UpstreamNumber) -> usize {
        let dialling = self.dialling.iter();
        dialling.filter(|c| c.0.upstream == upstream).count()
    }

    fn open(&mut self, c: Connection) {
        self.away.remove(&c.0.upstream);
        let decisions = self.gate.opened(c.0, c.1);
        self.carry_out(Some(c), decisions);
    }

    fn give_back(&mut self, c: Connection) {
        let decisions = self.gate.returned(c.0, c.1);
        self.carry_out(Some(c), decisions);
    }

    fn close(&mut self, c: Connection) {
        let decisions = self.gate.closed(c.0, c.1);
        self.carry_out(None, decisions);
    }

    fn carry_out(&mut self, hand: Option<Connection>, decisions: Vec<Decision>) {
        let closed = |d: &Decision| matches!(d, Decision::CloseReturned { .. });
        assert!(decisions.iter().filter(|d| closed(d)).count() <= usize::from(hand.is_some()));
        match hand {
            Some(c) if decisions.iter().any(closed) => self.closing.push(c),
            Some(c) => self.idle.push(c),
            None => {}
        }
        for decision in decisions {
            let is_new = matches!(decision, Decision::Lend { .. } | Decision::Dial { .. });
            assert!(
                !(is_new && self.gate.is_paused()),
                "{decision:?} during a pause"
            );
            match decision {
                Decision::Lend { waiter, pool, key } => {
                    take(&mut self.idle, (pool, key));
                    self.lent.push((pool, key));
                    let first = self
                        .waiting
                        .iter()
                        .position(|(_, p, k)| (*p, *k) == (pool, key));
                    let first = first.expect("a lend without a waiter");
                    assert_eq!(self.waiting.remove(first).0, waiter, "overtaken");
                    self.grants.push(pool.execution);
                }
                Decision::Dial { pool, key } => self.dialling.push((pool, key)),
                Decision::Evict { pool, key } => {
                    take(&mut self.idle, (pool, key));
                    self.closing.push((pool, key));
                }
                Decision::Move { from, to, key } => {
                    assert!(self.gate.budget.warm() > 0, "no reserve is allowed");
                    assert!(
                        !self.tainted.contains(&from),
                        "what a session left is given away"
                    );
                    assert_eq!(from.upstream, to.upstream);
                    take(&mut self.idle, (from, key));
                    self.idle.push((to, key));
                }
                Decision::CloseReturned { pool, key } => assert_eq!(hand, Some((pool, key))),
                Decision::Refuse { waiter } => self.waiting.retain(|(w, ..)| *w != waiter),
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        let held = self.dialling.iter().chain(&self.idle);
        held.chain(&self.lent).chain(&self.closing)
    }

    fn check(&self, before: usize, had: &HashMap<PoolId, usize>) {
        assert!(self.gate.consistent());
        let open = self.all().count();
        assert_eq!(self.gate.budget.open(), open);
        let effective = self.gate.budget.effective();
        assert!(open <= effective || open <= before, "over the budget");
        for (execution, limits) in (0..).zip(&self.limits) {
            for pool in [pool(execution, 0), pool(execution, 1)] {
                let open = self.open_of(pool);
                let most = limits.map_or(usize::MAX, |l| l.size + l.overflow);
                let had = had.get(&pool).copied().unwrap_or(usize::MAX);
                assert!(open <= most || open <= had, "over the pool's limit");
                let waiting = self.waiting.iter().filter(|w| w.1 == pool);
                assert_eq!(self.gate.waiting(pool), waiting.clone().count());
                for (at, (waiter, ..)) in waiting.enumerate() {
                    assert_eq!(self.gate.position(*waiter), Some(at + 1));
                }
            }
        }
        for (_, pool, key) in &self.waiting {
            assert!(
                self.gate.is_paused() || !self.idle.contains(&(*pool, *key)),
                "waits beside an idle connection"
            );
        }
        let is_kept = |c: &Connection| !self.retired.contains(&c.1);
        assert!(self.idle.iter().all(is_kept), "a retired one is kept");
        assert!(self.gate.reserved() <= self.gate.budget.warm());
        let reserved = self.idle.iter().filter(|c| c.0.is_reserve());
        assert_eq!(self.gate.reserved(), reserved.count());
        let busy = self.dialling.len() + self.lent.len() + self.closing.len();
        assert!(
            self.waiting.is_empty()
                || busy > 0
                || effective == 0
                || self.gate.is_paused()
                || !self.away.is_empty(),
            "nothing under way"
        );
    }

    fn finish_dials_and_closings(&mut self) {
        loop {
            if let Some(c) = self.closing.pop() {
                self.close(c);
            } else if let Some(c) = self.dialling.pop() {
                self.open(c);
            } else {
                return;
            }
        }
    }

    /// Waiting executions that could use one more connection, when one of `back` comes back.
    fn could_use(&self, back: Option<PoolId>) -> HashSet<ExecutionNumber> {
        let room = |pool: &PoolId| {
            let limits = (0..)
                .zip(&self.limits)
                .find(|(e, _)| pool.execution.0 == *e + 1);
            let most = limits
                .and_then(|(_, l)| *l)
                .map_or(usize::MAX, |l| l.size + l.overflow);
            back == Some(*pool) || self.all().filter(|c| c.0 == *pool).count() < most
        };
        let pools = self.waiting.iter().map(|(_, pool, _)| pool);
        pools
            .filter(|pool| room(pool))
            .map(|pool| pool.execution)
            .collect()
    }

    /// Everything under way ends well, until nothing is.
    fn play_out(&mut self) {
        self.resume();
        let decisions = self.gate.set_effective(usize::MAX);
        self.carry_out(None, decisions);
        for upstream in 0..2 {
            self.look_again(UpstreamNumber(upstream));
        }
        loop {
            if let Some(c) = self.dialling.pop() {
                self.open(c);
            } else if let Some(c) = self.closing.pop() {
                self.close(c);
            } else if let Some(c) = self.lent.pop() {
                self.give_back(c);
            } else {
                return;
            }
            self.check(usize::MAX, &HashMap::new());
        }
    }
}

fn some_limits() -> impl Strategy<Value = PoolLimits> {
    (0..3usize, 1..3usize).prop_map(|(size, overflow)| PoolLimits { size, overflow })
}

fn limits() -> impl Strategy<Value = Vec<Option<PoolLimits>>> {
    vec(proptest::option::weighted(0.8, some_limits()), 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nobody_is_lost_or_overtaken_and_no_limit_is_passed(
        size in 0..4usize,
        overflow in 1..4usize,
        warm in 0..3usize,
        limits in limits(),
        acts in vec(act(), 1..150),
    ) {
        let budget = Budget::new(size, overflow).with_reserve(warm.min(size));
        let mut model = Model::new(budget, limits);
        for act in &acts {
            model.act(act);
        }
        model.play_out();
        prop_assert!(model.waiting.is_empty(), "{:?}", model.waiting);
        prop_assert!(model.gate.turns.is_empty());
        for execution in 0..4 {
            model.act(&Act::Shut(execution, 0));
            model.act(&Act::Shut(execution, 1));
        }
        model.play_out();
        prop_assert_eq!(model.gate.budget.open(), model.gate.reserved());
        prop_assert!(model.gate.pools.keys().all(PoolId::is_reserve));
        prop_assert!(model.gate.waiters.is_empty());
    }

    #[test]
    fn executions_that_all_wait_take_turns(
        size in 1..6usize,
        waiters in vec((0..4u64, 0..2u32), 40..120),
        returns in vec(any::<Index>(), 10..60),
    ) {
        let mut model = Model::new(Budget::new(size, 0), vec![None; 4]);
        for (execution, key) in &waiters {
            model.arrive(pool(*execution, 0), KeyId(*key));
        }
        model.finish_dials_and_closings();
        model.grants.clear();
        for index in &returns {
            if !(0..4).all(|e| model.waiting.iter().any(|w| w.1 == pool(e, 0))) {
                break;
            }
            let lent = pick(&mut model.lent, index).expect("the budget is lent");
            model.give_back(lent);
            model.finish_dials_and_closings();
        }
        // All four wait all the time: every four grants in a row are to four executions.
        for four in model.grants.windows(4) {
            prop_assert_eq!(four.iter().collect::<HashSet<_>>().len(), 4, "{:?}", model.grants);
        }
    }

    #[test]
    fn between_two_grants_no_other_execution_gets_two_that_the_waiting_one_could_have_used(
        size in 1..6usize,
        limits in limits(),
        steps in vec((any::<bool>(), 0..4u64, 0..2u32, 0..2u32, any::<Index>()), 20..150),
    ) {
        let mut model = Model::new(Budget::new(size, 0), limits);
        let mut passed_over: HashMap<(ExecutionNumber, ExecutionNumber), usize> = HashMap::new();
        for (arrives, execution, upstream, key, index) in &steps {
            model.grants.clear();
            let back = if *arrives { None } else { pick(&mut model.lent, index) };
            let able = model.could_use(back.map(|c| c.0));
            match back {
                Some(connection) => model.give_back(connection),
                None => model.arrive(pool(*execution, *upstream), KeyId(*key)),
            }
            model.finish_dials_and_closings();
            let grants = std::mem::take(&mut model.grants);
            let waits = |e| model.waiting.iter().any(|w| w.1.execution == e);
            passed_over.retain(|(waiting, _), _| !grants.contains(waiting) && waits(*waiting));
            for other in &grants {
                for waiting in able.iter().filter(|e| waits(**e) && !grants.contains(e)) {
                    let times = passed_over.entry((*waiting, *other)).or_default();
                    *times += 1;
                    prop_assert!(*times <= 1, "{:?} overtook {:?} twice", other, waiting);
                }
            }
        }
    }
}
