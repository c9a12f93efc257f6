//! What is done about exhaustion, as the status tells it.

use std::time::{Instant, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::events::time::date_and_time;
use crate::events::{Seconds, Text};

/// What is done about exhaustion, and was: told by who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedies {
    /// How the app is restarted: a word of `reactor.restart`.
    pub restart: &'static str,
    /// Whether an emergency cleanup is begun.
    pub cleanup: bool,
    /// Whether it is only told what would be done.
    pub dry_run: bool,
    /// Restarts that are remembered, also of other processes of this pod.
    pub restarts: u64,
    /// Those within the last hour.
    pub restarts_last_hour: u64,
    /// How many there may be.
    pub max_restarts_per_hour: u32,
    /// When the last one was.
    pub last_restart: Option<SystemTime>,
    /// Until when there is none after that.
    pub cooldown_until: Option<Instant>,
    /// The restart that is under way.
    pub pending: Option<Pending>,
    /// What was last due and not done.
    pub refused: Option<Refused>,
    /// How it stands with Kubernetes' API.
    pub kubernetes: Kubernetes,
}

/// A restart that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// How: a word of `reactor.restart`.
    pub mode: &'static str,
    /// Since when.
    pub since: Instant,
    /// How many of the sessions that were open then are still, where it waits for them.
    pub sessions: Option<usize>,
}

/// What was due and not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `cleanup` or `restart`.
    pub action: &'static str,
    /// What spoke against it, in a word.
    pub guard: &'static str,
    /// The same as a sentence.
    pub why: String,
    /// When.
    pub at: Instant,
}

/// How it stands with Kubernetes' API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kubernetes {
    /// It is not spoken to, and why.
    Off(String),
    /// It answers.
    On,
    /// It does not, or not as it should: since when, and why.
    Away {
        /// Since when.
        since: Instant,
        /// What it said last.
        why: String,
    },
}

impl Default for Remedies {
    /// Nothing is done.
    fn default() -> Self {
        Self {
            restart: "off",
            cleanup: false,
            dry_run: false,
            restarts: 0,
            restarts_last_hour: 0,
            max_restarts_per_hour: 0,
            last_restart: None,
            cooldown_until: None,
            pending: None,
            refused: None,
            kubernetes: Kubernetes::Off("nobody speaks to it".to_owned()),
        }
    }
}

/// What is done about exhaustion.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reactor {
    /// How the app is restarted when nothing else helps.
    #[schemars(schema_with = "modes")]
    pub restart: &'static str,
    /// Whether an emergency cleanup is begun when exhaustion is sustained.
    pub cleanup: bool,
    /// Whether it is only told what would be done.
    pub dry_run: bool,
    /// Restarts that are remembered, also of other processes of this pod.
    pub restarts: u64,
    /// Those within the last hour.
    pub restarts_last_hour: u64,
    /// How many there may be within an hour.
    pub max_restarts_per_hour: u32,
    /// When the last one was, RFC 3339 in UTC, to the second; null where none is remembered.
    pub last_restart: Option<String>,
    /// For how long there is none after that; null where that is over.
    pub cooldown_left_seconds: Option<Seconds>,
    /// The restart that is under way; null where none is.
    pub pending: Option<PendingRestart>,
    /// What was last due and not done; null where everything was.
    pub refused: Option<RefusedAction>,
    /// How it stands with Kubernetes' API.
    pub kubernetes: KubernetesStatus,
}

/// A restart that is under way.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PendingRestart {
    /// How: `liveness`, `exit-code`, `evict` or `rollout`.
    pub mode: &'static str,
    /// How long ago it was decided.
    pub age_seconds: Seconds,
    /// How many of the sessions that were open then are still; null where it does not wait for them.
    pub sessions: Option<usize>,
}

/// What was due and not done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RefusedAction {
    /// `cleanup` or `restart`.
    pub action: &'static str,
    /// What spoke against it, in a word.
    pub guard: &'static str,
    /// The same as a sentence.
    pub why: String,
    /// How long ago.
    pub age_seconds: Seconds,
}

/// How it stands with Kubernetes' API.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KubernetesStatus {
    /// Whether it is spoken to (`off`, `on`), or does not answer as it should (`away`).
    #[schemars(schema_with = "states")]
    pub state: &'static str,
    /// Why it is off or away; null where it is on.
    pub why: Option<String>,
    /// For how long it has been away; null where it is not.
    pub away_seconds: Option<Seconds>,
}

fn modes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["off", "liveness", "exit-code", "evict", "rollout"]})
}

fn states(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["off", "on", "away"]})
}

impl From<&Remedies> for Reactor {
    fn from(it: &Remedies) -> Self {
        let now = Instant::now();
        let ago = |at: Instant| Seconds(now.saturating_duration_since(at));
        let left = it
            .cooldown_until
            .map(|at| at.saturating_duration_since(now));
        Self {
            restart: it.restart,
            cleanup: it.cleanup,
            dry_run: it.dry_run,
            restarts: it.restarts,
            restarts_last_hour: it.restarts_last_hour,
            max_restarts_per_hour: it.max_restarts_per_hour,
            last_restart: it.last_restart.map(|at| format!("{}Z", date_and_time(at))),
            cooldown_left_seconds: left.filter(|left| !left.is_zero()).map(Seconds),
            pending: it.pending.as_ref().map(|pending| PendingRestart {
                mode: pending.mode,
                age_seconds: ago(pending.since),
                sessions: pending.sessions,
            }),
            refused: it.refused.as_ref().map(|refused| RefusedAction {
                action: refused.action,
                guard: refused.guard,
                why: Text::sentence(&refused.why).as_str().to_owned(),
                age_seconds: ago(refused.at),
            }),
            kubernetes: KubernetesStatus::from(&it.kubernetes),
        }
    }
}

impl From<&Kubernetes> for KubernetesStatus {
    fn from(it: &Kubernetes) -> Self {
        let (state, why, since) = match it {
            Kubernetes::Off(why) => ("off", Some(why), None),
            Kubernetes::On => ("on", None, None),
            Kubernetes::Away { since, why } => ("away", Some(why), Some(since)),
        };
        Self {
            state,
            why: why.map(|why| Text::sentence(why).as_str().to_owned()),
            away_seconds: since.map(|since| Seconds(since.elapsed())),
        }
    }
}
