//! For comparison: the same workload straight at PostgreSQL.

use std::time::{Duration, Instant};

use super::activity::Observer;
use super::crew::{Crew, Part};
use super::interrupt::Interrupt;
use super::screen::{Screen, Tone};
use super::server_log::TOO_MANY;

/// When the agent that hangs is killed, as through execpool.
const KILL_AFTER: Duration = Duration::from_secs(4);

/// How long the killed agent's queries are given.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How long the whole of it may take; some agents never end.
const LIMIT: Duration = Duration::from_secs(20);

const EVERY: Duration = Duration::from_millis(100);

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Agents that were told "too many clients".
    pub(super) refused_agents: usize,
    /// The most connections in `pg_stat_activity`.
    pub(super) connections: usize,
    /// Tool calls that are in the database.
    pub(super) work: usize,
}

/// The run.
pub(super) struct Direct<'a> {
    pub(super) crew: Crew,
    pub(super) observer: &'a mut Observer,
    pub(super) screen: &'a mut Screen,
    pub(super) interrupt: &'a Interrupt,
}

impl Direct<'_> {
    /// Looks until nobody works any more.
    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        let mut outcome = Outcome::default();
        let mut refused = vec![false; self.crew.agents.len()];
        let mut has_killed = false;
        while (self.at_work()? > 0 || !has_killed) && start.elapsed() < LIMIT {
            let activity = self.observer.activity()?;
            outcome.connections = outcome.connections.max(activity.connections());
            let line = || {
                let at = start.elapsed().as_secs_f64();
                let count = activity.connections();
                format!("{at:5.1} s  pg_stat_activity: {count} connections")
            };
            self.screen.show(|| vec![(Tone::Heading, line())], line)?;
            self.tell_refused(&mut refused)?;
            if !has_killed && start.elapsed() > KILL_AFTER {
                self.kill()?;
                has_killed = true;
            }
            self.interrupt.pause(EVERY)?;
        }
        self.tell_refused(&mut refused)?;
        self.tell_holders()?;
        outcome.refused_agents = refused.iter().filter(|refused| **refused).count();
        outcome.work = self.observer.work_done()?;
        Ok(outcome)
    }

    /// How many agents still have work before them.
    fn at_work(&mut self) -> anyhow::Result<usize> {
        let mut count = 0;
        for agent in &mut self.crew.agents {
            let works = agent.part == Part::Works;
            count += usize::from(works && agent.ended()?.is_none());
        }
        Ok(count)
    }

    /// Says what newly failed agents were told.
    fn tell_refused(&mut self, told: &mut [bool]) -> anyhow::Result<()> {
        for (agent, told) in self.crew.agents.iter().zip(told) {
            if *told {
                continue;
            }
            let errors = agent.errors().unwrap_or_default();
            let Some(first) = errors.iter().find(|error| error.contains(TOO_MANY)) else {
                continue;
            };
            *told = true;
            let from = first.find("FATAL").unwrap_or_default();
            let end = first.find(" (Background").unwrap_or(first.len());
            let text = format!(
                "{} failed, {} times: {}",
                agent.name,
                errors.len(),
                first.get(from..end).unwrap_or(first)
            );
            self.screen.say(Tone::Bad, &text)?;
        }
        Ok(())
    }

    /// Kills the agent that hangs, and looks whether its queries stop.
    fn kill(&mut self) -> anyhow::Result<()> {
        let agent = self.crew.who(Part::Hangs)?;
        let running = self.observer.activity()?.in_state(&agent.name, "active");
        agent.kill()?;
        let start = Instant::now();
        self.interrupt.pause(SECOND_LOOK)?;
        let left = self.observer.activity()?.in_state(&agent.name, "active");
        let text = format!(
            "{} was killed in the middle of {running} queries; {left} of them run after {} ms",
            agent.name,
            start.elapsed().as_millis()
        );
        self.screen.say(Tone::Heading, &text)?;
        Ok(())
    }

    /// Says what the careless ones hold, when all others are done.
    fn tell_holders(&mut self) -> anyhow::Result<()> {
        let activity = self.observer.activity()?;
        for agent in &self.crew.agents {
            let count = activity.of(&agent.name);
            if count > 0 {
                let text = format!("{} holds {count} connections still", agent.name);
                self.screen.say(Tone::Warning, &text)?;
            }
        }
        Ok(())
    }
}
