//! Clients over TCP prove a password before they learn anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::port::Port;
use support::sidecar::upstream;
use support::{Database, Postgres, Raw, SOON, Sidecar, eventually};
use tempfile::TempDir;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, NoTls};

/// Somebody else.
const STRANGER: u32 = 54_321;

/// A sidecar with a TCP listener, and the directory of its password's file.
struct Place {
    database: Database,
    sidecar: Sidecar,
    secrets: TempDir,
}

impl Place {
    async fn new(name: &str, password: &str) -> Self {
        Self::on(name, password, "127.0.0.1:0").await
    }

    async fn on(name: &str, password: &str, address: &str) -> Self {
        Self::of(name, password, &format!("tcp: '{address}'")).await
    }

    /// With more of `listen`.
    async fn with(name: &str, more: &str) -> Self {
        Self::of(name, "pencil", &format!("tcp: '127.0.0.1:0', {more}")).await
    }

    async fn of(name: &str, password: &str, listen: &str) -> Self {
        let database = Postgres::shared().database(name).await;
        let secrets = tempfile::tempdir().unwrap();
        std::fs::write(secrets.path().join("password"), password).unwrap();
        let yaml = yaml(&database, &secrets.path().join("password"), listen);
        let sidecar = Sidecar::start(yaml).await;
        Self {
            database,
            sidecar,
            secrets,
        }
    }

    async fn address(&self) -> SocketAddr {
        self.sidecar.tcp().await
    }

    async fn connect(&self, password: &str, database: &str) -> Result<Client, DbError> {
        let mut config = tokio_postgres::Config::new();
        let address = self.address().await;
        config.host(address.ip().to_string()).port(address.port());
        config.user("app").password(password).dbname(database);
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                Ok(client)
            }
            Err(error) => Err(error.as_db_error().expect("an answer").clone()),
        }
    }

    async fn lets_in(&self, password: &str) -> bool {
        let name = self.database.name.clone();
        self.connect(password, &name).await.is_ok()
    }
}

fn yaml(database: &Database, file: &Path, listen: &str) -> String {
    format!(
        "{}listen: {{{listen}, tcp_password_file: {}}}\nlog: {{format: json}}\n",
        upstream(&database.name, &database.url()),
        file.display()
    )
}

#[tokio::test]
async fn who_knows_the_password_is_let_in_and_nobody_else_learns_a_name() {
    let place = Place::new("tcp_login", "pencil\n").await;
    let name = place.database.name.clone();
    let client = place.connect("pencil", &name).await.unwrap();
    client.query_one("SELECT 1", &[]).await.unwrap();
    for database in [name.as_str(), "nothing"] {
        for wrong in ["wrong", "pencil ", "Pencil"] {
            let error = place.connect(wrong, database).await.unwrap_err();
            assert_eq!(error.code().code(), "28P01");
            assert!(!format!("{error:?}").contains(&name), "{error:?}");
        }
    }
    let error = place.connect("pencil", "nothing").await.unwrap_err();
    assert_eq!(error.code().code(), "3D000");
    assert!(error.hint().unwrap().contains(&name));
}

#[tokio::test]
async fn the_log_and_both_forms_of_the_status_tell_where_it_listens() {
    let place = Place::on("tcp_where", "pencil", "localhost:0").await;
    let status = place.sidecar.get("/v1/status").await;
    let told = status["tcp"].as_array().unwrap();
    for address in told {
        let address = address.as_str().unwrap();
        place.sidecar.logged(&["listens on TCP", address]).await;
    }
    let log = place.sidecar.log();
    let mut logged = log.iter().filter(|line| line.contains("listens on TCP"));
    let shown = Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["status", "--socket"])
        .arg(place.sidecar.control_socket())
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for address in told {
        let address = address.as_str().unwrap();
        assert!(!address.ends_with(":0"), "{status}");
        assert!(logged.next().unwrap().contains(address), "{log:?}");
        assert!(shown.contains(address), "{shown}");
    }
    assert!(!told.is_empty() && logged.next().is_none(), "{log:?}");
    let without = Sidecar::over(&place.database).await;
    assert_eq!(without.get("/v1/status").await.get("tcp"), None);
}

