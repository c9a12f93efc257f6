//! What psql sees at PostgreSQL - output, errors, exit status - is the same through execpool.
//! The matrix is that of the drivers; each entry is a script of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::io::{Seek, Write};
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::driver::{Observations, Places, assert_complete, assert_same, not_offered};
use support::{Database, Postgres, SOON, eventually, tools};
use tokio::process::Command;

/// Each begins in a session of its own, with the tables of [`SCHEMA`].
const SCRIPTS: [(&str, &str); 13] = [
    (
        "startup",
        "SHOW statement_timeout; SHOW TimeZone; SHOW my.setting; SHOW application_name;",
    ),
    (
        "parameter_status",
        "\\echo :SERVER_VERSION_NUM :SERVER_VERSION_NAME :ENCODING :USER
         SHOW server_version; SHOW DateStyle; SHOW IntervalStyle; SHOW is_superuser;
         SET client_encoding = 'LATIN1';
         \\echo :ENCODING
         SET TimeZone = 'Asia/Kolkata'; SELECT '2026-01-01 00:00Z'::timestamptz;
         RESET ALL; SHOW TimeZone; SHOW client_encoding;",
    ),
    (
        "prepared_six_times",
        "PREPARE twice (int) AS SELECT $1 * 2;
         EXECUTE twice(1); EXECUTE twice(2); EXECUTE twice(3);
         EXECUTE twice(4); EXECUTE twice(5); EXECUTE twice(6);
         SELECT name, generic_plans, custom_plans FROM pg_prepared_statements;
         DEALLOCATE twice; EXECUTE twice(7);
         SELECT 1 AS a, NULL AS b \\gdesc",
    ),
    (
        "enum",
        "INSERT INTO item VALUES (1, 'one', 'sad'), (2, 'two', 'happy') RETURNING mood;
         SELECT 'angry'::mood; SELECT enum_range(NULL::mood); \\dT mood",
    ),
    (
        "array",
        "SELECT ARRAY[1, NULL, 3], ARRAY['a', NULL, 'quo\"te', 'comma,', ''], '{{1,2},{3,4}}'::int[];",
    ),
    (
        "jsonb",
        "SELECT '{\"b\": [1, null, \"åß∂\"], \"a\": 1.50}'::jsonb, '{\"a\": [1, 2]}'::jsonb #> '{a,1}';",
    ),
    (
        "copy",
        "COPY copied FROM STDIN;\n1\tone\n2\t\\N\n3\ttab\\there\n\\.\n
         COPY (TABLE copied ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER);
         \\copy copied from stdin\n4\tfour\n\\.\n
         \\copy (SELECT id FROM copied ORDER BY id) to stdout
         COPY copied FROM STDIN;\n5\tgood\nbad\tbad\n\\.\n
         SELECT count(*) FROM copied;
         COPY (SELECT generate_series(1, 20000)) TO STDOUT;",
    ),
    (
        "one_megabyte",
        "SELECT string_agg(lpad(n::text, 7, '0') || ' ', '') FROM generate_series(0, 131071) n;",
    ),
    (
        "error_in_transaction",
        "BEGIN; INSERT INTO item VALUES (100, 'lost', 'sad'); SELECT 1 / 0;
         \\echo :ERROR :LAST_ERROR_SQLSTATE
         SELECT 1;
         \\echo :ERROR :LAST_ERROR_SQLSTATE
         COMMIT; SELECT count(*) FROM item WHERE id = 100;
         \\set ON_ERROR_ROLLBACK on
         BEGIN; SELECT 'x'::int; SELECT 'still in it'; COMMIT;
         \\set AUTOCOMMIT off
         SELECT 1; ROLLBACK;",
    ),
    (
        "error_fields",
        "\\set VERBOSITY verbose
         INSERT INTO item VALUES (1, 'twice', 'ok'); INSERT INTO item VALUES (1, 'twice', 'ok');
         SELECT wrong FROM item;
         SELECT 1\\; SELECT 1 / 0\\; SELECT 2;
         SELECT 3\\; SELECT 4, 5\\; SELECT 6 WHERE false;",
    ),
    (
        "notices",
        "DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'two'; END $$;
         DO $$ BEGIN RAISE WARNING 'three' USING ERRCODE = 'XX123'; END $$;
         DROP TABLE IF EXISTS nothing;",
    ),
    (
        "server_side_cursor",
        "BEGIN; DECLARE walk SCROLL CURSOR FOR SELECT generate_series(1, 1000);
         FETCH 3 FROM walk; MOVE 500 IN walk; FETCH walk; FETCH PRIOR FROM walk; COMMIT;
         \\set FETCH_COUNT 100
         SELECT generate_series(1, 1000);",
    ),
    (
        "notify",
        "SELECT pg_backend_pid() AS own \\gset
         LISTEN channel; NOTIFY channel, 'first'; SELECT pg_notify('channel', repeat('x', 7000));
         \\echo own :own
         UNLISTEN *; NOTIFY channel, 'unheard'; SELECT 1;",
    ),
];

