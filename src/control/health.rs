//! How the databases are: as last seen, and `GET /v1/database/health`, which asks them now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::events::{Event, Events, Text};
use crate::monitor::{Health, Monitor};
use crate::pool::UpstreamNumber;

use super::Control;
use super::query::Query;
use super::router::{Answer, Asked, json};
use super::types::{DatabaseHealth, Seconds, UpstreamHealth, UpstreamStatus};

/// How often each database is asked in the background.
const EVERY: Duration = Duration::from_secs(30);

/// What a monitor told, or why it told nothing.
type Told = Result<Health, String>;

/// A database that is looked after.
#[derive(Debug)]
pub(super) struct Watched {
    number: UpstreamNumber,
    monitor: Arc<Monitor>,
    /// Taken on this side alone, for a few instructions.
    seen: Mutex<Option<Seen>>,
}

impl Watched {
    /// Not seen yet.
    pub(super) fn new(number: UpstreamNumber, monitor: Arc<Monitor>) -> Self {
        Self {
            number,
            monitor,
            seen: Mutex::new(None),
        }
    }

    /// Whether it is this upstream, asked by this monitor.
    pub(super) fn is(&self, number: UpstreamNumber, monitor: &Arc<Monitor>) -> bool {
        self.number == number && Arc::ptr_eq(&self.monitor, monitor)
    }

    fn name(&self) -> &str {
        self.monitor.upstream()
    }

    /// Asks it, and remembers what was seen.
    async fn ask(&self) -> Told {
        let health = self.monitor.health().await;
        let told = health.map_err(|error| error.to_string());
        let seen = Seen {
            at: Instant::now(),
            told: told.clone(),
        };
        *self.seen.lock() = Some(seen);
        told
    }

    /// Tells the log and `events` where it is another than it was.
    fn tell_change(&self, told: &Told, was_reachable: Option<bool>, events: &Events) {
        let upstream = self.name();
        let event = match told {
            _ if was_reachable == Some(told.is_ok()) => return,
            Err(error) => {
                let event = Event::MonitorNoAnswer {
                    upstream: Text::name(upstream),
                    error: Text::sentence(error),
                };
                tracing::warn!(
                    event = event.name(),
                    upstream,
                    %error,
                    "the database does not answer the monitor"
                );
                event
            }
            Ok(health) => {
                let event = Event::MonitorAnswer {
                    upstream: Text::name(upstream),
                    server_version: Text::name(&health.server_version),
                    max_connections: u64::from(health.max_connections),
                };
                // The first answer is logged by who looks for the database at the start.
                if was_reachable.is_some() {
                    tracing::info!(
                        event = event.name(),
                        upstream,
                        server_version = health.server_version,
                        max_connections = health.max_connections,
                        "the database answers the monitor again"
                    );
                }
                event
            }
        };
        events.tell(event);
    }

    fn status(&self, now: Instant) -> UpstreamStatus {
        let seen = self.seen.lock();
        let told = seen.as_ref().map(|seen| &seen.told);
        UpstreamStatus {
            name: self.name().to_owned(),
            reachable: told.map(Result::is_ok),
            latency_seconds: told
                .and_then(|told| told.as_ref().ok())
                .map(|health| Seconds(health.latency)),
            checked_seconds_ago: seen
                .as_ref()
                .map(|seen| Seconds(now.saturating_duration_since(seen.at))),
            error: told.and_then(|told| told.as_ref().err().cloned()),
        }
    }
}

/// What was last seen of a database.
#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    told: Told,
}

pub(super) async fn get(control: &Arc<Control>, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let told = control.ask_all().await;
    let ours = control
        .remote
        .ask(|executions| executions.connections())
        .await?;
    let upstreams: Vec<UpstreamHealth> = told
        .into_iter()
        .map(|(watched, told)| {
            let ours = ours.get(watched.number.0 as usize);
            // There are fewer than four billion.
            let ours = u32::try_from(ours.map_or(0, |counts| counts.open()));
            upstream(watched.name(), told, ours.unwrap_or(u32::MAX))
        })
        .collect();
    let status = match upstreams.iter().all(|upstream| upstream.reachable) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &DatabaseHealth { upstreams })
}

/// What is told of one database; of its connections, `pooled` are in our pools.
fn upstream(name: &str, told: Told, pooled: u32) -> UpstreamHealth {
    let name = name.to_owned();
    let health = match told {
        Ok(health) => health,
        Err(error) => {
            return UpstreamHealth {
                name,
                error: Some(error),
                ..UpstreamHealth::default()
            };
        }
    };
    let ours = ours(&health, pooled);
    UpstreamHealth {
        name,
        reachable: true,
        latency_seconds: Some(Seconds(health.latency)),
        server_version: Some(health.server_version),
        max_connections: Some(health.max_connections),
        reserved: Some(health.reserved),
        ours: Some(ours),
        others: Some(health.connections - ours),
        in_recovery: Some(health.in_recovery),
        error: None,
    }
}

/// How many of a database's connections are this pod's, of which `pooled` are in our pools: the
/// monitor's own is one more.
fn ours(health: &Health, pooled: u32) -> u32 {
    pooled.saturating_add(1).min(health.connections)
}

