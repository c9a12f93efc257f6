//! Dashboards, rules and alerts are whole, and what they ask is there to be answered.
//!
//! Every expression is asked of a real Prometheus. Which one is a parameter (`asking`): here one that is
//! filled with the series of a small fleet in which everything goes wrong (`samples`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "dashboards/asking.rs"]
mod asking;
#[path = "dashboards/board.rs"]
mod board;
#[path = "dashboards/files.rs"]
mod files;
#[path = "dashboards/promql.rs"]
mod promql;
#[path = "dashboards/rules.rs"]
mod rules;
#[path = "dashboards/samples.rs"]
mod samples;
mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use asking::{Answer, Variables, Window};
use board::Dashboard;
use files::{dashboards, expressions, path, text};
use support::prometheus::Prometheus;
use support::{eventually, guard, tools};

/// The anchors of `docs/sre.md`, as a page's viewer makes them of its headings.
fn anchors() -> BTreeSet<String> {
    let page = text("docs/sre.md");
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn the_dashboards_are_what_their_generator_writes() {
    let make = path("deploy/grafana/make.py");
    guard::run(Command::new(tools::python()).arg(make).arg("--check"));
}

#[test]
fn grafanas_own_model_of_a_dashboard_reads_them_and_loses_nothing() {
    let mut check = Command::new(tools::python());
    check.arg(path("tests/dashboards/model.py"));
    guard::run(check.arg(path("deploy/grafana/dashboards")));
}

#[test]
fn a_dashboard_has_what_an_import_needs_and_leads_to_the_other_one() {
    for board in dashboards() {
        board.assert_whole();
    }
}

#[test]
fn every_panel_has_a_title_a_description_a_unit_and_a_place_of_its_own() {
    for board in dashboards() {
        board.assert_panels();
    }
}

#[test]
fn links_to_runbooks_lead_to_headings_of_the_page() {
    let anchors = anchors();
    let boards = dashboards();
    let urls = boards.iter().flat_map(Dashboard::urls);
    let urls: Vec<String> = urls.chain(rules::runbooks()).collect();
    let mut seen = 0;
    for url in urls {
        let Some((page, anchor)) = url.split_once('#') else {
            continue;
        };
        assert!(page.ends_with("/docs/sre.md"), "{url}");
        assert!(anchors.contains(anchor), "{url}: there is no such heading");
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn every_alert_tells_how_bad_it_is_what_it_means_and_where_its_runbook_is() {
    let page = text("docs/sre.md");
    for alert in rules::alerts() {
        alert.assert_whole();
        let name = &alert.name;
        assert!(
            page.contains(&format!("### {name}\n")),
            "no runbook: {name}"
        );
    }
    let names: BTreeSet<String> = rules::alerts()
        .into_iter()
        .map(|alert| alert.name)
        .collect();
    let runbooks = page
        .lines()
        .filter_map(|line| line.strip_prefix("### Execpool"));
    for runbook in runbooks {
        let name = format!("Execpool{runbook}");
        assert!(names.contains(&name), "a runbook of no alert: {name}");
    }
}

#[test]
fn the_page_tells_of_every_row_and_every_recorded_series() {
    let page = text("docs/sre.md");
    for board in dashboards() {
        for row in board.rows() {
            assert!(
                page.contains(&row),
                "docs/sre.md does not tell of the row {row}"
            );
        }
    }
    for record in rules::records() {
        let told = page.contains(&format!("`{record}`"));
        assert!(told, "docs/sre.md does not tell of {record}");
    }
}

#[test]
fn every_metric_and_label_that_is_asked_for_is_one_that_is_exported() {
    let known = samples::labels();
    let mut asked = BTreeSet::new();
    for expression in expressions() {
        let used = promql::used(&asking::substituted(
            &expression.text,
            &Variables::default(),
        ));
        let mut labels: BTreeSet<&str> = samples::OF_TARGETS.iter().copied().collect();
        for metric in &used.metrics {
            let own = match metric.contains(':') {
                true => rules::labels(metric),
                false => known.get(metric.as_str()).cloned(),
            };
            let own = own.unwrap_or_else(|| panic!("{expression}: there is no {metric}"));
            labels.extend(own);
            asked.insert(metric.clone());
        }
        let legend = board::placeholders(&expression.legend);
        for label in used.labels.iter().chain(&legend) {
            assert!(
                labels.contains(label.as_str()),
                "{expression}: nothing has the label {label}, only {labels:?}"
            );
        }
    }
    // What is exported and nobody looks at is a panel that is missing.
    for metric in known.keys() {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| metric.strip_suffix(end));
        let family = family.unwrap_or(metric);
        let is_asked = |asked: &String| asked.starts_with(family);
        let is_spared = samples::NOT_SHOWN.contains(&family);
        assert!(asked.iter().any(is_asked) != is_spared, "{metric}");
    }
}

#[test]
fn the_table_of_metrics_is_that_of_the_documentation() {
    let page = text("docs/metrics.md");
    let told = page.lines().filter(|line| line.starts_with("| `"));
    let told = told.filter_map(|line| line.split('`').find(|word| samples::is_prometheus(word)));
    let told: BTreeSet<&str> = told.collect();
    let asked: BTreeSet<&str> = samples::ours().collect();
    assert_eq!(
        told, asked,
        "what docs/metrics.md tells of, and what is shown"
    );
}

#[test]
fn the_rules_pass_promtools_lint_and_their_unit_tests() {
    let rules = path("deploy/prometheus/execpool.rules.yaml");
    let mut check = Command::new(tools::promtool());
    guard::run(
        check
            .args(["check", "rules", "--lint=all", "--lint-fatal"])
            .arg(rules),
    );
    let mut test = Command::new(tools::promtool());
    guard::run(test.args(["test", "rules"]).args(rules::test_files()));
}

#[test]
fn every_alert_is_tested_firing_and_silent() {
    let tests = rules::tested();
    for alert in rules::alerts() {
        let name = alert.name;
        assert!(
            tests.firing.contains(&name),
            "{name} is never tested firing"
        );
        assert!(
            tests.silent.contains(&name),
            "{name} is never tested silent"
        );
    }
}

#[tokio::test]
async fn the_example_of_scraping_gives_targets_the_labels_that_all_goes_by() {
    // Discovery is Kubernetes'; here its labels are given by hand.
    let target = |kind: &str, controller: &str, pod: &str, phase: &str, port: &str| {
        serde_json::json!({
            "targets": [format!("127.0.0.1:1/{pod}").split('/').next().unwrap()],
            "labels": {
                "__meta_kubernetes_namespace": "shop",
                "__meta_kubernetes_pod_name": pod,
                "__meta_kubernetes_pod_phase": phase,
                "__meta_kubernetes_pod_container_name": "execpool",
                "__meta_kubernetes_pod_container_port_number": port,
                "__meta_kubernetes_pod_controller_kind": kind,
                "__meta_kubernetes_pod_controller_name": controller,
            },
        })
    };
    let targets = serde_json::json!([
        target(
            "ReplicaSet",
            "agent-5d4f8c7b9",
            "agent-5d4f8c7b9-x2x7q",
            "Running",
            "9464"
        ),
        target("StatefulSet", "store", "store-0", "Running", "9464"),
        target("Job", "nightly", "nightly-abcde", "Succeeded", "9464"),
        target("ReplicaSet", "other-1", "other-1-a", "Running", "8080"),
    ]);
    let example = text("deploy/prometheus/scrape.example.yaml");
    let example = rules::with_static_targets(&example, targets);
    let directory = guard::short_directory();
    let file = directory.path().join("scrape.yaml");
    std::fs::write(&file, example).unwrap();
    let prometheus = Prometheus::options().configuration(&file).start().await;
    let soon = Duration::from_secs(60);
    let found = eventually(soon, "there are targets", async || {
        let answer = prometheus.api("/api/v1/targets?state=active").await?;
        match answer["activeTargets"].as_array() {
            Some(targets) if !targets.is_empty() => Ok(targets.clone()),
            _ => Err(answer.to_string()),
        }
    })
    .await;
    let label = |target: &serde_json::Value, name: &str| target["labels"][name].to_string();
    let found: BTreeSet<(String, String)> = found
        .iter()
        .map(|one| (label(one, "workload"), label(one, "pod")))
        .collect();
    let expected = [("agent", "agent-5d4f8c7b9-x2x7q"), ("store", "store-0")];
    let quoted = |text: &str| format!("\"{text}\"");
    let expected = expected.map(|(workload, pod)| (quoted(workload), quoted(pod)));
    let expected = BTreeSet::from(expected);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn every_expression_is_answered_by_a_prometheus_with_a_fleet_in_which_all_goes_wrong() {
    let prometheus = Prometheus::options()
        .series(samples::openmetrics())
        .rule_text(rules::quick())
        .start()
        .await;
    let variables = Variables {
        namespace: "shop".into(),
        workload: "agent".into(),
        ..Variables::default()
    };
    let expressions = expressions();
    assert!(expressions.len() > 150, "{}", expressions.len());
    for record in rules::records() {
        prometheus.has(&record).await;
    }
    let window = Window::of(samples::LENGTH, Duration::from_secs(10));
    let address = prometheus.address();
    let answers = asking::ask_all(&address, &expressions, &variables, window).await;
    let wrong: Vec<String> = expressions
        .iter()
        .zip(answers)
        .filter(|(_, answer)| *answer != Answer::Data)
        .map(|(expression, answer)| format!("{answer:?}: {expression}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
