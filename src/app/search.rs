//! The search for upstreams that have not been reached yet.

use std::sync::Arc;
use std::time::Duration;

use crate::events::{Event, Events, Text};
use crate::monitor::{Health, Monitor};
use crate::shutdown::Life;

use super::common::Common;

/// How often an upstream is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Looks for each of these until it is reached, beside all else; `budget` is what this pod may take of it.
pub(super) fn begin(monitors: &[Arc<Monitor>], budget: u32, common: &Common) {
    for monitor in monitors {
        let (monitor, life) = (Arc::clone(monitor), Arc::clone(&common.life));
        let events = Arc::clone(common.remote.events());
        tokio::spawn(async move {
            let health = reach(&monitor).await;
            tell(&monitor, &health, budget, &life, &events);
        });
    }
}

/// That it does not answer is told by who asks it again and again: `monitor.no_answer`.
async fn reach(monitor: &Monitor) -> Health {
    loop {
        match monitor.health().await {
            Ok(health) => return health,
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Says that it is reached, and whether one pod could take most of it.
fn tell(monitor: &Monitor, health: &Health, budget: u32, life: &Life, events: &Events) {
    if life.has_reached() {
        let event = Event::Ready {
            upstream: Text::name(monitor.upstream()),
        };
        tracing::info!(event = event.name(), upstream = monitor.upstream(), "ready");
        events.tell(event);
    }
    tracing::info!(
        event = "monitor.answer",
        upstream = monitor.upstream(),
        server_version = health.server_version,
        max_connections = health.max_connections,
        "the database answers"
    );
    if budget > health.max_connections / 2 {
        tracing::warn!(
            event = "budget.large",
            upstream = monitor.upstream(),
            budget,
            max_connections = health.max_connections,
            "the budget of this pod is over half of the database's max_connections; \
             lower budget.size and budget.overflow if others use it too"
        );
    }
}
