//! The workload through execpool: who does what, how each execution ends, and what is
//! left of it then.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::activity::Observer;
use super::control::{Control, Ended};
use super::crew::{Crew, PGBENCH, Part};
use super::interrupt::Interrupt;
use super::panel;
use super::screen::{Screen, Tone};
use super::sidecar::IDLE_TIMEOUT;
use super::watch::{Extremes, Seen, Watch};

/// The execution of those that name none.
const SHARED: &str = "shared";

/// When the one is killed, at the earliest: all are in the thick of it.
const KILL_AFTER: Duration = Duration::from_secs(4);
/// When the platform gives up the one that sits idle in transaction.
const GIVE_UP_IDLE_AFTER: Duration = Duration::from_secs(6);
/// When it gives up the one that forgot its connections.
const GIVE_UP_FORGETFUL_AFTER: Duration = Duration::from_secs(8);

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// How long the whole of it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its agent plays its part; left when that has ended.
    Plays,
    /// Its agent has gone and nobody said more; left when execpool has given it up.
    Abandoned {
        since: Instant,
    },
    Over,
}

/// How an execution ended, as PostgreSQL saw it.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) name: String,
    pub(super) part: Part,
    pub(super) by: By,
    /// Its connections in `pg_stat_activity` just before.
    pub(super) before: usize,
    /// Those that were left, in the end.
    pub(super) left: usize,
    /// Whether execpool, asked to end it, says the same.
    pub(super) complete: bool,
    /// How long it took until that.
    pub(super) took: Duration,
    /// Whether the agent's process still lived then.
    pub(super) alive: bool,
}

/// What ended an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// `DELETE /v1/executions/{id}`.
    Delete,
    /// The end of its last session.
    Disconnect,
}

/// What became of the running queries of the agent that was killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Killed {
    /// How many ran.
    pub(super) running: usize,
    /// How many still ran, in the end.
    pub(super) left: usize,
    /// How long it took until that.
    pub(super) took: Duration,
}

/// Everything that the claims rest on.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) extremes: Extremes,
    /// The budget's limit, as execpool tells it.
    pub(super) budget: usize,
    pub(super) ends: Vec<End>,
    pub(super) killed: Option<Killed>,
    /// What agents told of failures.
    pub(super) errors: Vec<String>,
    pub(super) pgbench_succeeded: bool,
    /// Tool calls that are in the database.
    pub(super) work: usize,
    /// What execpool keeps of the executions.
    pub(super) summaries: Vec<Ended>,
}

/// The run.
pub(super) struct Pooled<'a> {
    pub(super) crew: Crew,
    pub(super) control: Control,
    pub(super) observer: &'a mut Observer,
    pub(super) screen: &'a mut Screen,
    pub(super) interrupt: &'a Interrupt,
}

/// What has happened so far.
struct Progress {
    stages: Vec<Stage>,
    ends: Vec<End>,
    killed: Option<Killed>,
    pgbench: Option<bool>,
}

