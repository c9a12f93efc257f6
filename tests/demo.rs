//! `execpool demo` as a person meets it: what it claims, how it exits, what it leaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{SOON, guard, tools};
use tempfile::TempDir;

/// A demo whose temporary directory is one of ours.
struct Demo {
    temporary: TempDir,
    command: Command,
}

impl Demo {
    fn new() -> Self {
        let temporary = guard::short_directory();
        // PostgreSQL runs as somebody else where the tests run as root.
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let postgres = tools::postgres_program("postgres");
        let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
        command
            .arg("demo")
            .env("TMPDIR", temporary.path())
            .env("EXECPOOL_PG_BIN", postgres.parent().unwrap())
            .env("EXECPOOL_PYTHON", tools::python())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { temporary, command }
    }

    /// Starts it and waits until it has run for a while in the middle of the workload.
    fn in_the_middle(&mut self) -> Child {
        let mut child = self.command.spawn().unwrap();
        let mut seen = String::new();
        let out = child.stdout.as_mut().unwrap();
        while !seen.contains("30 of 30 open") {
            let mut some = [0; 1024];
            let count = out.read(&mut some).unwrap();
            assert!(count > 0, "it has ended: {seen}");
            seen += &String::from_utf8_lossy(&some[..count]);
        }
        child
    }

    /// What is left: files, and processes that name the directory.
    fn left(&self) -> Vec<String> {
        let path = self.temporary.path();
        let files = fs::read_dir(path).unwrap();
        let files = files.map(|entry| entry.unwrap().path().display().to_string());
        files.chain(processes_naming(path)).collect()
    }
}

/// Processes with the path in their command line or their environment.
fn processes_naming(path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
            if text.contains(path) {
                found.push(format!("{}: {text}", entry.path().display()));
            }
        }
    }
    found
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_demo_shows_every_claim_to_be_true_and_leaves_nothing() {
    let mut demo = Demo::new();
    let start = Instant::now();
    let output = demo.command.output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}\n{err}");
    assert!(start.elapsed() < Duration::from_secs(120), "{out}");

    let claims = out.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(claims, 10, "{out}");
    for shown in [
        "max_connections = 40",
        "64 connections at once",
        "agent-3 was ended by DELETE with 5 connections while its process lives on: 0 left",
        "agent-5 was ended by DELETE",
        "agent-7 was killed in the middle of",
        "too many clients",
        "| holders: ",
    ] {
        assert!(out.contains(shown), "{shown} is not in\n{out}");
    }
    assert!(!out.contains('\x1b'), "no terminal, no colours: {out}");
    assert_eq!(demo.left(), Vec::<String>::new());
}

#[test]
fn a_demo_that_is_interrupted_clears_up_before_it_ends() {
    let mut demo = Demo::new();
    let child = demo.in_the_middle();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(130), "{out}\n{err}");
    assert_eq!(err, "execpool: interrupted\n");
    assert_eq!(demo.left(), Vec::<String>::new());
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_either() {
    let mut demo = Demo::new();
    let mut child = demo.in_the_middle();
    assert!(!demo.left().is_empty(), "something is there meanwhile");
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while !demo.left().is_empty() {
        assert!(start.elapsed() < SOON, "{:?}", demo.left());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_missing_is_named_at_once_with_what_to_do() {
    let nothing = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
    let output = command
        .arg("demo")
        .env_clear()
        .env("PATH", nothing.path())
        .env("EXECPOOL_PG_BIN", nothing.path())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert_eq!(out, "");
    for named in [
        "initdb, postgres, psql, pgbench",
        "python3",
        "psycopg",
        "pip install",
    ] {
        assert!(err.contains(named), "{named} is not in\n{err}");
    }
}
