//! The matrix with tokio-postgres.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod data;
mod session;

use serde_json::{Value, json};
use tokio_postgres::{AsyncMessage, NoTls, Row, SimpleQueryMessage};

use crate::support::driver::Observations;
use crate::support::{SOON, eventually};
use data::{arrays, copy, enums, jsonb, one_megabyte, prepared_six_times};
use session::{Session, code, digest, outcome};

const SCHEMA: &str = "
    DROP SCHEMA IF EXISTS matrix CASCADE;
    CREATE SCHEMA matrix;
    CREATE TYPE matrix.mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE matrix.item (id int PRIMARY KEY, name text, mood matrix.mood);
    CREATE TABLE matrix.copied (id int, name text);";

/// Does the matrix at a URL.
pub(crate) async fn observe(url: &str) -> Observations {
    let mut session = Session::connect(url).await;
    let other = Session::connect(url).await;
    session
        .client
        .batch_execute(SCHEMA)
        .await
        .expect("the schema is made");
    let seen = [
        ("startup", startup(url).await),
        ("parameter_status", parameter_status(&session).await),
        ("prepared_six_times", prepared_six_times(&session).await),
        ("enum", enums(&session).await),
        ("array", arrays(&session).await),
        ("jsonb", jsonb(&session).await),
        ("copy", copy(&session).await),
        ("one_megabyte", one_megabyte(&session).await),
        (
            "error_in_transaction",
            error_in_transaction(&mut session).await,
        ),
        ("error_fields", error_fields(&session).await),
        ("notices", notices(&mut session).await),
        ("server_side_cursor", server_side_cursor(&mut session).await),
        ("notify", notify(&mut session, &other).await),
        ("cancel", cancel(&session, &other).await),
        ("pipeline_with_error", pipeline_with_error(&session).await),
        ("default_pool", default_pool(url).await),
    ];
    seen.map(|(name, value)| (name.to_owned(), value)).into()
}

async fn startup(url: &str) -> Value {
    let options = "-c statement_timeout=4321 -c TimeZone=Asia/Tokyo -c my.setting=x\\ y";
    let session = Session::connect_with(url, options).await;
    let mut shown = Vec::new();
    for name in [
        "statement_timeout",
        "TimeZone",
        "my.setting",
        "application_name",
    ] {
        shown.push(session.one::<String>(&format!("SHOW {name}")).await);
    }
    assert_eq!(shown[0], "4321ms");
    json!({"shown": shown, "reported": session.parameters})
}

async fn parameter_status(session: &Session) -> Value {
    // The driver shows only what was reported at startup.
    session.parameters.clone()
}

async fn error_in_transaction(session: &mut Session) -> Value {
    let transaction = session.client.transaction().await.unwrap();
    let insert = "INSERT INTO matrix.item VALUES (100, 'lost', 'sad')";
    transaction.execute(insert, &[]).await.unwrap();
    let failed = code(
        &transaction
            .query_one("SELECT 1 / 0", &[])
            .await
            .unwrap_err(),
    );
    let refused = code(&transaction.query_one("SELECT 1", &[]).await.unwrap_err());
    transaction.rollback().await.unwrap();
    let lost: i64 = session
        .one("SELECT count(*) FROM matrix.item WHERE id = 100")
        .await;

    let mut outer = session.client.transaction().await.unwrap();
    let savepoint = outer.savepoint("inside").await.unwrap();
    let inside = code(
        &savepoint
            .query_one("SELECT 'x'::int", &[])
            .await
            .unwrap_err(),
    );
    savepoint.rollback().await.unwrap();
    let outer_lives = outer.query_one("SELECT 1", &[]).await.is_ok();
    drop(outer); // dropped, it is rolled back
    let ended: bool = session
        .one("SELECT pg_current_xact_id_if_assigned() IS NULL")
        .await;
    assert_eq!(refused, "25P02");
    json!([failed, refused, lost, inside, outer_lives, ended])
}

async fn error_fields(session: &Session) -> Value {
    let sql = "INSERT INTO matrix.item VALUES (1, 'twice', 'ok')";
    let error = session.client.execute(sql, &[]).await.unwrap_err();
    let error = error.as_db_error().expect("it is PostgreSQL's");
    let several = session
        .client
        .simple_query("SELECT 1; SELECT 2, 3; SELECT 4 WHERE false; ;");
    let several: Vec<String> = several.await.unwrap().iter().map(simple).collect();
    assert_eq!(error.code().code(), "23505");
    json!({
        "severity": error.severity(),
        "code": error.code().code(),
        "message": error.message(),
        "detail": error.detail(),
        "schema": error.schema(),
        "table": error.table(),
        "constraint": error.constraint(),
        "routine": error.routine(),
        "several": several,
    })
}