#[tokio::test]
async fn psql_and_the_python_drivers_log_in_and_are_refused() {
    let place = Place::new("tcp_drivers", "pa ss\u{e4}\n").await;
    let (address, name) = (place.address().await, &place.database.name);
    let psql = |password: &str| {
        Command::new("psql")
            .env("PGPASSWORD", password)
            .args([
                "-w",
                "-XAtc",
                "SELECT 7",
                "-U",
                "app",
                "-h",
                "127.0.0.1",
                "-p",
            ])
            .args([&address.port().to_string(), name])
            .output()
            .unwrap()
    };
    let output = psql("pa ss\u{e4}");
    assert_eq!(output.stdout, b"7\n", "{output:?}");
    assert!(String::from_utf8_lossy(&psql("pa ss").stderr).contains("password"));
    let program = r#"
import asyncio, sys, asyncpg, psycopg
port, name, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def plain(word):
    with psycopg.connect(host="127.0.0.1", port=port, user="app", dbname=name, password=word) as c:
        return c.execute("SELECT 7").fetchone()[0]
async def later(word):
    c = await asyncpg.connect(host="127.0.0.1", port=port, user="app", database=name, password=word)
    try:
        return await c.fetchval("SELECT 7")
    finally:
        await c.close()
assert plain(password) == 7
assert asyncio.run(later(password)) == 7
try:
    plain("wrong")
except psycopg.OperationalError:
    pass
else:
    sys.exit("psycopg came in")
try:
    asyncio.run(later("wrong"))
except asyncpg.InvalidPasswordError:
    pass
else:
    sys.exit("asyncpg came in")
"#;
    let output = Command::new(support::tools::python())
        .args([
            "-c",
            program,
            &address.port().to_string(),
            name,
            "pa ss\u{e4}",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_rotated_password_counts_from_the_next_login_on_and_sessions_live_on() {
    let place = Place::new("tcp_rotated", "first").await;
    let name = place.database.name.clone();
    let client = place.connect("first", &name).await.unwrap();
    // As a mounted Secret changes.
    let at = |name: &str| place.secrets.path().join(name);
    std::fs::write(at("next"), "second").unwrap();
    symlink(at("next"), at("link")).unwrap();
    std::fs::rename(at("link"), at("password")).unwrap();
    assert!(!place.lets_in("first").await);
    assert!(place.lets_in("second").await);
    assert!(client.query_one("SELECT 1", &[]).await.is_ok());
    // The verifier that PostgreSQL would store, so that the pod has no password in it.
    let verifier = postgres_protocol::password::scram_sha_256(b"third");
    std::fs::write(at("next"), verifier).unwrap();
    assert!(place.lets_in("third").await);
    assert!(!place.lets_in("second").await);
}

#[tokio::test]
async fn without_a_password_nobody_comes_in_and_the_log_says_why_once() {
    let place = Place::new("tcp_nothing", "first").await;
    let file = place.secrets.path().join("password");
    for content in [None, Some(""), Some("\n"), Some("SCRAM-SHA-256$nonsense")] {
        match content {
            None => std::fs::remove_file(&file).unwrap(),
            Some(content) => std::fs::write(&file, content).unwrap(),
        }
        for password in ["", "first"] {
            let error = place.connect(password, "tcp_nothing").await.unwrap_err();
            let told = format!("{error:?}");
            assert!(!told.contains(file.to_str().unwrap()), "{told}");
        }
    }
    place.sidecar.logged(&["ERROR", "nobody can"]).await;
    let log = place.sidecar.log();
    let said = log
        .iter()
        .filter(|line| line.contains("ERROR") && line.contains("nobody can"));
    let said: Vec<_> = said.collect();
    assert!(said.len() <= 2, "{said:?}");
    assert!(said[0].contains(file.to_str().unwrap()), "{said:?}");
}

#[tokio::test]
async fn only_the_loopback_can_be_listened_on() {
    let database = Postgres::shared().database("tcp_loopback").await;
    for (address, problem) in [("0.0.0.0:6432", "loopback"), ("10.0.0.1:6432", "loopback")] {
        let refused = Sidecar::options()
            .config(yaml(
                &database,
                "/etc/hostname".as_ref(),
                &format!("tcp: '{address}'"),
            ))
            .try_start()
            .await;
        let Err(refused) = refused else {
            panic!("it listens on {address}")
        };
        let told = format!("{refused:?}");
        assert!(
            told.contains("listen.tcp") && told.contains(problem),
            "{told}"
        );
    }
    let yaml = upstream("app", &database.url()) + "listen: {tcp: '127.0.0.1:0'}\n";
    let Err(refused) = Sidecar::options().config(yaml).try_start().await else {
        panic!("it listens without a password")
    };
    assert!(format!("{refused:?}").contains("listen.tcp_password_file"));
}

#[tokio::test]
async fn a_port_in_use_keeps_it_from_starting_and_its_own_is_had_again_at_once() {
    let port = Port::free();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number)).unwrap();
    let address = taken.local_addr().unwrap();
    let database = Postgres::shared().database("tcp_in_use").await;
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("password");
    std::fs::write(&file, "pencil").unwrap();
    let yaml = yaml(&database, &file, &format!("tcp: '{address}'"));
    let Err(refused) = Sidecar::options().config(&*yaml).try_start().await else {
        panic!("two listen on {address}")
    };
    let told = format!("{refused:?}");
    assert!(
        told.contains(&address.to_string()) && told.contains("listen.tcp"),
        "{told}"
    );
    drop(taken);
    for _ in 0..2 {
        let sidecar = Sidecar::start(&*yaml).await;
        let place = Place {
            database: database.clone(),
            sidecar,
            secrets: tempfile::tempdir().unwrap(),
        };
        assert!(place.lets_in("pencil").await);
        let mut sidecar = place.sidecar;
        // What we close first lingers in the kernel.
        sidecar.signal(Signal::SIGTERM);
        sidecar.exited(SOON).await;
    }
}

#[tokio::test]
async fn ipv6_is_served_where_the_machine_has_it() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let place = Place::on("tcp_ipv6", "pencil", "[::1]:0").await;
    assert!(place.address().await.is_ipv6());
    assert!(place.lets_in("pencil").await);
    assert!(!place.lets_in("wrong").await);
}