impl Pooled<'_> {
    /// Looks and shows until every execution is over.
    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let mut watch = Watch::begin();
        let mut progress = Progress {
            stages: vec![Stage::Plays; self.crew.agents.len()],
            ends: Vec::new(),
            killed: None,
            pgbench: None,
        };
        loop {
            let seen = watch.look(self.observer, &self.control)?;
            self.screen
                .show(|| panel::panel(&seen), || panel::line(&seen))?;
            self.advance(&mut progress, &seen)?;
            let over = progress.stages.iter().all(|stage| *stage == Stage::Over);
            if over && let Some(pgbench_succeeded) = progress.pgbench {
                return self.outcome(progress, pgbench_succeeded, &watch, &seen);
            }
            if seen.at > LIMIT {
                bail!("the workload has not come to its end after {LIMIT:?}");
            }
            self.interrupt.pause(EVERY)?;
        }
    }

    fn outcome(
        &mut self,
        progress: Progress,
        pgbench_succeeded: bool,
        watch: &Watch,
        seen: &Seen,
    ) -> anyhow::Result<Outcome> {
        self.screen.erase()?;
        let agents = self.crew.agents.iter();
        let errors = agents.flat_map(|agent| {
            let errors = agent.errors().unwrap_or_default();
            errors
                .into_iter()
                .map(|error| format!("{}: {error}", agent.name))
        });
        Ok(Outcome {
            extremes: watch.extremes,
            budget: seen.status.budget.limit,
            errors: errors.collect(),
            ends: progress.ends,
            killed: progress.killed,
            pgbench_succeeded,
            work: self.observer.work_done()?,
            summaries: self.control.ended()?,
        })
    }

    fn advance(&mut self, progress: &mut Progress, seen: &Seen) -> anyhow::Result<()> {
        for number in 0..self.crew.agents.len() {
            match progress.stages[number] {
                Stage::Plays => self.play(progress, number, seen)?,
                Stage::Abandoned { since } => self.abandoned(progress, number, since, seen)?,
                Stage::Over => {}
            }
        }
        if progress.pgbench.is_none()
            && let Some(status) = self.crew.pgbench.ended()?
        {
            progress.pgbench = Some(status.success());
            let before = seen.activity.of(PGBENCH);
            let end = self.delete(SHARED, PGBENCH, Part::Works, before)?;
            self.over(progress, end)?;
        }
        Ok(())
    }

    /// One whose agent plays its part.
    fn play(&mut self, progress: &mut Progress, number: usize, seen: &Seen) -> anyhow::Result<()> {
        let agent = &mut self.crew.agents[number];
        let (name, part) = (agent.name.clone(), agent.part);
        let is_due = match part {
            Part::Works => agent.ended()?.is_some(),
            Part::Hangs => seen.at >= KILL_AFTER && seen.activity.in_state(&name, "active") > 0,
            Part::Idles => seen.at >= GIVE_UP_IDLE_AFTER && agent.errors().is_some(),
            Part::Forgets => seen.at >= GIVE_UP_FORGETFUL_AFTER && agent.errors().is_some(),
        };
        if !is_due {
            return Ok(());
        }
        // Every other agent that did its work just disconnects.
        let disconnects = part == Part::Hangs || (part == Part::Works && number.is_multiple_of(2));
        if part == Part::Hangs {
            progress.killed = Some(self.kill(number)?);
        }
        if disconnects {
            let since = Instant::now();
            progress.stages[number] = Stage::Abandoned { since };
            return Ok(());
        }
        let before = seen.activity.of(&name);
        let mut end = self.delete(&name, &name, part, before)?;
        end.alive = self.crew.agents[number].ended()?.is_none();
        progress.stages[number] = Stage::Over;
        self.over(progress, end)
    }

    /// Kills an agent, and watches its queries stop.
    fn kill(&mut self, number: usize) -> anyhow::Result<Killed> {
        let agent = &mut self.crew.agents[number];
        let name = agent.name.clone();
        let running = self.observer.activity()?.in_state(&name, "active");
        agent.kill()?;
        let (left, took) = self.observer.until_none(self.interrupt, |activity| {
            activity.in_state(&name, "active")
        })?;
        let text = format!(
            "{name} was killed in the middle of {running} queries; {left} of them run after \
             {} ms",
            took.as_millis()
        );
        self.screen.say(Tone::Heading, &text)?;
        Ok(Killed {
            running,
            left,
            took,
        })
    }

    /// One whose agent has gone without a word.
    fn abandoned(
        &mut self,
        progress: &mut Progress,
        number: usize,
        since: Instant,
        seen: &Seen,
    ) -> anyhow::Result<()> {
        let agent = &self.crew.agents[number];
        if seen.executions.iter().any(|one| one.id == agent.name) {
            return Ok(());
        }
        let (name, part) = (agent.name.clone(), agent.part);
        let (left, _) = self
            .observer
            .until_none(self.interrupt, |activity| activity.of(&name))?;
        progress.stages[number] = Stage::Over;
        let end = End {
            name,
            part,
            by: By::Disconnect,
            before: 0,
            left,
            complete: true,
            took: since.elapsed(),
            alive: false,
        };
        self.over(progress, end)
    }

    /// Ends an execution as the platform's code does, and asks PostgreSQL what is left of
    /// the connections that bear `application`.
    fn delete(
        &mut self,
        execution: &str,
        application: &str,
        part: Part,
        before: usize,
    ) -> anyhow::Result<End> {
        let start = Instant::now();
        let complete = self.control.end(execution)?.complete;
        let (left, _) = self
            .observer
            .until_none(self.interrupt, |activity| activity.of(application))?;
        Ok(End {
            name: execution.to_owned(),
            part,
            by: By::Delete,
            before,
            left,
            complete,
            took: start.elapsed(),
            alive: false,
        })
    }

    fn over(&mut self, progress: &mut Progress, end: End) -> anyhow::Result<()> {
        let tone = if end.left == 0 { Tone::Good } else { Tone::Bad };
        self.screen.say(tone, &end.to_string())?;
        progress.ends.push(end);
        Ok(())
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.name;
        match self.by {
            By::Delete => write!(
                f,
                "{name} was ended by DELETE with {} connections",
                self.before
            )?,
            By::Disconnect if self.part == Part::Hangs => write!(f, "{name} was killed")?,
            By::Disconnect => write!(f, "{name} disconnected")?,
        }
        if self.alive {
            write!(f, " while its process lives on")?;
        }
        if self.by == By::Disconnect {
            write!(f, " and was given up {IDLE_TIMEOUT} later")?;
        }
        write!(f, ": {} left after {} ms", self.left, self.took.as_millis())
    }
}
