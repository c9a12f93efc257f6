//! The control API, as the platform's code and the person who looks use it: a few lines of
//! HTTP over the socket, blocking as all of the demo is.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longer than the longest answer: that to DELETE comes within 5 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of the control socket.
#[derive(Debug)]
pub(super) struct Control {
    socket: PathBuf,
}

/// `GET /v1/status`, as far as it is shown.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) budget: Budget,
    pub(super) executions: ExecutionCounts,
    pub(super) sessions: SessionCounts,
}

/// The pod's server connections.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Budget {
    pub(super) limit: usize,
    pub(super) used: usize,
    pub(super) open: usize,
    pub(super) waiting: usize,
    pub(super) oldest_wait_seconds: f64,
}

/// How many executions there are.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ExecutionCounts {
    pub(super) active: usize,
    pub(super) ending: usize,
}

/// How many sessions there are, by what they do.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SessionCounts {
    pub(super) total: usize,
    pub(super) waiting: usize,
    pub(super) active: usize,
    pub(super) idle_in_transaction: usize,
    pub(super) idle: usize,
}

/// One of `GET /v1/executions`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Execution {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) age_seconds: f64,
    pub(super) sessions: usize,
    pub(super) queries: u64,
    pub(super) pools: Vec<Pool>,
}

/// The server connections of an execution to one database.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pool {
    pub(super) open: usize,
    pub(super) lent: usize,
    pub(super) waiting: usize,
}

/// One of `GET /v1/sessions`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Session {
    pub(super) execution: String,
    pub(super) state: String,
    pub(super) state_age_seconds: f64,
    pub(super) held_seconds: f64,
    pub(super) statement: Option<String>,
    pub(super) server_pid: Option<i32>,
}

/// The summary of an execution that ended.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) leftovers: usize,
}

/// `DELETE /v1/executions/{id}`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Deleted {
    pub(super) complete: bool,
}

/// One of `GET /v1/executions?ended=true`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Ended(Ended),
    Alive {},
}

impl Control {
    /// Of the socket in a directory of execpool's.
    pub(super) fn at(folder: &Path) -> Self {
        Self {
            socket: folder.join("control.sock"),
        }
    }

    /// The status, and how long the answer took.
    pub(super) fn status(&self) -> anyhow::Result<(Status, Duration)> {
        let start = Instant::now();
        let status = self.ask("GET", "/v1/status")?;
        Ok((status, start.elapsed()))
    }

    /// The executions that have not ended.
    pub(super) fn executions(&self) -> anyhow::Result<Vec<Execution>> {
        self.ask("GET", "/v1/executions")
    }

    /// The sessions.
    pub(super) fn sessions(&self) -> anyhow::Result<Vec<Session>> {
        self.ask("GET", "/v1/sessions")
    }

    /// What is kept of the executions that ended.
    pub(super) fn ended(&self) -> anyhow::Result<Vec<Ended>> {
        let listed: Vec<Listed> = self.ask("GET", "/v1/executions?ended=true")?;
        let ended = listed.into_iter().filter_map(|one| match one {
            Listed::Ended(ended) => Some(ended),
            Listed::Alive {} => None,
        });
        Ok(ended.collect())
    }

    /// Ends an execution; answers when nothing of it is left.
    pub(super) fn end(&self, id: &str) -> anyhow::Result<Deleted> {
        self.ask("DELETE", &format!("/v1/executions/{id}?reason=demo"))
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str) -> anyhow::Result<T> {
        let (status, body) = self
            .exchange(method, path)
            .with_context(|| format!("execpool's control socket: {method} {path}"))?;
        if status != 200 {
            bail!("{method} {path}: execpool answered {status}: {body}");
        }
        serde_json::from_str(&body)
            .with_context(|| format!("{method} {path}: execpool answered {body}"))
    }

    /// One request on a connection of its own; answers the status and the body.
    fn exchange(&self, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: execpool\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        if head.to_ascii_lowercase().contains("\r\ntransfer-encoding:") {
            bail!("the answer comes in chunks, which the demo does not read");
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((status.context("the answer is not HTTP")?, body.to_owned()))
    }
}
