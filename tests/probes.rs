//! The read-only port: what a kubelet is told of a process that starts, runs, drains, or has no
//! database; and clients that would hold it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::sidecar::{SidecarOptions, upstream};
use support::{Postgres, PostgresOptions, SOON, Sidecar, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

fn options(url: &str) -> SidecarOptions {
    Sidecar::options()
        .config(upstream("app", url))
        .env("EXECPOOL_TELEMETRY__LISTEN", "[::]:0")
}

async fn start(name: &str) -> Sidecar {
    let database = Postgres::shared().database(name).await;
    options(&database.url()).start().await
}

/// Where it answers probes, as the status tells.
async fn port(sidecar: &Sidecar) -> SocketAddr {
    let status = sidecar.get("/v1/status").await;
    let told = status["telemetry"].as_str().expect("an address");
    let port = told.parse::<SocketAddr>().unwrap().port();
    ([127, 0, 0, 1], port).into()
}

/// All that it answers to these bytes.
async fn answered(address: SocketAddr, request: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8(answer).unwrap())
    };
    let answer = tokio::time::timeout(SOON, exchange).await;
    answer
        .expect("in time")
        .unwrap_or_else(|error| error.to_string())
}

/// Status and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: pod\r\n\r\n");
    let answer = answered(address, &request).await;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.trim_end().to_owned())
}

fn is(told: &(u16, String), status: u16, body: &str) -> bool {
    *told == (status, body.to_owned())
}

/// Waits until this is answered.
async fn answers(address: SocketAddr, path: &str, status: u16, text: &str) {
    eventually(SOON, path, async || {
        let told = get(address, path).await;
        match is(&told, status, text) {
            true => Ok(()),
            false => Err(told),
        }
    })
    .await;
}

/// Waits until it lives: it has a second for each answer to `/healthz`, which a machine that stands still may take.
async fn lives(address: SocketAddr) {
    answers(address, "/healthz", 200, "ok").await;
}

