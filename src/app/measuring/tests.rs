use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::look::Look;
use super::tell::reading;
use crate::budget::Budget;
use crate::budget::State as Exhaustion;
use crate::config::{self, Config, Sources};
use crate::control::Room;
use crate::execution::{Executions, Reason, ResourceKind, Rules, Untagged, Upstream};
use crate::metrics::catalogue::{self as of, Instrument, METRICS, Metric};
use crate::pool::{Lender, PoolLimits};
use crate::session::{Identity, Leak, Peer, State, Table};

fn executions() -> Arc<Executions> {
    let lender = Lender::new(Budget::new(20, 10), Handle::current(), Arc::default());
    let rules = Rules {
        max_duration: None,
        idle_timeout: Duration::from_secs(60),
        tombstone: Duration::from_secs(600),
        hold_grace: Duration::from_secs(2),
        untagged: Untagged::Shared,
    };
    let limits = PoolLimits {
        size: 2,
        overflow: 3,
    };
    let upstreams = ["app", "gone"].map(|name| Upstream {
        name: name.into(),
        limits,
    });
    Executions::new(
        rules,
        Duration::ZERO,
        upstreams.into(),
        lender,
        Arc::new(Table::default()),
        Box::new(|_, _, _| tokio::sync::oneshot::channel().1),
        Handle::current(),
    )
}

fn config() -> Config {
    let loaded = config::load(&Sources {
        file: None,
        env: vec![("DATABASE_URL".to_owned(), "postgresql://a@h/app".to_owned())],
        flags: Vec::new(),
    });
    loaded.unwrap().config
}

fn identity() -> Identity {
    Identity {
        execution: "a".parse().unwrap(),
        upstream: "app".into(),
        database: "app".to_owned(),
        application_name: None,
        caller: None,
        label: None,
        traceparent: None,
        peer: Peer::Unix {
            uid: 0,
            gid: 0,
            pid: None,
        },
    }
}

const ROOM: Room = Room {
    max: 100,
    ours: 3,
    others: 40,
    left: 54,
};

#[tokio::test]
async fn every_observed_metric_is_told_with_every_word_but_errors_that_never_came() {
    let (executions, config) = (executions(), config());
    let told = reading(
        &Look::at(&executions, 5),
        &[ROOM],
        Exhaustion::Healthy,
        &config,
    );
    for metric in METRICS {
        let is_seen_elsewhere = matches!(metric.instrument, Instrument::Histogram(_));
        if is_seen_elsewhere || **metric == of::SNAPSHOT_AGE {
            continue;
        }
        let words = metric
            .attributes
            .iter()
            .map(|attribute| match attribute.values {
                of::Values::Words(words) => words.len(),
                of::Values::Configured(_) | of::Values::Executions => 1,
            });
        let series = told.told(metric).len();
        if **metric == of::SERVER_ERRORS {
            assert!(series < 10, "{series} of {}", metric.name);
        } else {
            assert_eq!(series, words.product::<usize>(), "{}", metric.name);
        }
    }
    let told = reading(&Look::at(&executions, 0), &[], Exhaustion::Healthy, &config);
    assert!(
        told.told(&of::DATABASE_CONNECTIONS).is_empty(),
        "it is away"
    );
}

#[test]
fn the_words_of_the_catalogue_are_those_of_what_is_counted() {
    assert_eq!(of::ENDED, Reason::ALL.map(Reason::as_str));
    assert_eq!(of::LEAKS, Leak::ALL.map(Leak::as_str));
    assert_eq!(of::RESOURCES, ResourceKind::ALL.map(ResourceKind::as_str));
    for state in State::ALL {
        let (word, counted) = (state.as_str(), state.counted().as_str());
        assert!(word == counted || counted == "other", "{word} is {counted}");
    }
}

#[tokio::test]
async fn of_several_databases_the_one_with_least_room_is_told() {
    let executions = executions();
    let tight = Room {
        max: 50,
        left: 2,
        ..ROOM
    };
    let told = reading(
        &Look::at(&executions, 0),
        &[ROOM, tight, ROOM],
        Exhaustion::Healthy,
        &config(),
    );
    let connections = told.told(&of::DATABASE_CONNECTIONS);
    assert_eq!(connections[0], ("max".to_owned(), 50.0));
}

#[tokio::test]
async fn held_times_grow_while_a_session_holds_and_sessions_are_counted_where_they_stand() {
    let executions = executions();
    let told = |metric: &'static Metric, values: &str| {
        let told = reading(
            &Look::at(&executions, 0),
            &[],
            Exhaustion::Healthy,
            &config(),
        )
        .told(metric);
        told.into_iter().find(|(its, _)| its == values).unwrap().1
    };
    let (seat, _mail) = executions.sessions().open(identity(), Instant::now());
    assert_eq!(told(&of::SESSION_COUNT, "other"), 1.0);
    seat.session().bound(7);
    assert_eq!(told(&of::SESSION_COUNT, "active"), 1.0);
    assert_eq!(told(&of::BUDGET_USED, ""), 1.0);
    let first = told(&of::CHECKOUT_HELD, "active");
    std::thread::sleep(Duration::from_millis(2));
    assert!(told(&of::CHECKOUT_HELD, "active") >= first + 0.002);
    seat.session().ready(false, false, Some(State::Idle));
    let active = told(&of::CHECKOUT_HELD, "active");
    assert_eq!(told(&of::CHECKOUT_HELD, "active"), active);
    drop((seat, _mail));
    let idle = told(&of::CHECKOUT_HELD, "idle");
    assert!(idle > 0.0);
    assert_eq!(told(&of::CHECKOUT_HELD, "idle"), idle);
    assert_eq!(told(&of::SESSION_CLOSED, "other"), 1.0);
}
