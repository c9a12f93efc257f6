//! What a statement is about, and every password, stays between a client and its server: it is
//! found in no log, no answer of the control socket, no error of ours and no check.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use serde_json::json;
use support::postgres::PASSWORD;
use support::session::{assert_in, error, kinds, place};
use support::sidecar::upstream;
use support::{Postgres, Raw, Sidecar};

/// Who waits is told so soon, and waits in vain not for long.
const POOL_OF_ONE: &str =
    "pool: {size: 1, overflow: 0, timeout: 1s, notice_after: 10ms}\nlog: {level: trace}\n";
/// The same where a hundred wait in vain, one after the other.
const IMPATIENT: &str =
    "pool: {size: 1, overflow: 0, timeout: 50ms, notice_after: 10ms}\nlog: {level: trace}\n";

/// The same where nobody waits in vain.
const PATIENT: &str = "pool: {size: 1, overflow: 0, timeout: 10m}\nlog: {level: trace}\n";

/// More than is ever quoted of a holder's statement.
const QUOTED: usize = 200;

/// Random texts that are found nowhere by chance.
struct Canary {
    word: String,
    digits: String,
    bits: String,
    hex: String,
}

impl Canary {
    fn new() -> Self {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).unwrap();
        let number = u64::from_ne_bytes(bytes);
        Self {
            word: format!("canary{number:016x}"),
            digits: format!("7{:018}", number % 1_000_000_000_000_000_000),
            bits: format!("1{:048b}", number >> 16),
            hex: format!("AB{number:016X}"),
        }
    }

    /// Asserts that none of it is in a text.
    #[track_caller]
    fn assert_not_in(&self, text: &str, where_from: &str) {
        let lower = text.to_lowercase();
        for needle in [&self.word, &self.digits, &self.bits, &self.hex] {
            let found = lower.contains(&needle.to_lowercase());
            assert!(!found, "{needle} is in {where_from}: {text}");
        }
    }

    /// Statements with it in every form of a literal. They need not be right: what is wrong is
    /// shown as well.
    fn statements(&self) -> Vec<String> {
        let Self {
            word,
            digits,
            bits,
            hex,
        } = self;
        let mut all = vec![
            format!("SELECT '{word}'"),
            format!("SELECT 'it''s {word}', ''"),
            format!("SELECT 'a'\n  '{word}'"),
            format!("SELECT E'{word}'"),
            format!("SELECT e'it\\'s {word}'"),
            format!("SELECT E'\\\\', '{word}'"),
            format!("SELECT N'{word}'"),
            format!("SELECT U&'{word}'"),
            format!("SELECT U&'!0041{word}' UESCAPE '!'"),
            format!("SELECT $${word}$$"),
            format!("SELECT $tag$ $$ {word} $$ $tag$, $ä$ {word} $ä$"),
            format!("SELECT B'{bits}', b'{bits}'"),
            format!("SELECT X'{hex}', x'{hex}'"),
            format!("SELECT {digits}, -{digits}, {digits}.5, .{digits}, {digits}e1, 1e{digits}"),
            format!("SELECT 0x{hex}, 0b{bits}, 1_{digits}, {digits}abc"),
            format!("SELECT 1 -- {word}\n, 2 -- {digits}"),
            format!("SELECT 1 /* {word} /* nested {digits} */ {word} */, 2"),
            format!("/* {word} */ -- {word}\n SELECT 1"),
            format!(
                "SELECT '{word}'::text, text '{word}', date '{word}', CAST('{word}' AS json) -> '{word}'"
            ),
            format!("SELECT interval '{digits}' year, array['{word}', '{word}'], ('{word}')"),
            format!("INSERT INTO t VALUES ('{word}', {digits}), (E'{word}', -{digits})"),
            format!("UPDATE t SET a = '{word}', b = {digits} WHERE a LIKE '%{word}%'"),
            format!("DO $$ BEGIN PERFORM '{word}'; RAISE NOTICE '{word}'; END $$"),
            format!("DO LANGUAGE plpgsql 'BEGIN PERFORM ''{word}''; END'"),
            format!("DO $body$ BEGIN RAISE EXCEPTION '{word}'; END $body$"),
            format!("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $f$ SELECT '{word}' $f$"),
            format!("PREPARE p AS SELECT '{word}', $1; EXECUTE p('{word}')"),
            format!("EXECUTE p('{word}', {digits}, E'{word}')"),
            format!("SET myapp.secret = '{word}'"),
            format!("SET myapp.secret = {word}"),
            format!("SET SESSION myapp.secret TO {word}, {word}"),
            format!("SET LOCAL myapp.secret TO {digits}; SET TIME ZONE {word}"),
            format!("SET search_path = {word}, \"{word}\""),
            format!("SELECT set_config('myapp.secret', '{word}', false)"),
            format!("ALTER ROLE nobody_here PASSWORD '{word}'"),
            format!(
                "ALTER ROLE nobody_here WITH ENCRYPTED PASSWORD E'{word}' VALID UNTIL '{word}'"
            ),
            format!("CREATE USER nobody_here PASSWORD {word}"),
            format!("ALTER ROLE nobody_here SET myapp.secret TO {word}"),
            format!("ALTER DATABASE nowhere SET myapp.secret = {word}"),
            format!("CREATE USER MAPPING FOR app SERVER s OPTIONS (user 'x', password '{word}')"),
            format!("CREATE SUBSCRIPTION s CONNECTION 'password={word}' PUBLICATION p"),
            format!("SELECT dblink_connect('password={word}')"),
            format!("COMMENT ON TABLE t IS '{word}'; NOTIFY c, '{word}'"),
            format!("DECLARE c CURSOR FOR SELECT '{word}'"),
            format!("COPY t FROM PROGRAM '{word}' WITH (DELIMITER '{word}')"),
            format!("SELEC '{word}'"),
            format!("SELECT ('{word}'"),
            format!("SELECT 'unfinished {word}"),
            format!("SELECT E'unfinished\\' {word}"),
            format!("SELECT $$unfinished {word}"),
            format!("SELECT $a$ unfinished {word} $b$"),
            format!("SELECT /* unfinished {word}"),
            format!("SELECT 'a\\' {word}', 'b"),
            format!("SELECT 'a\\', '{word}'"),
            format!("SELECT 'a'{word}'b'"),
            format!("SET execpool.label = '{word}'"),
            format!("SELECT set_config('execpool.label', '{word}', false)"),
        ];
        // Cut off anywhere: what is kept of a statement has an end.
        for kept in [256, 1024] {
            for off in (0..40).step_by(5) {
                let names = "x".repeat(kept - 30 + off);
                all.push(format!("SELECT {names}, E'it\\'s {word} {word}'"));
                all.push(format!("SELECT {names} /* {word} */ -- {word} {word}"));
            }
        }
        all
    }
}

