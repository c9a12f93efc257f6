//! How a session begins: who is let in, what it is told, in which execution it is, what reaches
//! the server of what the client wrote, and what is said to who is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use support::postgres::{PASSWORD, ROLES};
use support::session::{assert_in, error, kinds, nothing_pooled_left, place, rows};
use support::sidecar::upstream;
use support::{Message, Postgres, Raw, SOON, Sidecar, eventually};

/// Startup parameters, the execution they name, and the application's name at the server.
type Form<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

/// What somebody is told who is refused, and whose connection is closed after that.
async fn refused(sidecar: &Sidecar, parameters: &[(&str, &str)]) -> BTreeMap<char, String> {
    let mut raw = sidecar.raw().await;
    let told = raw.startup(parameters).await;
    assert_eq!(kinds(&told), "E", "{told:?}");
    raw.expect_closed().await;
    let fields = error(&told);
    assert_eq!(
        (fields[&'S'].as_str(), fields[&'V'].as_str()),
        ("FATAL", "FATAL")
    );
    fields
}

fn as_app<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("user", "app"), ("database", "app")][..], more].concat()
}

/// A startup packet of these bytes behind its length.
fn packet(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

/// A startup message of this version.
fn startup_packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    packet(&body)
}

/// Reads up to ReadyForQuery or an error.
async fn answer(raw: &mut Raw) -> Vec<Message> {
    let mut told = Vec::new();
    while let Some(message) = raw.read().await {
        let last = matches!(message.kind, b'Z' | b'E');
        told.push(message);
        if last {
            break;
        }
    }
    told
}