/// psql has pipelines since version 18.
const PIPELINE: &str = "\\startpipeline
    SELECT 100 / $1::int \\bind 1 \\sendpipeline
    SELECT 100 / $1::int \\bind 0 \\sendpipeline
    SELECT 100 / $1::int \\bind 2 \\sendpipeline
    \\syncpipeline
    SELECT 100 / $1::int \\bind 4 \\sendpipeline
    \\endpipeline
    SELECT 'still here';";

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE item (id int PRIMARY KEY, name text, mood mood);
    CREATE TABLE copied (id int, name text);";

#[tokio::test]
async fn psql_sees_the_same_through_execpool() {
    let places = Places::fresh("psql").await;
    let direct = observe(&places.direct_url(), &places.first).await;
    let proxied = observe(&places.proxied_url(), &places.second).await;
    let left_out = ["pipeline_with_error", "default_pool"];
    assert_complete(&direct, &left_out[usize::from(has_pipelines())..]);
    assert_shows_what_it_is_there_for(&direct);
    assert_same(&direct, &proxied);
}

async fn observe(url: &str, database: &Database) -> Observations {
    database
        .client()
        .await
        .batch_execute(SCHEMA)
        .await
        .expect("the schema is made");
    let mut seen = Observations::new();
    for (name, script) in SCRIPTS {
        seen.push((name.to_owned(), run(url, script).await));
    }
    seen.push(("cancel".to_owned(), cancel(url, database).await));
    let pipeline = if has_pipelines() {
        run(url, PIPELINE).await
    } else {
        not_offered("psql has pipelines since version 18")
    };
    seen.push(("pipeline_with_error".to_owned(), pipeline));
    seen.push(("default_pool".to_owned(), not_offered("psql has no pool")));
    seen
}

async fn run(url: &str, script: &str) -> Value {
    let output = psql(url).stdin(input(script)).output().await;
    said(&output.expect("psql can be run"))
}

fn has_pipelines() -> bool {
    let version = std::process::Command::new(tools::postgres_program("psql"))
        .arg("--version")
        .output()
        .expect("psql can be run");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let number = version
        .split(|c: char| !c.is_ascii_digit())
        .find(|part| !part.is_empty());
    number
        .and_then(|number| number.parse::<u32>().ok())
        .expect("psql says its version")
        >= 18
}

/// psql at a URL, with nothing from outside: no settings, no files of the person's.
fn psql(url: &str) -> Command {
    let mut command = Command::new(tools::postgres_program("psql"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    command
        .env(
            "PGOPTIONS",
            "-c statement_timeout=43210 -c TimeZone=Asia/Tokyo -c my.setting=x\\ y",
        )
        .env("PGCLIENTENCODING", "UTF8")
        .args(["--no-psqlrc", "--echo-queries", "--no-password", url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A script as standard input: so errors don't name a file.
fn input(script: &str) -> Stdio {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(script.as_bytes())
        .expect("it can be written");
    file.rewind().expect("it can be read again");
    Stdio::from(file)
}

/// What psql wrote and how it ended. The PID that a script shows as its own is left out.
fn said(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let own = stdout.lines().find_map(|line| line.strip_prefix("own "));
    let stdout = match own {
        Some(pid) => stdout.replace(pid, "(own PID)"),
        None => stdout.to_string(),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    json!({
        "status": output.status.code(),
        "output": stdout.lines().collect::<Vec<_>>(),
        "errors": stderr.lines().collect::<Vec<_>>(),
    })
}

/// Ctrl-C in psql sends a cancel request.
async fn cancel(url: &str, database: &Database) -> Value {
    let script = input("SELECT pg_sleep(60); SELECT 'not reached';");
    let child = psql(url).stdin(script).spawn().expect("psql can be run");
    let sleeping = format!("datname = '{}' AND wait_event = 'PgSleep'", database.name);
    eventually(
        SOON,
        "psql's query sleeps",
        async || match Postgres::shared().activity(&sleeping).await.len() {
            1 => Ok(()),
            count => Err(count),
        },
    )
    .await;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .expect("psql runs");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("psql can be signalled");
    said(&child.wait_with_output().await.expect("psql ends"))
}

/// A script that shows nothing would show no difference either.
fn assert_shows_what_it_is_there_for(observations: &Observations) {
    let expected = [
        ("startup", "43210ms"),
        ("parameter_status", "LATIN1"),
        ("prepared_six_times", "12"),
        ("enum", "angry"),
        ("array", "comma,"),
        ("jsonb", "åß∂"),
        ("copy", "20000"),
        ("one_megabyte", "0131071"),
        ("error_in_transaction", "true 25P02"),
        ("error_fields", "item_pkey"),
        ("notices", "three"),
        ("server_side_cursor", "504"),
        ("notify", "xxx"),
        ("cancel", "canceling statement due to user request"),
    ];
    for (name, text) in expected {
        let (_, value) = observations
            .iter()
            .find(|(other, _)| other == name)
            .expect(name);
        assert!(
            value.to_string().contains(text),
            "{name} does not show {text}: {value}"
        );
    }
}
