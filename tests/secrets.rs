//! No literal of a statement, no value of a parameter and no password is ever in what execpool
//! writes itself: its log at the most talkative level, its answers, its errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use support::session::{assert_in, error};
use support::sidecar::upstream;
use support::{Database, Message, Postgres, Raw, Sidecar};

/// A word that nothing else contains: letters for texts, digits for numbers.
struct Canary {
    word: String,
    number: String,
}

impl Canary {
    fn new() -> Self {
        let random = std::process::id() as u64 * 1_000_003
            + std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .subsec_nanos() as u64;
        Self {
            word: format!("canary{random:016x}bird"),
            number: format!("7{random:015}"),
        }
    }

    /// Statements with the canary in every form of literal; some fail, which is fine.
    fn statements(&self) -> Vec<String> {
        let Self { word, number } = self;
        let hex: String = word.bytes().map(|byte| format!("{byte:02X}")).collect();
        vec![
            format!("SELECT '{word}'"),
            format!("SELECT 'it''s {word}', 'x' 'y{word}'"),
            format!("SELECT E'\\n{word}\\''"),
            format!("SELECT U&'\\0061{word}'"),
            format!("SELECT $${word}$$, $tag$ $$ {word} $tag$"),
            format!("SELECT N'{word}', B'101', X'{hex}'"),
            format!("SELECT {number}, -{number}.5e3, {number}::text"),
            format!("SELECT 1 -- {word}\n, 2 /* {word} /* {word} */ {word} */"),
            format!("DO $do$ BEGIN PERFORM '{word}'; RAISE NOTICE 'x'; END $do$"),
            format!("PREPARE p AS SELECT $1::text; EXECUTE p('{word}')"),
            format!("SET application_name = '{word}'"),
            format!("SET my.setting TO {word}"),
            format!("SET work_mem = '{word}'"),
            format!("ALTER ROLE app PASSWORD '{word}'"),
            format!("CREATE USER MAPPING FOR app SERVER s OPTIONS (password '{word}')"),
            format!("SELECT 'unterminated {word}"),
            format!("SELECT /* unterminated {word}"),
            format!("SELECT $x${word}"),
            format!("INSERT INTO missing VALUES ('{word}', {number})"),
            format!("SELECT set_config('execpool.label', '{word}', false)"),
            format!("SET execpool.label = '{word}'"),
            format!("SELECT '{word}' WHERE wrong syntax {number}"),
        ]
    }

    fn is_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let hex: String = self
            .word
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        [&self.word, &self.number, &hex]
            .iter()
            .any(|secret| text.contains(secret.as_str()))
    }

    #[track_caller]
    fn is_not_in(&self, where_: &str, text: &str) {
        assert!(!self.is_in(text), "the canary is in {where_}: {text}");
    }

    /// What execpool itself has told, notices and errors of its own.
    #[track_caller]
    fn is_not_in_our_own(&self, messages: &[Message]) {
        for message in messages.iter().filter(|m| matches!(m.kind, b'E' | b'N')) {
            let fields = message.fields();
            if fields[&'M'].starts_with("execpool") {
                self.is_not_in("a message of execpool's", &format!("{fields:?}"));
            }
        }
    }
}

/// Parse, Bind with the canary as a text and as a binary value, Execute, Sync.
fn bound(canary: &Canary) -> BytesMut {
    let mut bytes = BytesMut::new();
    let sql = format!("SELECT $1::text, $2::bytea, '{}'", canary.word);
    frontend::parse("s1", &sql, [], &mut bytes).unwrap();
    let values = [canary.word.clone(), canary.number.clone()];
    let write = |value: String, out: &mut BytesMut| {
        out.extend_from_slice(value.as_bytes());
        Ok::<_, Box<dyn std::error::Error + Sync + Send>>(postgres_protocol::IsNull::No)
    };
    let formats = [0, 1];
    assert!(frontend::bind("", "s1", formats, values, write, [], &mut bytes).is_ok());
    frontend::execute("", 0, &mut bytes).unwrap();
    frontend::sync(&mut bytes);
    bytes
}

/// Asks all that the control socket tells, and the log.
async fn look_everywhere(canary: &Canary, sidecar: &Sidecar) {
    for path in [
        "/v1/status",
        "/v1/sessions",
        "/v1/executions",
        "/v1/executions?ended=true",
        "/v1/executions/a",
        "/v1/database/health",
        "/api/memory/debug/connections/status",
    ] {
        let (_, answer) = sidecar.control("GET", path, None).await;
        canary.is_not_in(path, &answer.to_string());
    }
    canary.is_not_in("the log", &sidecar.log().join("\n"));
}

async fn place(name: &str) -> (Database, Sidecar) {
    let database = Postgres::shared().database(name).await;
    let yaml = upstream("app", &database.url())
        + "pool: {size: 1, overflow: 1, timeout: 300ms, notice_after: 100ms}\n\
           budget: {size: 2, overflow: 0, warm: 1}\n\
           log: {level: trace}\n";
    (database, Sidecar::start(yaml).await)
}

async fn copy_in(raw: &mut Raw, canary: &Canary) {
    raw.query("CREATE TEMP TABLE copied (x text)").await;
    raw.send_with(|out| frontend::query("COPY copied FROM STDIN", out).unwrap())
        .await;
    let mut bytes = BytesMut::new();
    let row = bytes::Bytes::from(format!("{}\n", canary.word));
    frontend::CopyData::new(row).unwrap().write(&mut bytes);
    frontend::copy_fail(&canary.word, &mut bytes).unwrap();
    raw.send(&bytes).await;
    raw.read_until(b'Z').await;
}