/// All that the control socket tells.
async fn told_by_control(sidecar: &Sidecar) -> String {
    let mut all = String::new();
    for path in [
        "/v1/status",
        "/v1/executions?ended=true",
        "/v1/executions",
        "/v1/executions/a",
        "/v1/sessions",
        "/v1/database/health",
        "/v1/config",
        "/api/memory/debug/connections/status",
    ] {
        let (_, body) = sidecar.control("GET", path, None).await;
        writeln!(all, "{path}: {body}").unwrap();
    }
    all
}

/// What one that waits in vain is told: a NOTICE and an error of ours, with the holders.
async fn told_in_vain(sidecar: &Sidecar) -> String {
    let mut late = sidecar.session("app", "a").await;
    let told = late.query("SELECT 1").await;
    assert_eq!(kinds(&told), "NEZ", "{told:?}");
    let fields = error(&told);
    assert_eq!(fields[&'C'], "53300");
    format!("{:?} {fields:?}", told[0].fields())
}

async fn extended(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| {
        frontend::parse("", sql, [], buffer).unwrap();
        bind(&[], buffer);
        frontend::execute("", 0, buffer).unwrap();
        frontend::sync(buffer);
    })
    .await;
    raw.read_until(b'Z').await;
}

/// Binds the unnamed statement; each parameter is text (0) or binary (1).
fn bind(parameters: &[(i16, &str)], buffer: &mut BytesMut) {
    let formats = parameters.iter().map(|(format, _)| *format);
    let write = |(_, value): &(i16, &str), buffer: &mut BytesMut| {
        buffer.extend_from_slice(value.as_bytes());
        Ok(IsNull::No)
    };
    frontend::bind("", "", formats, parameters, write, [], buffer)
        .unwrap_or_else(|_| panic!("{parameters:?}"));
}