#[tokio::test]
async fn an_execution_is_named_in_every_form_and_the_server_sees_none_of_it() {
    let (_database, sidecar) = place("naming", "").await;
    let long = "x".repeat(128);
    let forms: [Form<'_>; 10] = [
        (&[("execpool.execution_id", "a1")], "a1", ""),
        (&[("ExecPool.Execution_Id", "a2")], "a2", ""),
        (&[("options", "-c execpool.execution_id=a3")], "a3", ""),
        (&[("options", "--execpool.execution-id=a4")], "a4", ""),
        (&[("application_name", "execpool:a5")], "a5", ""),
        (
            &[("application_name", "execpool:a6:my:app")],
            "a6",
            "my:app",
        ),
        (
            &[("options", "-c application_name=execpool:a7:mine")],
            "a7",
            "mine",
        ),
        (&[("application_name", "psql")], "shared", "psql"),
        (&[("execpool.execution_id", "shared")], "shared", ""),
        (&[("execpool.execution_id", &long)], &long, ""),
    ];
    for (parameters, execution, name) in forms {
        let (mut raw, told) = sidecar.started("app", parameters).await;
        assert_in(&told);
        let found = sidecar.sessions_of(execution).await;
        assert_eq!(found.len(), 1, "{parameters:?}: {found:?}");
        assert_eq!(
            raw.ask("SHOW application_name").await,
            name,
            "{parameters:?}"
        );
        let ours = "SELECT count(*) FROM pg_settings WHERE name LIKE 'execpool%'";
        assert_eq!(raw.ask(ours).await, "0", "{parameters:?}");
        drop(raw);
        eventually(SOON, "it is gone", async || {
            let left = sidecar.sessions_of(execution).await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

#[tokio::test]
async fn of_several_names_the_first_place_counts() {
    let (_database, sidecar) = place("names", "").await;
    let all = [
        ("application_name", "execpool:third:rest"),
        ("options", "-c execpool.execution_id=second -c geqo=off"),
        ("execpool.execution_id", "first"),
    ];
    for (parameters, execution) in [
        (&all[..], "first"),
        (&all[..2], "second"),
        (&all[..1], "third"),
    ] {
        let (mut raw, told) = sidecar.started("app", parameters).await;
        assert_in(&told);
        assert_eq!(sidecar.sessions_of(execution).await.len(), 1, "{execution}");
        assert_eq!(raw.ask("SHOW application_name").await, "rest");
    }
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_seen_in_the_sessions() {
    let (_database, sidecar) = place("callers", "").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let caller = "tools.py:42 search < agent.py:7 step";
    let told = [
        ("execpool.execution_id", "run"),
        ("execpool.caller", caller),
        ("execpool.label", "search tool"),
        ("execpool.traceparent", trace),
        ("application_name", "agent"),
    ];
    let (_raw, messages) = sidecar.started("app", &told).await;
    assert_in(&messages);
    let escaped = caller.replace(' ', "\\ ");
    let options = format!(
        "-c execpool.execution_id=other -c execpool.caller={escaped} -c execpool.label=search\\ tool \
         -c execpool.traceparent={trace}"
    );
    let in_options = [("options", options.as_str()), ("application_name", "agent")];
    let (_other, messages) = sidecar.started("app", &in_options).await;
    assert_in(&messages);
    for execution in ["run", "other"] {
        let sessions = sidecar.sessions_of(execution).await;
        let session = &sessions[0];
        assert_eq!(session["execution"], execution);
        assert_eq!(session["caller"], caller);
        assert_eq!(session["label"], "search tool");
        assert_eq!(session["traceparent"], trace);
        assert_eq!(session["application_name"], "agent");
        assert_eq!(session["database"], "app");
        assert_eq!(session["state"], "unbound");
        assert_eq!(session["peer"]["pid"], std::process::id());
        assert_eq!(session["peer"]["uid"], nix::unistd::getuid().as_raw());
    }
}

#[tokio::test]
async fn every_other_parameter_reaches_the_server() {
    let (_database, sidecar) = place("forwarded", "").await;
    let parameters = [
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "German"),
        ("client_encoding", "LATIN1"),
        ("search_path", "a, \"B c\""),
        ("execpool.label", "mine"),
        ("myapp.tenant", "seven"),
        (
            "options",
            "-c execpool.caller=x -c work_mem=7MB -c myapp.note=a\\ b\\\\c",
        ),
    ];
    let (mut raw, told) = sidecar.started("app", &parameters).await;
    assert_in(&told);
    let reported: BTreeMap<String, String> = told.iter().filter_map(Message::parameter).collect();
    assert_eq!(reported["TimeZone"], "Asia/Tokyo");
    assert_eq!(reported["client_encoding"], "LATIN1");
    for (name, value) in [
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "German, DMY"),
        ("search_path", "a, \"B c\""),
        ("work_mem", "7MB"),
        ("myapp.tenant", "seven"),
        ("myapp.note", "a b\\c"),
    ] {
        assert_eq!(raw.ask(&format!("SHOW {name}")).await, value, "{name}");
    }
    // A parameter of the startup is a default of the session, to which RESET returns.
    raw.query("SET TimeZone = 'UTC'").await;
    raw.query("RESET TimeZone").await;
    assert_eq!(raw.ask("SHOW TimeZone").await, "Asia/Tokyo");
}

#[tokio::test]
async fn a_parameter_that_the_server_refuses_is_told_at_connect_in_its_own_words() {
    let (database, sidecar) = place("unknown_parameter", "").await;
    let ours = refused(&sidecar, &as_app(&[("no_such_setting", "1")])).await;
    let mut direct = Raw::connect(&Postgres::shared().socket()).await;
    let told = direct
        .startup(&[
            ("user", "app"),
            ("database", &database.name),
            ("no_such_setting", "1"),
        ])
        .await;
    let last = told.last().expect("it is refused").fields();
    assert_eq!(ours, last);
    assert_eq!(ours[&'C'], "42704");
}

#[tokio::test]
async fn encryption_is_declined_and_the_startup_goes_on() {
    let (_database, sidecar) = place("encryption", "").await;
    for codes in [
        &[80_877_103u32][..],
        &[80_877_104],
        &[80_877_104, 80_877_103],
    ] {
        let mut raw = sidecar.raw().await;
        for code in codes {
            raw.send(&packet(&code.to_be_bytes())).await;
            assert_eq!(raw.read_bytes(1).await, b"N");
        }
        assert_in(&raw.startup(&as_app(&[])).await);
        assert_eq!(raw.ask("SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn a_newer_minor_version_and_protocol_options_are_negotiated() {
    let (_database, sidecar) = place("negotiation", "").await;
    let option = [("_pq_.fancy", "on"), ("_pq_.other", "1")];
    for (version, more, options) in [
        ((3 << 16) | 2, &[][..], &[][..]),
        ((3 << 16) | 9999, &[], &[]),
        (3 << 16, &option[..], &["_pq_.fancy", "_pq_.other"][..]),
    ] {
        let mut raw = sidecar.raw().await;
        raw.send(&startup_packet(version, &as_app(more))).await;
        let told = answer(&mut raw).await;
        assert_in(&told);
        assert!(kinds(&told).starts_with("vR"), "{told:?}");
        let mut expected = (3u32 << 16).to_be_bytes().to_vec();
        expected.extend(u32::try_from(options.len()).unwrap().to_be_bytes());
        options.iter().for_each(|name| {
            expected.extend_from_slice(name.as_bytes());
            expected.push(0);
        });
        assert_eq!(told[0].body, expected, "as the server itself says it");
        assert_eq!(raw.ask("SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn what_is_asked_beyond_the_protocol_is_answered_as_the_server_answers_it() {
    let (database, sidecar) = place("negotiated", "").await;
    let version = database
        .client()
        .await
        .query_one("SHOW server_version_num", &[])
        .await;
    let version: String = version.unwrap().get(0);
    let knows_3_2 = version.parse::<u32>().unwrap() >= 180_000;
    let options = [("_pq_.foo", "1"), ("_pq_.bar", "x")];
    for (minor, options) in [
        (0, &[][..]),
        (0, &options[..1]),
        (0, &options[..]),
        (2, &[]),
        (2, &options[..]),
        (9999, &options[1..]),
    ] {
        // A server of today may speak a newer protocol than execpool does.
        if minor > 0 && knows_3_2 {
            continue;
        }
        let mut answers = Vec::new();
        for (socket, name) in [
            (Postgres::shared().socket(), database.name.as_str()),
            (sidecar.socket(), "app"),
        ] {
            let named = [&[("user", "app"), ("database", name)], options].concat();
            let mut raw = Raw::connect(&socket).await;
            raw.send(&startup_packet((3 << 16) | minor, &named)).await;
            let mut told = answer(&mut raw).await;
            assert_in(&told);
            let key = told.iter_mut().find(|message| message.kind == b'K');
            key.expect("a key").body.fill(0);
            answers.push(told);
        }
        assert_eq!(answers[0], answers[1], "3.{minor} {options:?}");
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_refused_with_what_may_be_one() {
    let (_database, sidecar) = place("bad_ids", "").await;
    let long = "x".repeat(129);
    for id in [
        "",
        " ",
        "a b",
        ".hidden",
        "ä",
        "a/b",
        "a;b",
        &long,
        "session-1",
        "session-",
        "a\nb",
    ] {
        let fields = refused(&sidecar, &as_app(&[("execpool.execution_id", id)])).await;
        assert_eq!(fields[&'C'], "22023", "{id:?}");
        assert!(fields[&'H'].contains("1 to 128"), "{fields:?}");
        assert!(!fields[&'M'].contains('\n'), "{fields:?}");
    }
    for id in ["a.b", "run@host_1-2", "0"] {
        let (_raw, told) = sidecar
            .started("app", &[("execpool.execution_id", id)])
            .await;
        assert_in(&told);
    }
    let fields = refused(&sidecar, &as_app(&[("application_name", "execpool:")])).await;
    assert_eq!(fields[&'C'], "22023");
    let fields = refused(&sidecar, &as_app(&[("application_name", "execpool:a b")])).await;
    assert_eq!(fields[&'C'], "22023");
}

#[tokio::test]
async fn an_unknown_setting_is_refused_with_the_nearest_one() {
    let (_database, sidecar) = place("unknown_settings", "").await;
    for (parameter, nearest) in [
        (
            ("execpool.exec_id", "a"),
            "Did you mean execpool.execution_id?",
        ),
        (
            ("options", "-c execpool.lable=x"),
            "Did you mean execpool.label?",
        ),
        (("EXECPOOL.Calller", "x"), "Did you mean execpool.caller?"),
    ] {
        let fields = refused(&sidecar, &as_app(&[parameter])).await;
        assert_eq!(fields[&'C'], "22023", "{fields:?}");
        assert!(fields[&'H'].starts_with(nearest), "{fields:?}");
    }
    let fields = refused(&sidecar, &as_app(&[("options", "-c execpool.label")])).await;
    assert_eq!(fields[&'C'], "22023", "{fields:?}");
}

#[tokio::test]
async fn database_and_user_choose_the_upstream() {
    let postgres = Postgres::shared();
    let (one, two) = (
        postgres.database("one").await,
        postgres.database("two").await,
    );
    let yaml = upstream("app", &one.url())
        + &format!(
            "  - name: reports\n    url: \"{}\"\n    any_user: true\n",
            two.url_as("postgres")
        );
    let sidecar = Sidecar::start(yaml).await;

    let (mut raw, told) = sidecar.started("app", &[]).await;
    assert_in(&told);
    assert_eq!(raw.ask("SELECT current_database()").await, "one");
    let mut raw = sidecar.raw().await;
    assert_in(
        &raw.startup(&[("user", "whoever"), ("database", "reports")])
            .await,
    );
    assert_eq!(
        raw.ask("SELECT current_database() || current_user").await,
        "twopostgres"
    );
    // Without a database, the user's name is one.
    let mut raw = sidecar.raw().await;
    assert_in(&raw.startup(&[("user", "app")]).await);

    let fields = refused(&sidecar, &[("user", "app"), ("database", "one")]).await;
    assert_eq!(fields[&'C'], "3D000");
    assert!(fields[&'M'].contains("\"one\""), "{fields:?}");
    assert!(fields[&'H'].contains("app, reports"), "{fields:?}");
    let fields = refused(&sidecar, &[("user", "mallory"), ("database", "app")]).await;
    assert_eq!(fields[&'C'], "28000");
    assert!(
        fields[&'M'].contains("serves user \"app\", not \"mallory\""),
        "{fields:?}"
    );
    assert!(fields[&'H'].contains("any_user"), "{fields:?}");
    let fields = refused(&sidecar, &[("database", "app")]).await;
    assert_eq!(fields[&'C'], "28000", "no user at all");
}

#[tokio::test]
async fn an_upstream_for_all_names_passes_the_database_on() {
    let postgres = Postgres::shared();
    for name in ["star_a", "star b"] {
        postgres.database(name).await;
    }
    let named = postgres.database("star_named").await;
    let yaml = upstream("*", &postgres.existing_database("postgres").url())
        + &format!("  - name: mine\n    url: \"{}\"\n", named.url());
    let sidecar = Sidecar::start(yaml).await;
    for (asked, reached) in [
        ("star_a", "star_a"),
        ("star b", "star b"),
        ("mine", "star_named"),
    ] {
        let (mut raw, told) = sidecar.started(asked, &[]).await;
        assert_in(&told);
        assert_eq!(raw.ask("SELECT current_database()").await, reached);
    }
    let fields = refused(&sidecar, &[("user", "app"), ("database", "star_missing")]).await;
    assert_eq!(fields[&'C'], "3D000");
    assert_eq!(fields[&'M'], "database \"star_missing\" does not exist");
}

#[tokio::test]
async fn replication_is_refused_with_what_to_do() {
    let (_database, sidecar) = place("replication", "").await;
    for value in ["true", "database", "1", "on"] {
        let fields = refused(&sidecar, &as_app(&[("replication", value)])).await;
        assert_eq!(fields[&'C'], "0A000");
        assert_eq!(fields[&'H'], "Connect to the database directly.");
    }
    let (_raw, told) = sidecar.started("app", &[("replication", "false")]).await;
    assert_in(&told);
}

#[tokio::test]
async fn a_packet_that_is_no_startup_is_refused_and_closed() {
    let (_database, sidecar) = place("packets", "").await;
    let version = (3u32 << 16).to_be_bytes();
    let of_version = |rest: &[u8]| packet(&[&version[..], rest].concat());
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("oversized", 10_001u32.to_be_bytes().to_vec(), "08P01"),
        ("huge", vec![0xff; 4], "08P01"),
        ("of length 0", vec![0; 8], "08P01"),
        ("of length 7", vec![0, 0, 0, 7, 0, 3, 0], "08P01"),
        (
            "a web browser's",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "08P01",
        ),
        (
            "a TLS client's",
            vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            "08P01",
        ),
        (
            "without its last zero byte",
            of_version(b"user\0app"),
            "08P01",
        ),
        ("without a value", of_version(b"user\0app\0x\0"), "08P01"),
        (
            "with more behind its end",
            of_version(b"user\0app\0\0more\0"),
            "08P01",
        ),
        ("not text", of_version(b"user\0\xff\xfe\0\0"), "22021"),
        ("of version 2", packet(&[0, 2, 0, 0, 0]), "0A000"),
        (
            "a cancel request of a strange size",
            packet(&[4, 210, 22, 46, 0, 0, 0]),
            "08P01",
        ),
    ];
    for (what, bytes, sqlstate) in cases {
        let mut raw = sidecar.raw().await;
        raw.send(&bytes).await;
        let fields = raw.expect_error().await;
        assert_eq!(
            (fields[&'C'].as_str(), fields[&'S'].as_str()),
            (sqlstate, "FATAL"),
            "{what}"
        );
        raw.expect_closed().await;
    }
    sidecar.settles().await;
    // A packet of just the limit is none too long.
    let mut raw = sidecar.raw().await;
    let room = 10_000 - startup_packet(3 << 16, &as_app(&[("execpool.label", "")])).len();
    let label = "x".repeat(room);
    let full = startup_packet(3 << 16, &as_app(&[("execpool.label", &label)]));
    assert_eq!(full.len(), 10_000);
    raw.send(&full).await;
    assert_in(&answer(&mut raw).await);
}

#[tokio::test]
async fn a_startup_packet_may_come_byte_by_byte_and_with_a_query_behind_it() {
    let (_database, sidecar) = place("bytes", "").await;
    let mut raw = sidecar.raw().await;
    for byte in startup_packet(3 << 16, &as_app(&[])) {
        raw.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_in(&answer(&mut raw).await);

    let mut raw = sidecar.raw().await;
    let mut both = startup_packet(3 << 16, &as_app(&[]));
    both.extend(b"Q\0\0\0\x0dSELECT 7\0");
    raw.send(&both).await;
    assert_in(&answer(&mut raw).await);
    let told = raw.read_until(b'Z').await;
    assert_eq!(rows(&told), ["7"], "{told:?}");
}

#[tokio::test]
async fn the_roles_of_every_method_come_in_and_a_wrong_password_is_told_as_the_server_does() {
    let database = Postgres::shared().database("methods").await;
    let right = PASSWORD
        .replace('%', "%25")
        .replace('/', "%2F")
        .replace(':', "%3A")
        .replace('@', "%40");
    for (role, method) in ROLES {
        let urls = [database.url_as(role), database.tcp_url_as(role)];
        for url in urls {
            let with = |password: &str| url.replacen(role, &format!("{role}:{password}"), 1);
            let over_tcp = url.contains("127.0.0.1");
            let yaml = format!(
                "upstreams:\n  - {{name: right, url: \"{}\"}}\n  - {{name: wrong, url: \"{}\"}}\n  - {{name: none, url: \"{url}\"}}\n",
                with(&right),
                with("wrong")
            );
            let sidecar = Sidecar::start(yaml).await;
            let as_role = |database| [("user", role), ("database", database)];
            if method == "password" && over_tcp {
                let fields = refused(&sidecar, &as_role("right")).await;
                assert_eq!(
                    fields[&'C'], "28000",
                    "no password goes over a network in clear text"
                );
                assert!(fields[&'M'].contains("clear text"), "{fields:?}");
                continue;
            }
            let mut raw = sidecar.raw().await;
            assert_in(&raw.startup(&as_role("right")).await);
            assert_eq!(raw.ask("SELECT current_user").await, role);

            let fields = refused(&sidecar, &as_role("wrong")).await;
            assert_eq!(fields[&'C'], "28P01", "{role}: {fields:?}");
            assert_eq!(
                fields[&'M'],
                format!("password authentication failed for user \"{role}\"")
            );
            assert!(
                fields.contains_key(&'R'),
                "the server's own fields, all: {fields:?}"
            );
            let fields = refused(&sidecar, &as_role("none")).await;
            assert_eq!(fields[&'C'], "28000", "{fields:?}");
            assert!(fields[&'H'].contains("password_file"), "{fields:?}");
        }
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_told_word_for_word_at_connect() {
    let postgres = Postgres::shared();
    let database = postgres.database("words").await;
    let missing = postgres.existing_database("words_missing");
    for (user, place) in [("nobody_here", &database), ("app", &missing)] {
        let sidecar = Sidecar::start(upstream("app", &place.url_as(user))).await;
        let mut direct = Raw::connect(&postgres.socket()).await;
        let told = direct
            .startup(&[("user", user), ("database", &place.name)])
            .await;
        let direct = told.last().expect("it is refused").fields();
        for _ in 0..2 {
            let ours = refused(&sidecar, &[("user", user), ("database", "app")]).await;
            assert_eq!(ours, direct);
        }
        sidecar.settles().await;
        let status = sidecar.get("/v1/status").await;
        assert_eq!(status["budget"]["open"], 0, "no permit is kept");
    }
}

#[tokio::test]
async fn an_unreachable_database_is_told_with_a_hint_and_the_sidecar_starts_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("postgresql://app@/app?host={}", directory.path().display());
    let tcp = "postgresql://app@127.0.0.1:1/tcp";
    let yaml = upstream("app", &url) + &format!("  - {{name: tcp, url: \"{tcp}\"}}\n");
    let sidecar = Sidecar::start(yaml).await;
    for database in ["app", "tcp"] {
        let fields = refused(&sidecar, &[("user", "app"), ("database", database)]).await;
        assert_eq!(fields[&'C'], "08001", "{fields:?}");
        assert!(
            fields[&'M'].starts_with("execpool: cannot reach PostgreSQL at"),
            "{fields:?}"
        );
        assert!(
            fields[&'H'].contains("Check that the database is up"),
            "{fields:?}"
        );
    }
    eventually(SOON, "the status says so", async || {
        let status = sidecar.get("/v1/status").await;
        let reachable = &status["upstreams"][0]["reachable"];
        if *reachable == false {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    sidecar.logged(&["the database does not answer"]).await;
}

#[tokio::test]
async fn a_full_table_of_sessions_refuses_the_next_and_nothing_else() {
    let (database, sidecar) = place("table", "listen: {max_sessions: 2}\n").await;
    let mut first = sidecar.session("app", "a").await;
    let (mut second, told) = sidecar
        .started("app", &[("execpool.execution_id", "b")])
        .await;
    assert_in(&told);
    let fields = refused(&sidecar, &as_app(&[])).await;
    assert_eq!(fields[&'C'], "53300");
    assert!(fields[&'M'].contains("2 sessions"), "{fields:?}");
    assert!(fields[&'H'].contains("listen.max_sessions"), "{fields:?}");
    assert_eq!(sidecar.get("/v1/status").await["sessions"]["total"], 2);

    // A cancel request is no session.
    let key = told
        .iter()
        .find(|message| message.kind == b'K')
        .unwrap()
        .body
        .clone();
    second.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
    Postgres::shared().waits_in(&database, "PgSleep").await;
    let mut cancel = sidecar.raw().await;
    cancel
        .send(&packet(&[&80_877_102u32.to_be_bytes()[..], &key].concat()))
        .await;
    cancel.expect_closed().await;
    assert_eq!(error(&second.read_until(b'Z').await)[&'C'], "57014");

    assert_eq!(first.ask("SELECT 1").await, "1");
    drop(first);
    eventually(SOON, "its place is free", async || {
        let (raw, told) = sidecar.started("app", &[]).await;
        drop(raw);
        if told.last().is_some_and(|last| last.kind == b'Z') {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_of_the_system_who_is_not_listed_is_refused() {
    let own = nix::unistd::getuid().as_raw();
    let (_database, sidecar) =
        place("uids", &format!("listen: {{allow_uids: [{}]}}\n", own + 1)).await;
    let fields = refused(&sidecar, &as_app(&[])).await;
    assert_eq!(fields[&'C'], "28000");
    assert!(
        fields[&'M'].contains(&format!("user id {own}")),
        "{fields:?}"
    );
    assert!(fields[&'H'].contains("listen.allow_uids"), "{fields:?}");
    let (_database, sidecar) = place(
        "uids_listed",
        &format!("listen: {{allow_uids: [{}, {own}]}}\n", own + 1),
    )
    .await;
    assert_in(&sidecar.started("app", &[]).await.1);
}

#[tokio::test]
async fn a_session_without_a_name_shares_is_alone_or_is_rejected_as_configured() {
    let untagged = |how: &str| format!("execution: {{untagged: {how}}}\n");
    let (_database, sidecar) = place("untagged_shared", &untagged("shared")).await;
    let mut raw = sidecar.started("app", &[]).await.0;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    assert_eq!(sidecar.sessions_of("shared").await.len(), 1);

    let (_database, sidecar) = place("untagged_session", &untagged("session")).await;
    let alone = [
        sidecar.started("app", &[]).await,
        sidecar.started("app", &[]).await,
    ];
    alone.iter().for_each(|(_, told)| assert_in(told));
    let sessions = sidecar.get("/v1/sessions").await;
    let names: Vec<&str> = sessions
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s["execution"].as_str())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(
        names.iter().all(|name| name.starts_with("session-")) && names[0] != names[1],
        "{names:?}"
    );
    let execution = sidecar.get(&format!("/v1/executions/{}", names[0])).await;
    assert_eq!(
        (&execution["kind"], &execution["deadline_seconds"]),
        (&json!("session"), &json!(null))
    );
    drop(alone);
    eventually(SOON, "they end with their sessions", async || {
        let left = sidecar.get("/v1/executions").await;
        let own = left
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["kind"] == "session")
            .count();
        if own == 0 { Ok(()) } else { Err(left) }
    })
    .await;

    let (_database, sidecar) = place("untagged_reject", &untagged("reject")).await;
    let fields = refused(&sidecar, &as_app(&[])).await;
    assert_eq!(fields[&'C'], "28000");
    assert!(fields[&'H'].contains("execpool.execution_id"), "{fields:?}");
    sidecar.session("app", "named").await;
    sidecar.session("app", "shared").await;
}

#[tokio::test]
async fn an_ended_execution_refuses_stragglers_until_it_is_begun_anew() {
    let (_database, sidecar) = place("tombstones", "").await;
    let mut raw = sidecar.session("app", "run").await;
    raw.ask("SELECT 1").await;
    let (status, _) = sidecar.control("DELETE", "/v1/executions/run", None).await;
    assert_eq!(status, 200);
    let told = raw.expect_error().await;
    assert_eq!(
        (told[&'C'].as_str(), told[&'S'].as_str()),
        ("57P01", "FATAL")
    );
    assert!(told[&'M'].contains("execution run"), "{told:?}");
    raw.expect_closed().await;

    let fields = refused(&sidecar, &as_app(&[("execpool.execution_id", "run")])).await;
    assert_eq!(fields[&'C'], "55000");
    assert!(
        fields[&'M'].contains("execution run has ended"),
        "{fields:?}"
    );
    assert!(fields[&'H'].contains("POST /v1/executions"), "{fields:?}");
    let (status, created) = sidecar
        .control("POST", "/v1/executions", Some(json!({"id": "run"})))
        .await;
    assert_eq!((status, &created["generation"]), (201, &json!(2)));
    let mut raw = sidecar.session("app", "run").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_tombstone_lasts_as_long_as_configured() {
    const LASTS: Duration = Duration::from_secs(1);
    let (_database, sidecar) = place("short_tombstones", "execution: {tombstone: 1s}\n").await;
    eventually(SOON, "the name is taken", async || {
        drop(sidecar.session("app", "run").await);
        let start = Instant::now();
        sidecar.control("DELETE", "/v1/executions/run", None).await;
        let named = [("execpool.execution_id", "run")];
        let (_raw, told) = sidecar.started("app", &named).await;
        // Let in later, it says nothing.
        let is_in = told.last().is_some_and(|last| last.kind == b'Z');
        if is_in && start.elapsed() >= LASTS {
            return Err(told);
        }
        assert_eq!(error(&told)[&'C'], "55000");
        Ok(())
    })
    .await;
    eventually(SOON, "the name is free again", async || {
        let (raw, told) = sidecar
            .started("app", &[("execpool.execution_id", "run")])
            .await;
        drop(raw);
        if told.last().is_some_and(|last| last.kind == b'Z') {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
}

#[tokio::test]
async fn an_implicit_execution_leaves_when_it_is_idle_and_begins_its_next_generation() {
    let (database, sidecar) = place("generations", "execution: {idle_timeout: 200ms}\n").await;
    let mut raw = sidecar.session("app", "run").await;
    raw.ask("SELECT 1").await;
    let first = sidecar.get("/v1/executions/run").await;
    assert_eq!(
        (&first["generation"], &first["kind"]),
        (&json!(1), &json!("implicit"))
    );
    drop(raw);
    eventually(SOON, "it has left the list", async || {
        match sidecar.control("GET", "/v1/executions/run", None).await {
            (200, body) if body["state"] != "ended" => Err(body),
            _ => Ok(()),
        }
    })
    .await;
    nothing_pooled_left(&database).await;
    let mut raw = sidecar.session("app", "run").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    assert_eq!(sidecar.get("/v1/executions/run").await["generation"], 2);
}
