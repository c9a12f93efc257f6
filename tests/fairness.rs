//! Fairness, from execpool's own log of events: within a pool grants come in the order of arrival,
//! and between two grants to an execution there are never more to others than others waited.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;
use support::sidecar::upstream;
use support::{Postgres, SOON, Sidecar, eventually};
use tokio::task::JoinSet;

/// A pool: execution and upstream.
type Pool = (u64, u64);

/// What the log tells of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A session has come to a pool's queue.
    Waits(Pool, u64),
    /// An execution was dealt something: an idle connection, a dial, or room that is being made.
    Turn(u64),
    /// A dial of a pool has succeeded: the connection goes to its first waiter, if there is one.
    Opened(Pool),
    /// A session has got its connection.
    Lent(Pool, u64),
    /// A session waits no longer, and has got nothing.
    Gone(u64),
}

/// What a log that holds has shown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    lent: usize,
    /// Grants that came while another execution waited.
    contended: usize,
    /// The most grants to others between two to one that waited.
    most_others: usize,
}

/// One execution's wait for its next turn.
#[derive(Debug, Default)]
struct Interval {
    others: usize,
    waited: HashSet<u64>,
}

#[derive(Debug, Default)]
struct Checker {
    queues: HashMap<Pool, VecDeque<u64>>,
    /// Turns whose connection is still to come, by execution.
    dealt: HashMap<u64, usize>,
    intervals: HashMap<u64, Interval>,
    seen: Seen,
}

impl Checker {
    fn waiting(&self, execution: u64) -> usize {
        let own = self.queues.iter().filter(|((of, _), _)| *of == execution);
        own.map(|(_, queue)| queue.len()).sum()
    }

    /// Waiters for whom nothing is on its way.
    fn unserved(&self, execution: u64) -> usize {
        let dealt = self.dealt.get(&execution).copied().unwrap_or(0);
        self.waiting(execution).saturating_sub(dealt)
    }

    fn others_that_wait(&self, execution: u64) -> HashSet<u64> {
        let waits = self.queues.iter().filter(|(_, queue)| !queue.is_empty());
        let executions = waits.map(|((of, _), _)| *of);
        executions.filter(|of| *of != execution).collect()
    }

    fn begin(&mut self, execution: u64) {
        let waited = self.others_that_wait(execution);
        let interval = Interval { others: 0, waited };
        self.intervals.insert(execution, interval);
    }

    fn take(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Waits(pool, session) => {
                self.queues.entry(pool).or_default().push_back(session);
                for (execution, interval) in &mut self.intervals {
                    if *execution != pool.0 {
                        interval.waited.insert(pool.0);
                    }
                }
                if self.unserved(pool.0) > 0 && !self.intervals.contains_key(&pool.0) {
                    self.begin(pool.0);
                }
            }
            Event::Turn(execution) => self.turn(execution)?,
            Event::Opened(pool) => {
                // Its waiter has got another one meanwhile.
                if self.waiting(pool.0) == 0 {
                    let dealt = self.dealt.entry(pool.0).or_default();
                    *dealt = dealt.saturating_sub(1);
                }
            }
            Event::Lent(pool, session) => {
                let queue = self.queues.entry(pool).or_default();
                if queue.pop_front() != Some(session) {
                    return Err(format!("{session} was lent to out of turn in {pool:?}"));
                }
                let dealt = self.dealt.entry(pool.0).or_default();
                *dealt = dealt
                    .checked_sub(1)
                    .ok_or(format!("{session} got what no turn has dealt"))?;
                self.seen.lent += 1;
            }
            Event::Gone(session) => {
                for queue in self.queues.values_mut() {
                    queue.retain(|other| *other != session);
                }
                for (execution, dealt) in std::mem::take(&mut self.dealt) {
                    let dealt = dealt.min(self.waiting(execution));
                    self.dealt.insert(execution, dealt);
                }
                let idle = |execution: &u64| self.unserved(*execution) == 0;
                let over: Vec<u64> = self.intervals.keys().copied().filter(idle).collect();
                for execution in over {
                    self.intervals.remove(&execution);
                }
            }
        }
        Ok(())
    }

    fn turn(&mut self, execution: u64) -> Result<(), String> {
        // One whose dial is under way may get a connection that comes back before.
        if self.waiting(execution) == 0 {
            return Err(format!("{execution} had a turn and does not wait"));
        }
        *self.dealt.entry(execution).or_default() += 1;
        self.intervals.remove(&execution);
        self.seen.contended += usize::from(!self.intervals.is_empty());
        for (waiting, interval) in &mut self.intervals {
            interval.others += 1;
            self.seen.most_others = self.seen.most_others.max(interval.others);
            if interval.others > interval.waited.len() {
                return Err(format!(
                    "{waiting} waits for its turn while others had {}, the last {execution}, and \
                     only {} others waited",
                    interval.others,
                    interval.waited.len()
                ));
            }
        }
        if self.unserved(execution) > 0 {
            self.begin(execution);
        }
        Ok(())
    }
}

/// Whether a log shows that nobody was overtaken; says where somebody was.
fn check(events: &[Event]) -> Result<Seen, String> {
    let mut checker = Checker::default();
    for (number, event) in events.iter().enumerate() {
        let held = checker.take(*event);
        held.map_err(|why| format!("event {number}, {event:?}: {why}"))?;
    }
    Ok(checker.seen)
}

