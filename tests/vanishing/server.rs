//! The server's end: a client is told in a whole message between two others, or finds its
//! connection closed; it never reads anything else, and never waits for ever.

use std::time::Duration;

use super::states::{MUCH, copy_data, query, segment};
use super::support::session::assert_in;
use super::support::{Fault, Message, Postgres, Proxy, Raw, Sidecar, eventually};
use super::{SOON, nothing_runs, place, the_next_one_is_as_new};

/// How a server connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// `pg_terminate_backend`.
    Terminated,
    /// Its connection is closed, with no word of it.
    Cut,
    /// Nothing comes any more, and the execution is ended.
    Frozen,
}

/// What is sent, and what one sees at the server then.
fn states() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let sleep = "SELECT pg_sleep(600)";
    vec![
        ("idle", query("SELECT 1"), "state = 'idle'"),
        ("active, simple", query(sleep), "wait_event = 'PgSleep'"),
        ("active, extended", segment(sleep), "wait_event = 'PgSleep'"),
        ("rows flow", query(MUCH), "wait_event = 'ClientWrite'"),
        (
            "in a transaction",
            query("BEGIN; INSERT INTO t VALUES ('x')"),
            "state = 'idle in transaction'",
        ),
        (
            "in a failed transaction",
            query("BEGIN; SELECT 1/0"),
            "state = 'idle in transaction (aborted)'",
        ),
        (
            "copy in",
            [query("COPY t FROM STDIN"), copy_data(b"one\n")].concat(),
            "state = 'active'",
        ),
        (
            "copy out",
            query(&format!("COPY ({MUCH}) TO STDOUT")),
            "wait_event = 'ClientWrite'",
        ),
        (
            "pipelined",
            [segment("SELECT 1"), segment(sleep), segment("SELECT 2")].concat(),
            "wait_event = 'PgSleep'",
        ),
    ]
}

/// Everything that is read up to the end, and the part of a message behind it.
async fn read_to_the_end(raw: &mut Raw) -> (Vec<Message>, Vec<u8>) {
    let mut told = Vec::new();
    let whole = async {
        while let Some(message) = raw.read().await {
            told.push(message);
        }
    };
    tokio::time::timeout(SOON, whole).await.expect("it ends");
    (told, raw.read_bytes(usize::MAX).await)
}

/// What was read is messages of a server; one that is torn has nothing in it but its row.
fn assert_well_formed(told: &[Message], torn: &[u8], what: &str) {
    for (place, message) in told.iter().enumerate() {
        assert!(
            b"TDCZGHdcENS123n".contains(&message.kind),
            "{what}: {message:?}"
        );
        if message.kind == b'E' && message.fields()[&'S'] == "FATAL" {
            assert_eq!(place + 1, told.len(), "{what}: {told:?}");
            assert!(torn.is_empty(), "{what}: more behind {message:?}");
        }
        if matches!(message.kind, b'D' | b'd') && message.body.len() > 1000 {
            let is_row = message.body[6..].iter().all(|byte| b"x\n".contains(byte));
            assert!(is_row, "{what}: something else within a row");
        }
    }
    if let [kind, rest @ ..] = torn {
        assert!(
            b"Dd".contains(kind),
            "{what}: {}",
            torn[..torn.len().min(200)].escape_ascii()
        );
        let is_row = rest.iter().skip(10).all(|byte| b"x\n".contains(byte));
        assert!(is_row, "{what}: something else within a row");
    }
}

async fn end_it(sidecar: &Sidecar, proxy: &Proxy, end: End, execution: &str, at: &str) {
    match end {
        End::Terminated => {
            let admin = Postgres::shared().admin().await;
            let sql = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {at}
                 AND pid <> pg_backend_pid()"
            );
            admin.batch_execute(&sql).await.unwrap();
        }
        // The request that cancels what is left at work passes.
        End::Cut => proxy.set(Fault::CutOld),
        End::Frozen => {
            proxy.set(Fault::FreezeOld);
            let path = format!("/v1/executions/{execution}");
            let (status, told) = sidecar.control("DELETE", &path, None).await;
            assert_eq!(status, 200, "{told}");
        }
    }
}

async fn each_state_is_told_or_closed(name: &str, end: End) {
    let proxy = Proxy::unix(Postgres::shared()).await;
    let (database, sidecar) = place(name, |database| proxy.url(database)).await;
    for (number, (state, sent, at)) in states().into_iter().enumerate() {
        let what = format!("{state} {end:?}");
        let execution = format!("e{number}");
        let mut raw = sidecar.session("app", &execution).await;
        // Bound, so that there is a server connection that ends.
        raw.backend().await;
        raw.send(&sent).await;
        let at = format!(
            "datname = '{}' AND application_name <> 'execpool monitor' AND {at}",
            database.name
        );
        eventually(SOON, &what, async || {
            let found = Postgres::shared().activity(&at).await;
            if found.is_empty() { Err(()) } else { Ok(()) }
        })
        .await;
        end_it(&sidecar, &proxy, end, &execution, &at).await;
        let (told, torn) = read_to_the_end(&mut raw).await;
        assert_well_formed(&told, &torn, &what);
        let last = told.last().map(|last| last.kind);
        let flows = at.contains("ClientWrite");
        assert!(flows || last == Some(b'E'), "{what}: not told: {told:?}");
        drop(raw);
        proxy.set(Fault::None);
        nothing_runs(&database, &what).await;
        sidecar.settles().await;
        let mut next = sidecar.session("app", "next").await;
        the_next_one_is_as_new(&mut next, &what).await;
        drop(next);
        sidecar.settles().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_terminated_ends_a_session_with_whole_messages_in_any_state() {
    each_state_is_told_or_closed("server_terminated", End::Terminated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_connection_that_is_cut_ends_a_session_with_whole_messages_in_any_state() {
    each_state_is_told_or_closed("server_cut", End::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_connection_whose_execution_is_ended_closes_in_any_state() {
    each_state_is_told_or_closed("server_frozen", End::Frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unbound_session_does_not_see_the_end_of_a_server_connection() {
    let proxy = Proxy::unix(Postgres::shared()).await;
    let (_database, sidecar) = place("server_unbound", |database| proxy.url(database)).await;
    for end in [End::Terminated, End::Cut] {
        let named = [("execpool.execution_id", "one")];
        let (mut raw, told) = sidecar.started("app", &named).await;
        assert_in(&told);
        let ours = "datname = 'server_unbound' AND application_name <> 'execpool monitor'";
        end_it(&sidecar, &proxy, end, "one", ours).await;
        eventually(SOON, "it is gone", async || {
            let left = Postgres::shared().activity(ours).await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        raw.expect_silence(Duration::from_millis(200)).await;
        // What is gone is replaced unseen.
        the_next_one_is_as_new(&mut raw, "unbound").await;
    }
}
