//! A real PostgreSQL that lives as long as the test program.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::connection_log::{self, ConnectionLog};
use super::guard::{self, Watchdog};
use super::port::Port;
use super::template::copy_template;
use super::tools::postgres_program;
use super::wait::{SOON, eventually};

/// The `application_name` of the connections that the tests open for themselves.
pub(crate) const OWN_NAME: &str = "execpool tests";

/// The password of [`ROLES`].
pub(crate) const PASSWORD: &str = "pa:s/s@w%rd";

/// Roles that must give [`PASSWORD`], over the socket and over TCP; every other role
/// is trusted. `app` is an ordinary role, owner of the databases; `postgres` is superuser.
pub(crate) const ROLES: [(&str, &str); 3] = [
    ("scram_user", "scram-sha-256"),
    ("md5_user", "md5"),
    ("clear_user", "password"),
];

/// How a server differs from the usual one.
#[derive(Clone, Debug)]
pub(crate) struct PostgresOptions {
    /// `max_connections`; three of these are for superusers alone.
    pub(crate) max_connections: u32,
    /// More settings of `postgresql.conf`, by name and value.
    pub(crate) settings: Vec<(String, String)>,
    /// Lines for the beginning of `pg_hba.conf`.
    pub(crate) hba: Vec<String>,
    /// A process in whose network it runs; its own, unless set. Only root can do that. Its
    /// socket is reached from everywhere.
    pub(crate) network: Option<u32>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            max_connections: 300,
            settings: Vec::new(),
            hba: Vec::new(),
            network: None,
        }
    }
}

/// A running server in a directory of its own, on a Unix socket and on a port of
/// 127.0.0.1. Gone with its directory when dropped, or when the test program ends.
pub(crate) struct Postgres {
    directory: TempDir,
    port: Port,
    network: Option<u32>,
    running: Option<Running>,
}

struct Running {
    server: Child,
    watchdog: Watchdog,
}

/// A database of a [`Postgres`], owned by `app`. It goes when the server goes.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) name: String,
    directory: PathBuf,
    port: u16,
}

/// A row of `pg_stat_activity`.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) pid: i32,
    pub(crate) user: String,
    pub(crate) application_name: String,
    /// `active`, `idle`, `idle in transaction`, …; empty for another role's.
    pub(crate) state: String,
    pub(crate) query: String,
    pub(crate) wait_event: String,
}

