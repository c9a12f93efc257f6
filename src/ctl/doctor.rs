//! `execpool doctor`: goes through the whole of a running execpool as an app would, with an execution
//! of its own, and says what is wrong and what to do.
//!
//! | module | gives |
//! |---|---|
//! | `finding` | what a check has found |
//! | `session` | a session at the PostgreSQL socket, as a driver has one |
//! | `probe` | the read-only port |

mod finding;
mod probe;
mod session;

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{self, Client};
use super::error::CtlError;
use super::page::Page;
pub(super) use finding::Finding;
use finding::Findings;
use session::{Session, Trouble};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer that waits for nothing should take at most.
const BRISK: Duration = Duration::from_secs(1);

/// How long connecting and querying may take: longer than `pool.timeout` usually is.
const WAIT: Duration = Duration::from_secs(30);

/// Examines an execpool; answers what was found, all of it, in order.
pub(super) async fn examine(client: &Client, upstream: Option<String>) -> Vec<Finding> {
    let mut doctor = Doctor {
        client,
        findings: Findings::default(),
    };
    if let Some(status) = doctor.control().await {
        doctor.configuration(&status);
        doctor.readiness(&status);
        doctor.budget(&status);
        doctor.telemetry(&status).await;
        doctor.database().await;
        doctor.execution(upstream).await;
    }
    doctor.findings.all()
}

/// Writes what was found.
pub(super) fn show(findings: &[Finding], page: &mut Page) {
    page.table(&["", "", ""], findings.iter().map(Finding::row).collect());
    let failed = findings.iter().filter(|one| one.is_failed()).count();
    page.line(&match failed {
        0 => "All is well.".to_owned(),
        1 => "One check has failed.".to_owned(),
        many => format!("{many} checks have failed."),
    });
}

struct Doctor<'a> {
    client: &'a Client,
    findings: Findings,
}

