//! A real Alertmanager, which takes alerts and can be asked for them.

use std::process::Command;

use serde_json::Value;

use super::daemon::Daemon;
use super::port::Port;
use super::{guard, http, tools};

/// Takes everything, sends nothing on.
const CONFIGURATION: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

/// A running Alertmanager on the loopback.
pub(crate) struct Alertmanager {
    _daemon: Daemon,
    port: u16,
}

impl Alertmanager {
    pub(crate) async fn start() -> Self {
        let directory = guard::short_directory();
        let port = Port::for_good();
        let path = directory.path().join("config.yaml");
        std::fs::write(&path, CONFIGURATION).expect("the directory was just made");
        let mut command = Command::new(tools::alertmanager());
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let daemon = Daemon::start("Alertmanager", directory, &mut command, port).await;
        Self {
            _daemon: daemon,
            port,
        }
    }

    /// Where it is, as `127.0.0.1:9093`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The alerts that it was sent and has not seen the end of: labels, annotations, since when.
    pub(crate) async fn received(&self) -> Vec<Value> {
        let answer = http::get_tcp(&self.address(), "/api/v2/alerts").await;
        match answer.map(|(status, body)| (status, serde_json::from_str(&body))) {
            Ok((200, Ok(Value::Array(alerts)))) => alerts,
            other => panic!("Alertmanager does not tell its alerts: {other:?}"),
        }
    }
}
