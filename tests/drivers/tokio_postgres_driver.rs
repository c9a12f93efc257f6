//! The matrix with tokio-postgres.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, NoTls, Row, SimpleQueryMessage};

use crate::support::driver::Observations;
use crate::support::eventually;

const SCHEMA: &str = "
    DROP SCHEMA IF EXISTS matrix CASCADE;
    CREATE SCHEMA matrix;
    CREATE TYPE matrix.mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE matrix.item (id int PRIMARY KEY, name text, mood matrix.mood);
    CREATE TABLE matrix.copied (id int, name text);";

const REPORTED: [&str; 13] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// A value as the bytes that the server sends and takes, whatever its type.
#[derive(Debug)]
struct Binary(Vec<u8>);

impl<'a> FromSql<'a> for Binary {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Binary {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A connection and what came on it that no query asked for.
struct Session {
    client: Client,
    parameters: Value,
    messages: mpsc::UnboundedReceiver<AsyncMessage>,
}

impl Session {
    async fn connect(url: &str) -> Self {
        Self::connect_with(url, "").await
    }

    async fn connect_with(url: &str, options: &str) -> Self {
        let mut config: tokio_postgres::Config = url.parse().expect("the URL is well formed");
        if !options.is_empty() {
            config.options(options);
        }
        let (client, connection) = config.connect(NoTls).await.expect("the connection opens");
        let parameters = REPORTED
            .map(|name| (name.to_owned(), json!(connection.parameter(name))))
            .into_iter()
            .collect();
        let (sender, messages) = mpsc::unbounded_channel();
        tokio::spawn(drive(connection, sender));
        Self {
            client,
            parameters,
            messages,
        }
    }

    /// The next message that no query asked for.
    async fn heard(&mut self) -> AsyncMessage {
        tokio::time::timeout(Duration::from_secs(20), self.messages.recv())
            .await
            .expect("a message comes within 20 s")
            .expect("the connection lives")
    }

    async fn one<T: for<'a> FromSql<'a>>(&self, sql: &str) -> T {
        self.client.query_one(sql, &[]).await.expect(sql).get(0)
    }
}

async fn drive<S, T>(mut connection: Connection<S, T>, sender: mpsc::UnboundedSender<AsyncMessage>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        // Nobody listens any more when the test has ended.
        let _ = sender.send(message);
    }
}

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

fn code(error: &Error) -> Value {
    json!(error.code().map(tokio_postgres::error::SqlState::code))
}

fn outcome(result: Result<Row, Error>) -> Value {
    match result {
        Ok(row) => json!(row.get::<_, i32>(0)),
        Err(error) => code(&error),
    }
}

fn digest(data: &[u8]) -> Value {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    json!({"length": data.len(), "hash": hasher.finish()})
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

async fn prepared_six_times(session: &Session) -> Value {
    let statement = session
        .client
        .prepare("SELECT $1::int4 * 2, $2::text")
        .await
        .unwrap();
    let mut rows = Vec::new();
    for number in 0..6_i32 {
        let row = session
            .client
            .query_one(&statement, &[&number, &"x"])
            .await
            .unwrap();
        rows.push((row.get::<_, i32>(0), row.get::<_, String>(1)));
    }
    let columns: Vec<&str> = statement
        .columns()
        .iter()
        .map(|c| c.type_().name())
        .collect();
    let prepared: i64 = session
        .one("SELECT count(*) FROM pg_prepared_statements")
        .await;
    json!({"rows": rows, "columns": columns, "prepared": prepared})
}

async fn enums(session: &Session) -> Value {
    let sql = "INSERT INTO matrix.item VALUES ($1, $2, $3) RETURNING mood, mood::text";
    let mut moods = Vec::new();
    for (number, mood) in (0_i32..).zip(["sad", "ok", "happy"]) {
        let value = Binary(mood.as_bytes().to_vec());
        let row = session
            .client
            .query_one(sql, &[&number, &mood, &value])
            .await
            .unwrap();
        moods.push((row.get::<_, Binary>(0).0, row.get::<_, String>(1)));
    }
    let wrong = session
        .client
        .query_one("SELECT 'angry'::matrix.mood", &[])
        .await;
    let wrong = code(&wrong.unwrap_err());
    assert_eq!(wrong, "22P02");
    json!({"moods": moods, "wrong": wrong})
}

async fn arrays(session: &Session) -> Value {
    let numbers = vec![Some(1_i32), None, Some(3)];
    let texts = vec![Some("a"), None, Some("quo\"te"), Some("comma,"), Some("")];
    let sql = "SELECT $1::int[], $2::text[], '{{1,2},{3,4}}'::int[]";
    let row = session
        .client
        .query_one(sql, &[&numbers, &texts])
        .await
        .unwrap();
    json!({
        "numbers": row.get::<_, Vec<Option<i32>>>(0),
        "texts": row.get::<_, Vec<Option<String>>>(1),
        "nested": row.get::<_, Binary>(2).0,
    })
}

async fn jsonb(session: &Session) -> Value {
    // In its binary form jsonb is text after a version, which is 1.
    let document = b"\x01{\"a\": [1, 2, {\"b\": null}], \"text\": \"\xc3\xa5\\u00df\"}".to_vec();
    let sql = "SELECT $1::jsonb, $1::jsonb->'a'->2";
    let row = session
        .client
        .query_one(sql, &[&Binary(document)])
        .await
        .unwrap();
    json!([row.get::<_, Binary>(0).0, row.get::<_, Binary>(1).0])
}

async fn copy(session: &Session) -> Value {
    let client = &session.client;
    let sink = client
        .copy_in("COPY matrix.copied FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    for number in 0..2000 {
        let line = format!("{number}\trow\\t{number}\\n\\\\\n");
        sink.send(Bytes::from(line)).await.unwrap();
    }
    let copied = sink.finish().await.unwrap();

    let mut taken = Vec::new();
    for form in ["text", "binary"] {
        let sql = format!("COPY (TABLE matrix.copied ORDER BY id) TO STDOUT (FORMAT {form})");
        let parts: Vec<Bytes> = client
            .copy_out(&sql)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        taken.push(digest(&parts.concat()));
    }

    let sink = client
        .copy_in("COPY matrix.copied FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    sink.send(Bytes::from_static(b"1\tgood\nbad\tbad\n"))
        .await
        .unwrap();
    let wrong = code(&sink.finish().await.unwrap_err());

    {
        let sink = client
            .copy_in("COPY matrix.copied FROM STDIN")
            .await
            .unwrap();
        let mut given_up = pin!(sink);
        given_up
            .send(Bytes::from_static(b"1\tgood\n"))
            .await
            .unwrap();
        // Dropped without finish: the driver sends CopyFail.
    }
    let total: i64 = session.one("SELECT count(*) FROM matrix.copied").await;
    assert_eq!((copied, total, &wrong), (2000, 2000, &json!("22P02")));
    json!({"taken": taken, "wrong": wrong, "total": total})
}

async fn one_megabyte(session: &Session) -> Value {
    let text: String = (0..131_072).map(|number| format!("{number:07} ")).collect();
    let sql = "SELECT $1::text, encode(sha256($1::text::bytea), 'hex') FROM generate_series(1, 3)";
    let rows = session.client.query(sql, &[&text]).await.unwrap();
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!([
                digest(row.get::<_, &str>(0).as_bytes()),
                row.get::<_, String>(1)
            ])
        })
        .collect();
    assert_eq!(rows[0][0], digest(text.as_bytes()));
    json!(rows)
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
        eventually(Duration::from_secs(20), "the query sleeps", async || {
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
