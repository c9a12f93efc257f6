//! A real Prometheus: it scrapes, takes OTLP, evaluates rules, alerts, and answers queries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::port::Port;
use super::{guard, http, tools};

/// How it differs from one that has nothing to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrometheusOptions {
    scrapes: Vec<Value>,
    rules: Vec<PathBuf>,
    rule_texts: Vec<String>,
    alertmanagers: Vec<String>,
    otlp: Value,
    file: Option<PathBuf>,
    series: Option<String>,
}

/// A running Prometheus, which scrapes and evaluates once a second. The first scrape comes about six
/// seconds after the start: wait for a state. On a machine that stands still a scrape fails now and then.
pub(crate) struct Prometheus {
    daemon: Daemon,
    port: u16,
}

/// One series of an answer, at the time of the question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// With `__name__` where the answer has one.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl PrometheusOptions {
    /// Scrapes `/metrics` of this address; the series get these labels.
    pub(crate) fn scrape(self, job: &str, address: &str, labels: &[(&str, &str)]) -> Self {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let targets = json!([{"targets": [address], "labels": labels}]);
        self.scrape_config(json!({"job_name": job, "static_configs": targets}))
    }

    /// One more entry of `scrape_configs`.
    pub(crate) fn scrape_config(mut self, entry: Value) -> Self {
        self.scrapes.push(entry);
        self
    }

    /// A file of rules.
    pub(crate) fn rules(mut self, file: &Path) -> Self {
        self.rules.push(file.to_owned());
        self
    }

    /// Rules as YAML or JSON.
    pub(crate) fn rule_text(mut self, text: impl Into<String>) -> Self {
        self.rule_texts.push(text.into());
        self
    }

    /// Sends alerts there.
    pub(crate) fn alert(mut self, alertmanager: &str) -> Self {
        self.alertmanagers.push(alertmanager.to_owned());
        self
    }

    /// The section `otlp` of its configuration.
    pub(crate) fn otlp(mut self, section: Value) -> Self {
        self.otlp = section;
        self
    }

    /// Takes this file as its configuration, and nothing else that is said here.
    pub(crate) fn configuration(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Has these series already, in the text of OpenMetrics.
    pub(crate) fn series(mut self, openmetrics: impl Into<String>) -> Self {
        self.series = Some(openmetrics.into());
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(self) -> Prometheus {
        let directory = guard::short_directory();
        let port = Port::for_good();
        let inside = |name: &str| directory.path().join(name);
        let write =
            |path: &Path, text: &str| std::fs::write(path, text).expect("the directory is ours");
        if let Some(series) = &self.series {
            write(&inside("series"), series);
            let mut promtool = Command::new(tools::promtool());
            promtool.args(["tsdb", "create-blocks-from", "openmetrics"]);
            guard::run(promtool.arg(inside("series")).arg(inside("data")));
        }
        let mut rules = self.rules.clone();
        for (number, text) in self.rule_texts.iter().enumerate() {
            let path = inside(&format!("rules-{number}.yaml"));
            write(&path, text);
            rules.push(path);
        }
        let mut configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": self.scrapes,
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": self.alertmanagers}]}]},
        });
        if !self.otlp.is_null() {
            configuration["otlp"] = self.otlp;
        }
        write(&inside("config.yaml"), &configuration.to_string());
        let file = self.file.unwrap_or_else(|| inside("config.yaml"));
        let mut command = Command::new(tools::prometheus());
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", inside("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.enable-otlp-receiver", "--log.level=warn"])
            // An alert that fires before the Alertmanagers are known is sent to nobody, and by
            // default again after a minute.
            .arg("--rules.alert.resend-delay=1s");
        let daemon = Daemon::start("Prometheus", directory, &mut command, port).await;
        let prometheus = Prometheus { daemon, port };
        super::eventually(
            super::daemon::START,
            "Prometheus is ready",
            async || match http::get_tcp(&prometheus.address(), "/-/ready").await {
                Ok((200, _)) => Ok(()),
                other => Err(other),
            },
        )
        .await;
        prometheus
    }
}

impl Prometheus {
    /// What is set before [`PrometheusOptions::start`].
    pub(crate) fn options() -> PrometheusOptions {
        PrometheusOptions::default()
    }

    /// Where it is: `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it takes OTLP over HTTP: the base of an exporter.
    pub(crate) fn otlp_endpoint(&self) -> String {
        format!("http://{}/api/v1/otlp", self.address())
    }

    /// The process.
    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The answer to a query now; a scalar is a series without labels.
    pub(crate) async fn query(&self, promql: &str) -> Vec<Sample> {
        let answer = self.try_query(promql).await;
        answer.unwrap_or_else(|why| panic!("{promql}: {why}"))
    }

    /// The same where Prometheus may refuse the query: then its words.
    pub(crate) async fn try_query(&self, promql: &str) -> Result<Vec<Sample>, String> {
        let path = format!("/api/v1/query?query={}", encoded(promql));
        let data = self.api(&path).await?;
        let result = &data["result"];
        Ok(match data["resultType"].as_str() {
            Some("vector") => list(result).filter_map(sample).collect(),
            Some("scalar") => sample(&json!({"metric": {}, "value": result}))
                .into_iter()
                .collect(),
            other => return Err(format!("an answer of kind {other:?}: ask for an instant")),
        })
    }

    /// The one number that a query answers, if it answers exactly one.
    pub(crate) async fn value(&self, promql: &str) -> Option<f64> {
        match self.query(promql).await.as_slice() {
            [one] => Some(one.value),
            _ => None,
        }
    }

    /// Waits until a query answers anything.
    pub(crate) async fn has(&self, promql: &str) {
        super::eventually(super::daemon::START, promql, async || {
            match self.query(promql).await {
                none if none.is_empty() => Err(none),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// Waits until all targets, which are so many, have answered their last scrape.
    pub(crate) async fn targets_are_up(&self, count: usize) {
        super::eventually(super::SOON, "all targets are up", async || {
            let data = self.api("/api/v1/targets?state=active").await?;
            let targets: Vec<&Value> = list(&data["activeTargets"]).collect();
            let is_up = |target: &&Value| target["health"] == "up";
            match targets.len() == count && targets.iter().all(is_up) {
                true => Ok(()),
                false => Err(data.to_string()),
            }
        })
        .await;
    }

    /// The alerts that are pending or firing: labels, annotations, state.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let data = self.api("/api/v1/alerts").await;
        let data = data.expect("Prometheus tells its alerts");
        list(&data["alerts"]).cloned().collect()
    }

    /// What a path of the API answers: its `data`, or why not.
    pub(crate) async fn api(&self, path: &str) -> Result<Value, String> {
        let (_, body) = http::get_tcp(&self.address(), path).await?;
        let answer: Value = serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer["error"].as_str().unwrap_or(&body).to_owned()),
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Numbers are strings in the answers, as JSON has no NaN.
fn sample(one: &Value) -> Option<Sample> {
    let labels = one["metric"].as_object()?.iter();
    Some(Sample {
        labels: labels
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        value: one["value"][1].as_str()?.parse().ok()?,
    })
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
