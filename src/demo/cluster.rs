//! A throw-away PostgreSQL on a Unix socket, with few connections.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use super::interrupt::Interrupt;
use super::place::Place;
use super::process::Process;
use super::tools::Tools;

/// As the requirement has it: about what a small managed database allows.
const MAX_CONNECTIONS: u32 = 40;

/// The role of the agents and of execpool; `postgres` is the superuser.
pub(super) const ROLE: &str = "app";

/// The database of the agents, owned by [`ROLE`].
pub(super) const DATABASE: &str = "app";

/// As `log_line_prefix`: the number of the backend, the role, and the application's name.
pub(super) const LOG_PREFIX: &str = "%p|%u|%a >> ";

/// What the agents write into, a row for each tool call that came to its end.
const SCHEMA: &str = "CREATE TABLE work (agent text NOT NULL)";

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Variables that would turn PostgreSQL's programs elsewhere.
const PREFIX_OF_LIBPQ: &str = "PG";

/// The running server.
#[derive(Debug)]
pub(super) struct Cluster {
    folder: PathBuf,
    server: Process,
}

impl Cluster {
    /// Makes and starts it, and fills it with pgbench's tables.
    pub(super) fn start(
        tools: &Tools,
        place: &Place,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let folder = place.path().join("postgres");
        std::fs::create_dir(&folder)?;
        let user = unprivileged()?;
        if let Some(user) = &user {
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid))?;
        }
        let mut initdb = as_server(&tools.postgres("initdb"), user.as_ref());
        initdb
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(folder.join("data"));
        Process::complete("initdb", &mut initdb, place, interrupt)?;

        let mut postgres = as_server(&tools.postgres("postgres"), user.as_ref());
        postgres.arg("-D").arg(folder.join("data"));
        for (name, value) in settings(&folder) {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres.stdout(Stdio::null());
        let server = Process::start("postgres", &mut postgres, Signal::SIGQUIT, place)?;
        let mut cluster = Self { folder, server };
        cluster.wait(interrupt)?;
        cluster.fill(tools, place, interrupt)?;
        Ok(cluster)
    }

    /// The directory of the socket: the `host` of a connection.
    pub(super) fn host(&self) -> &Path {
        &self.folder
    }

    /// What the server has logged so far.
    pub(super) fn log(&self) -> String {
        self.server.log()
    }

    fn wait(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let start = Instant::now();
        while !self.log().contains("ready to accept connections") {
            if let Some(status) = self.server.ended()? {
                bail!(
                    "PostgreSQL does not start: {status}\n{}",
                    self.server.last_words()
                );
            }
            if start.elapsed() > START_TIMEOUT {
                bail!("PostgreSQL is not ready after {START_TIMEOUT:?}");
            }
            interrupt.pause(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn fill(&self, tools: &Tools, place: &Place, interrupt: &Interrupt) -> anyhow::Result<()> {
        let mut psql = self.client(&tools.postgres("psql"), "postgres");
        psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"])
            .args(["-c", &format!("CREATE ROLE {ROLE} LOGIN")])
            .args(["-c", &format!("CREATE DATABASE {DATABASE} OWNER {ROLE}")]);
        Process::complete("create-database", &mut psql, place, interrupt)?;

        let mut pgbench = self.client(&tools.postgres("pgbench"), ROLE);
        pgbench.args(["-i", "-q", DATABASE]);
        Process::complete("pgbench-tables", &mut pgbench, place, interrupt)?;

        let mut psql = self.client(&tools.postgres("psql"), ROLE);
        psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", DATABASE])
            .args(["-c", SCHEMA]);
        Process::complete("create-table", &mut psql, place, interrupt)
    }

    /// A client program of PostgreSQL that connects straight to the server.
    pub(super) fn client(&self, program: &Path, role: &str) -> Command {
        let mut command = quiet(program);
        command
            .env("PGHOST", &self.folder)
            .env("PGUSER", role)
            .env("PGAPPNAME", super::activity::OWN_NAME);
        command
    }
}

/// Above what PostgreSQL does by itself: nothing is kept, everything is logged, and no
/// connection is set aside for superusers, so that an agent that comes too late reads
/// what the documentation says.
fn settings(folder: &Path) -> [(&'static str, String); 14] {
    let text = |value: &str| value.to_owned();
    [
        ("max_connections", MAX_CONNECTIONS.to_string()),
        ("superuser_reserved_connections", text("0")),
        ("listen_addresses", String::new()),
        ("unix_socket_directories", folder.display().to_string()),
        ("unix_socket_permissions", text("0700")),
        ("fsync", text("off")),
        ("synchronous_commit", text("off")),
        ("full_page_writes", text("off")),
        ("autovacuum", text("off")),
        ("shared_buffers", text("32MB")),
        ("log_connections", text("on")),
        ("log_disconnections", text("on")),
        ("log_line_prefix", text(LOG_PREFIX)),
        ("lc_messages", text("C")),
    ]
}

/// A command of the server's, which runs as its user.
fn as_server(program: &Path, user: Option<&User>) -> Command {
    let mut command = quiet(program);
    if let Some(user) = user {
        // The standard library drops the supplementary groups along with root.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// A command that the surroundings don't turn elsewhere.
pub(super) fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(PREFIX_OF_LIBPQ) {
            command.env_remove(name);
        }
    }
    command
}

/// Whom PostgreSQL runs as where the demo runs as root, which it refuses.
fn unprivileged() -> anyhow::Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let found = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten());
    let user = found.context("PostgreSQL refuses root, and there is no user postgres or nobody")?;
    Ok(Some(user))
}

/// Whether the demo's directory must let another user pass.
pub(super) fn runs_as_another() -> bool {
    Uid::effective().is_root()
}
