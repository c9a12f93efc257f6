//! Where the programs are that the tests run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// One of PostgreSQL's programs, such as `psql`.
pub(crate) fn postgres_program(name: &str) -> PathBuf {
    PathBuf::from(setting("EXECPOOL_PG_BIN")).join(name)
}

/// PgBouncer.
pub(crate) fn pgbouncer() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_PGBOUNCER"))
}

/// An OpenTelemetry Collector.
pub(crate) fn otelcol() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_OTELCOL"))
}

/// Prometheus.
pub(crate) fn prometheus() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_PROMETHEUS"))
}

/// Prometheus' tool for rules and blocks.
pub(crate) fn promtool() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_PROMTOOL"))
}

/// Alertmanager.
pub(crate) fn alertmanager() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_ALERTMANAGER"))
}

/// The directory of the programs of a Kubernetes.
pub(crate) fn kubernetes() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_KUBERNETES"))
}

/// The directory of the unpacked container runtime; `None` where it can't be had.
pub(crate) fn containerd() -> Option<PathBuf> {
    optional("EXECPOOL_CONTAINERD").map(PathBuf::from)
}

/// Helm of a major version, 3 or 4.
pub(crate) fn helm(major: u8) -> PathBuf {
    PathBuf::from(setting(match major {
        3 => "EXECPOOL_HELM3",
        4 => "EXECPOOL_HELM",
        other => panic!("there is no Helm {other} here"),
    }))
}

/// The directory of the Prometheus Operator's resource definitions.
pub(crate) fn prometheus_crds() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_PROMETHEUS_CRDS"))
}

/// The python3 that has the drivers.
pub(crate) fn python() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_PYTHON"))
}

/// The python3 that has what the Python package is tested with.
pub(crate) fn client_python() -> PathBuf {
    PathBuf::from(setting("EXECPOOL_CLIENT_PYTHON"))
}

/// From the environment, as `make test` sets it, else as `scripts/setup` finds it.
fn setting(name: &str) -> String {
    optional(name).unwrap_or_else(|| panic!("scripts/setup finds no {name} on this machine"))
}

/// The same for what not every machine can have.
fn optional(name: &str) -> Option<String> {
    if let Ok(value) = std::env::var(name)
        && !value.is_empty()
    {
        return Some(value);
    }
    static FOUND: OnceLock<Result<HashMap<String, String>, String>> = OnceLock::new();
    match FOUND.get_or_init(find) {
        Ok(found) => found.get(name).cloned(),
        Err(why) => panic!("{name} is not set. Run `make setup` first. It says:\n{why}"),
    }
}

fn find() -> Result<HashMap<String, String>, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup");
    let output = Command::new("bash")
        .args(["-c", r#"found=$("$0" --find) && eval "$found" && env -0"#])
        .arg(script)
        .output()
        .map_err(|error| format!("{script}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let environment = String::from_utf8_lossy(&output.stdout);
    Ok(environment
        .split('\0')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}