#[tokio::test]
async fn no_literal_is_in_a_log_or_an_answer_or_an_error() {
    let (_database, sidecar) = place("literals", IMPATIENT).await;
    let canary = Canary::new();
    let mut raw = sidecar.enters("app", "a").await;
    raw.query("CREATE TABLE t (a text, b numeric)").await;
    let mut shown = 0;
    for (number, sql) in canary.statements().iter().enumerate() {
        match number % 2 {
            0 => drop(raw.query(sql).await),
            _ => extended(&mut raw, sql).await,
        }
        let answers = sidecar.get("/v1/sessions?execution=a").await;
        shown += usize::from(answers[0]["statement"].is_string());
        canary.assert_not_in(&answers.to_string(), sql);
        if sql.len() < QUOTED {
            canary.assert_not_in(&told_in_vain(&sidecar).await, sql);
        }
        raw.query("ROLLBACK").await;
    }
    assert!(shown > 70, "{shown} statements were shown at all");
    // The other way round, without the waits.
    for (number, sql) in canary.statements().iter().enumerate() {
        match number % 2 {
            1 => drop(raw.query(sql).await),
            _ => extended(&mut raw, sql).await,
        }
        let answers = sidecar.get("/v1/sessions?execution=a").await;
        canary.assert_not_in(&answers.to_string(), sql);
    }
    canary.assert_not_in(&told_by_control(&sidecar).await, "the control socket");
    // Holders are logged.
    sidecar.logged(&["last statement: SELECT ?"]).await;
    canary.assert_not_in(&sidecar.log().join("\n"), "the log");
}

#[tokio::test]
async fn no_parameter_and_no_row_of_a_copy_is_told() {
    let (_database, sidecar) = place("parameters", POOL_OF_ONE).await;
    let canary = Canary::new();
    let mut raw = sidecar.enters("app", "a").await;
    raw.query("CREATE TABLE t (a text, b text)").await;
    let values = [(0, canary.word.as_str()), (1, canary.word.as_str())];
    raw.send_with(|buffer| {
        frontend::parse("", "INSERT INTO t VALUES ($1, $2)", [], buffer).unwrap();
        bind(&values, buffer);
        frontend::execute("", 0, buffer).unwrap();
        frontend::sync(buffer);
    })
    .await;
    assert_eq!(kinds(&raw.read_until(b'Z').await), "12CZ");
    canary.assert_not_in(&told_in_vain(&sidecar).await, "what others are told");
    canary.assert_not_in(&told_by_control(&sidecar).await, "the control socket");

    // A COPY that goes well, one that fails, and one that is given up.
    for rows in [
        format!("{0}\t{0}\n", canary.word),
        format!("{}\n", canary.word),
        String::new(),
    ] {
        raw.send_with(|buffer| frontend::query("COPY t FROM STDIN", buffer).unwrap())
            .await;
        raw.read_until(b'G').await;
        raw.send_with(|buffer| {
            frontend::CopyData::new(rows.as_bytes())
                .unwrap()
                .write(buffer);
        })
        .await;
        canary.assert_not_in(&told_in_vain(&sidecar).await, "what others are told");
        canary.assert_not_in(&told_by_control(&sidecar).await, "the control socket");
        raw.send_with(|buffer| match rows.is_empty() {
            true => frontend::copy_fail(&canary.word, buffer).unwrap(),
            false => frontend::copy_done(buffer),
        })
        .await;
        raw.read_until(b'Z').await;
    }
    raw.send_with(|buffer| frontend::query("COPY t FROM STDIN", buffer).unwrap())
        .await;
    raw.read_until(b'G').await;
    raw.send_with(|buffer| {
        frontend::CopyData::new(canary.word.as_bytes())
            .unwrap()
            .write(buffer)
    })
    .await;
    drop(raw);
    sidecar.settles().await;
    canary.assert_not_in(&sidecar.log().join("\n"), "the log");
}