#[tokio::test]
async fn it_is_ready_within_a_second_of_a_reachable_database() {
    let database = Postgres::shared().database("within").await;
    // As fast as it can: the machine may stand still while it does.
    eventually(SOON, "it is ready in time", async || {
        let begun = Instant::now();
        let sidecar = options(&database.url()).start().await;
        let address = port(&sidecar).await;
        let told = get(address, "/startupz").await;
        assert!(is(&told, 200, "ok"), "{told:?}");
        answers(address, "/readyz", 200, "ok").await;
        let took = begun.elapsed();
        lives(address).await;
        assert!(sidecar.get("/v1/status").await["not_ready"].is_null());
        let told = sidecar.get("/v1/status").await["telemetry"].clone();
        sidecar.logged(&[told.as_str().unwrap()]).await;
        // With the start of the process, on a busy machine.
        match took < Duration::from_secs(3) {
            true => Ok(()),
            false => Err(took),
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_database_it_starts_and_says_so_and_is_ready_when_that_comes() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("app").await;
    postgres.stop();
    let sidecar = options(&database.url()).start().await;
    let address = port(&sidecar).await;
    let told = get(address, "/startupz").await;
    assert!(is(&told, 200, "ok"), "{told:?}");
    lives(address).await;
    let told = get(address, "/readyz").await;
    assert!(is(&told, 503, "no upstream was reached yet"), "{told:?}");
    sidecar.logged(&["the database does not answer"]).await;
    postgres.start_again();
    answers(address, "/readyz", 200, "ok").await;
    // It was reached once: a database that goes makes nobody unready.
    postgres.stop();
    let told = get(address, "/readyz").await;
    assert!(is(&told, 200, "ok"), "{told:?}");
}

#[tokio::test]
async fn one_that_drains_or_ends_is_not_ready_and_lives() {
    for by_signal in [false, true] {
        let sidecar = start(if by_signal { "term" } else { "drain" }).await;
        let address = port(&sidecar).await;
        let mut raw = sidecar.session("app", "a").await;
        raw.query("BEGIN").await;
        match by_signal {
            true => sidecar.signal(Signal::SIGTERM),
            false => drop(sidecar.control("POST", "/v1/drain", None).await),
        }
        answers(address, "/readyz", 503, "it is draining").await;
        let told = get(address, "/startupz").await;
        assert!(is(&told, 200, "ok"), "{told:?}");
        lives(address).await;
        assert_eq!(raw.ask("SELECT 'served'").await, "served");
    }
}

#[tokio::test]
async fn a_process_that_stands_still_is_not_healthy() {
    let sidecar = start("still").await;
    let address = port(&sidecar).await;
    sidecar.signal(Signal::SIGSTOP);
    let told = tokio::time::timeout(Duration::from_secs(1), get(address, "/healthz")).await;
    sidecar.signal(Signal::SIGCONT);
    assert!(told.is_err(), "{told:?}");
    lives(address).await;
}

#[tokio::test]
async fn it_is_read_only_and_shows_nothing_of_anybody() {
    let sidecar = start("read_only").await;
    let address = port(&sidecar).await;
    let mut raw = sidecar.session("app", "secret-execution").await;
    raw.query("SELECT 'secret statement'").await;
    for path in ["/v1/status", "/v1/sessions", "/", "/livez", "/quitquitquit"] {
        let (status, body) = get(address, path).await;
        assert_eq!(status, 404, "{path}");
        assert!(!body.contains("secret"), "{body}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let request =
            format!("{method} /healthz HTTP/1.1\r\nhost: pod\r\ncontent-length: 0\r\n\r\n");
        let answer = answered(address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET, HEAD"), "{answer}");
    }
    let head = answered(address, "HEAD /startupz HTTP/1.1\r\nhost: pod\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(head.len() < 300, "{head}");
}

#[tokio::test]
async fn clients_that_say_nothing_cannot_hold_it() {
    let sidecar = start("silent").await;
    let address = port(&sidecar).await;
    // What it opens for itself is open then.
    answers(address, "/readyz", 200, "ok").await;
    let before = sidecar.descriptors();
    let mut silent = Vec::new();
    eventually(SOON, "a probe is answered in time", async || {
        // They have five seconds for their request: each try has its own.
        silent.clear();
        for number in 0..600 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").await;
            }
            silent.push(stream);
        }
        let begun = Instant::now();
        let told = get(address, "/healthz").await;
        let took = begun.elapsed();
        // A machine that stands still takes time from it, and from who is asked.
        match is(&told, 200, "ok") && took < Duration::from_secs(4) {
            true => Ok(()),
            false => Err((took, told)),
        }
    })
    .await;
    eventually(SOON, "at most so many are kept", async || {
        let now = sidecar.descriptors();
        if now <= before + 256 {
            Ok(())
        } else {
            Err((before, now))
        }
    })
    .await;
    // The others have 5 s for their request.
    eventually(SOON, "none is kept", async || {
        let now = sidecar.descriptors();
        if now <= before {
            Ok(())
        } else {
            Err((before, now))
        }
    })
    .await;
    drop(silent);
}

/// An app whose own probe takes so long; how often it was asked.
async fn slow_app(after: Duration) -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, often) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.send_modify(|asked| *asked += 1);
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                tokio::time::sleep(after).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            });
        }
    });
    (address, often)
}

#[tokio::test]
async fn a_flood_fails_no_probe_that_waits_for_the_app_and_does_not_reach_the_app() {
    let (app, often) = slow_app(Duration::from_millis(300)).await;
    let database = Postgres::shared().database("flood").await;
    let options = options(&database.url());
    let options = options.env("EXECPOOL_REACTOR__APP_PROBE", format!("http://{app}/"));
    let sidecar = options.start().await;
    let address = port(&sidecar).await;
    // Who says nothing goes for others who say nothing, not who is being answered.
    eventually(SOON, "a probe outlives the silent", async || {
        let mut often = often.clone();
        let before = *often.borrow();
        let probe = tokio::spawn(get(address, "/livez/app"));
        often.wait_for(|often| *often > before).await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..600 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        in_time(&probe.await.unwrap())
    })
    .await;
    // Nor do many who ask the same again and again; the app is asked for none of them.
    eventually(SOON, "probes outlive a flood", async || {
        let begun = Instant::now();
        let before = *often.borrow();
        let clients = (0..200).map(|_| {
            tokio::spawn(async move {
                let mut well = Ok(());
                for _ in 0..5 {
                    well = well.and(in_time(&get(address, "/livez/app").await));
                }
                well
            })
        });
        let clients: Vec<_> = clients.collect();
        let mut well = Ok(());
        for client in clients {
            well = well.and(client.await.unwrap());
        }
        let asked = *often.borrow() - before;
        let most = begun.elapsed().as_millis() / 500 + 2;
        assert!(
            asked as u128 <= most,
            "{asked} times in {:?}",
            begun.elapsed()
        );
        well
    })
    .await;
}

