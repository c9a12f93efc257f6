//! Clients that send garbage, read nothing, dawdle or vanish: each harms itself alone, and
//! nothing of it stays. Also what a start meets that finds its place taken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postgres_protocol::message::frontend;
use support::session::{assert_in, error, kinds, place, rows};
use support::sidecar::{Refused, upstream};
use support::{Postgres, Raw, SOON, Sidecar, eventually};

const MEGABYTE: u64 = 1 << 20;

/// A message of this type and length word, with a body that need not fit.
fn message(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn startup_packet() -> bytes::BytesMut {
    let mut packet = bytes::BytesMut::new();
    let named = [
        ("user", "app"),
        ("database", "app"),
        ("execpool.execution_id", "a"),
    ];
    frontend::startup_message(named, &mut packet).unwrap();
    packet
}

/// What no client may send.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        (
            "a web browser",
            b"GET / HTTP/1.1\r\nHost: execpool\r\n\r\n".to_vec(),
        ),
        ("zero bytes", vec![0; 64]),
        ("a startup message in a session", startup_packet().to_vec()),
        ("a Query of length 0", message(b'Q', 0, b"")),
        ("a Query of length 3", message(b'Q', 3, b"")),
        (
            "a Query of negative length",
            message(b'Q', 0xffff_ffff, b""),
        ),
        (
            "a Query of two gigabytes",
            message(b'Q', 0x7fff_ffff, b"SELECT 1\0"),
        ),
        ("a huge Sync", message(b'S', 0x0fff_ffff, b"")),
        ("a huge Terminate", message(b'X', 0x0fff_ffff, b"")),
        ("a Sync with a body", message(b'S', 8, b"more")),
        (
            "a Query without its zero byte",
            message(b'Q', 12, b"SELECT 1"),
        ),
        (
            "an empty Query without its zero byte",
            message(b'Q', 4, b""),
        ),
        ("a Parse without its texts", message(b'P', 6, b"\0s")),
        ("a password in a session", message(b'p', 11, b"secret\0")),
        ("a server's message", message(b'Z', 5, b"I")),
    ];
    for kind in [b'A', b'R', b'v', 0x80, 0xff] {
        all.push(("an unknown type", message(kind, 4, b"")));
    }
    all
}

