//! Load: pgbench and psycopg through a sidecar, whose every failed query is told.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::postgres::Database;
use super::tools::{postgres_program, python};
use super::wait::SOON;

/// A load that runs.
pub(crate) struct Load {
    name: String,
    child: Child,
}

/// The tables of pgbench, small.
pub(crate) async fn prepare(database: &Database) {
    let made = database
        .client()
        .await
        .batch_execute(
            "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
             INSERT INTO accounts SELECT id, 0 FROM generate_series(1, 100) id;",
        )
        .await;
    made.unwrap_or_else(|error| panic!("tables: {error:?}"));
}

/// pgbench with a script of two transactions, for `seconds`; any failed query ends it with an error.
pub(crate) fn pgbench(host: &str, upstream: &str, seconds: u32, flags: &[&str]) -> Load {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/load.sql");
    let child = Command::new(postgres_program("pgbench"))
        .args(["-n", "-h", host, "-U", "app", "-T", &seconds.to_string()])
        .arg("-f")
        .arg(script)
        .args(flags)
        .arg(upstream)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("pgbench can be run");
    Load {
        name: format!("pgbench {}", flags.join(" ")),
        child,
    }
}

/// psycopg with transactions in several threads, for `seconds`.
pub(crate) fn psycopg(url: &str, seconds: u32) -> Load {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/load.py");
    let child = Command::new(python())
        .arg(program)
        .args([url, &seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python can be run");
    Load {
        name: "psycopg".to_owned(),
        child,
    }
}

impl Load {
    /// Has it end as if its time were over, once it has been seen to work: so it lasts for as long as a
    /// test needs it, however slow the machine is.
    pub(crate) fn stop(&self) {
        let pid = self.child.id().expect("it still runs");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a PID fits"));
        kill(pid, Signal::SIGALRM).expect("it can be signalled");
    }

    /// Waits for its end; no query may have failed, and some must have been made.
    pub(crate) async fn succeeds(self) {
        let ended = tokio::time::timeout(SOON, self.child.wait_with_output()).await;
        let output = ended.expect("it ends").expect("it ran");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{}: {out}{err}", self.name);
        for bad in ["ERROR", "FATAL", "aborted", "error:"] {
            assert!(!err.contains(bad), "{}: {out}{err}", self.name);
        }
        let none = ["actually processed: 0\n", "processed 0\n"];
        assert!(
            !none.iter().any(|none| out.contains(none)),
            "{}: nothing was done: {out}{err}",
            self.name
        );
    }
}
