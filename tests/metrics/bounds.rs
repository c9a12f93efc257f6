//! However many there are, and whatever they say: the number of series depends on the configuration.

use std::collections::BTreeSet;

use execpool::metrics::{Class, Code};
use postgres_protocol::message::frontend;
use serde_json::json;

use crate::scraped::{Scraped, changes, scrape, scraping};
use crate::support::sidecar::upstream;
use crate::support::{Postgres, Raw, Sidecar};

/// What nobody should find in a metric.
const HOSTILE: &str = "h0stile";

async fn storm(sidecar: &Sidecar, raw: &mut Raw, from: usize, to: usize) {
    for number in from..to {
        let id = format!("{HOSTILE}-{number}");
        let made = sidecar.control("POST", "/v1/executions", Some(json!({"id": id})));
        assert_eq!(made.await.0, 201);
        if number % 10 == 0 {
            let path = format!("/v1/executions/{id}/resources");
            for kind in ["browser", &format!("{HOSTILE}\\\"{number}")] {
                let resource = json!({"kind": kind, "name": HOSTILE});
                let _ = sidecar.control("POST", &path, Some(resource)).await;
            }
            let path = format!("/v1/executions/{id}?reason={HOSTILE}%22%0A{number}");
            sidecar.control("DELETE", &path, None).await;
        }
        if number % 20 == 0 {
            let state = format!("{:05}", (number * 7919) % 100_000);
            raw.query(&raise(&state)).await;
            let (_, told) = sidecar.started(&format!("{HOSTILE}{number}"), &[]).await;
            assert_eq!(told.last().unwrap().kind, b'E');
        }
    }
}

/// A function's own error.
fn raise(sqlstate: &str) -> String {
    format!("DO $$BEGIN RAISE '{HOSTILE}' USING ERRCODE = '{sqlstate}'; END$$")
}

fn names(scraped: &Scraped) -> BTreeSet<&str> {
    let counted = scraped.series.keys().map(String::as_str);
    counted
        // The sidecar's own deliveries are another's to bound.
        .filter(|series| !series.starts_with("otel_sdk"))
        .collect()
}

#[tokio::test]
async fn ten_thousand_executions_and_hostile_words_make_no_series() {
    let database = Postgres::shared().database("bounds").await;
    let url = database.url();
    let everything = url.replace("/bounds", "/postgres");
    let yaml = format!(
        "{}  - {{name: \"*\", url: \"{everything}\", any_user: true}}\n",
        upstream("app", &url)
    );
    let sidecar = scraping(yaml).start().await;
    let mut raw = sidecar.session("app", "raises").await;
    raw.query("SET client_min_messages = error").await;
    // Every word that there is, and then whatever else.
    for word in Code::WORDS.iter() {
        if *word != "other" {
            raw.query(&raise(word)).await;
        }
    }
    for class in Class::WORDS.iter().filter(|class| class.len() == 2) {
        raw.query(&raise(&format!("{class}Z99"))).await;
    }
    storm(&sidecar, &mut raw, 0, 2_000).await;
    let ended = "execpool_execution_ended_total{reason=\"deleted\"}";
    let none = Scraped::default();
    let first = changes(&sidecar, &none, "200 have ended", &[(ended, 200.0)]).await;
    storm(&sidecar, &mut raw, 2_000, 10_000).await;
    let last = changes(&sidecar, &none, "1000 have ended", &[(ended, 1_000.0)]).await;
    let active = "execpool_execution_count{state=\"active\"}";
    assert!(last.value(active) >= 9_000.0, "{}", last.value(active));

    let (first, last) = (names(&first), names(&last));
    let new: Vec<_> = last.difference(&first).collect();
    assert!(
        new.is_empty(),
        "series that came with more of the same: {new:#?}"
    );
    assert!(last.len() < 1_000, "{} series", last.len());
    for series in &last {
        let is_hostile = series.contains(HOSTILE) || series.contains("overflow");
        assert!(!is_hostile, "{series}");
    }
    let under_star = "db_namespace=\"other\"";
    assert!(last.iter().any(|series| series.contains(under_star)));
    raw.send_with(frontend::terminate).await;
    drop(scrape(&sidecar).await);
}
