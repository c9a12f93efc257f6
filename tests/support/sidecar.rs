//! The built execpool, with a socket directory of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::guard::{self, Watchdog};
use super::http;
use super::postgres::Database;
use super::raw::Raw;
use super::wait::{SOON, eventually};

/// How to start a sidecar.
#[derive(Clone, Debug, Default)]
pub(crate) struct SidecarOptions {
    config: Option<String>,
    environment: Vec<(String, String)>,
    flags: Vec<String>,
    files: Vec<(String, String)>,
    hosts: Option<PathBuf>,
    is_apart: bool,
}

/// A running sidecar. Dropping it ends it, and prints its log if the test panics.
pub(crate) struct Sidecar {
    options: SidecarOptions,
    directory: TempDir,
    child: Child,
    log: Log,
    watchdog: Option<Watchdog>,
}

/// A sidecar that ended before it served.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: ExitStatus,
    /// What it wrote to standard error.
    pub(crate) log: String,
}

struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl SidecarOptions {
    /// The configuration file, in YAML. `listen.dir` is set beside it, unless the text says itself
    /// where `{dir}`, the sidecar's directory, is used.
    pub(crate) fn config(mut self, yaml: impl Into<String>) -> Self {
        self.config = Some(yaml.into());
        self
    }

    /// An environment variable. None is inherited that execpool reads.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A file in its directory, which the configuration names by `{dir}`.
    pub(crate) fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), text.into()));
        self
    }

    /// Another file in the place of `/etc/hosts`, for it alone. Only root can do that.
    pub(crate) fn hosts(mut self, file: &Path) -> Self {
        self.hosts = Some(file.to_owned());
        self
    }

    /// On a loopback of its own. Only root can do that.
    pub(crate) fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// A flag for `execpool run`.
    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Starts it and waits until the control socket answers.
    pub(crate) async fn start(self) -> Sidecar {
        match self.try_start().await {
            Ok(sidecar) => sidecar,
            Err(Refused { status, log }) => panic!("execpool does not start: {status}\n{log}"),
        }
    }

    /// The same where the start is expected to fail.
    pub(crate) async fn try_start(self) -> Result<Sidecar, Refused> {
        self.start_in(guard::short_directory()).await
    }

    async fn start_in(self, directory: TempDir) -> Result<Sidecar, Refused> {
        let mut sidecar = self.spawn(directory);
        let start = Instant::now();
        loop {
            if let Some(status) = sidecar.child.try_wait().expect("it is our child") {
                sidecar.log.finish();
                let log = sidecar.log().join("\n");
                return Err(Refused { status, log });
            }
            match http::request(&sidecar.control_socket(), "GET", "/v1/status", None).await {
                Ok((200, _)) => return Ok(sidecar),
                last => assert!(
                    start.elapsed() < SOON,
                    "execpool does not serve after {SOON:?}: {last:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The program, in namespaces of its own where that is asked for: each step replaces the one
    /// before it in the same process.
    fn command(&self) -> Command {
        const APART: &str = "[ -z \"$1\" ] || mount --bind \"$1\" /etc/hosts; \
            [ -z \"$2\" ] || ip link set lo up; shift 2; exec \"$@\"";
        let program = env!("CARGO_BIN_EXE_execpool");
        if self.hosts.is_none() && !self.is_apart {
            return Command::new(program);
        }
        let mut command = Command::new("unshare");
        if self.is_apart {
            command.arg("--net");
        }
        command
            .args(["--mount", "sh", "-ec", APART, "apart"])
            .arg(self.hosts.as_deref().unwrap_or("".as_ref()))
            .arg(if self.is_apart { "net" } else { "" })
            .arg(program);
        command
    }

    fn spawn(self, directory: TempDir) -> Sidecar {
        let mut command = self.command();
        for (name, text) in &self.files {
            let path = directory.path().join(name);
            // Where another one was before, it is as that has left it.
            if !path.exists() {
                fs::write(path, text).expect("the directory is there");
            }
        }
        for (name, _) in std::env::vars() {
            if is_read_by_execpool(&name) {
                command.env_remove(name);
            }
        }
        command.arg("run");
        if let Some(yaml) = &self.config {
            let path = directory.path().join("config.yaml");
            fs::write(&path, placed(yaml, directory.path())).expect("the directory was just made");
            command.arg("--config").arg(path);
        }
        let says_where = self.config.as_ref().is_some_and(|yaml| yaml.contains(DIR));
        if !says_where {
            command.env("EXECPOOL_LISTEN__DIR", directory.path());
            // Many run side by side; a test that wants the port asks for one.
            command.env("EXECPOOL_TELEMETRY__LISTEN", "off");
        }
        let mut child = command
            .args(&self.flags)
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0) // out of reach of a terminal's Ctrl-C
            .spawn()
            .expect("the built execpool can be run");
        let stderr = child.stderr.take().expect("it is piped");
        Sidecar {
            watchdog: Some(Watchdog::over(
                child.id(),
                Signal::SIGKILL,
                directory.path(),
            )),
            log: Log::of(stderr),
            options: self,
            directory,
            child,
        }
    }
}

impl Sidecar {
    /// What is set before [`SidecarOptions::start`].
    pub(crate) fn options() -> SidecarOptions {
        SidecarOptions::default()
    }

    /// With a configuration file, in YAML.
    pub(crate) async fn start(yaml: impl Into<String>) -> Self {
        Self::options().config(yaml).start().await
    }

    /// In front of one database, with every default.
    pub(crate) async fn over(database: &Database) -> Self {
        Self::start(upstream(&database.name, &database.url())).await
    }

    /// Kills it, and starts another one like it in its directory, as it was left.
    pub(crate) async fn replaced(mut self) -> Self {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let directory = std::mem::replace(&mut self.directory, guard::short_directory());
        match self.options.clone().start_in(directory).await {
            Ok(sidecar) => sidecar,
            Err(Refused { status, log }) => {
                panic!("execpool does not start again: {status}\n{log}")
            }
        }
    }

    /// The path of its configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir().join("config.yaml")
    }

    /// Replaces its configuration file, in one step.
    pub(crate) fn configure(&self, yaml: &str) {
        let young = self.dir().join("config.new");
        fs::write(&young, placed(yaml, self.dir())).expect("the directory is there");
        fs::rename(young, self.config_file()).expect("it is the same directory");
    }

    /// Replaces it and has it read; answers what it changes.
    pub(crate) async fn reload(&self, yaml: &str) -> Value {
        self.configure(yaml);
        match self.control("POST", "/v1/reload", None).await {
            (200, changes) => changes,
            (status, body) => panic!("POST /v1/reload: {status} {body}"),
        }
    }

    /// Where the sockets are: the `host` of a connection.
    pub(crate) fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// The same as text.
    pub(crate) fn pg_host(&self) -> &str {
        self.dir()
            .to_str()
            .expect("temporary directories are UTF-8")
    }

    /// The path of the PostgreSQL socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join(".s.PGSQL.5432")
    }

    /// Where it listens on TCP: the first address, if there are several.
    pub(crate) async fn tcp(&self) -> SocketAddr {
        let status = self.get("/v1/status").await;
        let address = status["tcp"][0].as_str().expect("it listens on TCP");
        address.parse().expect("an address")
    }

    /// The path of the control socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// A client's URL for an upstream, as libpq understands it, for the role `app`.
    pub(crate) fn url(&self, upstream: &str) -> String {
        format!("postgresql://app@/{upstream}?host={}", self.pg_host())
    }

    /// The same in an execution named by `application_name`.
    pub(crate) fn url_in(&self, upstream: &str, execution: &str) -> String {
        format!(
            "{}&application_name=execpool:{execution}",
            self.url(upstream)
        )
    }

    /// A driver's connection in an execution. It ends when the client is dropped.
    pub(crate) async fn client(
        &self,
        upstream: &str,
        execution: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let url = self.url_in(upstream, execution);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A raw connection that has sent nothing yet.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(&self.socket()).await
    }

    /// Asks the control socket; answers with the status and the body.
    pub(crate) async fn control(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        http::request(&self.control_socket(), method, path, body.as_ref())
            .await
            .unwrap_or_else(|why| panic!("{why}"))
    }

    /// `GET` of a path that must answer 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        match self.control("GET", path, None).await {
            (200, body) => body,
            (status, body) => panic!("GET {path}: {status} {body}"),
        }
    }

    /// Opens a stream of the control socket, such as `hold`; dropping it closes it.
    pub(crate) async fn stream(&self, path: &str) -> ::http::Response<Incoming> {
        http::open(&self.control_socket(), "GET", path, None)
            .await
            .unwrap_or_else(|why| panic!("{why}"))
    }

    /// The lines that it has logged so far. What it has just done may not be among them: see
    /// [`Sidecar::logged`].
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines.lock().expect("no panic under it").clone()
    }

    /// Waits until it has logged a line that has all of `parts` in it, and answers the first of them.
    /// What a client sees is often there before the line that tells it.
    #[track_caller]
    pub(crate) fn logged(&self, parts: &[&str]) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let claim = format!("{caller}: it is logged: {parts:?}");
            eventually(SOON, &claim, async || {
                let log = self.log();
                let told = |line: &&String| parts.iter().all(|part| line.contains(part));
                log.iter().find(told).cloned().ok_or("it is not")
            })
            .await
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // The child has not been waited for: the PID is its own, at worst a zombie's.
        kill(self.process(), signal).expect("the sidecar can be signalled");
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn exited(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.log.finish();
                return status;
            }
            assert!(
                start.elapsed() < within,
                "execpool still runs after {within:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Resident memory, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was ever resident, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let kilobytes = status
            .lines()
            .find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB"))
            .and_then(|number| number.parse::<u64>().ok());
        kilobytes.unwrap_or_else(|| panic!("{path} has no {line}")) * 1024
    }

    /// The processor time that it has used, in ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // The second field, the name, may have spaces; user and system time are the 14th and 15th.
        let (_, behind) = stat.rsplit_once(')').expect("a name");
        let times = behind.split_whitespace().skip(11).take(2);
        times
            .map(|time| time.parse::<u64>().expect("a number"))
            .sum()
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        fs::read_dir(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .count()
    }

    fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a PID fits"))
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < time {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// SIGTERM lets sessions finish, a second one does not, SIGKILL asks nobody.
    fn end(&mut self) {
        if self.ends_within(Duration::from_millis(1)) {
            return;
        }
        for patience in [Duration::from_millis(200), Duration::from_secs(2)] {
            let _ = kill(self.process(), Signal::SIGTERM);
            if self.ends_within(patience) {
                return;
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
        self.end();
        self.log.finish();
        if std::thread::panicking() {
            println!("---- log of execpool {} ----", self.pid());
            for line in self.log() {
                println!("{line}");
            }
        }
    }
}

impl Log {
    fn of(stderr: ChildStderr) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                sink.lock().expect("no panic under it").push(line);
            }
        });
        Self {
            lines,
            reader: Some(reader),
        }
    }

    /// Reads the rest, after the process has ended.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Stands in a configuration for the sidecar's directory.
const DIR: &str = "{dir}";

fn placed(yaml: &str, directory: &Path) -> String {
    yaml.replace(
        DIR,
        directory.to_str().expect("temporary directories are UTF-8"),
    )
}

/// The configuration of one upstream; more keys of it may be appended, indented by four.
pub(crate) fn upstream(name: &str, url: &str) -> String {
    format!("upstreams:\n  - name: \"{name}\"\n    url: \"{url}\"\n")
}

fn is_read_by_execpool(name: &str) -> bool {
    const GIVEN: [&str; 10] = [
        "POD_NAME",
        "POD_NAMESPACE",
        "POD_UID",
        "CONTAINER_NAME",
        "DATABASE_URL",
        "DB_POOL_SIZE",
        "DB_MAX_OVERFLOW",
        "RESOURCE_CLEANUP_INTERVAL",
        "MAX_TASK_DURATION",
        "LOG_RESOURCE_USAGE",
    ];
    name.starts_with("EXECPOOL_")
        || name.starts_with("PG")
        || name.starts_with("OTEL_")
        || name.starts_with("KUBERNETES_")
        || GIVEN.contains(&name)
}
