//! A server of somebody else's, run for a test: on the loopback, in a directory of its own.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::guard::{self, Watchdog};

/// Longer than any of them takes on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(60);

/// A running server. Gone, with its directory, when it is dropped, or when the test program ends; its log
/// is printed if the test fails.
pub(crate) struct Daemon {
    name: &'static str,
    directory: TempDir,
    child: Child,
    watchdog: Option<Watchdog>,
}

impl Daemon {
    /// Starts it, and waits until `port` of the loopback takes connections.
    pub(crate) async fn start(
        name: &'static str,
        directory: TempDir,
        command: &mut Command,
        port: u16,
    ) -> Self {
        let log = File::create(directory.path().join("log")).expect("the directory was just made");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .process_group(0) // out of reach of a terminal's Ctrl-C
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be run: {error}"));
        let watchdog = Watchdog::over(child.id(), Signal::SIGKILL, directory.path());
        let mut daemon = Self {
            name,
            directory,
            child,
            watchdog: Some(watchdog),
        };
        daemon.listens(port).await;
        daemon
    }

    async fn listens(&mut self, port: u16) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            let ended = self.child.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && start.elapsed() < START,
                "{} does not serve: {ended:?}\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // It has not been waited for: the PID is its own.
        let pid = i32::try_from(self.child.id()).expect("a PID fits");
        kill(Pid::from_raw(pid), signal).expect("it is our child");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
        // Failing means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("---- log of {} ----\n{}", self.name, self.log());
        }
    }
}
