//! What is served is what docs/metrics.md says: the page is made from the same constants.

use std::collections::BTreeMap;

use execpool::metrics::catalogue::{
    EXECUTION_ID, Instrument, METRICS, Metric, OF_THE_SIDECAR, Values,
};
use execpool::metrics::markdown::prometheus_name;

use crate::scraped::{SOON, Scraped, scrape, scraping};
use crate::support::sidecar::upstream;
use crate::support::{Postgres, eventually};

fn families() -> BTreeMap<String, &'static Metric> {
    let all = METRICS.iter().chain(OF_THE_SIDECAR);
    all.map(|metric| (prometheus_name(metric), *metric))
        .collect()
}

/// The family of a series: without what histograms append.
fn family<'a>(families: &'a BTreeMap<String, &'static Metric>, name: &str) -> Option<&'a Metric> {
    let plain = ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|end| name.strip_suffix(end))
        .find(|name| families.contains_key(*name));
    let found = families.get(name).or_else(|| families.get(plain?));
    found.copied()
}

#[tokio::test]
async fn every_series_is_in_the_documentation_and_every_metric_is_served() {
    let database = Postgres::shared().database("table").await;
    let sidecar = scraping(upstream("app", &database.url())).start().await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("SELECT 1").await;
    raw.query("SELECT 1/0").await;
    let families = families();
    let is_sent = |name: &str| name.starts_with("otel_sdk");
    let served = eventually(SOON, "every metric is served", async || {
        let served = scrape(&sidecar).await;
        let missing: Vec<&String> = families
            .keys()
            .filter(|name| !served.types.contains_key(*name) && !is_sent(name))
            .collect();
        match missing.is_empty() {
            true => Ok(served),
            false => Err(missing.into_iter().cloned().collect::<Vec<_>>()),
        }
    })
    .await;
    for (name, kind) in &served.types {
        if name == "target_info" {
            continue;
        }
        let metric = families
            .get(name)
            .unwrap_or_else(|| panic!("{name} is in no table"));
        let wanted = match metric.instrument {
            Instrument::Counter => "counter",
            Instrument::UpDownCounter | Instrument::Gauge => "gauge",
            Instrument::Histogram(_) => "histogram",
        };
        assert_eq!(kind, wanted, "{name}");
    }
    for series in served.series.keys() {
        let (name, labels) = Scraped::labels(series);
        if name == "target_info" {
            continue;
        }
        let metric = family(&families, name).unwrap_or_else(|| panic!("{name}"));
        for (label, value) in labels.into_iter().filter(|(label, _)| *label != "le") {
            let mut attributes = metric.attributes.iter();
            let attribute = attributes.find(|it| it.name.replace('.', "_") == label);
            let attribute = attribute.unwrap_or_else(|| panic!("{series}: {label}"));
            assert_ne!(attribute.name, EXECUTION_ID);
            if let Values::Words(words) = attribute.values {
                assert!(words.contains(&value), "{series}: {value}");
            }
        }
    }
}
