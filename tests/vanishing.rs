//! In whatever state a session is when its client or its server goes, and however that goes: nothing
//! of it runs on, the budget is whole, and the next session works and finds nothing of it.
//!
//! | module | holds |
//! |---|---|
//! | [`client`] | a client that leaves in a way of its own |
//! | [`states`] | the states, and how a session gets there |
//! | [`server`] | the server's end |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "vanishing/client.rs"]
mod client;
#[path = "vanishing/server.rs"]
mod server;
#[path = "vanishing/states.rs"]
mod states;
mod support;

use std::time::{Duration, Instant};

use client::{Client, Way};
use states::{Reached, State};
use support::session::{kinds, rows};
use support::sidecar::upstream;
use support::{Database, Postgres, Raw, SOON, Sidecar, eventually};

/// How long anything may go on for a client that has gone: it is cancelled, and cancelled again.
const BOUND: Duration = Duration::from_secs(4);
/// How often a state is tried of which that is not so: a machine that stands still lengthens it.
const TURNS: usize = 3;

/// A sidecar with one server connection, so that whoever comes next gets what was left.
async fn place(name: &str, url: impl FnOnce(&Database) -> String) -> (Database, Sidecar) {
    let database = Postgres::shared().database(name).await;
    let table = "CREATE TABLE t (a text)";
    database.client().await.batch_execute(table).await.unwrap();
    let yaml = upstream("app", &url(&database))
        + "budget: {size: 1, overflow: 0}\npool: {timeout: 10m, notice_after: 10m}\n";
    let sidecar = Sidecar::start(yaml).await;
    (database, sidecar)
}

/// Waits until a session has got to where it is to be.
async fn reached(database: &Database, sidecar: &Sidecar, reached: Reached) {
    let at_server = async |condition: String| {
        let filter = format!("datname = '{}' AND {condition}", database.name);
        eventually(SOON, &condition, async || {
            let found = Postgres::shared().activity(&filter).await;
            if found.is_empty() { Err(()) } else { Ok(()) }
        })
        .await;
    };
    match reached {
        Reached::AtOnce => {}
        Reached::Session(state) => sidecar.session_is("leaver", state).await,
        Reached::Event(event) => at_server(format!("wait_event = '{event}'")).await,
        Reached::Server(state) => at_server(format!("state = '{state}'")).await,
    }
}

/// Waits until no backend of ours is at work.
async fn nothing_runs(database: &Database, what: &str) {
    let filter = format!(
        "datname = '{}' AND state <> 'idle' AND application_name <> 'execpool monitor'",
        database.name
    );
    eventually(SOON, what, async || {
        let found = Postgres::shared().activity(&filter).await;
        if found.is_empty() { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Whatever a session can leave behind, in one row, as it is in a new one.
const LEFTOVERS: &str = "SELECT current_setting('work_mem') || ' '
    || (SELECT count(*) FROM pg_prepared_statements) || (SELECT count(*) FROM pg_cursors)
    || (SELECT count(*) FROM pg_listening_channels())
    || (SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE locktype = 'advisory' AND datname = current_database())
    || (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
    || (SELECT count(*) FROM t)";

async fn the_next_one_is_as_new(raw: &mut Raw, what: &str) {
    // A backend that is on its way out has locks and tables for a moment longer.
    eventually(SOON, what, async || {
        let told = raw.query(LEFTOVERS).await;
        assert_eq!(kinds(&told), "TDCZ", "{what}: {told:?}");
        assert_eq!(told[3].transaction_status(), 'I', "{what}");
        let found = rows(&told);
        (found == ["4MB 000000"]).then_some(()).ok_or(found)
    })
    .await;
}

async fn each_state_ends_clean(name: &str, way: Way) {
    let (database, sidecar) = place(name, Database::url).await;
    for state in states::all() {
        let what = format!("{} {way:?}", state.name);
        let mut took = Vec::new();
        while took.iter().all(|took| *took > BOUND) {
            assert!(took.len() < TURNS, "{what}: it goes on for {took:?}");
            took.push(it_ends_clean(&database, &sidecar, &state, way, &what).await);
        }
    }
}

/// Answers for how long anything went on.
async fn it_ends_clean(
    database: &Database,
    sidecar: &Sidecar,
    state: &State,
    way: Way,
    what: &str,
) -> Duration {
    let holder = match state.reached {
        Reached::Session("waiting") => {
            let mut holder = sidecar.session("app", "holder").await;
            holder.query("BEGIN").await;
            Some(holder)
        }
        _ => None,
    };
    let client = leaver(sidecar, state, way);
    reached(database, sidecar, state.reached).await;
    let start = Instant::now();
    let left = client.leave();
    if let Some(mut holder) = holder {
        // It has left the queue although nothing came free.
        eventually(SOON, what, async || {
            let waiting = sidecar.sessions_of("leaver").await;
            if waiting.is_empty() {
                Ok(())
            } else {
                Err(waiting)
            }
        })
        .await;
        holder.query("ROLLBACK").await;
    }
    nothing_runs(database, what).await;
    let took = start.elapsed();
    sidecar.settles().await;
    left.expect_closed(what);
    let mut next = sidecar.session("app", "next").await;
    the_next_one_is_as_new(&mut next, what).await;
    drop(next);
    sidecar.settles().await;
    took
}

/// A client that is about to leave in some way, in this state.
fn leaver(sidecar: &Sidecar, state: &State, way: Way) -> Client {
    let mut client = Client::connect(&sidecar.socket(), way);
    match &state.startup {
        Some(first) => client.send(first),
        None => client.enter("leaver"),
    }
    client.send(&state.sent);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_leaves_nothing_in_any_state() {
    each_state_ends_clean("closes", Way::Close).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_leaves_nothing_in_any_state() {
    each_state_ends_clean("resets", Way::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_shuts_its_half_down_leaves_nothing_in_any_state() {
    each_state_ends_clean("shuts_down", Way::ShutDown).await;
}
