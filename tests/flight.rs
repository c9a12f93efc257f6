//! The flight recorder: what has happened in an execution is told for as long as it lives, and after
//! it if it ended badly; by the control API and, as a timeline, by the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "flight/ends.rs"]
mod ends;
#[path = "flight/kinds.rs"]
mod kinds;
#[path = "flight/many.rs"]
mod many;
#[path = "flight/timeline.rs"]
mod timeline;

mod support;

use serde_json::Value;
use support::schema::assert_described;
use support::{SOON, Sidecar, eventually};

/// A story, as the control socket tells it.
struct Told {
    /// All that was answered.
    answer: Value,
    events: Vec<Value>,
}

impl Told {
    /// Of an execution that has not ended, or else of the last that has.
    async fn of(sidecar: &Sidecar, execution: &str) -> Self {
        Self::at(sidecar, &format!("/v1/executions/{execution}?events=true")).await
    }

    /// Of the last of that name that has ended, as soon as there is one.
    async fn ended(sidecar: &Sidecar, execution: &str) -> Self {
        let path = format!("/v1/executions/{execution}?ended=true&events=true");
        eventually(SOON, "it has ended", async || {
            match sidecar.control("GET", &path, None).await {
                (200, _) => Ok(()),
                other => Err(other),
            }
        })
        .await;
        Self::at(sidecar, &path).await
    }

    async fn at(sidecar: &Sidecar, path: &str) -> Self {
        let answer = sidecar.get(path).await;
        assert_described("GET", "/v1/executions/{id}", 200, &answer);
        let events = answer["events"].as_array().cloned().unwrap_or_default();
        let offsets: Vec<f64> = events
            .iter()
            .map(|event| event["offset_seconds"].as_f64().unwrap())
            .collect();
        assert!(offsets.is_sorted(), "in the order of time: {answer:#}");
        Self { answer, events }
    }

    /// The names of its events.
    fn names(&self) -> Vec<&str> {
        let names = self.events.iter();
        names
            .map(|event| event["event"].as_str().unwrap())
            .collect()
    }

    fn all(&self, name: &str) -> Vec<&Value> {
        let events = self.events.iter();
        events.filter(|event| event["event"] == name).collect()
    }

    /// The one event of that name.
    #[track_caller]
    fn one(&self, name: &str) -> &Value {
        match self.all(name).as_slice() {
            [one] => one,
            _ => panic!("not one {name}: {:#}", self.answer),
        }
    }

    /// Asserts that these come in this order, whatever is between them.
    #[track_caller]
    fn assert_in_order(&self, wanted: &[&str]) {
        let names = self.names();
        let mut rest = names.iter();
        for name in wanted {
            assert!(
                rest.any(|known| known == name),
                "{name} of {wanted:?}: {names:?}"
            );
        }
    }
}

/// Waits until an execution's story has an event of that name.
async fn until(sidecar: &Sidecar, execution: &str, name: &str) -> Told {
    let claim = format!("{execution} tells {name}");
    eventually(SOON, &claim, async || {
        let told = Told::of(sidecar, execution).await;
        match told.all(name).is_empty() {
            false => Ok(told),
            true => Err(told.answer),
        }
    })
    .await
}

fn seconds(event: &Value, name: &str) -> f64 {
    event[name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name}: {event}"))
}
