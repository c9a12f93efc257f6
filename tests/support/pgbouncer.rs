//! A real PgBouncer in front of a PostgreSQL.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::guard::{self, Watchdog};
use super::postgres::Database;
use super::tools;
use super::wait::SOON;

/// The number in the socket's name; the directory is its own.
const PORT: u16 = 6432;

/// A running PgBouncer on a Unix socket in a directory of its own, which lets everybody in. Gone
/// when it is dropped, or when the test program ends.
pub(crate) struct PgBouncer {
    directory: TempDir,
    database: String,
    child: Child,
    watchdog: Option<Watchdog>,
}

impl PgBouncer {
    /// In front of one database; `settings` are lines of its configuration.
    pub(crate) fn start(database: &Database, settings: &[&str]) -> Self {
        let directory = guard::short_directory();
        guard::give_away(directory.path());
        let (host, port) = database.address();
        let name = &database.name;
        let dir = directory.path().display();
        let ini = format!(
            "[databases]\n{name} = host={} port={port} dbname={name} user=app\n\
             [pgbouncer]\nlisten_port = {PORT}\nunix_socket_dir = {dir}\nauth_type = any\n\
             logfile = {dir}/log\nstats_users = app\n{}\n",
            host.display(),
            settings.join("\n")
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, ini).expect("the directory was just made");
        let child = guard::unprivileged_command(&tools::pgbouncer())
            .arg("-q")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // out of reach of a terminal's Ctrl-C
            .spawn()
            .expect("pgbouncer can be run");
        let watchdog = Watchdog::over(child.id(), Signal::SIGKILL, directory.path());
        let pgbouncer = Self {
            directory,
            database: name.clone(),
            child,
            watchdog: Some(watchdog),
        };
        pgbouncer.awaited()
    }

    fn awaited(mut self) -> Self {
        let socket = self.directory.path().join(format!(".s.PGSQL.{PORT}"));
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = self.child.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && start.elapsed() < SOON,
                "PgBouncer does not serve: {ended:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }

    /// Its database, for the role `app`.
    pub(crate) fn url(&self) -> String {
        let dir = self.directory.path().display();
        format!("postgresql://app@/{}?host={dir}&port={PORT}", self.database)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// How many clients are connected, us not among them.
    pub(crate) async fn clients(&self) -> usize {
        let dir = self.directory.path().display();
        let url = format!("postgresql://app@/pgbouncer?host={dir}&port={PORT}");
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .expect("the console answers");
        tokio::spawn(connection);
        let answer = client.simple_query("SHOW CLIENTS").await;
        let rows = answer.expect("the console answers").into_iter();
        let is_client = |row: &tokio_postgres::SimpleQueryRow| {
            row.get("database") == Some(self.database.as_str())
        };
        rows.filter(|message| {
            matches!(message, tokio_postgres::SimpleQueryMessage::Row(row) if is_client(row))
        })
        .count()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
        // It has not been waited for: the PID is its own.
        let pid = i32::try_from(self.child.id()).expect("a PID fits");
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("---- log of PgBouncer ----\n{}", self.log());
        }
    }
}
