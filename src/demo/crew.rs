//! The workload: a dozen agents, and pgbench beside them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::cluster::{self, DATABASE, ROLE};
use super::interrupt::Interrupt;
use super::place::Place;
use super::process::Process;
use super::tools::Tools;

/// The agents' program, so that an installed binary has it.
const WORKLOAD: &str = include_str!("workload.py");

/// How many agents run side by side.
pub(super) const AGENTS: usize = 12;

/// How many tools an agent uses at once, each with a connection.
pub(super) const TOOLS_AT_ONCE: usize = 5;

/// How many tool calls an agent makes before its work is done.
const TASKS: usize = 8;

/// The `application_name` of pgbench's connections.
pub(super) const PGBENCH: &str = "pgbench";

/// Connections of pgbench.
const PGBENCH_CLIENTS: usize = 4;

/// Transactions of pgbench a second: enough to be seen, and CPU is left to the rest.
const PGBENCH_RATE: usize = 40;

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What an agent does with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its work, and then it ends.
    Works,
    /// It forgets them and lives on.
    Forgets,
    /// It sits idle in transaction and lives on.
    Idles,
    /// It is killed in the middle of its queries.
    Hangs,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Agent {
    /// Its execution, and its `application_name`.
    pub(super) name: String,
    /// What it does.
    pub(super) part: Part,
    process: Process,
    input: Option<ChildStdin>,
    output: PathBuf,
}

/// A line that an agent writes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Errors {
        errors: Vec<String>,
    },
    Ready {
        #[serde(rename = "ready")]
        _ready: bool,
    },
}

/// Where the workload connects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// A word for it, unique in the demo.
    pub(super) label: &'a str,
    /// The directory of the socket.
    pub(super) host: &'a Path,
}

/// All agents and pgbench. Those that still run end when this is dropped.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) agents: Vec<Agent>,
    pub(super) pgbench: Process,
}

/// How many tool calls make all of the work.
pub(super) fn all_work() -> usize {
    let working = (1..=AGENTS).filter(|number| part(*number) == Part::Works);
    working.count() * TASKS
}

/// How many agents use a driver.
pub(super) fn agents_with(name: &str) -> usize {
    let numbers = 1..=AGENTS;
    numbers.filter(|number| driver(*number) == name).count()
}

/// How many connections the workload wants at once.
pub(super) fn wanted() -> usize {
    AGENTS * TOOLS_AT_ONCE + PGBENCH_CLIENTS
}

impl Crew {
    /// Starts the agents, waits until each has loaded its driver, and lets all begin.
    pub(super) fn start(
        tools: &Tools,
        target: Target<'_>,
        pgbench_time: Duration,
        place: &Place,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let program = place.path().join("workload.py");
        std::fs::write(&program, WORKLOAD)?;
        let mut agents = Vec::new();
        for number in 1..=AGENTS {
            agents.push(Agent::start(number, tools, &program, target, place)?);
        }
        let start = Instant::now();
        for agent in &mut agents {
            while !agent.is_ready() {
                if agent.ended()?.is_some() || start.elapsed() > READY_TIMEOUT {
                    bail!("{} is not ready\n{}", agent.name, agent.last_words());
                }
                interrupt.pause(Duration::from_millis(20))?;
            }
        }
        let pgbench = pgbench(tools, target, pgbench_time, place)?;
        for agent in &mut agents {
            agent.begin()?;
        }
        Ok(Self { agents, pgbench })
    }

    /// The agent that has a part of its own.
    pub(super) fn who(&mut self, part: Part) -> anyhow::Result<&mut Agent> {
        let mut agents = self.agents.iter_mut();
        agents
            .find(|agent| agent.part == part)
            .context("each part has an agent")
    }
}

impl Agent {
    fn start(
        number: usize,
        tools: &Tools,
        program: &Path,
        target: Target<'_>,
        place: &Place,
    ) -> anyhow::Result<Self> {
        let name = format!("agent-{number}");
        let (part, driver) = (part(number), driver(number));
        let on_disk = format!("{}-{name}", target.label);
        let output = place.path().join(format!("{on_disk}.out"));
        let mut command = cluster::quiet(&tools.python);
        command
            .arg(program)
            .args([driver, part.word()])
            .env("DATABASE_URL", url(target.host, &name))
            .env("DEMO_TOOLS_AT_ONCE", TOOLS_AT_ONCE.to_string())
            .env("DEMO_TASKS", TASKS.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(File::create(&output)?);
        let mut process = Process::start(&on_disk, &mut command, Signal::SIGTERM, place)?;
        Ok(Self {
            name,
            part,
            input: process.input(),
            process,
            output,
        })
    }

    fn is_ready(&self) -> bool {
        !self.said().is_empty()
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("an agent's input is piped")?;
        writeln!(input, "begin").with_context(|| format!("{} is gone", self.name))
    }

    /// The errors that it met, once its part is played.
    pub(super) fn errors(&self) -> Option<Vec<String>> {
        self.said().into_iter().find_map(|said| match said {
            Said::Errors { errors } => Some(errors),
            Said::Ready { .. } => None,
        })
    }

    /// How its process ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Kills its process, as the kernel does when memory is short.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// What it said at last.
    pub(super) fn last_words(&self) -> String {
        self.process.last_words()
    }

    fn said(&self) -> Vec<Said> {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        // A line that is half written is read at the next look.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Forgets => "forgets",
            Self::Idles => "idles",
            Self::Hangs => "hangs",
        }
    }
}

/// What an agent does, by its number.
pub(super) fn part(number: usize) -> Part {
    match number {
        3 => Part::Forgets,
        5 => Part::Idles,
        7 => Part::Hangs,
        _ => Part::Works,
    }
}

fn driver(number: usize) -> &'static str {
    match number % 4 {
        1 | 2 => "psycopg",
        _ => "sqlalchemy",
    }
}

/// What an agent knows. `options` names its execution to execpool; PostgreSQL takes it
/// for a setting that means nothing to it.
fn url(host: &Path, agent: &str) -> String {
    format!(
        "postgresql://{ROLE}@/{DATABASE}?host={}&application_name={agent}\
         &options=-c%20execpool.execution_id%3D{agent}",
        host.display()
    )
}

fn pgbench(
    tools: &Tools,
    target: Target<'_>,
    time: Duration,
    place: &Place,
) -> anyhow::Result<Process> {
    let mut command = cluster::quiet(&tools.postgres("pgbench"));
    command
        .args(["-n", "-c", &PGBENCH_CLIENTS.to_string()])
        .args(["-R", &PGBENCH_RATE.to_string()])
        .args(["-T", &time.as_secs().to_string(), DATABASE])
        .env("PGHOST", target.host)
        .env("PGUSER", ROLE)
        .env("PGAPPNAME", PGBENCH)
        .stdout(Stdio::null());
    let name = format!("{}-pgbench", target.label);
    Process::start(&name, &mut command, Signal::SIGTERM, place)
}