impl Doctor<'_> {
    /// Whether it answers, and at once, as it should whatever is exhausted.
    async fn control(&mut self) -> Option<Value> {
        let start = Instant::now();
        let answer = self.client.ask("GET", "/v1/status", None, PATIENCE).await;
        let status = self.answered("control", answer)?;
        let took = start.elapsed();
        let detail = format!(
            "execpool {} answers in {} ms",
            status["version"].as_str().unwrap_or("?"),
            took.as_millis()
        );
        match took <= BRISK {
            true => self.findings.ok("control", detail),
            false => {
                let hint = "It answers in milliseconds unless the pod has no CPU: look at the container's limits.";
                self.findings.warning("control", detail, hint);
            }
        }
        Some(status)
    }

    /// Whether what runs is what is configured.
    fn configuration(&mut self, status: &Value) {
        let configuration = &status["configuration"];
        let list = |name: &str| -> Vec<&str> {
            let all = configuration[name].as_array().into_iter().flatten();
            all.filter_map(Value::as_str).collect()
        };
        let (refused, waiting) = (list("refused"), list("waiting_for_restart"));
        if !refused.is_empty() {
            let detail = format!(
                "the file is refused, what ran before runs on: {}",
                refused.join("; ")
            );
            self.findings.failed(
                "configuration",
                detail,
                "Correct the file; `execpool check` tells the same.",
            );
        } else if !waiting.is_empty() {
            let detail = format!("waits for a restart: {}", waiting.join(", "));
            self.findings.warning(
                "configuration",
                detail,
                "Restart the sidecar when it suits.",
            );
        } else {
            self.findings
                .ok("configuration", "what is configured is what runs");
        }
    }

    fn readiness(&mut self, status: &Value) {
        if status["paused"] == true {
            let hint = "Where nobody is at work on the database: `execpool resume`.";
            return self
                .findings
                .failed("readiness", "it is paused: nothing is lent", hint);
        }
        match status["not_ready"].as_str() {
            Some(why) if status["draining"] == true => {
                self.findings.warning(
                    "readiness",
                    why,
                    "It was asked to drain: the pod is about to end.",
                );
            }
            Some(why) => {
                let hint = "It is ready once a database was reached: see the next lines.";
                self.findings.failed("readiness", why, hint);
            }
            None => self.findings.ok("readiness", "ready"),
        }
    }

    fn budget(&mut self, status: &Value) {
        let budget = &status["budget"];
        let count = |name: &str| budget[name].as_u64().unwrap_or_default();
        let (used, limit, waiting) = (count("used"), count("limit"), count("waiting"));
        let detail = format!("{used} of {limit} used, {waiting} waiting");
        if budget["limited_by_database"] == true {
            let detail = format!(
                "{detail}; the database takes no more than {}",
                count("effective")
            );
            let hint = "Raise the database's max_connections, or lower what else connects to it.";
            self.findings.failed("budget", detail, hint);
        } else if waiting > 0 {
            let hint = "`execpool sessions` shows who holds connections and for how long.";
            self.findings.warning("budget", detail, hint);
        } else {
            self.findings.ok("budget", detail);
        }
    }

    async fn telemetry(&mut self, status: &Value) {
        let Some(address) = status["telemetry"].as_str() else {
            let hint = "Probes and metrics need telemetry.listen.";
            return self
                .findings
                .warning("telemetry", "telemetry.listen is off", hint);
        };
        match probe::get(address, "/healthz", PATIENCE).await {
            Ok(200) => self
                .findings
                .ok("telemetry", format!("probes are answered at {address}")),
            Ok(status) => {
                let detail = format!("/healthz at {address} answers {status}");
                self.findings
                    .failed("telemetry", detail, "See execpool's log.");
            }
            Err(error) => {
                let detail = format!("no probe is answered at {address}: {error}");
                let hint = "Is another pod's port in the way, or a network policy?";
                self.findings.failed("telemetry", detail, hint);
            }
        }
    }

    /// Whether the databases answer, and have room.
    async fn database(&mut self) {
        let answer = self
            .client
            .ask("GET", "/v1/database/health", None, PATIENCE)
            .await;
        let Some(health) = self.answered("database", answer) else {
            return;
        };
        for upstream in health["upstreams"].as_array().into_iter().flatten() {
            let name = upstream["name"].as_str().unwrap_or("?");
            let count = |name: &str| upstream[name].as_u64();
            if let Some(why) = upstream["error"].as_str() {
                let hint = "Look at the database, its address and its credentials.";
                self.findings
                    .failed("database", format!("{name}: {why}"), hint);
                continue;
            }
            let (most, reserved) = (count("max_connections"), count("reserved"));
            let (ours, others) = (count("ours"), count("others"));
            let left = most.unwrap_or_default().saturating_sub(
                reserved.unwrap_or_default()
                    + ours.unwrap_or_default()
                    + others.unwrap_or_default(),
            );
            let detail = format!(
                "{name}: PostgreSQL {}, {left} of {} connections left",
                upstream["server_version"].as_str().unwrap_or("?"),
                most.unwrap_or_default()
            );
            match left {
                0 => {
                    let hint = "Raise max_connections, or see who has them all: pg_stat_activity.";
                    self.findings.failed("database", detail, hint);
                }
                _ => self.findings.ok("database", detail),
            }
        }
    }

    /// An execution from its beginning to its end, with a leak on purpose.
    async fn execution(&mut self, upstream: Option<String>) {
        let path = client::path("/v1/executions", [("upstream", upstream)]);
        let answer = self.client.ask("POST", &path, None, PATIENCE).await;
        let Some(created) = self.answered("execution", answer) else {
            return;
        };
        let id = created["id"].as_str().unwrap_or_default().to_owned();
        let url = created["url"].as_str().unwrap_or_default().to_owned();
        self.findings.ok("execution", format!("{id} has begun"));
        let leak = self.leak(&id, &url).await;
        self.end(&id, &url, leak).await;
    }

    /// A session that works, and is then forgotten in its transaction.
    async fn leak(&mut self, id: &str, url: &str) -> Option<(Session, i64)> {
        let start = Instant::now();
        let opened = tokio::time::timeout(WAIT, Session::open(url)).await;
        let mut session = match opened.unwrap_or(Err(Trouble::Timeout(WAIT))) {
            Ok(session) => session,
            Err(trouble) => {
                self.findings
                    .failed("connect", trouble.to_string(), trouble.hint());
                return None;
            }
        };
        self.findings.ok(
            "connect",
            format!("in after {} ms", start.elapsed().as_millis()),
        );
        let asked =
            tokio::time::timeout(WAIT, session.first("BEGIN; SELECT pg_backend_pid()")).await;
        let pid = match asked.unwrap_or(Err(Trouble::Timeout(WAIT))) {
            Ok(pid) => pid.parse().unwrap_or_default(),
            Err(trouble) => {
                self.findings
                    .failed("query", trouble.to_string(), trouble.hint());
                return None;
            }
        };
        self.findings.ok("query", format!("backend {pid} answers"));
        self.tracker(id, pid).await;
        Some((session, pid))
    }

    /// Whether the forgotten transaction is seen for what it is.
    async fn tracker(&mut self, id: &str, pid: i64) {
        let path = client::path("/v1/sessions", [("execution", Some(id.to_owned()))]);
        let answer = self.client.ask("GET", &path, None, PATIENCE).await;
        let Some(sessions) = self.answered("tracker", answer) else {
            return;
        };
        let ours = sessions.as_array().and_then(|all| all.first());
        let state = ours.and_then(|session| session["state"].as_str());
        let label = ours.and_then(|session| session["label"].as_str());
        let hint = "Report it, with the output of `execpool sessions --json`.";
        match (state, label) {
            (Some("idle_in_transaction"), Some(session::LABEL)) => {
                let tracked = ours.and_then(|session| session["server_pid"].as_i64());
                let behind = match tracked == Some(pid) {
                    true => "",
                    false => " (behind a pooler, which makes its own numbers up)",
                };
                let detail =
                    format!("the leak is seen: idle in transaction, backend {pid}{behind}");
                self.findings.ok("tracker", detail);
            }
            (Some(state), _) => {
                let detail = format!("a session idle in transaction is shown as {state}");
                self.findings.failed("tracker", detail, hint);
            }
            (None, _) => {
                self.findings
                    .failed("tracker", "a session that is there is not shown", hint);
            }
        }
    }

    /// Whether the end leaves nothing.
    async fn end(&mut self, id: &str, url: &str, leak: Option<(Session, i64)>) {
        let path = format!("/v1/executions/{}", client::encoded(id));
        let path = client::path(
            &path,
            [("reason", Some("execpool doctor is done".to_owned()))],
        );
        let answer = self.client.ask("DELETE", &path, None, WAIT).await;
        let Some(ended) = self.answered("end", answer) else {
            return;
        };
        if ended["complete"] != true {
            let detail = format!("backends remain: {}", ended["remaining_pids"]);
            let hint = "The maintenance pass ends them; look at the database's load and network.";
            self.findings.failed("end", detail, hint);
        }
        let Some((mut session, pid)) = leak else {
            return;
        };
        let told = tokio::time::timeout(PATIENCE, session.farewell()).await;
        match told.unwrap_or(Err(Trouble::Timeout(PATIENCE))) {
            Ok(sqlstate) if sqlstate == "57P01" => {
                self.findings.ok(
                    "end",
                    "nothing of it is left, and its session was told (57P01)",
                );
            }
            Ok(other) => {
                let detail = format!("the session was told {other} instead of 57P01");
                self.findings.failed("end", detail, "See execpool's log.");
            }
            Err(trouble) => self
                .findings
                .failed("end", trouble.to_string(), trouble.hint()),
        }
        self.activity(url, pid).await;
    }

    /// Whether the database has forgotten it as well.
    async fn activity(&mut self, url: &str, pid: i64) {
        let looked = tokio::time::timeout(WAIT, async {
            let mut session = Session::open_shared(url).await?;
            let sql = format!("SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid = {pid}");
            session.first(&sql).await
        })
        .await;
        match looked.unwrap_or(Err(Trouble::Timeout(WAIT))) {
            Ok(count) if count == "0" => {
                self.findings
                    .ok("pg_stat_activity", format!("backend {pid} is gone"));
            }
            Ok(_) => {
                let detail = format!("backend {pid} is still there");
                let hint = "Behind a pooler this may be: it keeps its own. Else look at the database's load.";
                self.findings.warning("pg_stat_activity", detail, hint);
            }
            Err(trouble) => {
                self.findings
                    .failed("pg_stat_activity", trouble.to_string(), trouble.hint());
            }
        }
    }

    fn answered(&mut self, check: &'static str, answer: Result<Value, CtlError>) -> Option<Value> {
        answer
            .map_err(|error| self.findings.failed(check, error.to_string(), error.hint()))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// What is found by asking somebody who answers everything with this.
    async fn found(answer: Value, ask: impl AsyncFnOnce(&mut Doctor<'_>)) -> Vec<(bool, String)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let (head, body) = ("HTTP/1.1 200 OK\r\ncontent-length:", answer.to_string());
                let text = format!("{head} {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        let client = Client::new(path);
        let mut doctor = Doctor {
            client: &client,
            findings: Findings::default(),
        };
        ask(&mut doctor).await;
        let found = doctor.findings.all().into_iter();
        found
            .map(|one| (one.is_failed(), format!("{one:?}")))
            .collect()
    }

    #[tokio::test]
    async fn a_leak_that_is_not_seen_for_what_it_is_is_a_fault_of_the_tracker() {
        for (sessions, told) in [
            (json!([]), "is not shown"),
            (
                json!([{"state": "idle", "label": session::LABEL}]),
                "shown as idle",
            ),
        ] {
            let found = found(sessions, async |doctor| doctor.tracker("a", 7).await).await;
            assert!(found[0].0 && found[0].1.contains(told), "{found:?}");
        }
        let seen =
            json!([{"state": "idle_in_transaction", "label": session::LABEL, "server_pid": 7}]);
        let found = found(seen, async |doctor| doctor.tracker("a", 7).await).await;
        assert!(!found[0].0, "{found:?}");
    }

    #[tokio::test]
    async fn an_end_that_leaves_something_is_told_with_what_remains() {
        let left = json!({"complete": false, "remaining_pids": [7]});
        let found = found(left, async |doctor| doctor.end("a", "", None).await).await;
        assert!(
            found[0].0 && found[0].1.contains("backends remain: [7]"),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn a_port_that_nobody_answers_is_told() {
        let status = json!({"telemetry": "127.0.0.1:1"});
        let found = found(json!({}), async |doctor| doctor.telemetry(&status).await).await;
        assert!(
            found[0].0 && found[0].1.contains("no probe is answered"),
            "{found:?}"
        );
    }
}
