//! Every metric that is asked for, and the series of a small fleet in which all goes wrong: `agent-1` is
//! well, `agent-2` is in every trouble that there is an alert for, and `agent-3` has no metrics of execpool.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use Kind::{Counter, Gauge, Histogram};

/// What all that is scraped has; the last three are of Prometheus' own making.
pub(crate) const OF_TARGETS: [&str; 7] = [
    "namespace",
    "workload",
    "pod",
    "container",
    "alertname",
    "alertstate",
    "severity",
];

/// Metrics that no panel has to show.
pub(crate) const NOT_SHOWN: [&str; 1] = [
    "db_client_connection_idle_min", // always 0
];

/// How long the series are, up to now.
pub(crate) const LENGTH: Duration = Duration::from_secs(40 * 60);
const STEP: u64 = 30;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Name, kind, labels with some of their values.
type Metric = (
    &'static str,
    Kind,
    &'static [(&'static str, &'static [&'static str])],
);

const POOL: (&str, &[&str]) = ("db_client_connection_pool_name", &["app"]);
const NONE: &str = "";

/// execpool's, by their names in Prometheus.
const METRICS: [Metric; 46] = [
    (
        "db_client_connection_count",
        Gauge,
        &[POOL, ("db_client_connection_state", &["idle", "used"])],
    ),
    ("db_client_connection_idle_max", Gauge, &[POOL]),
    ("db_client_connection_idle_min", Gauge, &[POOL]),
    ("db_client_connection_max", Gauge, &[POOL]),
    ("db_client_connection_pending_requests", Gauge, &[POOL]),
    ("db_client_connection_timeouts_total", Counter, &[POOL]),
    (
        "db_client_connection_create_time_seconds",
        Histogram,
        &[POOL],
    ),
    ("db_client_connection_wait_time_seconds", Histogram, &[POOL]),
    ("db_client_connection_use_time_seconds", Histogram, &[POOL]),
    (
        "db_client_operation_duration_seconds",
        Histogram,
        &[
            ("db_system_name", &["postgresql"]),
            ("db_namespace", &["app"]),
            ("server_address", &["db"]),
            ("db_response_status_code", &[NONE, "57014"]),
            ("error_type", &[NONE]),
        ],
    ),
    ("execpool_budget_limit", Gauge, &[]),
    ("execpool_budget_effective", Gauge, &[]),
    ("execpool_budget_used", Gauge, &[]),
    ("execpool_budget_open", Gauge, &[]),
    ("execpool_budget_reserve", Gauge, &[]),
    ("execpool_budget_waiting", Gauge, &[]),
    ("execpool_budget_oldest_wait_seconds", Gauge, &[]),
    (
        "execpool_execution_count",
        Gauge,
        &[("state", &["active", "ending"])],
    ),
    (
        "execpool_execution_ended_total",
        Counter,
        &[("reason", &["deleted", "deadline"])],
    ),
    (
        "execpool_session_count",
        Gauge,
        &[(
            "state",
            &[
                "active",
                "idle_in_transaction",
                "idle",
                "waiting",
                "unbound",
            ],
        )],
    ),
    ("execpool_session_opened_total", Counter, &[]),
    (
        "execpool_session_closed_total",
        Counter,
        &[("reason", &["terminated", "vanished"])],
    ),
    (
        "execpool_session_leaks_total",
        Counter,
        &[("kind", &["suspect", "recovered", "reclaimed", "ended"])],
    ),
    (
        "execpool_session_oldest_seconds",
        Gauge,
        &[("state", &["active", "idle_in_transaction", "idle"])],
    ),
    (
        "execpool_checkout_held_seconds_total",
        Counter,
        &[("state", &["active", "idle_in_transaction", "idle"])],
    ),
    (
        "execpool_server_errors_total",
        Counter,
        &[
            ("phase", &["connect", "auth", "relay"]),
            ("class", &["08", "28", "53"]),
        ],
    ),
    (
        "execpool_cancels_total",
        Counter,
        &[("origin", &["client", "disconnect", "execution", "cleanup"])],
    ),
    ("execpool_pins_total", Counter, &[("reason", &["other"])]),
    (
        "execpool_database_connections",
        Gauge,
        &[("kind", &["max", "ours", "others"])],
    ),
    ("execpool_exhaustion_state", Gauge, &[]),
    (
        "execpool_reactor_actions_total",
        Counter,
        &[
            ("action", &["annotate", "cleanup", "restart"]),
            ("outcome", &["ok", "error", "refused"]),
        ],
    ),
    (
        "execpool_resources",
        Gauge,
        &[("kind", &["browser", "file"])],
    ),
    (
        "execpool_execution_connections",
        Gauge,
        &[("execpool_execution_id", &["run-1", "run-2"])],
    ),
    (
        "execpool_execution_held_seconds_total",
        Counter,
        &[("execpool_execution_id", &["run-1", "run-2"])],
    ),
    ("execpool_log_dropped_total", Counter, &[]),
    ("execpool_snapshot_age_seconds", Gauge, &[]),
    (
        "execpool_scrape_failed_total",
        Counter,
        &[("reason", &["refused", "cut", "failed"])],
    ),
    (
        "process_cpu_time_seconds_total",
        Counter,
        &[("cpu_mode", &["user", "system"])],
    ),
    ("process_memory_usage_bytes", Gauge, &[]),
    ("process_open_file_descriptor_count", Gauge, &[]),
    (
        "otel_sdk_exporter_metric_data_point_exported_total",
        Counter,
        &[("error_type", &[NONE, "unavailable"])],
    ),
    (
        "otel_sdk_exporter_span_exported_total",
        Counter,
        &[("error_type", &[NONE, "unavailable"])],
    ),
    // From here on: Prometheus' own, and the kubelet's.
    ("up", Gauge, &[]),
    (
        "container_memory_working_set_bytes",
        Gauge,
        &[("container", &["app", "execpool"])],
    ),
    (
        "container_spec_memory_limit_bytes",
        Gauge,
        &[("container", &["app", "execpool"])],
    ),
    (
        "container_start_time_seconds",
        Gauge,
        &[("container", &["app", "execpool"])],
    ),
];

