//! What tracking a session costs for each transaction, in nanoseconds of the data plane's thread.
//!
//! `cargo bench --bench tracking`. Beside the processor time of a whole transaction, which
//! `make bench` measures, it is the tracker's share.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use execpool::events::Events;
use execpool::metrics::{Code, Histograms, Measured, Operations};
use execpool::session::{Identity, Limits, Peer, State, Table};
use execpool::story::Recorder;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};

/// How many transactions one round takes.
const TRANSACTIONS: u32 = 2_000_000;
const ROUNDS: usize = 5;

fn identity() -> Option<Identity> {
    Some(Identity {
        execution: "run".parse().ok()?,
        upstream: "app".into(),
        database: "app".to_owned(),
        application_name: Some("tool".to_owned()),
        caller: Some("agent.py:7 run".to_owned()),
        label: None,
        traceparent: None,
        peer: Peer::Unix {
            uid: 0,
            gid: 0,
            pid: None,
        },
    })
}

/// The median of some rounds, per transaction.
fn measured(what: &str, mut transaction: impl FnMut()) {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..TRANSACTIONS {
                transaction();
            }
            begun.elapsed() / TRANSACTIONS
        })
        .collect();
    rounds.sort();
    let [fastest, .., slowest] = rounds[..] else {
        return;
    };
    let median = rounds[ROUNDS / 2];
    println!("{what:44} {median:>8?} ({fastest:?} to {slowest:?})");
}

fn main() {
    let table = Arc::new(Table::default());
    let Some(identity) = identity() else { return };
    let (seat, _mail) = table.open(identity, Instant::now());
    let session = seat.session();
    session.tells(Arc::new(Recorder::default()));
    session.bound(7);
    session.ready(false, false, Some(State::Idle));
    let sql = b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;";
    measured("a query of its own", || {
        session.sent(1, Some(black_box(sql)));
        session.ready(false, false, Some(State::Idle));
    });
    measured("BEGIN, three statements, COMMIT", || {
        for _ in 0..4 {
            session.sent(1, Some(black_box(sql)));
            session.ready(true, false, Some(State::InTransaction));
        }
        session.sent(1, Some(black_box(b"COMMIT")));
        session.ready(false, false, Some(State::Idle));
    });
    let Some((_provider, operations)) = operations() else {
        return;
    };
    measured("a query of its own, told as an operation", || {
        session.sent(1, Some(black_box(sql)));
        let took = session.ready(false, false, Some(State::Idle));
        operations.answered(took, black_box(None));
    });
    measured("telling an operation alone", || {
        operations.answered(black_box(Duration::from_micros(80)), black_box(None));
    });
    measured("the same of one that failed", || {
        let code = black_box(Some(Code::LOST));
        operations.answered(black_box(Duration::from_micros(80)), code);
    });
    measured("a checkout of one query, to its return", || {
        session.bound(7);
        session.sent(1, Some(black_box(sql)));
        session.ready(false, false, Some(State::Idle));
        session.transition(State::Unbound);
        session.returned(black_box("clean"));
    });
    measured("two readings of the clock alone", || {
        black_box(Instant::now());
        black_box(Instant::now());
    });
    sweep();
}

/// Operations as they are told where `/metrics` and a collector read them.
fn operations() -> Option<(SdkMeterProvider, Arc<Operations>)> {
    let provider = SdkMeterProvider::builder()
        .with_reader(ManualReader::default())
        .with_reader(ManualReader::default())
        .build();
    let timings = Histograms::on(&provider.meter("execpool")).of(Measured {
        name: "app",
        namespace: "app",
        servers: &[("db.internal".to_owned(), 5432)],
    });
    let operations = timings.operations("db.internal", 5432)?;
    Some((provider, operations))
}

/// The sweep, once a second, over as many sessions as there may be.
fn sweep() {
    let (table, events) = (Arc::new(Table::default()), Arc::new(Events::default()));
    let limits = Limits {
        leak_after: Some(Duration::from_secs(60)),
        ..Limits::default()
    };
    let all: Vec<_> = (0..10_000)
        .filter_map(|_| Some(table.open(identity()?, Instant::now())))
        .collect();
    for (seat, _) in &all {
        seat.session().bound(7);
        seat.session().ready(false, false, Some(State::Idle));
    }
    let looked = Instant::now();
    for _ in 0..100 {
        black_box(table.oldest(black_box(Instant::now())));
        black_box(table.held(black_box(Instant::now())));
    }
    println!(
        "{:44} {:>8?}",
        "a look at 10,000 sessions, to be told",
        looked.elapsed() / 100
    );
    let begun = Instant::now();
    for _ in 0..100 {
        table.sweep(&limits, black_box(Instant::now()), &events);
    }
    println!(
        "{:44} {:>8?}",
        "a sweep over 10,000 sessions",
        begun.elapsed() / 100
    );
}