/// What a client is answered that says this at each step of the exchange.
async fn says(address: SocketAddr, messages: &[&[u8]]) -> Option<String> {
    let mut raw = half_open(address).await;
    assert_eq!(raw.read().await.unwrap().kind, b'R');
    for message in messages {
        let mut framed = vec![b'p'];
        framed.extend((message.len() as u32 + 4).to_be_bytes());
        framed.extend(*message);
        if raw.try_send(&framed).await.is_err() {
            return None;
        }
    }
    let answer = raw.read().await?;
    match answer.kind {
        b'E' => Some(answer.fields()[&'C'].clone()),
        _ => Some("R".to_owned()),
    }
}

fn first(mechanism: &str, data: &str) -> Vec<u8> {
    let mut body = mechanism.as_bytes().to_vec();
    body.push(0);
    body.extend((data.len() as u32).to_be_bytes());
    body.extend(data.as_bytes());
    body
}

#[tokio::test]
async fn a_malformed_exchange_gets_an_error_and_harms_nobody() {
    let place = Place::new("tcp_malformed", "pencil").await;
    let address = place.address().await;
    for (what, message) in [
        ("another mechanism", first("PLAIN", "n,,n=,r=abc")),
        (
            "channel binding",
            first("SCRAM-SHA-256", "p=tls-unique,,n=,r=abc"),
        ),
        ("no nonce", first("SCRAM-SHA-256", "n,,n=")),
        ("garbage", vec![0xff; 40]),
        ("nothing", Vec::new()),
    ] {
        let answer = says(address, &[&message]).await;
        assert_eq!(answer.as_deref(), Some("08P01"), "{what}");
    }
    let huge = vec![b'a'; 1 << 20];
    let answer = says(address, &[&huge]).await;
    assert!(
        matches!(answer.as_deref(), None | Some("08P01")),
        "{answer:?}"
    );
    let begun = first("SCRAM-SHA-256", "n,,n=,r=abc");
    assert_eq!(says(address, &[&begun]).await.as_deref(), Some("R"));
    // Who flags that it could bind, and thinks that we can't, is right.
    let flagged = first("SCRAM-SHA-256", "y,,n=,r=abc");
    assert_eq!(says(address, &[&flagged]).await.as_deref(), Some("R"));
    assert!(place.lets_in("pencil").await);
}

