//! `execpool demo`: a real workload, through execpool and straight at PostgreSQL.
//!
//! It starts a throw-away PostgreSQL with 40 connections and execpool in front of it, lets
//! a dozen agents and pgbench want more than that, shows live what execpool and
//! `pg_stat_activity` say, and at the end holds what it claims against what it asked them.
//! Nothing is shown that was not asked, and nothing is left running or lying about.
//!
//! | module | gives |
//! |---|---|
//! | `tools` | PostgreSQL and Python as this machine has them, or what is missing |
//! | `place`, `process`, `interrupt` | a directory and processes that do not outlive the demo |
//! | `cluster`, `activity`, `server_log` | PostgreSQL, and what it says |
//! | `sidecar`, `control` | execpool, and what it says |
//! | `crew` | the agents (`workload.py`) and pgbench |
//! | `pooled`, `direct` | the two runs |
//! | `watch`, `panel`, `screen` | looking and showing |
//! | `verdict` | the claims |

mod activity;
mod cluster;
mod control;
mod crew;
mod direct;
mod interrupt;
mod panel;
mod place;
mod pooled;
mod process;
mod screen;
mod server_log;
mod sidecar;
mod tools;
mod verdict;
mod watch;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use activity::{Activity, Observer};
use cluster::Cluster;
use crew::{Crew, Target};
use direct::Direct;
use interrupt::{Interrupt, Interrupted};
use place::Place;
use pooled::Pooled;
use screen::{Screen, Tone};
use server_log::ServerLog;
use sidecar::Sidecar;
use tools::{Environment, Missing, Tools};
use verdict::{Findings, Stopped};

/// How long pgbench runs beside the agents, through execpool and straight.
const PGBENCH_POOLED: Duration = Duration::from_secs(10);
const PGBENCH_DIRECT: Duration = Duration::from_secs(4);

/// Runs the demo. Exit status: 0 if every claim is true, 1 if one is false or something
/// failed, 2 if something is missing on this machine, 128 and the signal if interrupted.
///
/// # Errors
/// Standard error can't be written.
pub fn run(environment: &[(String, String)]) -> anyhow::Result<ExitCode> {
    let error = match play(Environment(environment)) {
        Ok(true) => return Ok(ExitCode::SUCCESS),
        Ok(false) => return Ok(ExitCode::FAILURE),
        Err(error) => error,
    };
    writeln!(std::io::stderr(), "execpool: {error:#}")?;
    Ok(
        if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
            ExitCode::from(128 + interrupted.signal)
        } else if error.is::<Missing>() {
            ExitCode::from(2)
        } else {
            ExitCode::FAILURE
        },
    )
}

/// The whole demo; answers whether every claim is true.
fn play(environment: Environment<'_>) -> anyhow::Result<bool> {
    let interrupt = Interrupt::listen()?;
    let tools = Tools::find(environment)?;
    interrupt.check()?;
    let mut screen = Screen::open(environment);
    let place = Place::make(environment.get("TMPDIR"), cluster::runs_as_another())?;
    let cluster = Cluster::start(&tools, &place, &interrupt)?;
    let observer = Observer::connect(&tools, &cluster, &place)?;
    let mut stage = Stage {
        tools: &tools,
        place: &place,
        interrupt: &interrupt,
        cluster: &cluster,
        observer,
        screen: &mut screen,
    };
    let findings = stage.findings()?;
    drop(stage);

    screen.say(Tone::Plain, "")?;
    let claims = verdict::claims(&findings);
    for claim in &claims {
        claim.say(&mut screen)?;
    }
    Ok(claims.iter().all(verdict::Claim::holds))
}

/// What both runs need.
struct Stage<'a> {
    tools: &'a Tools,
    place: &'a Place,
    interrupt: &'a Interrupt,
    cluster: &'a Cluster,
    observer: Observer,
    screen: &'a mut Screen,
}

impl Stage<'_> {
    /// Both runs, first the one through execpool.
    fn findings(&mut self) -> anyhow::Result<Findings> {
        let max_connections = self.observer.setting("max_connections")?.parse()?;
        let mut sidecar = Sidecar::start(self.cluster.host(), self.place, self.interrupt)?;
        self.introduce(&sidecar, max_connections)?;
        let pooled = self.pooled(&sidecar).inspect_err(|error| {
            if !error.is::<Interrupted>() {
                // Told on the way out; the error itself follows.
                let _ = writeln!(std::io::stderr(), "{}", sidecar.last_words());
            }
        })?;
        let well = sidecar.end()?;
        let all = |activity: &Activity| activity.connections() + activity.monitors();
        let (left, took) = self.observer.until_none(self.interrupt, all)?;
        let log = self.cluster.log();

        self.observer.forget_work()?;
        self.screen.say(Tone::Plain, "")?;
        self.screen.say(
            Tone::Heading,
            "For comparison, the same workload straight at PostgreSQL:",
        )?;
        let direct = self.direct()?;
        let whole_log = self.cluster.log();
        Ok(Findings {
            max_connections,
            pooled,
            pooled_log: ServerLog::read(&log),
            stopped: Stopped { well, left, took },
            direct,
            direct_log: ServerLog::read(whole_log.get(log.len()..).unwrap_or_default()),
        })
    }

    fn introduce(&mut self, sidecar: &Sidecar, max_connections: usize) -> anyhow::Result<()> {
        let (status, _) = sidecar.control().status()?;
        let text = format!(
            "PostgreSQL {}, max_connections = {max_connections}; execpool {} in front of it, \
             a budget of {}.",
            self.observer.setting("server_version")?,
            status.version,
            status.budget.limit
        );
        self.screen.say(Tone::Heading, &text)?;
        let text = format!(
            "{} agents in plain psycopg, {} in plain SQLAlchemy, and pgbench want {} connections \
             at once:",
            crew::agents_with("psycopg"),
            crew::agents_with("sqlalchemy"),
            crew::wanted()
        );
        self.screen.say(Tone::Heading, &text)?;
        Ok(())
    }

    fn pooled(&mut self, sidecar: &Sidecar) -> anyhow::Result<pooled::Outcome> {
        let target = Target {
            label: "pooled",
            host: sidecar.host(),
        };
        let crew = Crew::start(
            self.tools,
            target,
            PGBENCH_POOLED,
            self.place,
            self.interrupt,
        )?;
        let run = Pooled {
            crew,
            control: sidecar.control(),
            observer: &mut self.observer,
            screen: self.screen,
            interrupt: self.interrupt,
        };
        run.run()
    }

    fn direct(&mut self) -> anyhow::Result<direct::Outcome> {
        let target = Target {
            label: "direct",
            host: self.cluster.host(),
        };
        let crew = Crew::start(
            self.tools,
            target,
            PGBENCH_DIRECT,
            self.place,
            self.interrupt,
        )?;
        let run = Direct {
            crew,
            observer: &mut self.observer,
            screen: self.screen,
            interrupt: self.interrupt,
        };
        run.run()
    }
}