/// The connections of a database, as it last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How many it allows.
    pub max: u32,
    /// How many this pod has, the monitor's among them.
    pub ours: u32,
    /// How many all others have.
    pub others: u32,
    /// How many are left to ordinary roles.
    pub left: u32,
}

impl Control {
    /// The connections of each database that answered when it was last asked, in this order of the
    /// upstreams; `pooled` says how many our pools have at one.
    #[must_use]
    pub fn rooms(&self, pooled: impl Fn(UpstreamNumber) -> usize) -> Vec<Room> {
        let outlook = self.outlook();
        let seen = outlook.watched.iter().filter_map(|watched| {
            let seen = watched.seen.lock();
            let health = seen.as_ref()?.told.as_ref().ok()?;
            // There are fewer than four billion.
            let pooled = u32::try_from(pooled(watched.number)).unwrap_or(u32::MAX);
            let ours = ours(health, pooled);
            let taken = health.connections.saturating_add(health.reserved);
            Some(Room {
                max: health.max_connections,
                ours,
                others: health.connections - ours,
                left: health.max_connections.saturating_sub(taken),
            })
        });
        seen.collect()
    }

    /// Asks every database, all at once: as long as the slowest takes, which the monitors bound.
    async fn ask_all(&self) -> Vec<(Arc<Watched>, Told)> {
        let outlook = self.outlook();
        let mut asking = JoinSet::new();
        for (at, watched) in outlook.watched.iter().cloned().enumerate() {
            asking.spawn(async move { (at, watched.ask().await) });
        }
        let all = outlook.watched.iter();
        let mut told: Vec<(Arc<Watched>, Told)> = all
            .map(|watched| (Arc::clone(watched), Err("it was not asked".to_owned())))
            .collect();
        while let Some(answer) = asking.join_next().await {
            if let Ok((at, answer)) = answer {
                told[at].1 = answer;
            }
        }
        told
    }

    /// Looks after the databases, as they are configured at each moment. Never ends.
    pub(super) async fn watch_all(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut watching: Vec<(Arc<Watched>, AbortHandle)> = Vec::new();
        loop {
            let now = self.outlook();
            let stays = |one: &Arc<Watched>| now.watched.iter().any(|now| Arc::ptr_eq(now, one));
            watching.retain(|(watched, task)| {
                let stays = stays(watched);
                if !stays {
                    task.abort();
                }
                stays
            });
            for watched in &now.watched {
                if !watching
                    .iter()
                    .any(|(known, _)| Arc::ptr_eq(known, watched))
                {
                    let events = Arc::clone(self.remote.events());
                    let sooner = Arc::clone(&self.sooner);
                    let task = tasks.spawn(watch(Arc::clone(watched), events, sooner));
                    watching.push((Arc::clone(watched), task));
                }
            }
            drop(now);
            tokio::select! {
                () = self.changed.notified() => {}
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// Asks every database again, at once: those that are being asked are not asked twice.
    pub fn look_sooner(&self) {
        self.sooner.notify_waiters();
    }

    /// Of each database, whether it did not answer when it was last asked; one that was not asked yet is not silent.
    #[must_use]
    pub fn silence(&self) -> BTreeMap<UpstreamNumber, bool> {
        let outlook = self.outlook();
        let all = outlook.watched.iter().map(|watched| {
            let seen = watched.seen.lock();
            let is_silent = seen.as_ref().is_some_and(|seen| seen.told.is_err());
            (watched.number, is_silent)
        });
        all.collect()
    }

    /// What was last seen of each database.
    pub(super) fn last_seen(&self, now: Instant) -> Vec<UpstreamStatus> {
        let outlook = self.outlook();
        let all = outlook.watched.iter();
        all.map(|watched| watched.status(now)).collect()
    }
}

/// Asks one database again and again, and at once when it is told to.
async fn watch(watched: Arc<Watched>, events: Arc<Events>, sooner: Arc<Notify>) {
    let mut was_reachable = None;
    loop {
        let told = watched.ask().await;
        watched.tell_change(&told, was_reachable, &events);
        was_reachable = Some(told.is_ok());
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = sooner.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health {
            latency: Duration::from_millis(2),
            server_version: "16.4".to_owned(),
            max_connections: 100,
            reserved: 3,
            connections: 10,
            in_recovery: false,
        }
    }

    #[test]
    fn what_is_not_ours_is_the_others() {
        let told = upstream("app", Ok(health()), 4);
        assert_eq!((told.ours, told.others), (Some(5), Some(5)));
        // Some of ours have gone between the two looks.
        let told = upstream("app", Ok(health()), 40);
        assert_eq!((told.ours, told.others), (Some(10), Some(0)));
    }

    #[test]
    fn a_database_that_is_away_has_the_same_shape_and_an_error() {
        let away = upstream("app", Err("away".to_owned()), 0);
        let keys = |health: &UpstreamHealth| -> Vec<String> {
            let value = serde_json::to_value(health).unwrap();
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(&away), keys(&upstream("app", Ok(health()), 0)));
        assert!(!away.reachable && away.error.is_some());
    }
}