#[tokio::test]
async fn what_goes_wrong_is_told_without_what_it_is_about() {
    let (_database, sidecar) = place("wrong", POOL_OF_ONE).await;
    let canary = Canary::new();
    let word = &canary.word;
    let mut holder = sidecar.enters("app", "a").await;
    holder.query(&format!("BEGIN; SELECT '{word}'")).await;
    // While it waits itself.
    let mut late = sidecar.session("app", "a").await;
    let told = late.query(&format!("SELECT '{word}'")).await;
    canary.assert_not_in(
        &format!("{:?} {:?}", told[0].fields(), error(&told)),
        "an error",
    );
    // Violations, with and without a server connection.
    for bytes in [
        format!("p\0\0\0\x30{word}\0"),
        format!("Q\0\0\0\x08{word}"),
        format!("{word}{word}"),
    ] {
        for execution in ["b", "c"] {
            let mut raw = sidecar.session("app", execution).await;
            if execution == "c" {
                raw.query("SELECT 1").await;
            }
            raw.send(bytes.as_bytes()).await;
            canary.assert_not_in(&format!("{:?}", raw.expect_error().await), "a violation");
        }
    }
    let mut raw = sidecar.raw().await;
    raw.send(&[&[0, 0, 0, 40, 0, 3, 0, 0][..], word.as_bytes(), &[b'x'; 40]].concat())
        .await;
    canary.assert_not_in(
        &format!("{:?}", raw.expect_error().await),
        "a startup error",
    );
    // Requests that are wrong.
    for (path, body) in [
        ("/v1/executions", json!({"id": 5, "password": word})),
        ("/v1/executions", json!({"deadline": {"secret": word}})),
        ("/v1/executions", json!([word])),
        ("/v1/executions", json!(word)),
    ] {
        let (status, answer) = sidecar.control("POST", path, Some(body.clone())).await;
        assert!((400..500).contains(&status), "{answer}");
        canary.assert_not_in(&answer.to_string(), &body.to_string());
    }
    // The end of what runs.
    holder
        .send_with(|buffer| {
            frontend::query(&format!("SELECT '{word}', pg_sleep(600)"), buffer).unwrap();
        })
        .await;
    sidecar.session_is("a", "active").await;
    let (_, ended) = sidecar.control("DELETE", "/v1/executions/a", None).await;
    canary.assert_not_in(&ended.to_string(), "the summary");
    holder.read_until(b'E').await;
    canary.assert_not_in(&told_by_control(&sidecar).await, "the control socket");
    canary.assert_not_in(&sidecar.log().join("\n"), "the log");
}

#[tokio::test]
async fn a_startup_value_that_the_server_refuses_is_told_to_its_client_alone() {
    let (_database, sidecar) = place("startup_value", PATIENT).await;
    let canary = Canary::new();
    let options = format!("-c work_mem={}", canary.word);
    for parameters in [
        [("options", options.as_str())],
        [("TimeZone", &canary.word)],
    ] {
        let (_raw, told) = sidecar.started("app", &parameters).await;
        let fields = error(&told);
        assert_eq!(fields[&'C'], "22023");
        assert!(
            fields[&'M'].contains(&canary.word),
            "the server's own words: {fields:?}"
        );
    }
    canary.assert_not_in(&told_by_control(&sidecar).await, "the control socket");
    canary.assert_not_in(&sidecar.log().join("\n"), "the log");
}

#[tokio::test]
async fn keys_for_cancel_requests_are_told_to_their_client_alone() {
    let (_database, sidecar) = place("keys", PATIENT).await;
    let (mut raw, told) = sidecar
        .started("app", &[("execpool.execution_id", "a")])
        .await;
    assert_in(&told);
    let (pid, key) = told
        .iter()
        .find(|message| message.kind == b'K')
        .unwrap()
        .key();
    for key in [key, key ^ 1] {
        let mut cancel = sidecar.raw().await;
        let request = [80_877_102, pid, key].map(i32::to_be_bytes).concat();
        cancel.send(&[&[0, 0, 0, 16][..], &request].concat()).await;
        cancel.expect_closed().await;
    }
    raw.query("SELECT 1").await;
    let all = told_by_control(&sidecar).await + &sidecar.log().join("\n");
    let unsigned = u32::from_ne_bytes(key.to_ne_bytes());
    for needle in [
        key.to_string(),
        unsigned.to_string(),
        format!("{unsigned:08x}"),
    ] {
        assert!(!all.contains(&needle), "{needle} in {all}");
    }
}