/// Everything that must hold after something hostile.
async fn nobody_else_is_harmed(neighbour: &mut Raw, sidecar: &Sidecar, what: &str) {
    assert_eq!(neighbour.ask("SELECT 1").await, "1", "{what}");
    eventually(SOON, what, async || {
        let status = sidecar.get("/v1/status").await;
        let (budget, sessions) = (&status["budget"], &status["sessions"]);
        let fine = budget["used"] == 1
            && budget["waiting"] == 0
            && sessions["total"] == 1
            && budget["open"].as_u64() == budget["idle"].as_u64().map(|idle| idle + 1);
        if fine { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn garbage_ends_the_session_that_sends_it_and_no_other() {
    let (_database, sidecar) =
        place("garbage", "pool: {size: 2, overflow: 2, timeout: 10m}\n").await;
    let mut neighbour = sidecar.session("app", "a").await;
    assert_eq!(neighbour.ask("SELECT 1").await, "1");
    for (what, bytes) in garbage() {
        for bound in [false, true] {
            let mut raw = sidecar.session("app", "a").await;
            if bound {
                raw.query("BEGIN").await;
            }
            raw.send(&bytes).await;
            let told = raw.read_until(b'E').await;
            assert_eq!(kinds(&told), "E", "{what}, bound {bound}: {told:?}");
            let fields = error(&told);
            assert_eq!(fields[&'C'], "08P01", "{what}, bound {bound}: {fields:?}");
            assert_eq!(
                (fields[&'S'].as_str(), fields[&'V'].as_str()),
                ("FATAL", "FATAL")
            );
            assert!(fields[&'M'].starts_with("execpool: "), "{what}: {fields:?}");
            raw.expect_closed().await;
        }
        nobody_else_is_harmed(&mut neighbour, &sidecar, what).await;
    }
}

#[tokio::test]
async fn what_comes_before_garbage_is_answered_first() {
    let (_database, sidecar) = place("before_garbage", "").await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let mut bytes = bytes::BytesMut::new();
    frontend::query("CREATE TABLE t (x int)", &mut bytes).unwrap();
    bytes.extend_from_slice(&message(b'A', 4, b""));
    raw.send(&bytes).await;
    let told = raw.read_until(b'E').await;
    assert_eq!(kinds(&told), "CZE", "{told:?}");
    assert_eq!(error(&told)[&'C'], "08P01", "{told:?}");
    sidecar.settles().await;
    let mut next = sidecar.session("app", "a").await;
    assert_eq!(next.ask("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_client_that_reads_nothing_takes_no_memory_and_can_be_ended() {
    let more = "pool: {size: 2, overflow: 0, timeout: 10m}\n";
    let (_database, sidecar) = place("reads_nothing", more).await;
    let mut neighbour = sidecar.session("app", "b").await;
    assert_eq!(neighbour.ask("SELECT 1").await, "1");
    let before = sidecar.rss();
    let mut lazy = sidecar.session("app", "a").await;
    // 200 MB.
    lazy.send_with(|buffer| {
        frontend::query(
            "SELECT repeat('x', 1000000) FROM generate_series(1, 200)",
            buffer,
        )
        .unwrap();
    })
    .await;
    eventually(SOON, "its server waits to send", async || {
        let stuck = Postgres::shared()
            .activity("datname = 'reads_nothing' AND wait_event = 'ClientWrite'")
            .await;
        if stuck.is_empty() { Err(()) } else { Ok(()) }
    })
    .await;
    assert_eq!(neighbour.ask("SELECT 2").await, "2");
    let grown = sidecar.rss().saturating_sub(before);
    assert!(grown < 20 * MEGABYTE, "{} MB more", grown / MEGABYTE);

    // The answer comes after 5 s at most, complete or not.
    eventually(SOON, "nothing of it is left", async || {
        let (status, ended) = sidecar.control("DELETE", "/v1/executions/a", None).await;
        assert_eq!(status, 200, "{ended}");
        (ended["complete"] == true).then_some(()).ok_or(ended)
    })
    .await;
    nobody_else_is_harmed(&mut neighbour, &sidecar, "the lazy one has gone").await;
    drop(lazy);
}

#[tokio::test]
async fn a_big_result_passes_whole_without_being_kept() {
    let (_database, sidecar) = place("big", "").await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let before = sidecar.rss();
    raw.send_with(|buffer| {
        frontend::query(
            "SELECT repeat('x', 10000000) FROM generate_series(1, 10)",
            buffer,
        )
        .unwrap();
    })
    .await;
    let mut bytes = 0;
    while let Some(message) = raw.read().await {
        bytes += message.body.len();
        if message.kind == b'Z' {
            break;
        }
    }
    assert!(bytes > 100_000_000, "{bytes}");
    let grown = sidecar.rss().saturating_sub(before);
    assert!(grown < 20 * MEGABYTE, "{} MB more", grown / MEGABYTE);
}

#[tokio::test]
async fn a_client_that_dawdles_is_served_in_the_end() {
    let (_database, sidecar) = place("dawdles", "").await;
    let mut raw = sidecar.raw().await;
    // In all it has ten seconds.
    for piece in startup_packet().chunks(8) {
        raw.send(piece).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_in(&raw.read_until(b'Z').await);
    for number in ["1", "2"] {
        let mut bytes = bytes::BytesMut::new();
        frontend::query(&format!("SELECT {number}"), &mut bytes).unwrap();
        for byte in bytes {
            raw.send(&[byte]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let told = raw.read_until(b'Z').await;
        assert_eq!(rows(&told), [number]);
    }
}

#[tokio::test]
async fn a_client_that_never_says_who_it_is_is_closed_after_ten_seconds() {
    let (_database, sidecar) = place("mute", "").await;
    // Its monitor's connection is there, then.
    sidecar.get("/v1/database/health").await;
    let before = sidecar.descriptors();
    let started = Instant::now();
    let (mut mute, mut unfinished, mut encrypted) = (
        sidecar.raw().await,
        sidecar.raw().await,
        sidecar.raw().await,
    );
    let packet = startup_packet();
    unfinished.send(&packet[..packet.len() - 1]).await;
    encrypted.send(&[0, 0, 0, 8, 4, 210, 22, 47]).await;
    assert_eq!(encrypted.read_bytes(1).await, b"N");
    for raw in [&mut mute, &mut unfinished, &mut encrypted] {
        let fields = raw.expect_error().await;
        assert_eq!(fields[&'C'], "08P01");
        assert!(fields[&'M'].contains("within 10 s"), "{fields:?}");
        raw.expect_closed().await;
    }
    let took = started.elapsed();
    assert!(took > Duration::from_secs(9), "{took:?}");
    eventually(SOON, "their descriptors are closed", async || {
        let now = sidecar.descriptors();
        if now <= before { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Comes and goes in one of ten ways.
async fn come_and_go(sidecar: &Sidecar, way: usize) {
    let mut raw = sidecar.raw().await;
    let packet = startup_packet();
    match way {
        0 => return,
        1 => return raw.send(&packet[..9]).await,
        2 => return raw.send(&packet).await,
        _ => {}
    }
    let named = [
        ("user", "app"),
        ("database", "app"),
        ("execpool.execution_id", "a"),
    ];
    let told = raw.startup(&named).await;
    if told.last().is_none_or(|last| last.kind != b'Z') {
        return;
    }
    let query = |sql: &str| {
        let mut bytes = bytes::BytesMut::new();
        frontend::query(sql, &mut bytes).unwrap();
        bytes
    };
    match way {
        3 => {}
        4 => raw.send(b"X\0\0\0\x04").await,
        5 => raw.send(&query("SELECT 1")).await,
        6 => raw.send(&query("SELECT pg_sleep(60)")).await,
        7 => drop(raw.query("BEGIN").await),
        8 => raw.send(&query("SELECT 'half")[..9]).await,
        _ => {
            raw.query("SELECT 1").await;
            raw.send(b"X\0\0\0\x04").await;
        }
    }
}

#[tokio::test]
async fn two_thousand_that_come_and_go_leave_nothing_behind() {
    let more = "budget: {size: 5, overflow: 0}\npool: {size: 5, overflow: 0, timeout: 1s}\n";
    let (database, sidecar) = place("come_and_go", more).await;
    drop(sidecar.enters("app", "a").await);
    sidecar.settles().await;
    // Its monitor's connection is there, then.
    sidecar.get("/v1/database/health").await;
    let before = sidecar.descriptors();
    let rounds = (0..10).map(|worker| {
        let sidecar = &sidecar;
        async move {
            for round in 0..200 {
                come_and_go(sidecar, (worker + round) % 10).await;
            }
        }
    });
    futures_util::future::join_all(rounds).await;
    sidecar.settles().await;
    let status = eventually(SOON, "all that came have gone", async || {
        let status = sidecar.get("/v1/status").await;
        let sessions = &status["sessions"];
        match sessions["opened"] == sessions["closed"] {
            true => Ok(status),
            false => Err(status),
        }
    })
    .await;
    let open = usize::try_from(status["budget"]["open"].as_u64().unwrap()).unwrap();
    assert!(open <= 5, "{status}");
    eventually(SOON, "no descriptor is left", async || {
        let now = sidecar.descriptors();
        // The pool's connections, of which there was one before.
        if now < before + open {
            Ok(())
        } else {
            Err((before, open, now))
        }
    })
    .await;
    eventually(
        SOON,
        "the server has no more than the budget's",
        async || {
            let backends = Postgres::shared().pooled(&database).await;
            let idle = backends.iter().all(|backend| backend.state == "idle");
            if idle && backends.len() == open {
                Ok(())
            } else {
                Err(backends)
            }
        },
    )
    .await;
    let peak = Postgres::shared()
        .connection_log()
        .of_database(&database.name)
        .peak();
    assert!(peak <= 5, "{peak} at once, by the server's own log");
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 7").await, "7");
    let log = sidecar.log().join("\n");
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test]
async fn a_killed_sidecar_leaves_a_socket_that_the_next_one_replaces() {
    let database = Postgres::shared().database("killed").await;
    let sidecar = Sidecar::over(&database).await;
    let mut raw = sidecar.session("killed", "a").await;
    raw.query("BEGIN").await;
    sidecar.signal(Signal::SIGKILL);
    raw.expect_closed().await;
    assert!(sidecar.socket().exists() && sidecar.control_socket().exists());
    let sidecar = sidecar.replaced().await;
    let mut raw = sidecar.session("killed", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
}

/// Why a sidecar does not start, with exit status 1 and one sentence.
async fn refused(directory: &Path, more: &str) -> String {
    let yaml = upstream("app", "postgresql://app@/app?host=/nowhere") + more;
    let Refused { status, log } = Sidecar::options()
        .config(yaml)
        .env("EXECPOOL_LISTEN__DIR", directory.to_str().unwrap())
        .try_start()
        .await
        .err()
        .expect("it does not start");
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.starts_with("execpool: "), "{log}");
    log
}

#[tokio::test]
async fn a_second_sidecar_on_a_directory_is_refused_and_the_first_is_named() {
    let (_database, sidecar) = place("second", "").await;
    let mut raw = sidecar.session("app", "a").await;
    let log = refused(sidecar.dir(), "").await;
    let first = format!(
        "another execpool (process {}) uses {}",
        sidecar.pid(),
        sidecar.dir().display()
    );
    assert!(log.contains(&first), "{log}");
    let log = refused(sidecar.dir(), "listen: {port: 5433}\n").await;
    assert!(log.contains(&first), "{log}");
    assert_eq!(raw.ask("SELECT 1").await, "1", "the first is unharmed");
    assert_eq!(sidecar.session("app", "a").await.ask("SELECT 2").await, "2");
}

#[tokio::test]
async fn a_second_sidecar_that_wants_the_same_port_as_well_is_told_of_the_directory() {
    let database = Postgres::shared().database("same").await;
    let sidecar = Sidecar::options()
        .config(upstream("app", &database.url()))
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
        .start()
        .await;
    let status = sidecar.get("/v1/status").await;
    let port = status["telemetry"].as_str().unwrap();
    let flag = format!("--set=telemetry.listen={port}");
    let Refused { log, .. } = Sidecar::options()
        .config(upstream("app", &database.url()))
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir().to_str().unwrap())
        .flag(&flag)
        .try_start()
        .await
        .err()
        .expect("it does not start");
    let first = format!("another execpool (process {}) uses", sidecar.pid());
    assert!(log.contains(&first), "{log}");
    // In a directory of its own it is told of the port.
    let elsewhere = Sidecar::options()
        .config(upstream("app", &database.url()))
        .flag(&flag);
    let Refused { log, .. } = elsewhere.try_start().await.err().expect("nor there");
    assert!(log.contains("set telemetry.listen to a free"), "{log}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_refused_with_what_to_do() {
    let directory = tempfile::Builder::new()
        .prefix("ep-")
        .tempdir_in("/tmp")
        .unwrap();
    let log = refused(&directory.path().join("missing"), "").await;
    assert!(log.contains("missing does not exist; create it"), "{log}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let log = refused(&file, "").await;
    assert!(log.contains("which is not a directory"), "{log}");
    // Root may write everywhere, but not here.
    let log = refused(Path::new("/proc"), "").await;
    assert!(log.contains("cannot create sockets in /proc"), "{log}");
    if !nix::unistd::getuid().is_root() {
        let read_only = directory.path().join("read_only");
        std::fs::create_dir(&read_only).unwrap();
        std::fs::set_permissions(&read_only, std::fs::Permissions::from_mode(0o555)).unwrap();
        let log = refused(&read_only, "").await;
        assert!(log.contains("must be writable for user"), "{log}");
    }
    let long = directory.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let log = refused(&long, "").await;
    assert!(log.contains("at most 107 are possible"), "{log}");
}

#[tokio::test]
async fn a_port_that_something_else_listens_on_is_refused_and_named() {
    let directory = tempfile::Builder::new()
        .prefix("ep-")
        .tempdir_in("/tmp")
        .unwrap();
    let socket = directory.path().join(".s.PGSQL.5432");
    let _live = UnixListener::bind(&socket).unwrap();
    let log = refused(directory.path(), "").await;
    let own = format!("in use by another process (process {})", std::process::id());
    assert!(log.contains(&own), "{log}");
    assert!(
        !directory.path().join("control.sock").exists(),
        "nothing is left behind"
    );
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    let log = refused(directory.path(), "").await;
    assert!(log.contains("is there and is not a socket"), "{log}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn one_that_waits_and_sends_garbage_frees_its_place() {
    let more = "pool: {size: 1, overflow: 0, timeout: 1s}\n";
    let (_database, sidecar) = place("garbage_waiting", more).await;
    let mut neighbour = sidecar.enters("app", "a").await;
    assert_eq!(neighbour.ask("SELECT 1").await, "1");
    let mut raw = sidecar.session("app", "a").await;
    eventually(SOON, "it waits", async || {
        raw.send(b"Q\0\0\0\x0dSELECT 1\0").await;
        for _ in 0..50 {
            let sessions = sidecar.sessions_of("a").await;
            if sessions.iter().any(|one| one["state"] == "waiting") {
                return Ok(());
            }
        }
        // It was over before anybody looked.
        Err(raw.read_until(b'Z').await)
    })
    .await;
    raw.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let told = raw.read_until(b'Z').await;
    assert_eq!(kinds(&told), "EZ", "{told:?}");
    assert_eq!(error(&told)[&'C'], "53300");
    assert_eq!(raw.expect_error().await[&'C'], "08P01");
    raw.expect_closed().await;
    nobody_else_is_harmed(&mut neighbour, &sidecar, "the queue is empty").await;
}
