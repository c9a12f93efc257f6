//! Several hosts: which of them is taken, and what becomes of connections when their roles change.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::session::error;
use support::{Postgres, PostgresOptions, Proxy, SOON, Sidecar, eventually};
use tempfile::NamedTempFile;

/// A port where nothing listens.
const NOBODY: u16 = 1;

const ATTRS: [&str; 6] = [
    "any",
    "read-write",
    "read-only",
    "primary",
    "standby",
    "prefer-standby",
];

fn url(ports: &[u16], attrs: &str) -> String {
    let hosts = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!("postgresql://app@{hosts}/postgres?target_session_attrs={attrs}&sslmode=disable")
}

/// Which server libpq takes.
fn by_libpq(url: &str) -> Option<String> {
    let psql = Command::new("psql")
        .args(["-XAtq", "-d", url, "-c", "SELECT inet_server_port()"])
        .output()
        .expect("psql can be run");
    let answer = String::from_utf8(psql.stdout).unwrap();
    psql.status.success().then(|| answer.trim().to_owned())
}

async fn by_execpool(sidecar: &Sidecar, upstream: &str) -> Result<String, String> {
    let mut raw = sidecar.raw().await;
    let told = raw
        .startup(&[("user", "app"), ("database", upstream)])
        .await;
    match told.iter().find(|message| message.kind == b'E') {
        Some(error) => Err(error.fields()[&'M'].clone()),
        None => Ok(raw.ask("SELECT inet_server_port()").await),
    }
}

