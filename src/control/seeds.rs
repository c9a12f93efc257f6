//! The routes of the Python backends that execpool grew out of, to the letter.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde::Serialize;

use crate::execution::View;
use crate::execution::cleanup::Scope;

use super::Control;
use super::query::Query;
use super::router::{Answer, Asked, json};

#[derive(Serialize)]
struct Status {
    success: bool,
    data: Data,
}

#[derive(Serialize)]
struct Data {
    connection_stats: Stats,
    timestamp: String,
}

#[derive(Serialize)]
struct Stats {
    active_executions: usize,
    total_tracked_connections: usize,
    executions: BTreeMap<String, Tracked>,
}

/// What is tracked of one execution.
#[derive(Default, Serialize)]
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
    tracing::info!(leftovers = leftovers.len(), "cleaned up on request");
    answer(control).await
}

async fn answer(control: &Control) -> Answer {
    let views = control.remote.ask(|executions| executions.views()).await?;
    let data = Data {
        connection_stats: stats(&views),
        timestamp: timestamp(SystemTime::now()),
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
    }
    let tracked = executions.values();
    let total = tracked.map(|it| it.sql_engines + it.sql_databases + it.custom_connections);
    Stats {
        active_executions: executions.len(),
        total_tracked_connections: total.sum(),
        executions,
    }
}

/// UTC to the second, without a zone. The day's date by Howard Hinnant's `civil_from_days`, for
/// times from 1970 on.
fn timestamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_timestamp_is_utc_to_the_second_without_a_zone() {
        for (seconds, told) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_705_314_600, "2024-01-15T10:30:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(time), told);
        }
    }

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
