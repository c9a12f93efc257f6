//! The log of a process: what reaches standard error, and that nobody waits for its reader.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

use std::env;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use execpool::config::{Log, LogFormat};
use execpool::telemetry::{LogError, init, install_panic_hook};
use serde_json::Value;

/// Says to a child what to do.
const PART: &str = "EXECPOOL_TEST_PART";

/// This program again, in `part`.
fn child(part: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "in_a_process_of_its_own", "--ignored"])
        .env(PART, part)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
#[ignore = "is run by the others as a process of its own"]
fn in_a_process_of_its_own() {
    let Ok(part) = env::var(PART) else { return };
    let log = Log {
        level: "info".to_owned(),
        format: LogFormat::Auto,
    };
    let _guard = init(&log).unwrap();
    install_panic_hook();
    match part.as_str() {
        "panic" => {
            let named = thread::Builder::new().name("worker".to_owned());
            let worker = named.spawn(|| panic!("number {}", 7)).unwrap();
            assert!(worker.join().is_err());
        }
        "twice" => assert!(matches!(init(&log), Err(LogError::Twice))),
        "much" => {
            for number in 0..50_000 {
                tracing::info!(number, "text");
            }
        }
        other => panic!("no part {other}"),
    }
}

#[test]
fn a_panic_is_one_error_event_with_its_place_and_thread() {
    let output = child("panic").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["panic"], "number 7");
    assert_eq!(line["thread"], "worker");
    let location = line["location"].as_str().unwrap();
    assert!(location.starts_with("tests/telemetry.rs:"), "{location}");
}

#[test]
fn a_process_whose_log_nobody_reads_works_on_and_ends() {
    let start = Instant::now();
    let mut child = child("much").spawn().unwrap();
    // Standard error stays open and full.
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "it hangs");
        thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success());
}

#[test]
fn a_second_log_is_refused() {
    assert!(child("twice").status().unwrap().success());
}