#[tokio::test]
async fn logins_that_stop_half_way_do_not_keep_others_out() {
    let place = Place::new("tcp_half", "pencil").await;
    let half = crowd(place.address().await, 300).await;
    assert!(place.lets_in("pencil").await);
    let status = place.sidecar.get("/v1/status").await;
    assert_eq!(status["budget"]["used"], 0, "{status}");
    drop(half);
    assert!(place.lets_in("pencil").await);
}

/// So many of them, one after the other.
async fn crowd(address: SocketAddr, many: usize) -> Vec<Raw> {
    let mut half = Vec::new();
    for _ in 0..many {
        half.push(half_open(address).await);
    }
    half
}

/// A connection that has said whom it wants to be, and then nothing.
async fn half_open(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect_tcp(address).await;
    raw.send_with(|buffer| {
        let parameters = [("user", "app"), ("database", "app")];
        postgres_protocol::message::frontend::startup_message(parameters, buffer).unwrap();
    })
    .await;
    raw
}

#[tokio::test]
async fn half_open_logins_take_no_more_than_their_places_and_lock_nobody_out() {
    const PLACES: usize = 20;
    let place = Place::with("tcp_places", "max_sessions: 20").await;
    let address = place.address().await;
    let mut there = place.sidecar.session("tcp_places", "a").await;
    let before = place.sidecar.descriptors();
    let start = Instant::now();
    let mut half = crowd(address, 4 * PLACES).await;
    let most = AtomicUsize::new(0);
    let watched = async {
        loop {
            most.fetch_max(place.sidecar.descriptors(), Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let comes_in = async {
        // By the socket at once, over TCP when those before it in the backlog have had their second.
        let mut by_socket = start.elapsed();
        for _ in 0..5 {
            let start = Instant::now();
            assert_eq!(there.ask("SELECT 1").await, "1");
            place.sidecar.session("tcp_places", "b").await;
            by_socket = start.elapsed();
            if by_socket < Duration::from_secs(1) {
                break;
            }
            // The machine stood still, perhaps.
            half.extend(crowd(address, 4 * PLACES).await);
        }
        assert!(by_socket < Duration::from_secs(1), "{by_socket:?}");
        assert!(place.lets_in("pencil").await);
        half
    };
    let mut half = tokio::select! {
        () = watched => Vec::new(),
        half = comes_in => half,
    };
    // With the ten seconds that a login has, those before it would have taken forty.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    // One more is accepted and waits for a place; a few are of the sessions and of the questions.
    let most = most.load(Relaxed) - before;
    assert!(
        (PLACES..PLACES + 15).contains(&most),
        "{most} more descriptors"
    );
    eventually(SOON, "they are counted", async || {
        let status = place.sidecar.get("/v1/status").await;
        let crowded = &status["sessions"]["refused"]["crowded"];
        let many = crowded.as_u64().unwrap_or(0) >= 3 * PLACES as u64;
        many.then_some(()).ok_or(status)
    })
    .await;
    let told = half[0].read_until(b'E').await.pop().unwrap().fields();
    assert_eq!(told[&'C'], "53300", "{told:?}");
}

#[tokio::test]
async fn a_login_of_a_byte_a_second_is_cut_after_ten_seconds_in_all() {
    let place = Place::new("tcp_slow", "pencil").await;
    let address = place.address().await;
    let response = first("SCRAM-SHA-256", "n,,n=,r=abcdefghijklmnopqrst");
    let mut proof = vec![b'p'];
    proof.extend((response.len() as u32 + 4).to_be_bytes());
    proof.extend(&response);
    let packet = {
        let mut packet = bytes::BytesMut::new();
        let parameters = [("user", "app"), ("database", "app")];
        postgres_protocol::message::frontend::startup_message(parameters, &mut packet).unwrap();
        packet
    };
    let start = Instant::now();
    let mut startup = Raw::connect_tcp(address).await;
    let mut login = half_open(address).await;
    assert_eq!(login.read().await.unwrap().kind, b'R');
    let dribble = async |raw: &mut Raw, bytes: &[u8]| {
        let mut sent = 0;
        let told = loop {
            tokio::select! {
                biased;
                told = raw.read() => break told,
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    // What is sent to one that has just closed takes its last word away.
                    if raw.try_send(&bytes[sent..=sent]).await.is_err() {
                        break None;
                    }
                    sent += 1;
                }
            }
        };
        if let Some(told) = told {
            assert_eq!(told.fields()[&'C'], "08P01", "{:?}", told.fields());
            assert_eq!(raw.read().await, None);
        }
        let took = start.elapsed().as_secs_f64();
        assert!((9.0..30.0).contains(&took), "{took} s, {sent} bytes");
    };
    let others = async {
        while start.elapsed() < Duration::from_secs(9) {
            assert!(place.lets_in("pencil").await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::join!(
        dribble(&mut startup, &packet),
        dribble(&mut login, &proof),
        others
    );
    eventually(SOON, "both are counted", async || {
        let status = place.sidecar.get("/v1/status").await;
        let both = status["sessions"]["refused"]["timeout"] == 2;
        both.then_some(()).ok_or(status)
    })
    .await;
}

#[tokio::test]
async fn a_query_over_tcp_is_cancelled_over_tcp() {
    let place = Place::new("tcp_cancel", "pencil").await;
    let client = place.connect("pencil", "tcp_cancel").await.unwrap();
    let token = client.cancel_token();
    let query = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
    Postgres::shared()
        .waits_in(&place.database, "PgSleep")
        .await;
    token.cancel_query(NoTls).await.unwrap();
    let error = query.await.unwrap().unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
}

/// psql as another user of the machine.
fn psql_as(uid: u32, sidecar: &Sidecar, database: &str) -> Output {
    let mut psql = Command::new("psql");
    psql.args([
        "-XAtc",
        "SELECT 7",
        "-U",
        "app",
        "-h",
        sidecar.pg_host(),
        database,
    ])
    .uid(uid)
    .gid(uid)
    .current_dir("/");
    psql.output().unwrap()
}

#[tokio::test]
async fn only_those_users_come_in_who_are_allowed_to() {
    if !geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return;
    }
    let database = Postgres::shared().database("uids").await;
    for (allowed, comes_in) in [("any", true), ("0", false), ("54321", true)] {
        let yaml = format!(
            "{}listen: {{mode: '0666', allow_uids: '{allowed}'}}\n",
            upstream("uids", &database.url())
        );
        let sidecar = Sidecar::start(yaml).await;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(sidecar.dir(), open).unwrap();
        let output = psql_as(STRANGER, &sidecar, "uids");
        assert_eq!(output.status.success(), comes_in, "{allowed}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(comes_in || told.contains("54321"), "{told}");
    }
}

#[tokio::test]
async fn only_those_users_ask_the_control_socket_who_are_allowed_to() {
    if !geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return;
    }
    let database = Postgres::shared().database("control_uids").await;
    for (allowed, answers) in [("any", "200"), ("0", "403"), ("0, 54321", "200")] {
        let yaml = format!(
            "{}listen: {{mode: '0666'}}\ncontrol: {{allow_uids: '{allowed}'}}\n",
            upstream("app", &database.url())
        );
        let sidecar = Sidecar::start(yaml).await;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(sidecar.dir(), open).unwrap();
        let program = "import socket, sys\n\
            s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
            s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n\
            print(s.recv(4096).split()[1].decode())";
        let output = Command::new("/usr/bin/python3")
            .args(["-c", program, sidecar.control_socket().to_str().unwrap()])
            .uid(STRANGER)
            .gid(STRANGER)
            .current_dir("/")
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&output.stdout);
        assert_eq!(status.trim(), answers, "{allowed}: {output:?}");
    }
}
