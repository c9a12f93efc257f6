//! What is done about exhaustion, as the status tells it: told by who does it, and written as it is told.
//!
//! Moments are kept as such and written as ages: how old something is, is known when somebody asks.

use std::time::{Instant, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::events::time::date_and_time;
use crate::events::{Seconds, Text};

/// What is done about exhaustion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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
    #[serde(serialize_with = "to_the_second")]
    #[schemars(with = "Option<String>")]
    pub last_restart: Option<SystemTime>,
    /// For how long there is none after that; null where that is over.
    #[serde(rename = "cooldown_left_seconds", serialize_with = "left")]
    #[schemars(with = "Option<Seconds>")]
    pub cooldown_until: Option<Instant>,
    /// The restart that is under way; null where none is.
    pub pending: Option<PendingRestart>,
    /// What was last due and not done; null where everything was.
    pub refused: Option<RefusedAction>,
    /// How it stands with Kubernetes' API.
    pub kubernetes: KubernetesStatus,
}

/// A restart that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PendingRestart {
    /// How: `liveness`, `exit-code`, `evict` or `rollout`.
    pub mode: &'static str,
    /// How long ago it was decided.
    #[serde(rename = "age_seconds", serialize_with = "age")]
    #[schemars(with = "Seconds")]
    pub since: Instant,
    /// How many of the sessions that were open then are still; null where it does not wait for them.
    pub sessions: Option<usize>,
}

/// What was due and not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RefusedAction {
    /// `cleanup` or `restart`.
    pub action: &'static str,
    /// What spoke against it, in a word.
    pub guard: &'static str,
    /// The same as a sentence.
    #[schemars(with = "String")]
    pub why: Text,
    /// How long ago.
    #[serde(rename = "age_seconds", serialize_with = "age")]
    #[schemars(with = "Seconds")]
    pub at: Instant,
}

/// How it stands with Kubernetes' API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KubernetesStatus {
    /// Whether it is spoken to (`off`, `on`), or does not answer as it should (`away`).
    #[schemars(schema_with = "states")]
    state: &'static str,
    /// Why it is off or away; null where it is on.
    #[schemars(with = "Option<String>")]
    why: Option<Text>,
    /// For how long it has been away; null where it is not.
    #[serde(rename = "away_seconds", serialize_with = "age_if_any")]
    #[schemars(with = "Option<Seconds>")]
    since: Option<Instant>,
}

impl KubernetesStatus {
    /// It answers.
    #[must_use]
    pub fn on() -> Self {
        Self {
            state: "on",
            why: None,
            since: None,
        }
    }

    /// It is not spoken to, and why.
    #[must_use]
    pub fn off(why: &str) -> Self {
        Self {
            state: "off",
            why: Some(Text::sentence(why)),
            since: None,
        }
    }

    /// It does not answer, or not as it should: since when, and what it said last.
    #[must_use]
    pub fn away(since: Instant, why: &str) -> Self {
        Self {
            state: "away",
            why: Some(Text::sentence(why)),
            since: Some(since),
        }
    }
}

impl Default for Reactor {
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
            kubernetes: KubernetesStatus::off("nobody speaks to it"),
        }
    }
}

fn modes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["off", "liveness", "exit-code", "evict", "rollout"]})
}

fn states(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["off", "on", "away"]})
}

fn to_the_second<S: Serializer>(at: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    at.map(|at| format!("{}Z", date_and_time(at))).serialize(to)
}

fn age<S: Serializer>(since: &Instant, to: S) -> Result<S::Ok, S::Error> {
    Seconds(since.elapsed()).serialize(to)
}

fn age_if_any<S: Serializer>(since: &Option<Instant>, to: S) -> Result<S::Ok, S::Error> {
    since.map(|since| Seconds(since.elapsed())).serialize(to)
}

fn left<S: Serializer>(until: &Option<Instant>, to: S) -> Result<S::Ok, S::Error> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    left.filter(|left| !left.is_zero())
        .map(Seconds)
        .serialize(to)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn moments_are_written_as_ages_of_when_they_are_written() {
        let now = Instant::now();
        let before = now - HOUR;
        let reactor = Reactor {
            last_restart: Some(SystemTime::UNIX_EPOCH + HOUR),
            cooldown_until: Some(now + HOUR),
            pending: Some(PendingRestart {
                mode: "liveness",
                since: before,
                sessions: Some(3),
            }),
            refused: Some(RefusedAction {
                action: "restart",
                guard: "cooldown",
                why: Text::sentence("not yet"),
                at: before,
            }),
            kubernetes: KubernetesStatus::away(before, "it is away"),
            ..Reactor::default()
        };
        let written = serde_json::to_value(&reactor).unwrap();
        assert_eq!(written["last_restart"], "1970-01-01T01:00:00Z");
        let seconds = |value: &Value| value.as_f64().unwrap();
        let ages = [
            &written["pending"]["age_seconds"],
            &written["refused"]["age_seconds"],
            &written["kubernetes"]["away_seconds"],
        ];
        assert!(
            ages.into_iter().map(seconds).all(|age| age >= 3600.0),
            "{written}"
        );
        let left = seconds(&written["cooldown_left_seconds"]);
        assert!(left > 3500.0 && left < 3600.0, "{written}");
        assert_eq!(written["refused"]["why"], "not yet");
        assert_eq!(written["kubernetes"]["why"], "it is away");
    }

    #[test]
    fn what_is_over_or_never_was_is_null() {
        let over = Reactor {
            cooldown_until: Instant::now().checked_sub(HOUR),
            ..Reactor::default()
        };
        for reactor in [over, Reactor::default()] {
            let written = serde_json::to_value(&reactor).unwrap();
            let null = [
                "last_restart",
                "cooldown_left_seconds",
                "pending",
                "refused",
            ];
            assert!(null.iter().all(|name| written[name].is_null()), "{written}");
            let kubernetes =
                json!({"state": "off", "why": "nobody speaks to it", "away_seconds": null});
            assert_eq!(written["kubernetes"], kubernetes);
        }
        let on = serde_json::to_value(KubernetesStatus::on()).unwrap();
        assert_eq!(
            on,
            json!({"state": "on", "why": null, "away_seconds": null})
        );
    }
}
