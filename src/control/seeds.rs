//! The routes of the Python backends that execpool grew out of, to the letter.

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::events::time::date_and_time;
use crate::execution::View;
use crate::execution::cleanup::Scope;

use super::Control;
use super::query::Query;
use super::router::{Answer, Asked, json};

/// What both routes answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConnectionStatus")]
pub(super) struct Status {
    /// Always true.
    success: bool,
    /// The counts, and when they were taken.
    data: Data,
}

/// The counts, and when they were taken.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConnectionData")]
struct Data {
    /// The counts.
    connection_stats: Stats,
    /// When, in UTC.
    timestamp: String,
}

/// The counts.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConnectionStats")]
struct Stats {
    /// Executions that are there, `shared` not among them.
    active_executions: usize,
    /// The sum of all that is tracked of them.
    total_tracked_connections: usize,
    /// What is tracked, by the name of the execution.
    executions: BTreeMap<String, Tracked>,
}

/// What is tracked of one execution.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "TrackedConnections")]
struct Tracked {
    /// Its sessions.
    sql_engines: usize,
    /// The server connections that are held for it.
    sql_databases: usize,
    /// Its registered resources.
    custom_connections: usize,
}

pub(super) async fn status(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    answer(control).await
}

/// Leftovers of ended executions are logged and removed, and nothing that lives is touched.
pub(super) async fn cleanup(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let leftovers = control
        .remote
        .ask(|executions| executions.end_leftovers(&Scope::All))
        .await?;
    tracing::info!(
        event = "leftovers.cleaned",
        leftovers = leftovers.len(),
        "cleaned up on request"
    );
    answer(control).await
}

async fn answer(control: &Control) -> Answer {
    let views = control.remote.ask(|executions| executions.views()).await?;
    let data = Data {
        connection_stats: stats(&views),
        timestamp: date_and_time(SystemTime::now()),
    };
    json(
        StatusCode::OK,
        &Status {
            success: true,
            data,
        },
    )
}

/// What these executions have; the standing one is none here. Generations of one name are one.
fn stats(views: &[View]) -> Stats {
    let mut executions: BTreeMap<String, Tracked> = BTreeMap::new();
    for view in views.iter().filter(|view| !view.id.is_shared()) {
        let tracked = executions.entry(view.id.to_string()).or_default();
        tracked.sql_engines += view.sessions;
        let open = view.pools.iter().map(|pool| pool.counts.open());
        tracked.sql_databases += open.sum::<usize>();
        tracked.custom_connections += view.resources.total();
    }
    let tracked = executions.values();
    let total = tracked.map(|it| it.sql_engines + it.sql_databases + it.custom_connections);
    Stats {
        active_executions: executions.len(),
        total_tracked_connections: total.sum(),
        executions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_that_of_the_seeds_to_the_letter() {
        let tracked = Tracked {
            sql_engines: 2,
            sql_databases: 2,
            custom_connections: 0,
        };
        let status = Status {
            success: true,
            data: Data {
                connection_stats: Stats {
                    active_executions: 1,
                    total_tracked_connections: 4,
                    executions: BTreeMap::from([("ID".to_owned(), tracked)]),
                },
                timestamp: "2024-01-15T10:30:00".to_owned(),
            },
        };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"success":true,"data":{"connection_stats":{"active_executions":1,"total_tracked_connections":4,"executions":{"ID":{"sql_engines":2,"sql_databases":2,"custom_connections":0}}},"timestamp":"2024-01-15T10:30:00"}}"#
        );
    }
}