/// What `execpool check` prints, in both of its forms, with these variables alone.
fn checked(yaml: &str, env: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, yaml).unwrap();
    let mut all = String::new();
    for form in [&[][..], &["--json"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_execpool"))
            .args(["check", "--config"])
            .arg(&path)
            .args(form)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        all += &String::from_utf8_lossy(&output.stdout);
        all += &String::from_utf8_lossy(&output.stderr);
    }
    all
}

#[tokio::test]
async fn a_password_of_an_upstream_is_told_nowhere_whether_it_is_right_or_wrong() {
    let database = Postgres::shared().database("passwords").await;
    let canary = Canary::new();
    let url = database.url_as("scram_user");
    let with = url.replacen("scram_user", &format!("scram_user:{}", canary.word), 1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, &canary.word).unwrap();
    let in_file = upstream("app", &url) + &format!("    password_file: {}\n", file.display());
    let pgpassword = [("PGPASSWORD", canary.word.as_str())];
    for (yaml, env) in [
        (upstream("app", &with), &[][..]),
        (
            upstream("app", &format!("{url}&password={}", canary.word)),
            &[],
        ),
        (in_file, &[]),
        (upstream("app", &url), &pgpassword[..]),
    ] {
        let check = checked(&yaml, env);
        assert!(check.contains("scram_user"), "{check}");
        canary.assert_not_in(&check, "the check");

        let mut options = Sidecar::options().config(yaml.clone() + PATIENT);
        for (name, value) in env {
            options = options.env(name, *value);
        }
        let sidecar = options.start().await;
        let mut raw = sidecar.raw().await;
        let told = raw
            .startup(&[("user", "scram_user"), ("database", "app")])
            .await;
        let fields = error(&told);
        assert_eq!(fields[&'C'], "28P01", "{yaml}: {fields:?}");
        canary.assert_not_in(&format!("{fields:?}"), "what the client is told");
        canary.assert_not_in(&told_by_control(&sidecar).await, "the control socket");
        let (_, created) = sidecar
            .control("POST", "/v1/executions", Some(json!({})))
            .await;
        canary.assert_not_in(&created.to_string(), "a URL for drivers");
        canary.assert_not_in(&sidecar.log().join("\n"), "the log");
    }

    // The right one, which is no random text.
    std::fs::write(&file, PASSWORD).unwrap();
    let yaml = upstream("app", &url) + &format!("    password_file: {}\n", file.display());
    let sidecar = Sidecar::start(yaml + PATIENT).await;
    let mut raw = sidecar.raw().await;
    assert_in(
        &raw.startup(&[("user", "scram_user"), ("database", "app")])
            .await,
    );
    raw.ask("SELECT 1").await;
    let all = told_by_control(&sidecar).await + &sidecar.log().join("\n");
    assert!(!all.contains(PASSWORD), "{all}");
}

