//! Looking: what PostgreSQL and execpool say at one moment, and what was the most of it.

use std::time::{Duration, Instant};

use super::activity::{Activity, Observer};
use super::control::{Control, Execution, Session, Status};

/// Everything that is shown, as it was asked at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Since the workload began.
    pub(super) at: Duration,
    pub(super) activity: Activity,
    pub(super) status: Status,
    pub(super) executions: Vec<Execution>,
    pub(super) sessions: Vec<Session>,
}

/// The extremes over all looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extremes {
    /// How often it was looked.
    pub(super) looks: usize,
    /// The most connections of execpool in `pg_stat_activity`, without its monitor.
    pub(super) connections: usize,
    /// The most connections of its monitor.
    pub(super) monitors: usize,
    /// The most sessions at once.
    pub(super) sessions: usize,
    /// The most sessions that waited at once.
    pub(super) waiting: usize,
    /// How often the budget was exhausted: all of it open, and somebody waited.
    pub(super) exhausted: usize,
    /// The slowest answer of `GET /v1/status`.
    pub(super) slowest: Duration,
    /// The slowest of those while the budget was exhausted.
    pub(super) slowest_exhausted: Duration,
}

/// Who looks.
#[derive(Debug)]
pub(super) struct Watch {
    start: Instant,
    pub(super) extremes: Extremes,
}

impl Watch {
    /// Begins now.
    pub(super) fn begin() -> Self {
        Self {
            start: Instant::now(),
            extremes: Extremes::default(),
        }
    }

    /// Asks both.
    pub(super) fn look(
        &mut self,
        observer: &mut Observer,
        control: &Control,
    ) -> anyhow::Result<Seen> {
        let activity = observer.activity()?;
        let (status, took) = control.status()?;
        self.extremes.add(&activity, &status, took);
        Ok(Seen {
            at: self.start.elapsed(),
            activity,
            status,
            executions: control.executions()?,
            sessions: control.sessions()?,
        })
    }
}

impl Extremes {
    fn add(&mut self, activity: &Activity, status: &Status, took: Duration) {
        self.looks += 1;
        self.connections = self.connections.max(activity.connections());
        self.monitors = self.monitors.max(activity.monitors());
        self.sessions = self.sessions.max(status.sessions.total);
        self.waiting = self.waiting.max(status.budget.waiting);
        self.slowest = self.slowest.max(took);
        if status.budget.open >= status.budget.limit && status.budget.waiting > 0 {
            self.exhausted += 1;
            self.slowest_exhausted = self.slowest_exhausted.max(took);
        }
    }
}

impl Seen {
    /// The sessions that hold a server connection, the longest first.
    pub(super) fn holders(&self) -> Vec<&Session> {
        let sessions = self.sessions.iter();
        let mut holders: Vec<&Session> = sessions
            .filter(|session| session.server_pid.is_some())
            .collect();
        holders.sort_by(|one, other| other.held_seconds.total_cmp(&one.held_seconds));
        holders
    }

    /// The longest holder of each execution, the longest first.
    pub(super) fn longest_by_execution(&self) -> Vec<&Session> {
        let mut longest: Vec<&Session> = Vec::new();
        for holder in self.holders() {
            if longest.iter().all(|one| one.execution != holder.execution) {
                longest.push(holder);
            }
        }
        longest
    }
}
