//! A Prometheus of a test's own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::asking::{Window, get};
use super::support::guard::{self, Watchdog};
use super::support::{eventually, tools};

/// It replays its log and loads its blocks first.
const START: Duration = Duration::from_secs(60);

/// A running Prometheus on the loopback; gone when it is dropped, or when the test program ends.
pub(crate) struct Prometheus {
    directory: TempDir,
    address: String,
    child: Child,
    watchdog: Option<Watchdog>,
}

impl Prometheus {
    /// With this configuration and, where they are given, blocks of series in this text of OpenMetrics.
    pub(crate) async fn start(configuration: &str, series: Option<&str>) -> Self {
        let directory = guard::short_directory();
        let data = directory.path().join("data");
        if let Some(series) = series {
            let file = directory.path().join("series");
            fs::write(&file, series).expect("the directory was just made");
            let mut promtool = Command::new(tools::promtool());
            promtool.args(["tsdb", "create-blocks-from", "openmetrics"]);
            guard::run(promtool.arg(&file).arg(&data));
        }
        let file = directory.path().join("prometheus.yaml");
        fs::write(&file, configuration).expect("the directory was just made");
        let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let log =
            fs::File::create(directory.path().join("log")).expect("the directory was just made");
        let child = Command::new(tools::prometheus())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0) // out of reach of a terminal's Ctrl-C
            .spawn()
            .expect("Prometheus can be run");
        let watchdog = Watchdog::over(child.id(), Signal::SIGKILL, directory.path());
        let prometheus = Self {
            directory,
            address,
            child,
            watchdog: Some(watchdog),
        };
        eventually(START, "Prometheus answers", async || {
            let answer = get(&prometheus.address, "/api/v1/query?query=1").await;
            if answer["status"] == "success" {
                Ok(())
            } else {
                Err(prometheus.log())
            }
        })
        .await;
        prometheus
    }

    /// With these series, and rules that are evaluated every second.
    pub(crate) async fn with_series(series: &str, rules: &Path) -> Self {
        // An interval of a group's own would be half a minute.
        let text = fs::read_to_string(rules).expect("there are rules");
        let quick = guard::short_directory();
        let file = quick.path().join("rules.yaml");
        fs::write(&file, text.replace("interval: 30s", "interval: 1s")).expect("it was just made");
        let file = file.display().to_string();
        let configuration = serde_json::json!({
            "global": {"evaluation_interval": "1s"},
            "rule_files": [file],
        });
        Self::start(&configuration.to_string(), Some(series)).await
    }

    /// Where it is, as `127.0.0.1:9090`.
    pub(crate) fn url(&self) -> &str {
        &self.address
    }

    /// Up to now, and the second that has begun.
    pub(crate) fn window(&self, length: Duration) -> Window {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let to = now.expect("it is later").as_secs() + 1;
        Window {
            from: to - length.as_secs(),
            to,
            step: Duration::from_secs(10),
        }
    }

    /// Waits until each of these has been recorded.
    pub(crate) async fn has_recorded(&self, records: &[String]) {
        for record in records {
            eventually(START, record, async || {
                let answer = get(&self.address, &format!("/api/v1/query?query={record}")).await;
                let count = answer["data"]["result"].as_array().map_or(0, Vec::len);
                if count > 0 { Ok(()) } else { Err(answer) }
            })
            .await;
        }
    }

    /// Workload and pod of each target.
    pub(crate) async fn targets(&self) -> Vec<(String, String)> {
        let found = eventually(START, "there are targets", async || {
            let answer = get(&self.address, "/api/v1/targets?state=active").await;
            let targets = answer["data"]["activeTargets"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if targets.is_empty() {
                Err(answer)
            } else {
                Ok(targets)
            }
        })
        .await;
        let label = |target: &serde_json::Value, name: &str| {
            target["labels"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        found
            .iter()
            .map(|one| (label(one, "workload"), label(one, "pod")))
            .collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
        // Failing means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("---- log of Prometheus ----\n{}", self.log());
        }
    }
}