/// What anybody on the machine can ask the system about a process.
fn told_by_the_system(pid: u32) -> String {
    let file = |name| std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
    let all = [file("cmdline"), file("environ"), file("comm")].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn the_password_of_tcp_clients_and_its_verifier_are_told_nowhere() {
    let database = Postgres::shared().database("tcp_password").await;
    let canary = Canary::new();
    let word = &canary.word;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, word).unwrap();
    let yaml = format!(
        "{}{PATIENT}listen: {{tcp: '127.0.0.1:0', tcp_password_file: {}}}\n",
        upstream("app", &database.url()),
        file.display()
    );
    let sidecar = Sidecar::start(&*yaml).await;
    let verifier = postgres_protocol::password::scram_sha_256(word.as_bytes());
    let address = sidecar.tcp().await;
    let connect = async |password: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host(address.ip().to_string()).port(address.port());
        config.user("app").dbname("app").password(password);
        let connected = config.connect(tokio_postgres::NoTls).await;
        connected.map_err(|error| format!("{error:?}")).err()
    };
    let told = async |what: &str, refused: Option<String>| {
        let status = Command::new(env!("CARGO_BIN_EXE_execpool"))
            .args(["status", "--json", "--socket"])
            .arg(sidecar.control_socket())
            .output()
            .unwrap();
        for (from, text) in [
            ("the check", checked(&yaml, &[])),
            ("the refusal", refused.unwrap_or_default()),
            ("the control socket", told_by_control(&sidecar).await),
            ("execpool status", format!("{status:?}")),
            ("the system", told_by_the_system(sidecar.pid())),
            ("the log", sidecar.log().join("\n")),
        ] {
            canary.assert_not_in(&text, &format!("{from} ({what})"));
            // Salt and keys: the last parts are enough to be guessed at, or to be let in.
            for secret in verifier.split(['$', ':']).skip(2) {
                assert!(!text.contains(secret), "{secret} is in {from}: {text}");
            }
        }
    };
    for (what, content) in [
        ("a password", word.clone().into_bytes()),
        ("a verifier", verifier.clone().into_bytes()),
    ] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(connect(word).await, None, "{what}");
        told(what, None).await;
        let refused = connect(&format!("{word}x")).await;
        assert!(refused.as_ref().unwrap().contains("28P01"), "{refused:?}");
        told(what, refused).await;
        let refused = connect(&verifier).await;
        assert!(refused.as_ref().unwrap().contains("28P01"), "{refused:?}");
        told(what, refused).await;
    }
    for (what, content) in [
        (
            "a bad verifier",
            format!("SCRAM-SHA-256$4096:{word}").into_bytes(),
        ),
        (
            "half a verifier",
            verifier.as_bytes()[..verifier.len() - 9].to_vec(),
        ),
        ("too long", [word.as_bytes(), &[b'x'; 5000]].concat()),
        ("no text", [word.as_bytes(), &[0xff]].concat()),
    ] {
        std::fs::write(&file, content).unwrap();
        let refused = connect(word).await;
        assert!(refused.is_some(), "{what} lets in");
        told(what, refused).await;
    }
    // In the place of the file's name, by mistake.
    let wrong = yaml.replace(file.to_str().unwrap(), word);
    let check = checked(&wrong, &[]);
    assert!(check.contains("listen.tcp_password_file"), "{check}");
    canary.assert_not_in(&check, "the check of a password that stands for a path");
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_refused_without_its_passwords() {
    let canary = Canary::new();
    let word = &canary.word;
    let good = format!("postgresql://app:{word}@db/app");
    for yaml in [
        format!("upstreams:\n  - url: \"postgresql://app:{word}@db:port/app\"\n"),
        format!("upstreams:\n  - url: \"postgresql://app:{word}@db/app?sslmode=wrong\"\n"),
        format!("upstreams:\n  - url: \"postgresql://app:{word}%zz@db/app\"\n"),
        format!("upstreams:\n  - url: \"postgres:app:{word}@db/app\"\n"),
        format!("upstreams:\n  - url: \"postgresql://app:{word}@[::1/app\"\n"),
        format!("upstreams:\n  - url: \"http://app:{word}@db/app\"\n"),
        format!("upstreams:\n  - url: \"host=db user=app password={word}\"\n"),
        format!("upstreams:\n  - url: \"postgresql://app@db/app?pasword={word}\"\n"),
        format!("upstreams:\n  - url: \"{good}\"\n    pasword: {word}\n"),
        format!("upstreams:\n  - url: \"{good}\"\n    password: {word}\n"),
        format!("upstreams:\n  - url: \"{good}\"\n   name: app\n"),
        format!("upstreams:\n  - url: \"{good}\n"),
        format!("upstreams:\n  - url: {{password: {word}}}\n"),
        format!("upstreams:\n  - url: \"{good}\"\n    url: \"{good}\"\n"),
        format!("upstreams: \"{good}\"\n"),
        format!("upstreams:\n  - \"{good}\"\n"),
        format!("upstreams: [\"{good}\"\n"),
    ] {
        let check = checked(&yaml, &[]);
        assert!(check.contains("execpool: "), "{yaml}: {check}");
        canary.assert_not_in(&check, &yaml);
    }
    for (name, value) in [
        (
            "DATABASE_URL",
            format!("postgresql://app:{word}@db:port/app"),
        ),
        ("DATABASE_URL", format!("{word}@db/app")),
        (
            "EXECPOOL_UPSTREAMS__0__URL",
            format!("postgresql://app:{word}@db:port/app"),
        ),
    ] {
        let check = checked("{}\n", &[(name, &value)]);
        assert!(check.contains("execpool: "), "{name}: {check}");
        canary.assert_not_in(&check, name);
    }
    let check = checked("{}\n", &[("DATABASE_URL", &good)]);
    assert!(check.contains("app"), "{check}");
    canary.assert_not_in(&check, "a check that goes well");
}
