//! `POST /v1/drain` and `POST /quitquitquit`: the end of the pod, and of the process.

use http::StatusCode;

use crate::events::Event;

use super::Control;
use super::query::Query;
use super::router::{Answer, Asked, json};
use super::types::{Draining, Quitting};

/// Marks that the pod is about to end: not ready, no reserve. It ends nothing.
pub(super) async fn drain(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    if control.outlook().facts.life.drain() {
        let event = Event::Drain {};
        tracing::info!(
            event = event.name(),
            "draining: not ready any more, and no reserve"
        );
        control.remote.events().tell(event);
    }
    let look = control.remote.ask(|executions| {
        executions.lender().give_up_reserve();
        executions.sessions().len()
    });
    let sessions = look.await?;
    let draining = true;
    json(StatusCode::OK, &Draining { draining, sessions })
}

/// Ends the process once nobody is left whom it serves, as SIGTERM does.
pub(super) async fn quit(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    control.outlook().facts.life.quit();
    json(StatusCode::OK, &Quitting { quitting: true })
}
