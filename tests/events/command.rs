//! `execpool events`.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::follow::{has_begun, provoke};
use crate::support::session::place;
use crate::support::{SOON, Sidecar};

/// A command that runs.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(sidecar: &Sidecar, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_execpool"))
            .arg("events")
            .args(args)
            .env("EXECPOOL_LISTEN__DIR", sidecar.dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("a line comes")
    }

    fn until(&self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    fn interrupt(self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        ended(self.child)
    }
}

fn ended(mut child: Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > SOON {
            let _ = child.kill();
            panic!("it goes on");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn it_follows_in_lines_and_ends_well_at_an_interrupt() {
    let (_database, sidecar) = place("lines", "").await;
    has_begun(&sidecar).await;
    let all = Running::start(&sidecar, &["--since", "0"]);
    let one = Running::start(&sidecar, &["--execution", "run-1", "--since", "0"]);
    let json = Running::start(&sidecar, &["--json", "--since", "0"]);
    let start = all.line();
    assert!(start.contains(" start budget=30 version="), "{start}");
    let first: Value = serde_json::from_str(&json.line()).unwrap();
    assert_eq!(
        (&first["id"], first["event"].as_str()),
        (&Value::from(1), Some("start"))
    );
    provoke(&sidecar, 1).await;
    let mut session = sidecar.session("app", "run-1").await;
    session.query("SELECT 1").await;
    sidecar
        .control("DELETE", "/v1/executions/run-1", None)
        .await;
    let began = one.line();
    assert!(began.contains(" execution.began run-1 "), "{began}");
    let ended = all.until("execution.ended");
    for told in ["run-1", "reason=deleted", "queries=1"] {
        assert!(ended.contains(told), "{ended}");
    }
    assert!(!ended.contains('\x1b'), "no colours: {ended}");
    assert!(began.len() <= 80, "{began}");
    let told: Value = serde_json::from_str(&json.until("execution.ended")).unwrap();
    assert_eq!(told["reason"], "deleted");
    for running in [all, one, json] {
        assert_eq!(running.interrupt().code(), Some(0));
    }
}

#[tokio::test]
async fn it_follows_a_sidecar_that_is_started_anew() {
    let (_database, sidecar) = place("anew", "").await;
    has_begun(&sidecar).await;
    // The new process will have come past this number before it is asked again.
    let running = Running::start(&sidecar, &["--since", "0"]);
    running.until(" start ");
    running.until("monitor.answer");
    let sidecar = sidecar.replaced().await;
    running.until(" start ");
    provoke(&sidecar, 1).await;
    running.until("reconnect");
    assert_eq!(running.interrupt().code(), Some(0));
}

#[tokio::test]
async fn who_reads_it_may_leave_and_nobody_there_is_told() {
    let (_database, sidecar) = place("piped", "").await;
    has_begun(&sidecar).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["events", "--since", "0"])
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    provoke(&sidecar, 3).await;
    let errors = BufReader::new(child.stderr.take().unwrap());
    let status = ended(child);
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    assert_eq!(errors.lines().count(), 0, "it ends quietly");

    let nobody = Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["events", "--socket", "/nonexistent/control.sock"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no execpool at"));
    let wrong = Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["events", "--execution", "a b"])
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir())
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("1 to 128"));
}