/// Upper bounds of buckets, in seconds.
const BOUNDS: [&str; 6] = ["0.01", "0.5", "1", "5", "10", "+Inf"];

/// A word that may be the name of a metric in Prometheus.
pub(crate) fn is_prometheus(word: &str) -> bool {
    let starts = ["execpool_", "db_client_", "process_", "otel_"];
    starts.iter().any(|start| word.starts_with(start))
}

/// execpool's own metrics.
pub(crate) fn ours() -> impl Iterator<Item = &'static str> {
    METRICS
        .iter()
        .map(|(name, _, _)| *name)
        .filter(|name| is_prometheus(name))
}

/// The labels of each series that can be asked for, by its name.
pub(crate) fn labels() -> BTreeMap<String, Vec<&'static str>> {
    let mut known = BTreeMap::from([("ALERTS".to_owned(), vec![])]);
    for (name, kind, labels) in METRICS {
        let own: Vec<&str> = labels.iter().map(|(label, _)| *label).collect();
        if kind != Histogram {
            known.insert(name.to_owned(), own);
            continue;
        }
        for end in ["sum", "count"] {
            known.insert(format!("{name}_{end}"), own.clone());
        }
        let own = own.into_iter().chain(["le"]).collect();
        known.insert(format!("{name}_bucket"), own);
    }
    known
}

/// Every way to choose one value of each label.
fn choices(
    labels: &[(&'static str, &'static [&'static str])],
) -> Vec<Vec<(&'static str, &'static str)>> {
    let mut all = vec![vec![]];
    for (label, values) in labels {
        let with = |chosen: &Vec<_>, value: &&'static str| {
            let mut chosen: Vec<(&str, &str)> = chosen.clone();
            chosen.push((label, value));
            chosen
        };
        all = all
            .iter()
            .flat_map(|chosen| values.iter().map(move |value| with(chosen, value)))
            .collect();
    }
    all
}

/// What a series has at its `step`th sample; `wrong` is for the pod that is in trouble.
fn value(name: &str, kind: Kind, labels: &[(&str, &str)], wrong: bool, step: u64) -> f64 {
    let is = |value: &str| labels.iter().any(|(_, own)| *own == value);
    let steps = step as f64;
    match (name, wrong) {
        ("execpool_budget_limit", _) => 30.0,
        ("execpool_budget_effective", true) => 12.0,
        ("execpool_budget_effective", false) => 30.0,
        ("execpool_budget_used", true) => 30.0,
        ("execpool_budget_oldest_wait_seconds", true) => 19.0,
        // Exhausted, well again, exhausted again.
        ("execpool_exhaustion_state", true) if !(20..40).contains(&step) => 3.0,
        ("execpool_exhaustion_state", _) => 0.0,
        ("execpool_session_leaks_total", _) => {
            if is("suspect") {
                12.0
            } else {
                1.0
            }
        }
        ("execpool_session_oldest_seconds", true) => 400.0,
        ("execpool_checkout_held_seconds_total", _) => {
            steps * if is("active") { 30.0 } else { 300.0 }
        }
        ("execpool_database_connections", _) => {
            if is("max") {
                100.0
            } else {
                40.0
            }
        }
        ("up", wrong) => f64::from(!wrong),
        ("container_memory_working_set_bytes", true) => 95e6,
        ("container_spec_memory_limit_bytes", _) => 1e8,
        ("db_client_connection_create_time_seconds", true) => 0.0,
        _ if kind == Gauge => 1.0,
        _ => steps * 20.0,
    }
}

/// All series, as text that `promtool tsdb create-blocks-from openmetrics` reads.
pub(crate) fn openmetrics() -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let steps = LENGTH.as_secs() / STEP;
    let mut text = String::new();
    for (pod, wrong) in [("agent-1", false), ("agent-2", true), ("agent-3", false)] {
        for (name, kind, labels) in METRICS {
            let is_kubelets = name.starts_with("container_");
            if pod == "agent-3" && !is_kubelets {
                continue;
            }
            for chosen in choices(labels) {
                let mut own = format!("namespace=\"shop\",pod=\"{pod}\"");
                if !is_kubelets {
                    own.push_str(",workload=\"agent\",container=\"execpool\"");
                }
                for (label, value) in chosen.iter().filter(|(_, value)| *value != NONE) {
                    let _ = write!(own, ",{label}=\"{value}\"");
                }
                for step in 0..=steps {
                    let at = now - (steps - step) * STEP;
                    let value = value(name, kind, &chosen, wrong, step);
                    put(&mut text, name, kind, &own, value, at, wrong);
                }
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

fn put(text: &mut String, name: &str, kind: Kind, labels: &str, value: f64, at: u64, slow: bool) {
    if kind != Histogram {
        let _ = writeln!(text, "{name}{{{labels}}} {value} {at}");
        return;
    }
    for (place, bound) in BOUNDS.iter().enumerate() {
        // Where all is slow, a tenth takes over 5 s.
        let share = if slow && place < 4 { 0.9 } else { 1.0 };
        let _ = writeln!(
            text,
            "{name}_bucket{{{labels},le=\"{bound}\"}} {} {at}",
            value * share
        );
    }
    let _ = writeln!(
        text,
        "{name}_sum{{{labels}}} {value} {at}\n{name}_count{{{labels}}} {value} {at}"
    );
}
