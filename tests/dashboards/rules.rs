//! The rules of Prometheus, and their unit tests.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::board::Expression;
use super::files::{path, text};

const RULES: &str = "deploy/prometheus/execpool.rules.yaml";
/// How bad something can be.
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
/// What the levels in the names of recorded series stand for.
const LEVELS: [(&str, &[&str]); 9] = [
    ("workload", &["namespace", "workload"]),
    ("pod", &["namespace", "workload", "pod"]),
    ("pool", &["db_client_connection_pool_name"]),
    ("container", &["container"]),
    ("state", &["state"]),
    ("reason", &["reason"]),
    ("phase", &["phase"]),
    ("class", &["class"]),
    ("le", &["le"]),
];

#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    rule: Value,
}

impl Alert {
    pub(crate) fn assert_whole(&self) {
        let (name, rule) = (&self.name, &self.rule);
        assert!(name.starts_with("Execpool"), "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(SEVERITIES.contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description", "runbook_url"] {
            let told = rule["annotations"][annotation].as_str().unwrap_or_default();
            assert!(!told.is_empty(), "{name} has no {annotation}");
        }
        let description = rule["annotations"]["description"].as_str().unwrap();
        assert!(
            description.contains("First "),
            "{name} does not say what to do first"
        );
        assert!(description.contains("$labels.pod"), "{name} names no pod");
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(
            runbook.ends_with(&format!("#{}", name.to_lowercase())),
            "{runbook}"
        );
        // Who is paged at once is paged for what is over already.
        assert!(rule["for"].is_string() || severity == "info", "{name}");
    }
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The rules for a test's own Prometheus: nothing waits for an interval, or lasts before it is told.
pub(crate) fn quick() -> String {
    let quick = text(RULES).replace("interval: 30s", "interval: 1s");
    let lasting = ["for: 1m\n", "for: 5m\n", "for: 10m\n", "for: 15m\n"];
    let shorten = |text: String, long: &str| text.replace(long, "for: 1s\n");
    lasting.into_iter().fold(quick, shorten)
}

fn rules() -> Vec<Value> {
    let file = yaml(&text(RULES));
    let groups = file["groups"].as_array().unwrap().clone();
    let rules = groups
        .into_iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

pub(crate) fn alerts() -> Vec<Alert> {
    let alerts = rules().into_iter().filter_map(|rule| {
        let name = rule["alert"].as_str()?.to_owned();
        Some(Alert { name, rule })
    });
    alerts.collect()
}

/// The names of recorded series.
pub(crate) fn records() -> Vec<String> {
    let records = rules()
        .into_iter()
        .filter_map(|rule| Some(rule["record"].as_str()?.to_owned()));
    records.collect()
}

pub(crate) fn runbooks() -> Vec<String> {
    let runbook = |alert: Alert| {
        alert.rule["annotations"]["runbook_url"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    alerts().into_iter().map(runbook).collect()
}

/// What recording rules and alerts ask.
pub(crate) fn expressions() -> Vec<Expression> {
    let expressions = rules().into_iter().map(|rule| {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
        Expression {
            place: format!("{RULES}, {name}"),
            text: rule["expr"]
                .as_str()
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            legend: String::new(),
        }
    });
    expressions.collect()
}

/// The labels of a recorded series, if there is one of that name.
pub(crate) fn labels(record: &str) -> Option<Vec<&'static str>> {
    if !records().iter().any(|one| one == record) {
        return None;
    }
    let level = record.split(':').next()?;
    let labels = level.split('_').flat_map(|word| {
        let known = LEVELS.iter().find(|(level, _)| *level == word);
        known
            .unwrap_or_else(|| panic!("{record}: what is the level {word}?"))
            .1
    });
    Some(labels.copied().collect())
}

/// The unit tests for promtool.
pub(crate) fn test_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path("deploy/prometheus/tests")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[derive(Debug, Default)]
pub(crate) struct Tested {
    pub(crate) firing: BTreeSet<String>,
    pub(crate) silent: BTreeSet<String>,
}

/// Which alerts the unit tests see firing, with all that they tell, and which silent.
pub(crate) fn tested() -> Tested {
    let mut tested = Tested::default();
    for file in test_files() {
        let file = yaml(&std::fs::read_to_string(file).unwrap());
        for test in file["tests"].as_array().unwrap() {
            for case in test["alert_rule_test"].as_array().into_iter().flatten() {
                let name = case["alertname"].as_str().unwrap().to_owned();
                let fires = case["exp_alerts"]
                    .as_array()
                    .is_some_and(|alerts| !alerts.is_empty());
                match fires {
                    true => tested.firing.insert(name),
                    false => tested.silent.insert(name),
                };
            }
            for case in test["promql_expr_test"].as_array().into_iter().flatten() {
                let expression = case["expr"].as_str().unwrap();
                let none = case["exp_samples"].as_array().is_none_or(Vec::is_empty);
                let named = expression.split("alertname=\"").nth(1);
                if let (true, Some(rest)) = (none, named) {
                    let name = rest.split('"').next().unwrap();
                    tested.silent.insert(name.to_owned());
                }
            }
        }
    }
    tested
}

/// The example of scraping, with targets that are given instead of discovered.
pub(crate) fn with_static_targets(example: &str, targets: Value) -> String {
    let mut file = yaml(example);
    let job = file["scrape_configs"][0].take();
    let mut job = job.as_object().unwrap().clone();
    job.remove("kubernetes_sd_configs")
        .expect("pods are discovered");
    job.insert("static_configs".into(), targets);
    serde_json::json!({"scrape_configs": [job]}).to_string()
}