#[tokio::test]
async fn no_literal_is_in_the_log_the_answers_or_the_errors() {
    let (_database, sidecar) = place("literals").await;
    let canary = Canary::new();
    for statement in canary.statements() {
        let mut raw = sidecar.session("app", "a").await;
        canary.is_not_in_our_own(&raw.query(&statement).await);
        // The same prepared, and while it is the last statement of one that is looked at.
        let mut bytes = BytesMut::new();
        frontend::parse("", &statement, [], &mut bytes).unwrap();
        frontend::sync(&mut bytes);
        raw.send(&bytes).await;
        canary.is_not_in_our_own(&raw.read_until(b'Z').await);
        look_everywhere(&canary, &sidecar).await;
    }
    let mut raw = sidecar.session("app", "a").await;
    raw.send(&bound(&canary)).await;
    let told = raw.read_until(b'Z').await;
    let seen = told
        .iter()
        .any(|message| message.kind == b'D' && canary.is_in(&format!("{message:?}")));
    assert!(seen, "the server's own rows pass as they are: {told:?}");
    look_everywhere(&canary, &sidecar).await;
    copy_in(&mut raw, &canary).await;
    look_everywhere(&canary, &sidecar).await;
    // It was looked at something: the statements are shown, without their literals.
    let sessions = sidecar.sessions_of("a").await;
    assert!(
        sessions
            .iter()
            .any(|s| s["statement"] == "COPY copied FROM STDIN"),
        "{sessions:?}"
    );
}

#[tokio::test]
async fn no_literal_of_a_holder_is_told_to_who_waits_in_vain() {
    let (_database, sidecar) = place("holders").await;
    let canary = Canary::new();
    for statement in canary.statements() {
        let mut holder = sidecar.session("app", "a").await;
        holder.query(&statement).await;
        let mut second = sidecar.session("app", "a").await;
        second.send(&bound(&canary)).await;
        second.read_until(b'Z').await;
        let mut waiting = sidecar.session("app", "a").await;
        let told = waiting.query(&statement).await;
        assert_eq!(error(&told)[&'C'], "53300");
        assert!(error(&told)[&'D'].contains("last statement"), "{told:?}");
        canary.is_not_in_our_own(&told);
        look_everywhere(&canary, &sidecar).await;
        drop((holder, second, waiting));
        sidecar.settles().await;
    }
    let (status, ended) = sidecar.control("DELETE", "/v1/executions/a", None).await;
    assert_eq!(status, 200);
    canary.is_not_in("the end", &ended.to_string());
    look_everywhere(&canary, &sidecar).await;
}

#[tokio::test]
async fn garbage_with_a_secret_in_it_is_not_quoted() {
    let (_database, sidecar) = place("garbage").await;
    let canary = Canary::new();
    for bytes in [
        canary.word.clone().into_bytes(),
        [&b"Q\0\0\0\x30"[..], canary.word.as_bytes(), &[b'x'; 40]].concat(),
        [&b"p\0\0\0\x20"[..], canary.word.as_bytes(), b"\0"].concat(),
    ] {
        let mut raw = sidecar.session("app", "a").await;
        raw.send(&bytes).await;
        let fields = raw.expect_error().await;
        assert_eq!(fields[&'C'], "08P01");
        canary.is_not_in("a violation", &format!("{fields:?}"));
        // The same as a first packet.
        let mut raw = sidecar.raw().await;
        raw.send(&bytes).await;
        let fields = raw.expect_error().await;
        canary.is_not_in("a refused startup", &format!("{fields:?}"));
    }
    look_everywhere(&canary, &sidecar).await;
}

#[tokio::test]
async fn no_password_is_in_the_log_the_answers_or_the_errors() {
    let database = Postgres::shared().database("passwords").await;
    let canary = Canary::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", canary.word)).unwrap();
    let base = database.url_as("scram_user");
    let in_url = base.replace("scram_user@", &format!("scram_user:{}@", canary.word));
    let of_file = format!(
        "{}    password_file: {}\n",
        upstream("app", &base),
        file.path().display()
    );
    let trace = "log: {level: trace}\n";
    let ways = [
        Sidecar::options().config(upstream("app", &in_url) + trace),
        Sidecar::options().config(of_file + trace),
        Sidecar::options()
            .config(upstream("app", &base) + trace)
            .env("PGPASSWORD", canary.word.clone()),
    ];
    for options in ways {
        let sidecar = options.start().await;
        let named = [
            ("user", "scram_user"),
            ("database", "app"),
            ("execpool.execution_id", "a"),
        ];
        let mut raw = sidecar.raw().await;
        let told = raw.startup(&named).await;
        // It is the wrong one: each place where it could be quoted is passed.
        assert_eq!(error(&told)[&'C'], "28P01", "{told:?}");
        canary.is_not_in("the error", &format!("{told:?}"));
        tokio::time::sleep(Duration::from_millis(200)).await;
        look_everywhere(&canary, &sidecar).await;
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["check", "--json"])
        .env("DATABASE_URL", &in_url)
        .output()
        .unwrap();
    assert!(output.status.success());
    canary.is_not_in("check", &String::from_utf8_lossy(&output.stdout));
    canary.is_not_in("check", &String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_canary_is_found_where_it_is() {
    let canary = Canary::new();
    for text in [
        canary.word.clone(),
        canary.number.clone(),
        canary.word.to_uppercase(),
    ] {
        assert!(canary.is_in(&format!("some text {text} and more")));
    }
    let (_database, sidecar) = place("found").await;
    let label = [
        ("execpool.execution_id", "a"),
        ("execpool.label", canary.word.as_str()),
    ];
    let (_raw, told) = sidecar.started("app", &label).await;
    assert_in(&told);
    // A label is shown as the app gives it: the looking works.
    let sessions = sidecar.get("/v1/sessions").await;
    assert!(canary.is_in(&sessions.to_string()), "{sessions}");
}
