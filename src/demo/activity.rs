//! What PostgreSQL says of its connections: `pg_stat_activity`, asked through a psql that
//! stays connected, so that it can ask when no connection is left.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::cluster::{Cluster, DATABASE};
use super::interrupt::Interrupt;
use super::place::Place;
use super::process::Process;
use super::tools::Tools;

/// The `application_name` of the demo's own connection.
pub(super) const OWN_NAME: &str = "execpool demo";

/// The `application_name` of execpool's connection outside the budget.
pub(super) const MONITOR: &str = "execpool monitor";

/// Ends an answer. No answer has such a line.
const MARK: &str = "==execpool demo==";

const ACTIVITY: &str = "SELECT coalesce(json_agg(json_build_object(\
     'name', application_name, 'state', coalesce(state, ''))), '[]') \
     FROM pg_stat_activity \
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// How long connections may take to vanish before they count as left over.
const VANISH: Duration = Duration::from_secs(5);

/// One connection, as `pg_stat_activity` has it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Backend {
    /// The `application_name`: the agent's.
    pub(super) name: String,
    /// `active`, `idle`, `idle in transaction`, …
    pub(super) state: String,
}

/// All connections but the demo's own at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Vec<Backend>);

impl Activity {
    /// How many there are, without execpool's monitor.
    pub(super) fn connections(&self) -> usize {
        self.0.iter().filter(|one| one.name != MONITOR).count()
    }

    /// How many are execpool's monitor.
    pub(super) fn monitors(&self) -> usize {
        self.of(MONITOR)
    }

    /// How many bear a name.
    pub(super) fn of(&self, name: &str) -> usize {
        self.0.iter().filter(|one| one.name == name).count()
    }

    /// How many of those with a name are in a state.
    pub(super) fn in_state(&self, name: &str, state: &str) -> usize {
        let found = self.0.iter();
        found
            .filter(|one| one.name == name && one.state == state)
            .count()
    }
}

/// The connection that asks.
#[derive(Debug)]
pub(super) struct Observer {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    psql: Process,
}

impl Observer {
    /// Connects straight to the server, as superuser.
    pub(super) fn connect(tools: &Tools, cluster: &Cluster, place: &Place) -> anyhow::Result<Self> {
        let mut command = cluster.client(&tools.postgres("psql"), "postgres");
        command
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", DATABASE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut psql = Process::start("psql", &mut command, Signal::SIGTERM, place)?;
        Ok(Self {
            input: psql.input().context("psql has no input")?,
            output: BufReader::new(psql.output().context("psql has no output")?),
            psql,
        })
    }

    /// All connections now.
    pub(super) fn activity(&mut self) -> anyhow::Result<Activity> {
        self.ask_json(ACTIVITY).map(Activity)
    }

    /// Asks until there are none, for a while; answers how many are left and how long it
    /// took. A backend ends a moment after its client has gone.
    pub(super) fn until_none(
        &mut self,
        interrupt: &Interrupt,
        count: impl Fn(&Activity) -> usize,
    ) -> anyhow::Result<(usize, Duration)> {
        let start = Instant::now();
        loop {
            let left = count(&self.activity()?);
            if left == 0 || start.elapsed() > VANISH {
                return Ok((left, start.elapsed()));
            }
            interrupt.pause(Duration::from_millis(2))?;
        }
    }

    /// The value of a setting, such as `max_connections`.
    pub(super) fn setting(&mut self, name: &str) -> anyhow::Result<String> {
        self.ask(&format!("SHOW {name}"))
    }

    /// How many tool calls have come to their end, over all agents.
    pub(super) fn work_done(&mut self) -> anyhow::Result<usize> {
        Ok(self.ask("SELECT count(*) FROM work")?.parse()?)
    }

    /// Forgets the tool calls so far.
    pub(super) fn forget_work(&mut self) -> anyhow::Result<()> {
        self.ask("TRUNCATE work").map(drop)
    }

    fn ask_json<T: DeserializeOwned>(&mut self, sql: &str) -> anyhow::Result<T> {
        let answer = self.ask(sql)?;
        serde_json::from_str(&answer).with_context(|| format!("PostgreSQL answered {answer}"))
    }

    fn ask(&mut self, sql: &str) -> anyhow::Result<String> {
        writeln!(self.input, "{sql};\n\\echo {MARK}")
            .with_context(|| format!("psql has ended\n{}", self.psql.last_words()))?;
        let mut answer = String::new();
        loop {
            let before = answer.len();
            if self.output.read_line(&mut answer)? == 0 {
                bail!("psql has ended\n{}", self.psql.last_words());
            }
            if answer[before..].trim_end() == MARK {
                answer.truncate(before);
                return Ok(answer.trim_end().to_owned());
            }
        }
    }
}
