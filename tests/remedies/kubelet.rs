//! An app, and a kubelet that probes it and restarts it alone.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::http::get_tcp;
use crate::support::tools::python;
use crate::support::{SOON, Sidecar};

/// How a probe is set up, and how the app takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) period: Duration,
    pub(crate) threshold: u32,
    /// How long the app takes to die.
    pub(crate) dying: Duration,
    /// How long it is waited for: then it is killed.
    pub(crate) grace: Duration,
}

/// What the app does.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// Where it forgets connections, and how many.
    pub(crate) forgotten: String,
    pub(crate) many: usize,
    /// Where it needs one more.
    pub(crate) needed: String,
    /// Whether it forgets none any more once it was restarted.
    pub(crate) learns: bool,
    pub(crate) mark: PathBuf,
}

/// What the kubelet has seen and done.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Each answer of the probe: when, status, body.
    pub(crate) answers: Vec<(Instant, u16, String)>,
    /// When it restarted the app.
    pub(crate) restarts: Vec<Instant>,
    /// What the app has written.
    pub(crate) lines: Vec<String>,
}

/// Runs an app and probes it until it is dropped; then the app is killed.
pub(crate) struct Kubelet {
    pub(crate) seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Kubelet {
    pub(crate) fn start(sidecar: &str, app: App, timing: Timing) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(run(sidecar.to_owned(), app, timing, Arc::clone(&seen)));
        Self { seen, task }
    }

    pub(crate) fn restarts(&self) -> usize {
        self.seen.lock().unwrap().restarts.len()
    }

    /// Whether the app was served since it was last restarted.
    pub(crate) fn is_served(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let since = seen.lines.iter().rposition(|line| line == "leaked");
        since.is_some_and(|at| seen.lines[at..].iter().any(|line| line == "served"))
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A process that is killed when this is dropped.
struct Running(Child);

impl Running {
    fn start(app: &App, timing: Timing, seen: &Arc<Mutex<Seen>>) -> Self {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/remedies/app.py");
        let mut child = Command::new(python())
            .arg(program)
            .args([&app.forgotten, &app.many.to_string(), &app.needed])
            .arg(timing.dying.as_secs_f64().to_string())
            .arg(if app.learns { "learns" } else { "leaks" })
            .arg(&app.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let seen = Arc::clone(seen);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                seen.lock().unwrap().lines.push(line);
            }
        });
        Self(child)
    }

    /// SIGTERM, the grace, SIGKILL.
    async fn end(&mut self, grace: Duration) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        while self.0.try_wait().unwrap().is_none() && begun.elapsed() < grace {
            sleep(Duration::from_millis(20)).await;
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As a kubelet does: a probe each period; so many failures in a row, and the container is ended and another one
/// started, which is probed anew. Nothing is probed meanwhile.
async fn run(address: String, app: App, timing: Timing, seen: Arc<Mutex<Seen>>) {
    let mut running = Running::start(&app, timing, &seen);
    let mut failures = 0;
    loop {
        sleep(timing.period).await;
        // A kubelet has a second for it, on a node that is not as busy as a machine with many tests.
        let asked = tokio::time::timeout(SOON, get_tcp(&address, "/livez/app"));
        let (status, body) = match asked.await {
            Ok(Ok(answer)) => answer,
            other => (0, format!("{other:?}")),
        };
        seen.lock()
            .unwrap()
            .answers
            .push((Instant::now(), status, body));
        failures = if status == 200 { 0 } else { failures + 1 };
        if failures == timing.threshold {
            running.end(timing.grace).await;
            running = Running::start(&app, timing, &seen);
            seen.lock().unwrap().restarts.push(Instant::now());
            failures = 0;
        }
    }
}

/// Where it answers probes.
pub(crate) async fn port(sidecar: &Sidecar) -> String {
    let status = sidecar.get("/v1/status").await;
    status["telemetry"].as_str().expect("an address").to_owned()
}
