//! A directory with all that a supervisor starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::port::Port;
use crate::support::sidecar::upstream;
use crate::support::{Database, Postgres, eventually, guard, http, memory, tools};

pub(crate) use crate::support::SOON;

/// What takes minutes takes seconds.
const SHORT: &str = "
exhaustion: {wait: 300ms, after: 1s, sustained_after: 1s}
budget: {size: 3, overflow: 0}
pool: {size: 3, overflow: 0, timeout: 300s}
";

/// The programs `execpool` and `agents` in `bin`, each of which writes down that it was started; execpool's
/// configuration; and its socket directory, `execpool`, by which it has been there for two hours.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    /// Where probes are answered.
    pub(crate) port: u16,
    _database: Database,
}

/// A directory in memory, as `/run` is, where there is one that programs run from: what is on a disk systemd does not
/// remove.
fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    match statvfs(memory) {
        Ok(about) if !about.flags().contains(FsFlags::ST_NOEXEC) => tempfile::Builder::new()
            .prefix("ep-")
            .tempdir_in(memory)
            .unwrap(),
        _ => guard::short_directory(),
    }
}

impl Place {
    /// One whose reactor restarts by `restart`.
    pub(crate) async fn new(name: &str, restart: &str) -> Self {
        let database = Postgres::shared().database(name).await;
        let directory = in_memory();
        let place = Self {
            directory,
            port: Port::for_good(),
            _database: database,
        };
        let sockets = place.path("execpool");
        fs::create_dir(&sockets).unwrap();
        let memory = memory::of_pod_since(Duration::from_secs(7200));
        fs::write(sockets.join("restarts.json"), memory.to_string()).unwrap();
        let yaml = format!(
            "{}{SHORT}reactor: {{restart: {restart}, restart_after: 1s, kubernetes: off}}\n\
             telemetry: {{listen: \"127.0.0.1:{}\"}}\nlisten: {{dir: {}}}\n",
            upstream("app", &place._database.url()),
            place.port,
            sockets.display(),
        );
        fs::write(place.path("config.yaml"), yaml).unwrap();
        place.programs(&sockets);
        place
    }

    fn programs(&self, sockets: &Path) {
        fs::create_dir(self.path("bin")).unwrap();
        let here = self.directory.path().display();
        let execpool = format!(
            "#!/bin/sh\nexport EXECPOOL_LISTEN__DIR={}\n[ \"$1\" = run ] || exec {program} \"$@\"\n\
             echo started >> {here}/execpool.started\n\
             exec {program} run --config {here}/config.yaml 2>> {here}/execpool.log\n",
            sockets.display(),
            program = env!("CARGO_BIN_EXE_execpool"),
        );
        let url = format!("postgresql://app@/app?host={}", sockets.display());
        let agents = format!(
            "#!/bin/sh\necho started >> {here}/agents.started\n\
             exec {} {}/tests/remedies/app.py '{url}' 3 '{url}' 0 learns {here}/mark >> {here}/agents.log 2>&1\n",
            tools::python().display(),
            env!("CARGO_MANIFEST_DIR"),
        );
        for (name, text) in [("execpool", execpool), ("agents", agents)] {
            let path = self.path("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file in it; nothing of one that is not there yet.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// How often execpool and the app were started.
    pub(crate) fn starts(&self) -> (usize, usize) {
        let of = |name| self.text(name).lines().count();
        (of("execpool.started"), of("agents.started"))
    }

    /// Waits until they were started so often, and the app is served by the last one.
    pub(crate) async fn comes_to(&self, starts: (usize, usize)) {
        let claim = format!("execpool and the app were started {starts:?} times, and it is served");
        eventually(SOON * 2, &claim, async || {
            let now = self.starts();
            let log = self.text("agents.log");
            let last = log.rsplit("leaked\n").next().unwrap_or_default();
            let is_served = log.matches("leaked\n").count() == starts.1 && last.contains("served");
            match now == starts && is_served {
                true => Ok(()),
                false => Err((now, last.to_owned(), self.log("WARN"))),
            }
        })
        .await;
    }

    /// The lines of execpool's log with this in them.
    fn log(&self, with: &str) -> Vec<String> {
        let log = self.text("execpool.log");
        let lines = log.lines().filter(|line| line.contains(with));
        lines.map(str::to_owned).collect()
    }

    /// `reactor` of the status.
    pub(crate) async fn reactor(&self) -> Value {
        let socket = self.path("execpool/control.sock");
        let (_, status) = http::request(&socket, "GET", "/v1/status", None)
            .await
            .unwrap();
        status["reactor"].clone()
    }

    /// One decision, one restart of the app, and execpool knows of it.
    pub(crate) async fn has_restarted_once(&self) {
        let reactor = self.reactor().await;
        assert_eq!(reactor["restarts"], 1, "{reactor}");
        let decided = self.log("\"event\":\"reactor.restart\"");
        assert_eq!(decided.len(), 1, "{decided:?}");
    }
}