fn simple(message: &SimpleQueryMessage) -> String {
    match message {
        SimpleQueryMessage::Row(row) => format!("row {:?} of {}", row.get(0), row.len()),
        SimpleQueryMessage::CommandComplete(count) => format!("complete {count}"),
        SimpleQueryMessage::RowDescription(columns) => format!("columns {}", columns.len()),
        other => format!("{other:?}"),
    }
}

async fn notices(session: &mut Session) -> Value {
    while session.messages.try_recv().is_ok() {} // those of the schema
    let first = "DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'two'; END $$";
    let second = "DO $$ BEGIN RAISE WARNING 'three' USING ERRCODE = 'XX123'; END $$";
    let mut heard = Vec::new();
    for sql in [first, second] {
        session.client.batch_execute(sql).await.unwrap();
        match session.heard().await {
            AsyncMessage::Notice(notice) => heard.push(json!([
                notice.severity(),
                notice.code().code(),
                notice.message(),
                notice.hint()
            ])),
            other => panic!("{other:?} instead of a notice"),
        }
    }
    json!(heard)
}

async fn server_side_cursor(session: &mut Session) -> Value {
    let transaction = session.client.transaction().await.unwrap();
    let portal = transaction
        .bind("SELECT generate_series(1, 1000)", &[])
        .await
        .unwrap();
    let first = transaction.query_portal(&portal, 10).await.unwrap();
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    let sum = |rows: &[Row]| rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>();
    let sums = json!([sum(&first), sum(&rest)]);
    transaction.commit().await.unwrap();
    assert_eq!(sums, json!([55, 500_445]));
    sums
}

async fn notify(session: &mut Session, sender: &Session) -> Value {
    session
        .client
        .batch_execute("LISTEN channel")
        .await
        .unwrap();
    let pid: i32 = sender.one("SELECT pg_backend_pid()").await;
    let long = "x".repeat(7000);
    let sql = "SELECT pg_notify('channel', 'first')::text, pg_notify('channel', $1)::text";
    sender.client.query_one(sql, &[&long]).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..2 {
        match session.heard().await {
            AsyncMessage::Notification(it) => heard.push(json!([
                it.channel(),
                digest(it.payload().as_bytes()),
                it.process_id() == pid
            ])),
            other => panic!("{other:?} instead of a notification"),
        }
    }
    session.client.batch_execute("UNLISTEN *").await.unwrap();
    json!(heard)
}

async fn cancel(session: &Session, other: &Session) -> Value {
    let pid: i32 = session.one("SELECT pg_backend_pid()").await;
    let sleeping = "SELECT count(*) FROM pg_stat_activity \
                    WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'";
    let cancelling = async {
        eventually(SOON, "the query sleeps", async || {
            let row = other.client.query_one(sleeping, &[&pid]).await.unwrap();
            if row.get::<_, i64>(0) == 1 {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await;
        session
            .client
            .cancel_token()
            .cancel_query(NoTls)
            .await
            .unwrap();
    };
    let (slept, ()) = tokio::join!(
        session.client.query_one("SELECT pg_sleep(60)", &[]),
        cancelling
    );
    let outcome = code(&slept.unwrap_err());
    let same = session.one::<i32>("SELECT pg_backend_pid()").await == pid;
    assert_eq!(outcome, "57014");
    json!({"outcome": outcome, "same_backend": same})
}

async fn pipeline_with_error(session: &Session) -> Value {
    // Futures that are polled together are pipelined, each with a Sync of its own.
    let client = &session.client;
    let statement = client.prepare("SELECT 100 / $1::int4").await.unwrap();
    let (a, b, c, d) = tokio::join!(
        client.query_one(&statement, &[&1_i32]),
        client.query_one(&statement, &[&0_i32]),
        client.query_one(&statement, &[&2_i32]),
        client.query_one("SELECT 7", &[]),
    );
    let outcomes = [outcome(a), outcome(b), outcome(c), outcome(d)];
    assert_eq!(outcomes[1], "22012");
    json!(outcomes)
}

/// tokio-postgres comes without a pool: bb8's, with its defaults.
async fn default_pool(url: &str) -> Value {
    let manager = bb8_postgres::PostgresConnectionManager::new(url.parse().unwrap(), NoTls);
    let pool = bb8::Pool::builder().build(manager).await.unwrap();
    let work: Vec<_> = (0..40_i32)
        .map(|number| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let client = pool.get().await.unwrap();
                let row = client
                    .query_one("SELECT $1::int4", &[&number])
                    .await
                    .unwrap();
                row.get::<_, i32>(0)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in work {
        answers.push(task.await.unwrap());
    }
    json!(answers)
}
