//! execpool itself, as a process of its own in front of the cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::cluster::{DATABASE, ROLE};
use super::control::Control;
use super::interrupt::Interrupt;
use super::place::Place;
use super::process::Process;

const START_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an execution that nobody ends lives without a session. The default, a
/// minute, is for agents that think; here somebody watches.
pub(super) const IDLE_TIMEOUT: &str = "2s";

/// A running execpool.
#[derive(Debug)]
pub(super) struct Sidecar {
    folder: PathBuf,
    process: Process,
}

impl Sidecar {
    /// Starts this very program as `execpool run` and waits until it serves.
    pub(super) fn start(
        database: &Path,
        place: &Place,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let folder = place.path().join("execpool");
        std::fs::create_dir(&folder)?;
        let file = place.path().join("execpool.yaml");
        std::fs::write(&file, configuration(database, &folder))?;

        let program = std::env::current_exe().context("where execpool itself is")?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--config")
            .arg(file)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut this = Self {
            process: Process::start("execpool", &mut command, Signal::SIGTERM, place)?,
            folder,
        };
        this.wait(interrupt)?;
        Ok(this)
    }

    /// The directory of its sockets: the `host` of a connection.
    pub(super) fn host(&self) -> &Path {
        &self.folder
    }

    /// A client of its control API.
    pub(super) fn control(&self) -> Control {
        Control::at(&self.folder)
    }

    /// Ends it as Kubernetes does; answers whether it ended well.
    pub(super) fn end(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.end()?.success())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        self.process.last_words()
    }

    fn wait(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let last = match self.control().status() {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if let Some(status) = self.process.ended()? {
                bail!("execpool does not start: {status}\n{}", self.last_words());
            }
            if start.elapsed() > START_TIMEOUT {
                bail!(
                    "execpool does not serve after {START_TIMEOUT:?}: {last:#}\n{}",
                    self.last_words()
                );
            }
            interrupt.pause(Duration::from_millis(20))?;
        }
    }
}

/// The budget is the default one, 20 and 10 more.
fn configuration(database: &Path, folder: &Path) -> String {
    format!(
        "upstreams:\n  \
           - name: {DATABASE}\n    \
             url: \"postgresql://{ROLE}@/{DATABASE}?host={}\"\n\
         listen: {{dir: \"{}\"}}\n\
         execution: {{idle_timeout: {IDLE_TIMEOUT}}}\n\
         telemetry: {{listen: off}}\n\
         log: {{format: text}}\n",
        database.display(),
        folder.display()
    )
}