/// Whether the app's own probe was well. If not, it was because the app took longer than it has, as it does where the
/// machine stands still.
fn in_time((status, body): &(u16, String)) -> Result<(), String> {
    let is_late = *status == 503 && body.contains("gives no answer within");
    assert!(*status == 200 || is_late, "{status}: {body}");
    if is_late { Err(body.clone()) } else { Ok(()) }
}

#[tokio::test]
async fn an_app_that_hangs_keeps_nobody_from_healthz_however_many_ask_for_it() {
    let (app, _often) = slow_app(Duration::from_secs(600)).await;
    let database = Postgres::shared().database("hangs").await;
    let options = options(&database.url());
    let options = options.env("EXECPOOL_REACTOR__APP_PROBE", format!("http://{app}/"));
    let sidecar = options.start().await;
    let address = port(&sidecar).await;
    // Over the time of three questions to the app, as a flood does.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        eventually(SOON, "a probe is answered in time", async || {
            for _ in 0..200 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = b"GET /livez/app HTTP/1.1\r\nhost: pod\r\n\r\n";
                stream.write_all(request).await.unwrap();
                waiting.push(stream);
            }
            let begun = Instant::now();
            let told = get(address, "/healthz").await;
            let took = begun.elapsed();
            // A machine that stands still takes time from it, and from who is asked.
            match is(&told, 200, "ok") && took < Duration::from_millis(800) {
                true => Ok(()),
                false => Err((took, told)),
            }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
        assert!(answer.contains("the app's own probe"), "{answer:?}");
    }
}

#[tokio::test]
async fn who_has_sent_its_request_is_not_crowded_out_before_it_is_read() {
    let sidecar = start("burst").await;
    let address = port(&sidecar).await;
    // All are there at the moment at which it looks again.
    sidecar.signal(Signal::SIGSTOP);
    let mut probe = TcpStream::connect(address).await.unwrap();
    let request = b"GET /startupz HTTP/1.1\r\nhost: pod\r\n\r\n";
    probe.write_all(request).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    sidecar.signal(Signal::SIGCONT);
    let mut answer = String::new();
    let read = tokio::time::timeout(SOON, probe.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{read:?}: {answer:?}");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_knob_and_off_is_no_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = Sidecar::options()
        .config(upstream("app", "postgresql://app@/app?host=/nowhere"))
        .env("EXECPOOL_TELEMETRY__LISTEN", address.as_str())
        .try_start()
        .await
        .err()
        .expect("it does not start");
    assert_eq!(refused.status.code(), Some(1));
    let log = refused.log;
    assert!(
        log.contains(&address) && log.contains("telemetry.listen"),
        "{log}"
    );
    let sidecar = Sidecar::start(upstream("app", "postgresql://app@/app?host=/nowhere")).await;
    assert!(sidecar.get("/v1/status").await["telemetry"].is_null());
}

#[tokio::test]
async fn without_descriptors_no_listener_spins_and_all_come_back() {
    let sidecar = start("descriptors").await;
    let address = port(&sidecar).await;
    let mut held = sidecar.session("app", "a").await;
    assert_eq!(held.ask("SELECT 1").await, "1");
    // What it opens for itself is open then.
    answers(address, "/readyz", 200, "ok").await;
    let limit = i64::try_from(sidecar.descriptors()).unwrap();
    let set = |limit: i64| {
        let pid = sidecar.pid().to_string();
        let ok = std::process::Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={limit}:")])
            .status()
            .unwrap();
        assert!(ok.success());
    };
    set(limit);
    let probe = TcpStream::connect(address).await.unwrap();
    let session = tokio::net::UnixStream::connect(sidecar.socket())
        .await
        .unwrap();
    let control = tokio::net::UnixStream::connect(sidecar.control_socket())
        .await
        .unwrap();
    for what in [
        "cannot accept connections of probes; trying again",
        "cannot accept connections; trying again",
    ] {
        sidecar.logged(&[what]).await;
    }
    let before = cpu(sidecar.pid());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = cpu(sidecar.pid()) - before;
    // In hundredths of a second; one that spins takes all of it.
    assert!(spent < 30, "{spent}");
    assert_eq!(held.ask("SELECT 'served'").await, "served");
    set(4096);
    drop((probe, session, control));
    lives(address).await;
    assert_eq!(sidecar.session("app", "b").await.ask("SELECT 1").await, "1");
    sidecar.get("/v1/status").await;
}

/// The time that a process has worked, in hundredths of a second.
fn cpu(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
