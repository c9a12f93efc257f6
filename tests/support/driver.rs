//! The driver matrix: a program that uses one driver is run twice, in two databases, and
//! everything it observes must be the same.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::postgres::{Database, Postgres};
use super::sidecar::Sidecar;
use super::tools;

/// What every driver is asked to do. A driver that can't says so in its observation.
pub(crate) const MATRIX: [&str; 16] = [
    "startup",
    "parameter_status",
    "prepared_six_times",
    "enum",
    "array",
    "jsonb",
    "copy",
    "one_megabyte",
    "error_in_transaction",
    "error_fields",
    "notices",
    "server_side_cursor",
    "notify",
    "cancel",
    "pipeline_with_error",
    "default_pool",
];

/// A program is of many steps, each of which has its own patience.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What a driver saw, by name, in the order in which it looked.
pub(crate) type Observations = Vec<(String, Value)>;

/// The password of the TCP listener, which a URL writes otherwise.
const TCP_PASSWORD: &str = "p:a/s@s%";

/// Three fresh databases for three runs of one program: the first is reached directly, the others
/// through execpool, over its socket and over TCP. What a driver sees of all must be the same.
pub(crate) struct Places {
    pub(crate) first: Database,
    pub(crate) second: Database,
    pub(crate) third: Database,
    pub(crate) sidecar: Sidecar,
    tcp: SocketAddr,
}

impl Places {
    pub(crate) async fn fresh(name: &str) -> Self {
        let postgres = Postgres::shared();
        let second = postgres.database(&format!("{name}_proxied")).await;
        let third = postgres.database(&format!("{name}_tcp")).await;
        let yaml = format!(
            "upstreams:\n- {{name: {}, url: '{}'}}\n- {{name: {}, url: '{}'}}\n\
             listen: {{tcp: '127.0.0.1:0', tcp_password_file: '{{dir}}/password', dir: '{{dir}}'}}\n\
             telemetry: {{listen: off}}\n",
            second.name,
            second.url(),
            third.name,
            third.url()
        );
        let sidecar = Sidecar::options()
            .config(yaml)
            .file("password", TCP_PASSWORD)
            .start()
            .await;
        Self {
            first: postgres.database(&format!("{name}_direct")).await,
            tcp: sidecar.tcp().await,
            sidecar,
            second,
            third,
        }
    }

    pub(crate) fn direct_url(&self) -> String {
        format!("{}&application_name=matrix", self.first.url())
    }

    /// As an app that knows nothing of execpool but its URL.
    pub(crate) fn proxied_url(&self) -> String {
        let url = self.sidecar.url(&self.second.name);
        format!("{url}&application_name=matrix")
    }

    /// As an app that can't use the socket.
    pub(crate) fn tcp_url(&self) -> String {
        let name = &self.third.name;
        let url = format!("postgresql://app:p%3Aa%2Fs%40s%25@{}/{name}", self.tcp);
        format!("{url}?application_name=matrix")
    }
}

/// Runs `tests/drivers/{name}.py` in all places at once and compares.
pub(crate) async fn program_sees_the_same(name: &str) {
    let places = Places::fresh(name).await;
    let (direct, proxied) = (places.direct_url(), places.proxied_url());
    let tcp = places.tcp_url();
    let (direct, proxied, tcp) =
        tokio::join!(run(name, &direct), run(name, &proxied), run(name, &tcp));
    assert_complete(&direct, &[]);
    assert_same(&direct, &proxied);
    assert_same(&direct, &tcp);
}

/// An observation for what a driver has no means for.
pub(crate) fn not_offered(why: &str) -> Value {
    json!({"not_offered": why})
}

/// Asserts that the whole matrix was looked at, and that only what is in `left_out`
/// is not offered by the driver.
pub(crate) fn assert_complete(observations: &Observations, left_out: &[&str]) {
    let names = |wanted: &dyn Fn(&Value) -> bool| -> Vec<&str> {
        let all = observations.iter().filter(|(_, value)| wanted(value));
        all.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(
        names(&|_| true),
        MATRIX,
        "not the whole matrix was looked at"
    );
    let not_offered = names(&|value| value.get("not_offered").is_some());
    assert_eq!(not_offered, left_out, "not offered by the driver");
}

/// Asserts that two runs saw the same; says what differs, entry by entry.
pub(crate) fn assert_same(first: &Observations, second: &Observations) {
    let mut differences = String::new();
    for ((name, first), (other, second)) in first.iter().zip(second) {
        assert_eq!(name, other, "the runs looked at different things");
        describe(name, first, second, &mut differences);
    }
    assert_eq!(first.len(), second.len(), "one run saw less");
    assert!(
        differences.is_empty(),
        "the second run sees something else:\n{differences}"
    );
}

/// Appends where two values differ, down to the smallest part.
fn describe(path: &str, first: &Value, second: &Value, out: &mut String) {
    match (first, second) {
        _ if first == second => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let (a, b) = (a.get(key), b.get(key));
                let none = Value::String("(absent)".to_owned());
                describe(
                    &format!("{path}.{key}"),
                    a.unwrap_or(&none),
                    b.unwrap_or(&none),
                    out,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                describe(&format!("{path}[{index}]"), a, b, out);
            }
        }
        _ => {
            let _ = writeln!(out, "  {path}\n    first:  {first}\n    second: {second}");
        }
    }
}

/// Runs `tests/drivers/{name}.py`; answers what it observed.
pub(crate) async fn run(name: &str, url: &str) -> Observations {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/drivers/{name}.py"));
    let output = tokio::process::Command::new(tools::python())
        .arg(&program)
        .arg(url)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIMEOUT, output)
        .await
        .unwrap_or_else(|_| panic!("{name}.py {url} hangs"))
        .expect("python3 can be run");
    assert!(
        output.status.success(),
        "{name}.py {url}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{name}.py {url} prints no observations: {error}"))
}
