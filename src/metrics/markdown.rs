//! The tables of metrics, for the documentation.

use std::fmt::Write as _;

use super::catalogue::{
    Attribute, Instrument, METRICS, Metric, OF_EXECUTIONS, OF_THE_SIDECAR, Values,
};

/// The tables of `docs/metrics.md`.
#[must_use]
pub fn metrics_markdown() -> String {
    let mut text = table(METRICS);
    text.push_str("\nOf the sidecar itself:\n\n");
    text.push_str(&table(OF_THE_SIDECAR));
    text.push_str("\nWith `telemetry.top_executions` at a number, of so many executions with most connections, over OTLP alone:\n\n");
    text.push_str(&table(OF_EXECUTIONS));
    text
}

fn table(metrics: &[&Metric]) -> String {
    let mut text = String::from(
        "| metric | kind, unit | in Prometheus | attributes | what it tells |\n|---|---|---|---|---|\n",
    );
    for metric in metrics {
        let attributes: Vec<String> = metric.attributes.iter().map(attribute).collect();
        let attributes = match attributes.is_empty() {
            true => "–".to_owned(),
            false => attributes.join("<br>"),
        };
        let bounds = match metric.instrument {
            Instrument::Histogram(bounds) => {
                let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
                format!(", up to {}", bounds.join(" "))
            }
            _ => String::new(),
        };
        let (name, kind, unit) = (metric.name, metric.instrument.as_str(), metric.unit);
        let stop = if metric.description.ends_with('.') {
            ""
        } else {
            "."
        };
        let told = format!("{}{stop} {}", metric.description, metric.note);
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "| `{name}` | {kind} `{unit}`{bounds} | `{}` | {attributes} | {} |",
            prometheus_name(metric),
            told.trim_end()
        );
    }
    text
}

fn attribute(attribute: &Attribute) -> String {
    let values = match attribute.values {
        Values::Words(words) => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(" "),
        Values::Configured(what) => what.to_owned(),
        Values::Executions => "the ids of those executions".to_owned(),
    };
    format!("`{}`: {values}", attribute.name)
}

/// What a metric is called in Prometheus.
#[must_use]
pub fn prometheus_name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    match metric.unit {
        "s" => name.push_str("_seconds"),
        "By" => name.push_str("_bytes"),
        _ => {}
    }
    if metric.instrument == Instrument::Counter {
        name.push_str("_total");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- metrics: begin -->\n";
    const END: &str = "<!-- metrics: end -->\n";

    #[test]
    fn the_documentation_has_every_metric_with_all_its_words() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let wanted = format!("{before}{BEGIN}\n{}\n{END}{after}", metrics_markdown());
        if std::env::var_os("EXECPOOL_BLESS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        } else {
            assert_eq!(
                text, wanted,
                "docs/metrics.md is old; regenerate: EXECPOOL_BLESS=1 cargo test --lib metrics"
            );
        }
    }

    #[test]
    fn names_and_descriptions_are_each_said_once() {
        let all = METRICS.iter().chain(OF_EXECUTIONS).chain(OF_THE_SIDECAR);
        let all: Vec<&Metric> = all.copied().collect();
        for metric in &all {
            let same = all.iter().filter(|other| other.name == metric.name);
            assert_eq!(same.count(), 1, "{}", metric.name);
            assert!(!metric.description.is_empty(), "{}", metric.name);
        }
    }
}
