//! A run in which much goes wrong, as Prometheus sees it: every expression of every dashboard, recording rule
//! and alert is asked of what the built execpool told during it, and an alert comes to where people get it.
//!
//! That expressions fit together for a whole fleet is in `dashboards.rs`, with series that are made up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "dashboards/asking.rs"]
#[allow(dead_code, reason = "each is asked by itself here")]
mod asking;
#[path = "dashboards/board.rs"]
#[allow(dead_code, reason = "panels are looked at elsewhere")]
mod board;
#[path = "observed/faults.rs"]
mod faults;
#[path = "dashboards/files.rs"]
mod files;
#[path = "observed/fleet.rs"]
mod fleet;
#[path = "dashboards/promql.rs"]
#[allow(dead_code, reason = "names are looked at elsewhere")]
mod promql;
#[path = "dashboards/rules.rs"]
#[allow(dead_code, reason = "rules are looked at elsewhere")]
mod rules;
mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use asking::{Answer, Variables, Window};
use board::Expression;
use fleet::Fleet;
use support::alertmanager::Alertmanager;
use support::prometheus::Prometheus;
use support::sidecar::upstream;
use support::{Postgres, SOON, eventually};

/// Recovery takes half a minute of calm, which no knob changes.
const LONG: Duration = Duration::from_secs(120);

/// What has no answer in this run, and why that is right. The parts of these are answered all the same.
const SILENT: [(&str, &str); 4] = [
    (
        "ExecpoolIdleInTransaction",
        "fires after five minutes in an open transaction, longer than the run",
    ),
    (
        "ExecpoolWaitP99High",
        "fires on thirty waits of over five seconds, longer than the run",
    ),
    ("ExecpoolRestartHeldBack", "nobody is to be restarted"),
    ("ExecpoolKubernetesFailing", "there is no Kubernetes"),
];

/// What is 0 throughout, and why that is right.
const FLAT: [(&str, &str); 3] = [
    (
        "Sessions pinned to their connection, by why (per second)",
        "only transaction mode pins, which is not there yet",
    ),
    (
        "Log lines that were dropped (per second)",
        "the log of this run is read",
    ),
    ("ExecpoolSidecarDown", "its value is that of up"),
];

/// Whether it belongs to the panel, mark, alert or recorded series of this name.
fn is_at(expression: &Expression, name: &str) -> bool {
    expression.place.ends_with(&format!(", {name}"))
}

/// As Grafana would put them for a scrape every second.
fn variables() -> Variables {
    Variables {
        namespace: "shop".into(),
        workload: "agent".into(),
        rate_interval: "10s".into(),
        range: "1m".into(),
        ..Variables::default()
    }
}

/// The text that is sent. Marks compare with a minute ago; in a run that is over by then, with a moment ago.
fn sent(text: &str) -> String {
    asking::substituted(text, &variables()).replace("offset 1m", "offset 10s")
}

#[tokio::test]
async fn every_expression_is_answered_by_a_prometheus_that_watched_a_run_with_faults() {
    let start = Instant::now();
    let mut fleet = Fleet::start().await;
    faults::all(&mut fleet).await;
    let address = fleet.prometheus.address();
    let window = Window::of(start.elapsed(), Duration::from_secs(1));
    let (mut wrong, mut parts) = (Vec::new(), BTreeSet::new());
    let (mut silent, mut flat) = (BTreeSet::new(), BTreeSet::new());
    let expressions = files::expressions();
    assert!(expressions.len() > 150, "{}", expressions.len());
    for expression in expressions {
        let text = sent(&expression.text);
        let answer = asking::values(&address, &text, window).await;
        let kind = match &answer {
            Ok(values) if values.is_empty() => Some((&SILENT[..], &mut silent)),
            Ok(values) if values.iter().all(|value| *value == 0.0) => Some((&FLAT[..], &mut flat)),
            Ok(_) => None,
            Err(why) => panic!("{expression}: {why}"),
        };
        let is_flat = answer.is_ok_and(|values| !values.is_empty());
        if let Some((told, seen)) = kind {
            match told.iter().find(|(name, _)| is_at(&expression, name)) {
                Some((name, _)) => drop(seen.insert(*name)),
                None => wrong.push(format!(
                    "{}: {expression}",
                    if is_flat { "0 throughout" } else { "nothing" }
                )),
            }
        }
        parts.extend(promql::used(&text).selectors);
    }
    // An `or` would hide one that nobody has, and so would an `unless`.
    for part in &parts {
        let answer = asking::ask(&address, part, window).await;
        if answer != Answer::Data {
            wrong.push(format!("{answer:?}: {part}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(parts.len() > 60, "{parts:#?}");
    // What is answered after all is no exception.
    assert_eq!(silent.len(), SILENT.len(), "{silent:?}");
    assert_eq!(flat.len(), FLAT.len(), "{flat:?}");
}

#[tokio::test]
async fn an_exhausted_budget_is_an_alert_at_alertmanager_until_it_is_over() {
    let database = Postgres::shared().database("alerted").await;
    let sidecar = fleet::options(&upstream("app", &database.url()))
        .start()
        .await;
    let page = fleet::page(&sidecar).await;
    let alertmanager = Alertmanager::start().await;
    let prometheus = Prometheus::options()
        .scrape("execpool", &page, &fleet::labels("agent-0"))
        .rule_text(rules::quick())
        .alert(&alertmanager.address())
        .start()
        .await;
    prometheus.has("execpool_exhaustion_state == 0").await;
    let ours = async || {
        let alerts = alertmanager.received().await.into_iter();
        let named =
            |alert: &serde_json::Value| alert["labels"]["alertname"] == "ExecpoolBudgetExhausted";
        alerts.filter(named).collect::<Vec<_>>()
    };
    assert!(ours().await.is_empty());

    let holders = faults::exhaust(&sidecar).await;
    let alert = eventually(SOON, "Alertmanager has the alert", async || {
        match ours().await.as_slice() {
            [alert] => Ok(alert.clone()),
            other => Err(other.to_vec()),
        }
    })
    .await;
    for (name, value) in fleet::labels("agent-0")
        .into_iter()
        .chain([("severity", "critical")])
    {
        if name != "container" {
            assert_eq!(alert["labels"][name], value, "{alert}");
        }
    }
    assert_eq!(alert["status"]["state"], "active", "{alert}");
    let annotation = |name: &str| alert["annotations"][name].as_str().unwrap_or_default();
    assert_eq!(
        annotation("summary"),
        "The connections of shop/agent-0 are exhausted, and stay so"
    );
    let description = annotation("description");
    assert!(
        description.contains("kubectl exec -n shop agent-0"),
        "{alert}"
    );
    assert!(!description.contains("<no value>"), "{alert}");
    assert!(
        annotation("runbook_url").ends_with("/docs/sre.md#execpoolbudgetexhausted"),
        "{alert}"
    );

    drop(holders);
    // Where a scrape has failed there is no alert for a moment, and nothing is over.
    eventually(LONG, "it has recovered", async || {
        let state = prometheus.value("execpool_exhaustion_state").await;
        match state.is_some_and(|state| state < 2.0) {
            true => Ok(()),
            false => Err(state),
        }
    })
    .await;
    eventually(
        SOON,
        "Alertmanager knows that it is over",
        async || match ours().await {
            none if none.is_empty() => Ok(()),
            some => Err(some),
        },
    )
    .await;
}