impl Postgres {
    /// The one server of this test program, started when it is first asked for.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(PostgresOptions::default()))
    }

    /// A server of one's own, for tests that need few slots or that stop it.
    pub(crate) fn start(options: PostgresOptions) -> Self {
        let mut postgres = Self {
            directory: guard::short_directory(),
            port: Port::free(),
            network: options.network,
            running: None,
        };
        guard::give_away(postgres.directory());
        copy_template(&postgres.data());
        postgres.configure(&options);
        if let Err(log) = postgres.try_run() {
            panic!("PostgreSQL does not start:\n{log}");
        }
        postgres
    }

    /// A standby of this server, as a copy that follows it.
    pub(crate) fn standby(&self) -> Self {
        let mut standby = Self {
            directory: guard::short_directory(),
            port: Port::free(),
            network: self.network,
            running: None,
        };
        guard::give_away(standby.directory());
        let (host, port) = (self.directory().display(), self.port());
        let mut copy = guard::unprivileged_command(&postgres_program("pg_basebackup"));
        copy.args(["-X", "stream", "-c", "fast", "-U", "postgres", "-h"])
            .arg(self.directory())
            .args(["-p", &port.to_string(), "-D"])
            .arg(standby.data());
        guard::run(&mut copy);
        write(&standby.data().join("standby.signal"), "");
        let follows = format!("host={host} port={port} user=postgres");
        let options = PostgresOptions {
            settings: vec![("primary_conninfo".to_owned(), follows)],
            ..PostgresOptions::default()
        };
        standby.configure(&options);
        if let Err(log) = standby.try_run() {
            panic!("the standby does not start:\n{log}");
        }
        standby
    }

    /// Makes a standby the primary.
    pub(crate) async fn promote(&self) {
        let admin = self.admin().await;
        let promoted = admin.query_one("SELECT pg_promote()", &[]);
        let promoted: bool = promoted.await.expect("a standby can be promoted").get(0);
        assert!(promoted, "{}", self.log());
    }

    /// Where the socket is: the `host` of a connection.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The port on 127.0.0.1, which is also the number in the socket's name.
    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// The path of the socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory().join(format!(".s.PGSQL.{}", self.port()))
    }

    /// Creates a database. The name must be new to this server.
    pub(crate) async fn database(&self, name: &str) -> Database {
        self.admin()
            .await
            .batch_execute(&format!("CREATE DATABASE \"{name}\" OWNER app"))
            .await
            .unwrap_or_else(|error| panic!("database {name}: {error:?}"));
        self.existing_database(name)
    }

    /// A handle on a database that is there, or that is missing on purpose.
    pub(crate) fn existing_database(&self, name: &str) -> Database {
        Database {
            name: name.to_owned(),
            directory: self.directory().to_owned(),
            port: self.port(),
        }
    }

    /// A direct connection of the superuser.
    pub(crate) async fn admin(&self) -> tokio_postgres::Client {
        self.existing_database("postgres")
            .client_as("postgres")
            .await
    }

    /// Waits until a backend of this database waits in this event. With `PgSleep` its query runs and hears a
    /// cancellation; PostgreSQL drops one that comes before.
    pub(crate) async fn waits_in(&self, database: &Database, event: &str) {
        let filter = format!(
            "datname = '{}' AND state = 'active' AND wait_event = '{event}'",
            database.name
        );
        eventually(SOON, event, async || {
            let found = self.activity(&filter).await;
            if found.is_empty() { Err(()) } else { Ok(()) }
        })
        .await;
    }

    /// The backends of a database but for those of the sidecar's own question whether it lives.
    pub(crate) async fn pooled(&self, database: &Database) -> Vec<Backend> {
        self.activity(&format!(
            "datname = '{}' AND application_name <> 'execpool monitor'",
            database.name
        ))
        .await
    }

    /// Clients' backends for which `filter`, a condition in SQL over
    /// `pg_stat_activity`, is true. The connection that asks is left out.
    pub(crate) async fn activity(&self, filter: &str) -> Vec<Backend> {
        let sql = format!(
            "SELECT pid, coalesce(usename, ''), coalesce(application_name, ''), \
                    coalesce(state, ''), coalesce(query, ''), coalesce(wait_event, '') \
             FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
               AND application_name <> '{OWN_NAME}' AND ({filter}) ORDER BY backend_start"
        );
        let rows = self.admin().await.query(&sql, &[]).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .iter()
            .map(|row| Backend {
                pid: row.get(0),
                user: row.get(1),
                application_name: row.get(2),
                state: row.get(3),
                query: row.get(4),
                wait_event: row.get(5),
            })
            .collect()
    }

    /// What the server has logged about connections so far. A disconnection is
    /// logged when the backend ends, which is a little after the client sees it.
    pub(crate) fn connection_log(&self) -> ConnectionLog {
        ConnectionLog::parse(&self.log())
    }

    /// The whole log of the server.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Stops the server at once, as a crash would: connections break.
    pub(crate) fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.watchdog.disarm();
            // The server is our child and not yet waited for: the PID is its own.
            let _ = kill(process(&running.server), Signal::SIGQUIT);
            let _ = running.server.wait();
        }
    }

    /// Starts the stopped server again, where it was.
    pub(crate) fn start_again(&mut self) {
        assert!(self.running.is_none(), "the server runs");
        if let Err(log) = self.try_run() {
            panic!("PostgreSQL does not start again:\n{log}");
        }
    }

    fn data(&self) -> PathBuf {
        self.directory().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.directory().join("log")
    }

    fn configure(&self, options: &PostgresOptions) {
        let mut hba = options.hba.clone();
        for (role, method) in ROLES {
            hba.push(format!("local all {role} {method}"));
            hba.push(format!("host all {role} 127.0.0.1/32 {method}"));
        }
        hba.push("local all all trust".to_owned());
        hba.push("local replication all trust".to_owned());
        hba.push("host all all 127.0.0.1/32 trust".to_owned());
        write(&self.data().join("pg_hba.conf"), &hba.join("\n"));

        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &self.port().to_string()),
            (
                "unix_socket_directories",
                &self.directory().to_string_lossy(),
            ),
            ("max_connections", &options.max_connections.to_string()),
            ("shared_buffers", "32MB"),
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
            ("autovacuum", "off"),
            ("log_connections", "on"),
            ("log_disconnections", "on"),
            ("log_line_prefix", connection_log::PREFIX),
            ("log_timezone", "UTC"),
            ("lc_messages", "C"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lines: Vec<String> = fixed
            .iter()
            .chain(&options.settings)
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        write(&self.data().join("postgresql.auto.conf"), &lines.concat());
    }

    /// Runs the server and waits until it is ready; answers its log if it ends.
    fn try_run(&mut self) -> Result<(), String> {
        write(&self.log_file(), "");
        let log = fs::File::options()
            .append(true)
            .open(self.log_file())
            .expect("the log was just written");
        let program = postgres_program("postgres");
        let mut server = match self.network {
            None => guard::unprivileged_command(&program),
            Some(process) => guard::unprivileged_command_in(process, &program),
        };
        let mut server = server
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env_remove("PGDATA")
            .process_group(0) // out of reach of a terminal's Ctrl-C
            .spawn()
            .expect("postgres can be run");
        let watchdog = Watchdog::over(server.id(), Signal::SIGQUIT, self.directory());

        let start = Instant::now();
        while !self.log().contains("database system is ready to accept") {
            if server.try_wait().ok().flatten().is_some() {
                watchdog.disarm();
                return Err(self.log());
            }
            assert!(
                start.elapsed() < SOON,
                "PostgreSQL is not ready after {SOON:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.running = Some(Running { server, watchdog });
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Database {
    /// Where its server's socket is, and the number in the socket's name.
    pub(crate) fn address(&self) -> (&Path, u16) {
        (&self.directory, self.port)
    }

    /// A URL over the Unix socket for the role `app`, as libpq understands it.
    pub(crate) fn url(&self) -> String {
        self.url_as("app")
    }

    /// The same for another role.
    pub(crate) fn url_as(&self, role: &str) -> String {
        format!(
            "postgresql://{role}@/{}?host={}&port={}",
            self.name,
            self.directory.display(),
            self.port
        )
    }

    /// A URL over TCP, without a password.
    pub(crate) fn tcp_url_as(&self, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// A direct connection of the role `app`.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        self.client_as("app").await
    }

    /// A direct connection of any role that needs no password. It ends when the client
    /// is dropped.
    pub(crate) async fn client_as(&self, role: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(&self.directory)
            .port(self.port)
            .user(role)
            .dbname(&self.name)
            .application_name(OWN_NAME)
            .connect(NoTls)
            .await
            .unwrap_or_else(|error| panic!("direct connection to {}: {error:?}", self.name));
        tokio::spawn(connection);
        client
    }
}

fn process(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a PID fits"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    guard::give_away(path);
}