#[tokio::test]
async fn the_host_that_libpq_takes_is_taken_for_every_attribute_and_order() {
    let primary = Postgres::start(PostgresOptions::default());
    let standby = primary.standby();
    let (p, s) = (primary.port(), standby.port());
    let orders: [&[u16]; 6] = [
        &[p, s],
        &[s, p],
        &[NOBODY, p, s],
        &[NOBODY, s, p],
        &[p],
        &[s],
    ];
    let mut cases = Vec::new();
    for order in orders {
        for attrs in ATTRS {
            cases.push((format!("u{}", cases.len()), url(order, attrs)));
        }
    }
    let upstreams = cases
        .iter()
        .map(|(name, url)| format!("  - {{name: {name}, url: \"{url}\", connect_timeout: 60s}}\n"));
    let yaml = format!(
        "budget: {{size: 100}}\nupstreams:\n{}",
        upstreams.collect::<String>()
    );
    let sidecar = Sidecar::start(yaml).await;
    for (name, url) in &cases {
        let took = by_execpool(&sidecar, name).await;
        match by_libpq(url) {
            Some(port) => assert_eq!(took, Ok(port), "{url}"),
            None => {
                let error = took.unwrap_err();
                let attrs = url.split("attrs=").nth(1).unwrap();
                let attrs = attrs.split('&').next().unwrap();
                assert!(error.contains(attrs), "{url}: {error}");
                assert!(error.contains("127.0.0.1:"), "{url}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_refused_a_write_is_left_by_its_connection() {
    let database = Postgres::shared().database("refused_write").await;
    let sidecar = Sidecar::over(&database).await;
    let pid_of = async |statements: &[&str]| {
        let mut raw = sidecar.session("refused_write", "a").await;
        for statement in statements {
            raw.query(statement).await;
        }
        let pid = raw.ask("SELECT pg_backend_pid()").await;
        raw.send(b"X\0\0\0\x04").await;
        sidecar.settles().await;
        pid
    };
    let first = pid_of(&["SELECT 1"]).await;
    let kept = pid_of(&["BEGIN READ ONLY", "CREATE TABLE t ()", "ROLLBACK"]).await;
    assert_eq!(first, kept, "one that served well is lent again");
    assert_ne!(pid_of(&[]).await, first);
}

/// Two servers at one port of two addresses, and a name that means what the test says.
struct Named {
    hosts: NamedTempFile,
    _doors: [Proxy; 2],
    port: u16,
}

const NAME: &str = "db.execpool.test";

impl Named {
    /// `None` where the tests may not give a process a hosts file of its own.
    async fn new(first: &Postgres, second: &Postgres) -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: only root can give a process a hosts file of its own");
            return None;
        }
        let door = Proxy::tcp_at(Ipv4Addr::new(127, 0, 0, 2), 0, first).await;
        let port = door.port();
        let other = Proxy::tcp_at(Ipv4Addr::new(127, 0, 0, 3), port, second).await;
        Some(Self {
            hosts: NamedTempFile::new().unwrap(),
            _doors: [door, other],
            port,
        })
    }

    /// What the name means from now on.
    fn means(&self, addresses: &[&str]) {
        let lines = addresses
            .iter()
            .map(|address| format!("{address} {NAME}\n"));
        // In place, as the file itself is mounted.
        std::fs::write(self.hosts.path(), lines.collect::<String>()).unwrap();
    }

    async fn sidecar(&self, attrs: &str) -> Sidecar {
        let url = format!(
            "postgresql://app@{NAME}:{}/postgres?target_session_attrs={attrs}&sslmode=disable",
            self.port
        );
        Sidecar::options()
            .config(support::sidecar::upstream("app", &url) + "    connect_timeout: 60s\n")
            .hosts(self.hosts.path())
            .start()
            .await
    }
}

async fn monitors(postgres: &Postgres) -> usize {
    let filter = "application_name = 'execpool monitor'";
    postgres.activity(filter).await.len()
}

/// Waits until the monitor, which is asked meanwhile, is at one server and not at the other.
async fn monitor_is_at(sidecar: &Sidecar, here: &Postgres, not_here: &Postgres) {
    eventually(SOON, "the monitor is there", async || {
        sidecar.get("/v1/database/health").await;
        match (monitors(here).await, monitors(not_here).await) {
            (1, 0) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn new_connections_and_the_monitor_go_where_a_name_leads_by_now() {
    let first = Postgres::start(PostgresOptions::default());
    let second = Postgres::start(PostgresOptions::default());
    let Some(named) = Named::new(&first, &second).await else {
        return;
    };
    let (at_first, at_second) = (first.port().to_string(), second.port().to_string());
    named.means(&["127.0.0.2"]);
    let sidecar = named.sidecar("any").await;
    let mut there = sidecar.session("app", "a").await;
    assert_eq!(there.ask("SHOW port").await, at_first);
    monitor_is_at(&sidecar, &first, &second).await;

    named.means(&["127.0.0.3"]);
    let mut new = sidecar.session("app", "b").await;
    assert_eq!(new.ask("SHOW port").await, at_second);
    monitor_is_at(&sidecar, &second, &first).await;
    // Who is there stays, and so do idle connections until they are replaced.
    assert_eq!(there.ask("SHOW port").await, at_first);
    let (status, _) = sidecar.control("POST", "/v1/reconnect", None).await;
    assert_eq!(status, 200);
    drop(there);
    drop(new);
    sidecar.settles().await;
    let mut again = sidecar.session("app", "a").await;
    assert_eq!(again.ask("SHOW port").await, at_second);
}

#[tokio::test]
async fn every_address_of_a_name_is_asked_for_its_role_by_pool_and_monitor() {
    let primary = Postgres::start(PostgresOptions::default());
    let standby = primary.standby();
    let Some(named) = Named::new(&standby, &primary).await else {
        return;
    };
    // Nobody listens at the first.
    named.means(&["127.0.0.4", "127.0.0.2", "127.0.0.3"]);
    for (attrs, server, other) in [
        ("read-write", &primary, &standby),
        ("standby", &standby, &primary),
    ] {
        let sidecar = named.sidecar(attrs).await;
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(raw.ask("SHOW port").await, server.port().to_string());
        monitor_is_at(&sidecar, server, other).await;
    }
}

#[tokio::test]
async fn the_monitor_leaves_a_server_that_is_no_longer_what_is_asked_for() {
    let primary = Postgres::start(PostgresOptions::default());
    let (first, second) = (primary.standby(), primary.standby());
    let url = url(&[first.port(), second.port()], "standby");
    let sidecar = Sidecar::start(support::sidecar::upstream("app", &url)).await;
    monitor_is_at(&sidecar, &first, &second).await;
    first.promote().await;
    monitor_is_at(&sidecar, &second, &first).await;
}

/// What one writer of the failover was told.
#[derive(Debug, Default)]
struct Told {
    /// What the server has said it has written.
    written: BTreeSet<(i32, i32)>,
    /// What may have been written: the connection broke before an answer.
    unknown: BTreeSet<(i32, i32)>,
    /// SQLSTATEs of what failed.
    errors: BTreeSet<String>,
}

/// Writes one row after the other until one was written at port `new`.
async fn write_until(sidecar: Arc<Sidecar>, n: i32, new: String) -> Told {
    let mut told = Told::default();
    for seq in 0..20_000 {
        let connected = sidecar.client("app", &format!("w{n}")).await;
        let Ok(client) = connected else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let insert =
            format!("INSERT INTO written VALUES ({n}, {seq}) RETURNING inet_server_port()");
        match client.query_one(&insert, &[]).await {
            Ok(row) => {
                told.written.insert((n, seq));
                if row.get::<_, i32>(0).to_string() == new {
                    return told;
                }
            }
            Err(error) => {
                told.unknown.insert((n, seq));
                let code = error.code().map(|code| code.code().to_owned());
                told.errors.extend(code);
            }
        }
    }
    panic!("writer {n} never came to the new primary: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_the_middle_of_load_moves_every_execution_and_loses_no_write() {
    // What a client is told to be written is at the standby by then.
    let mut primary = Postgres::start(PostgresOptions {
        settings: vec![("synchronous_commit".to_owned(), "on".to_owned())],
        ..PostgresOptions::default()
    });
    let admin = primary.admin().await;
    let table = "CREATE TABLE written (n int, seq int); GRANT ALL ON written TO app";
    admin.batch_execute(table).await.unwrap();
    let standby = primary.standby();
    for sql in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    eventually(SOON, "commits wait for the standby", async || {
        let sql = "SELECT sync_state FROM pg_stat_replication";
        let rows = admin.query(sql, &[]).await.unwrap();
        let states: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        (states == ["sync"]).then_some(()).ok_or(states)
    })
    .await;
    let url = url(&[primary.port(), standby.port()], "read-write");
    let yaml = format!(
        "budget: {{size: 8, overflow: 0}}\nupstreams: [{{name: app, url: \"{url}\", connect_timeout: 2s}}]\n"
    );
    let sidecar = Arc::new(Sidecar::start(yaml).await);
    let writers: Vec<_> = (0..6)
        .map(|n| {
            let new = standby.port().to_string();
            tokio::spawn(write_until(Arc::clone(&sidecar), n, new))
        })
        .collect();
    eventually(SOON, "the old primary is written to", async || {
        let count = admin.query_one("SELECT count(*) FROM written", &[]).await;
        match count.unwrap().get::<_, i64>(0) {
            50.. => Ok(()),
            few => Err(few),
        }
    })
    .await;
    primary.stop();
    standby.promote().await;
    let mut all = Told::default();
    for writer in writers {
        let told = tokio::time::timeout(SOON, writer).await;
        let told = told.expect("nobody hangs").unwrap();
        all.written.extend(told.written);
        all.unknown.extend(told.unknown);
        all.errors.extend(told.errors);
    }
    // Nobody was sent to a server that takes no writes, and none was tried there.
    assert!(!all.errors.contains("25006"), "{:?}", all.errors);
    let log = standby.log();
    assert!(!log.contains("cannot execute"), "{log}");
    let rows = standby
        .admin()
        .await
        .query("SELECT n, seq FROM written", &[])
        .await
        .unwrap();
    let found: BTreeSet<(i32, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found.len(), rows.len(), "nothing is written twice");
    let lost: Vec<_> = all.written.difference(&found).collect();
    assert!(
        lost.is_empty(),
        "written by the server's word, and not there: {lost:?}"
    );
    let others: Vec<_> = found.difference(&all.written).collect();
    assert!(
        others.iter().all(|row| all.unknown.contains(row)),
        "nobody wrote these: {others:?}"
    );
    eventually(SOON, "nothing is lent any more", async || {
        let status = sidecar.get("/v1/status").await;
        match status["budget"]["used"] == 0 && status["budget"]["waiting"] == 0 {
            true => Ok(()),
            false => Err(status["budget"].clone()),
        }
    })
    .await;
}

/// Seconds until the kernel asks the server of a connection of ours whether it is there, by the
/// connection's own port: none, if it never does.
fn asks_in(port: &str) -> Option<f64> {
    let port: u16 = port.parse().unwrap();
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().find(|row| {
        let mut columns = row.split_whitespace();
        columns
            .nth(1)
            .is_some_and(|address| address.ends_with(&local))
    });
    // Which timer is pending (2: keepalive), and in how many hundredths of a second it goes off.
    let timer = row?.split_whitespace().nth(5)?;
    let ticks = timer.strip_prefix("02:")?;
    Some(f64::from(u32::from_str_radix(ticks, 16).unwrap()) / 100.0)
}

#[tokio::test]
async fn idle_connections_are_asked_for_by_the_kernel_when_the_configuration_says() {
    let database = Postgres::shared().database("keepalive").await;
    let url = database.tcp_url_as("app");
    let yaml = format!(
        "upstreams:\n\
         - {{name: usual, url: '{url}'}}\n\
         - {{name: knob, url: '{url}', keepalive: 7s}}\n\
         - {{name: url, url: '{url}?keepalives_idle=12'}}\n"
    );
    let sidecar = Sidecar::start(yaml).await;
    for (upstream, seconds) in [("usual", 30.0), ("knob", 7.0), ("url", 12.0)] {
        let start = Instant::now();
        let mut raw = sidecar.session(upstream, "a").await;
        let port = raw.ask("SELECT inet_client_port()").await;
        let claim = format!("{upstream} is asked for after some time");
        let left = eventually(SOON, &claim, async || asks_in(&port).ok_or(())).await;
        let whole = left + start.elapsed().as_secs_f64();
        assert!(
            left <= seconds && whole > seconds - 0.1,
            "{upstream}: in {left} s, which is {whole} s from its beginning"
        );
    }
}

/// A network with nothing but a sidecar in it, and a way to the test's PostgreSQL.
struct Island {
    sidecar: Sidecar,
    _bridge: tokio::process::Child,
}

impl Island {
    /// Where the bridge listens, in a network where nobody else does.
    const PORT: u16 = 5432;
    const BRIDGE: &'static str = "
import socket, sys, threading
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
def passes(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
while True:
    near = listener.accept()[0]
    far = socket.socket(socket.AF_UNIX)
    far.connect(sys.argv[2])
    threading.Thread(target=passes, args=(near, far), daemon=True).start()
    threading.Thread(target=passes, args=(far, near), daemon=True).start()
";

    async fn new(database: &str, more: &str) -> Self {
        let url = format!("postgresql://app@127.0.0.1:{}/{database}", Self::PORT);
        let yaml = support::sidecar::upstream("app", &url) + more;
        let sidecar = Sidecar::options().config(yaml).apart().start().await;
        let mut bridge = tokio::process::Command::from(Self::inside(&sidecar, "python3"));
        bridge
            .args(["-c", Self::BRIDGE, &Self::PORT.to_string()])
            .arg(Postgres::shared().socket())
            .kill_on_drop(true);
        Self {
            _bridge: bridge.spawn().expect("nsenter can be run"),
            sidecar,
        }
    }

    /// A command in the sidecar's network.
    fn inside(sidecar: &Sidecar, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", sidecar.pid()));
        command.arg(program);
        command
    }

    /// From now on nothing arrives, or everything does; nobody is told.
    fn network(&self, state: &str) {
        let mut ip = Self::inside(&self.sidecar, "ip");
        let done = ip.args(["link", "set", "lo", state]).status();
        assert!(done.expect("ip can be run").success());
    }
}

#[tokio::test]
async fn a_server_that_is_silently_gone_is_noticed_in_the_configured_time() {
    if !geteuid().is_root() {
        println!("skipped: only root can give a process a network of its own");
        return;
    }
    // Asked after 1 s and given up after 2 s in all; by default it would be a minute.
    Postgres::shared().database("gone").await;
    let island = Island::new("gone", "    keepalive: 1s\n    connect_timeout: 2s\n").await;
    let enter = async |execution: &'static str| {
        eventually(SOON, "it is let in", async || {
            let named = [("execpool.execution_id", execution)];
            let (raw, told) = island.sidecar.started("app", &named).await;
            match told.last().map(|message| message.kind) {
                Some(b'Z') => Ok(raw),
                _ => Err(told),
            }
        })
        .await
    };
    // One waits for an answer, which only keepalive watches over; one sends into the void.
    let (mut waits, mut sends) = (enter("waits").await, enter("sends").await);
    waits.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
    island.sidecar.session_is("waits", "active").await;
    sends.query("BEGIN").await;
    let mut idle = enter("idle").await;
    idle.ask("SELECT 1").await;
    drop(idle);

    let start = Instant::now();
    island.network("down");
    sends.send(b"Q\0\0\0\x0dSELECT 1\0").await;
    for (what, raw) in [("waits", &mut waits), ("sends", &mut sends)] {
        let told = tokio::time::timeout(SOON, raw.read_until(b'E')).await;
        let told = told.unwrap_or_else(|_| panic!("{what}: nothing is noticed"));
        assert_eq!(error(&told)[&'C'], "08006", "{what}: {told:?}");
        let took = start.elapsed();
        let expected = Duration::from_millis(900)..Duration::from_secs(30);
        assert!(expected.contains(&took), "{what}: {took:?}");
    }
    island.network("up");
    for execution in ["waits", "sends", "idle"] {
        let mut raw = enter(execution).await;
        assert_eq!(raw.ask("SELECT 'back'").await, "back", "{execution}");
    }
}

#[tokio::test]
async fn a_killed_sidecar_leaves_no_query_behind() {
    let database = Postgres::shared().database("killed").await;
    for (way, url) in [
        ("socket", database.url()),
        ("tcp", database.tcp_url_as("app")),
    ] {
        let mut sidecar = Sidecar::start(support::sidecar::upstream("app", &url)).await;
        let mut raw = sidecar.session("app", "a").await;
        let checks = raw.ask("SHOW client_connection_check_interval").await;
        assert_eq!(checks, "1s", "{way}");
        raw.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
        sidecar.session_is("a", "active").await;
        sidecar.signal(Signal::SIGKILL);
        sidecar.exited(SOON).await;
        eventually(SOON, "its backend is gone", async || {
            let filter = "datname = 'killed' AND query LIKE '%pg_sleep(600)%'";
            let left = Postgres::shared().activity(filter).await;
            left.is_empty().then_some(()).ok_or(left)
        })
        .await;
    }
}

#[tokio::test]
async fn the_apps_own_word_on_the_check_wins() {
    let database = Postgres::shared().database("own_check").await;
    let sidecar = Sidecar::over(&database).await;
    for (name, value) in [
        ("client_connection_check_interval", "7s"),
        ("options", "-c client_connection_check_interval=7s"),
    ] {
        let mut raw = sidecar.raw().await;
        raw.startup(&[("user", "app"), ("database", "own_check"), (name, value)])
            .await;
        let checks = raw.ask("SHOW client_connection_check_interval").await;
        assert_eq!(checks, "7s", "{name}");
    }
}