/// The gate's events in the lines of a log.
fn events(lines: &[String]) -> Vec<Event> {
    let parsed = lines.iter().map(|line| {
        let value: Value = serde_json::from_str(line).expect("the log is JSON");
        let number = |name: &str| value[name].as_u64().expect(name);
        let pool = || (number("execution_number"), number("upstream_number"));
        Some(match value["message"].as_str()? {
            "waits" => Event::Waits(pool(), number("session_id")),
            "opened" => Event::Opened(pool()),
            "turn" => Event::Turn(number("execution_number")),
            "lent" => Event::Lent(pool(), number("session_id")),
            "gave up" | "refused" => Event::Gone(number("session_id")),
            message => {
                assert!(value.get("dropped").is_none(), "{message}");
                return None;
            }
        })
    });
    parsed.flatten().collect()
}

/// What the sessions of an uneven demand do: some executions have 20, most have one.
fn demand() -> impl Iterator<Item = (usize, usize)> {
    let many = (0..8).flat_map(|execution| (0..20).map(move |session| (execution, session)));
    many.chain((8..48).map(|execution| (execution, 0)))
}

/// Asks for a server connection, holds it for a while, and gives it back.
async fn visit(sidecar: &Sidecar, name: &str, execution: usize, session: usize) {
    let client = sidecar.client(name, &format!("e{execution}")).await;
    let client = client.expect("it is let in");
    let sleep = (execution + session) % 5;
    let sql = format!("SELECT pg_sleep(0.00{sleep})");
    client.simple_query(&sql).await.expect("it is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_on_a_full_budget_are_served_in_turn() {
    let database = Postgres::shared().database("fairness").await;
    let config = format!(
        "{}    connect_timeout: 1m\n\
         budget: {{size: 4, overflow: 2}}\n\
         pool: {{size: 30, overflow: 0, timeout: 10m}}\n\
         log: {{level: 'warn,execpool::pool=debug', format: json}}\n",
        upstream("fairness", &database.url())
    );
    let sidecar = std::sync::Arc::new(Sidecar::start(config).await);
    let mut holders = Vec::new();
    for _ in 0..6 {
        let holder = sidecar.client("fairness", "holder").await.unwrap();
        holder.simple_query("SELECT 1").await.unwrap();
        holders.push(holder);
    }
    let mut visits = JoinSet::new();
    for (execution, session) in demand() {
        let sidecar = std::sync::Arc::clone(&sidecar);
        visits.spawn(async move {
            for _ in 0..3 {
                visit(&sidecar, "fairness", execution, session).await;
            }
        });
    }
    eventually(SOON, "all wait", async || {
        let status = sidecar.get("/v1/status").await;
        let waiting = status["budget"]["waiting"].as_u64();
        (waiting == Some(200)).then_some(()).ok_or(status)
    })
    .await;
    drop(holders);
    while let Some(done) = visits.join_next().await {
        done.expect("every session is served");
    }
    let events = eventually(SOON, "all grants are logged", async || {
        let events = events(&sidecar.log());
        let lent = events
            .iter()
            .filter(|event| matches!(event, Event::Lent(..)));
        match lent.count() {
            lent if lent < 6 + 600 => Err(lent),
            _ => Ok(events),
        }
    })
    .await;
    let seen = check(&events).expect("nobody is overtaken");
    assert!(seen.lent >= 6 + 600, "{seen:?}");
    assert!(seen.contended > 500, "too little contention: {seen:?}");
    assert!(seen.most_others > 20, "{seen:?}");
}

mod checker {
    use super::*;
    use Event::{Gone, Lent, Opened, Turn, Waits};

    const A: Pool = (1, 0);
    const B: Pool = (2, 0);

    /// Two executions in turn on one connection.
    const FAIR: [Event; 10] = [
        Waits(A, 1),
        Turn(1),
        Lent(A, 1),
        Waits(A, 2),
        Waits(B, 3),
        Turn(1),
        Lent(A, 2),
        Waits(A, 4),
        Turn(2),
        Lent(B, 3),
    ];

    #[test]
    fn a_fair_log_holds() {
        let seen = check(&FAIR).unwrap();
        assert_eq!((seen.lent, seen.contended, seen.most_others), (3, 2, 1));
    }

    #[test]
    fn a_reordered_log_fails() {
        let mut log = FAIR.to_vec();
        log.swap(6, 9);
        assert!(check(&log).is_err(), "{log:?}");
        let overtaken = [Waits(A, 1), Waits(A, 2), Turn(1), Turn(1), Lent(A, 2)];
        let why = check(&overtaken).unwrap_err();
        assert!(why.contains("out of turn"), "{why}");
    }

    #[test]
    fn two_grants_to_others_where_one_other_waits_fail() {
        let start = [Waits(B, 1), Waits(A, 2), Waits(A, 3), Turn(1), Lent(A, 2)];
        let twice = [start.as_slice(), &[Turn(1)]].concat();
        let why = check(&twice).unwrap_err();
        assert!(why.contains("2 waits for its turn"), "{why}");
        let in_turn = [start.as_slice(), &[Turn(2), Turn(1)]].concat();
        check(&in_turn).unwrap();
        // A dial that nobody waits for any more is nobody's turn.
        let surplus = [Waits(A, 9), Turn(1), Turn(1), Lent(A, 9), Opened(A)];
        let after = [surplus.as_slice(), &start, &[Turn(1)]].concat();
        check(&after).unwrap_err();
        let left = [start.as_slice(), &[Gone(1), Turn(1)]].concat();
        check(&left).unwrap();
    }

    #[test]
    fn a_grant_without_a_turn_and_a_turn_for_nobody_fail() {
        let why = check(&[Waits(A, 1), Lent(A, 1)]).unwrap_err();
        assert!(why.contains("no turn has dealt"), "{why}");
        let why = check(&[Waits(A, 1), Turn(1), Lent(A, 1), Turn(1)]).unwrap_err();
        assert!(why.contains("does not wait"), "{why}");
    }
}
