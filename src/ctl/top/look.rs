//! What one answer of `GET /v1/status?include=executions,sessions` says, as far as it is shown. What an
//! answer does not have is as if it said nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All that is known of one moment. Times are in seconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Look {
    pub(super) version: String,
    pub(super) uptime_seconds: f64,
    pub(super) paused: bool,
    pub(super) paused_seconds: Option<f64>,
    pub(super) draining: bool,
    pub(super) not_ready: Option<String>,
    pub(super) budget: Budget,
    pub(super) exhaustion: Option<Exhaustion>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) executions: Executions,
    pub(super) sessions: Sessions,
    pub(super) rates: Rates,
    pub(super) memory: Memory,
    pub(super) included: Included,
}

/// The pod's server connections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Budget {
    pub(super) limit: u64,
    pub(super) effective: u64,
    pub(super) used: u64,
    pub(super) open: u64,
    pub(super) waiting: u64,
    pub(super) oldest_wait_seconds: f64,
    pub(super) limited_by_database: bool,
}

/// Whether the budget is exhausted, and since when.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Exhaustion {
    pub(super) state: String,
    pub(super) age_seconds: f64,
}

/// A database as it was last seen.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) reachable: Option<bool>,
    pub(super) latency_seconds: Option<f64>,
}

/// How many executions there are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Executions {
    pub(super) active: u64,
    pub(super) ending: u64,
}

/// How many sessions there are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sessions {
    pub(super) total: u64,
    pub(super) leak_suspects: u64,
}

/// How fast they come and go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rates {
    pub(super) sessions_opened_per_second: f64,
    pub(super) sessions_closed_per_second: f64,
    pub(super) executions_begun_per_second: f64,
    pub(super) executions_ended_per_second: f64,
}

/// The sidecar's own memory.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) resident_bytes: Option<f64>,
}

/// The lists, those who hold most first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Included {
    pub(super) executions: Listed<Execution>,
    pub(super) sessions: Listed<Session>,
}

/// A list of a bounded size, and how many it leaves out.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Listed<T> {
    pub(super) listed: Vec<T>,
    pub(super) left_out: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            listed: Vec::new(),
            left_out: 0,
        }
    }
}

/// An execution.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Execution {
    pub(super) id: String,
    pub(super) generation: u64,
    pub(super) state: String,
    pub(super) kind: String,
    pub(super) reason: Option<String>,
    pub(super) age_seconds: f64,
    pub(super) deadline_seconds: Option<f64>,
    pub(super) holds: u64,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) sessions: u64,
    pub(super) queries: u64,
    pub(super) held_seconds: f64,
    pub(super) hold_efficiency: Option<f64>,
    pub(super) resources: BTreeMap<String, u64>,
    pub(super) pools: Vec<Pool>,
    /// What its listed sessions add up to.
    #[serde(skip)]
    pub(super) sum: Sum,
}

/// What the listed sessions of an execution add up to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    /// The time for which the first of them has held a connection, of those that hold one now.
    pub(super) oldest: Option<f64>,
    pub(super) suspects: u64,
    /// Those that run a query.
    pub(super) running: u64,
}

/// The server connections of an execution to one upstream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    pub(super) upstream: String,
    pub(super) size: Option<u64>,
    pub(super) overflow: Option<u64>,
    pub(super) open: u64,
    pub(super) lent: u64,
    pub(super) peak: u64,
    pub(super) waiting: u64,
    pub(super) oldest_wait_seconds: f64,
}

/// A session.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) execution: String,
    pub(super) upstream: String,
    pub(super) database: String,
    pub(super) application_name: Option<String>,
    pub(super) state: String,
    pub(super) age_seconds: f64,
    pub(super) state_age_seconds: f64,
    pub(super) leak_suspect: bool,
    pub(super) transaction_seconds: Option<f64>,
    pub(super) queries: u64,
    pub(super) held_seconds: f64,
    pub(super) hold_efficiency: Option<f64>,
    pub(super) caller: Option<String>,
    pub(super) label: Option<String>,
    pub(super) traceparent: Option<String>,
    pub(super) server_pid: Option<i64>,
    pub(super) statement: Option<String>,
}

impl Look {
    /// Reads an answer.
    ///
    /// # Errors
    /// It is none of a status.
    pub(super) fn read(answer: serde_json::Value) -> Result<Self, serde_json::Error> {
        let mut look: Self = serde_json::from_value(answer)?;
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for session in &look.included.sessions.listed {
            let sum = sums.entry(&session.execution).or_default();
            sum.suspects += u64::from(session.leak_suspect);
            sum.running += u64::from(session.is_running());
            if session.server_pid.is_some() {
                let oldest = sum.oldest.unwrap_or_default();
                sum.oldest = Some(oldest.max(session.held_seconds));
            }
        }
        for execution in &mut look.included.executions.listed {
            execution.sum = sums.get(&*execution.id).copied().unwrap_or_default();
        }
        Ok(look)
    }
}

impl Execution {
    fn over(&self, count: impl Fn(&Pool) -> u64) -> u64 {
        self.pools.iter().map(count).sum()
    }

    /// Connections that its sessions hold.
    pub(super) fn lent(&self) -> u64 {
        self.over(|pool| pool.lent)
    }

    /// Connections that are open for it.
    pub(super) fn open(&self) -> u64 {
        self.over(|pool| pool.open)
    }

    /// Checkouts that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.over(|pool| pool.waiting)
    }

    /// Its labels on one line.
    pub(super) fn labels(&self) -> String {
        let labels = self.labels.iter();
        let labels: Vec<String> = labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        labels.join(" ")
    }
}

impl Session {
    /// Whether it runs a query.
    pub(super) fn is_running(&self) -> bool {
        self.state == "active"
    }

    /// Where it was opened, or else what it calls itself.
    pub(super) fn who(&self) -> &str {
        let names = [&self.caller, &self.label, &self.application_name];
        let mut known = names.into_iter().flatten();
        known.next().map_or("", String::as_str)
    }

    /// Its last statement.
    pub(super) fn statement(&self) -> &str {
        self.statement.as_deref().unwrap_or_default()
    }
}
