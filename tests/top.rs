//! `execpool top` on the full screen of a terminal, over a real execpool with an app that leaks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::session::place;
use support::terminal::Terminal;
use support::{Raw, Sidecar};

const NARROW: (u16, u16) = (80, 24);

/// `execpool top` in a terminal.
fn top(sidecar: &Sidecar, size: (u16, u16)) -> Terminal {
    let socket = sidecar.control_socket();
    let args = ["top", "--socket", socket.to_str().unwrap()];
    Terminal::run(size, Path::new(env!("CARGO_BIN_EXE_execpool")), &args, &[])
}

/// A shell in a terminal, with `execpool` in its path and its process id in a file.
fn shell(sidecar: &Sidecar) -> Terminal {
    let bin = Path::new(env!("CARGO_BIN_EXE_execpool")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let dir = sidecar.dir().to_str().unwrap();
    let env = [
        ("PATH", path.as_str()),
        ("PS1", "$ "),
        ("EXECPOOL_LISTEN__DIR", dir),
    ];
    let args = ["--norc", "--noprofile", "-i"];
    Terminal::run(NARROW, Path::new("/bin/bash"), &args, &env)
}

/// Executions that leak: sessions that hold a connection and ask nothing.
async fn leaks(sidecar: &Sidecar, execution: &str, count: usize) -> Vec<Raw> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut session = sidecar.session("app", execution).await;
        session.query("BEGIN").await;
        open.push(session);
    }
    open
}

#[tokio::test]
async fn an_execution_that_leaks_is_found_and_ended_after_a_confirmation() {
    let (_database, sidecar) = place("found", "session: {leak_after: 300ms}\n").await;
    let _leaky = leaks(&sidecar, "leaky-run", 3).await;
    let mut steady = sidecar.session("app", "steady").await;
    steady.ask("SELECT 1").await;
    let mut terminal = top(&sidecar, NARROW);
    // Who holds most comes first, with its suspects.
    let parts = [
        "4 used",
        "> leaky-run",
        "3/3",
        "idle_in_tx",
        "leak suspects",
        "session.l",
    ];
    let picture = terminal.shows(&parts, &[]).await;
    assert!(picture.lines().count() <= 24, "{picture}");
    terminal.types("/steady\r");
    terminal
        .shows(&["> steady", "matching"], &["> leaky-run"])
        .await;
    terminal.types("\x1b");
    terminal.shows(&["> leaky-run"], &["matching"]).await;
    terminal.types("\r");
    terminal
        .shows(
            &[
                "Execution leaky-run, generation 1",
                "Sessions of leaky-run 3",
            ],
            &[],
        )
        .await;
    for answer in ["n", "y"] {
        terminal.types("e");
        let asked = [
            "End execution leaky-run?",
            "3 sessions closed, 0 running a query",
        ];
        terminal.shows(&asked, &[]).await;
        assert_eq!(
            sidecar.sessions_of("leaky-run").await.len(),
            3,
            "it is only asked"
        );
        terminal.types(answer);
        terminal.shows(&[], &["Are you sure?"]).await;
    }
    terminal
        .shows(&["leaky-run ended (deleted)", "It has ended"], &[])
        .await;
    assert!(sidecar.sessions_of("leaky-run").await.is_empty());
    terminal.types("\x1b");
    terminal
        .shows(&["> steady", "1 used", "execution.ended"], &[])
        .await;
    assert_eq!(steady.ask("SELECT 2").await, "2");
}

#[tokio::test]
async fn a_session_is_ended_and_a_query_cancelled() {
    let (_database, sidecar) = place("one_by_one", "").await;
    let _idle = leaks(&sidecar, "idle-one", 1).await;
    let busy = sidecar.client("app", "busy-one").await.unwrap();
    let query = tokio::spawn(async move { busy.simple_query("SELECT pg_sleep(60)").await });
    let mut terminal = top(&sidecar, (160, 45));
    terminal
        .shows(&["SELECT pg_sleep(?)", "BEGIN", "idle_in_transaction"], &[])
        .await;
    terminal.types("\t/pg_sleep\rc");
    terminal
        .shows(
            &["Cancel what session", "Its query: SELECT pg_sleep(?)"],
            &[],
        )
        .await;
    terminal.types("y");
    terminal.shows(&["its query is being cancelled"], &[]).await;
    query.await.unwrap().expect_err("it was cancelled");
    terminal.types("\x1b");
    terminal.shows(&["idle-one"], &["matching"]).await;
    terminal.types("/idle-one\rK");
    terminal
        .shows(&["End session", "It belongs to idle-one"], &[])
        .await;
    terminal.types("y");
    terminal
        .shows(&["of idle-one ended (idle_in_transaction"], &[])
        .await;
    assert!(sidecar.sessions_of("idle-one").await.is_empty());
}

#[tokio::test]
async fn the_terminal_is_given_back_at_the_end_for_a_while_and_by_a_signal() {
    let (_database, sidecar) = place("given_back", "").await;
    let mut terminal = shell(&sidecar);
    terminal.types("execpool top; echo left-$?\r");
    terminal.shows(&["▶ Executions", "q quit"], &[]).await;
    assert!(terminal.screen().is_alternate);
    terminal.types("\x1a");
    terminal.is_given_back("Stopped").await;
    terminal.types("fg\r");
    terminal
        .shows(&["▶ Executions", "q quit"], &["Stopped"])
        .await;
    terminal.types("q");
    terminal.is_given_back("$").await;
    for end in ["q", "\x03"] {
        terminal.types("clear; execpool top; echo left-$?\r");
        terminal.shows(&["▶ Executions"], &[]).await;
        terminal.types(end);
        terminal.is_given_back("left-0").await;
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let file = sidecar.dir().join(format!("{signal}.pid"));
        let file = file.display();
        let line = format!("clear; sh -c 'echo $$ > {file}; exec execpool top'; echo left-$?\r");
        terminal.types(&line);
        terminal.shows(&["▶ Executions"], &[]).await;
        let pid = std::fs::read_to_string(file.to_string()).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), signal).unwrap();
        terminal.is_given_back("left-0").await;
    }
    // What is typed is shown again, and lines are lines.
    terminal.types("clear; stty -a | grep -owE -e '-?(icanon|echo|isig)' | paste -sd+\r");
    terminal
        .shows(&["isig+icanon+echo"], &["-icanon", "-echo"])
        .await;
}

#[tokio::test]
async fn a_sidecar_that_has_gone_is_told_and_one_that_comes_back_is_shown() {
    let (_database, sidecar) = place("comes_back", "").await;
    let before = leaks(&sidecar, "before", 1).await;
    let terminal = top(&sidecar, NARROW);
    terminal
        .shows(&["> before", "live, every 1s"], &["NO ANSWER"])
        .await;
    sidecar.signal(Signal::SIGSTOP);
    terminal
        .shows(&["NO ANSWER, this is", "did not answer", "> before"], &[])
        .await;
    sidecar.signal(Signal::SIGCONT);
    terminal
        .shows(&["> before", "live, every 1s"], &["NO ANSWER"])
        .await;
    sidecar.signal(Signal::SIGKILL);
    terminal
        .shows(&["NO ANSWER, this is", "no execpool at", "> before"], &[])
        .await;
    drop(before);
    let sidecar = sidecar.replaced().await;
    let _after = leaks(&sidecar, "after", 1).await;
    terminal
        .shows(&["> after", "live, every 1s", "ready app"], &["NO ANSWER"])
        .await;
}

#[tokio::test]
async fn without_a_terminal_that_can_do_it_text_is_written() {
    let (_database, sidecar) = place("plain_text", "").await;
    let _some = leaks(&sidecar, "some", 1).await;
    let dir = sidecar.dir().to_str().unwrap().to_owned();
    let bin = env!("CARGO_BIN_EXE_execpool");
    for (line, term) in [
        (format!("{bin} top"), "dumb"),
        (format!("{bin} top </dev/null"), "xterm-256color"),
        (format!("{bin} top --once"), "xterm-256color"),
        (format!("{bin} top --json"), "xterm-256color"),
    ] {
        let env = [("EXECPOOL_LISTEN__DIR", dir.as_str()), ("TERM", term)];
        let terminal = Terminal::run((200, 24), Path::new("/bin/sh"), &["-c", &line], &env);
        terminal.shows(&["some", "budget"], &["▶"]).await;
        assert!(!terminal.screen().is_alternate, "{line}");
    }
}

#[tokio::test]
async fn nothing_is_done_while_nothing_is_to_be_done() {
    let (_database, sidecar) = place("idle_top", "").await;
    let file = sidecar.dir().join("pid");
    let line = format!(
        "echo $$ > {}; exec {} top --interval 1s --socket {}",
        file.display(),
        env!("CARGO_BIN_EXE_execpool"),
        sidecar.control_socket().display()
    );
    let mut terminal = Terminal::run(NARROW, Path::new("/bin/sh"), &["-c", &line], &[]);
    terminal.shows(&["▶ Executions", "every 1s"], &[]).await;
    let pid = std::fs::read_to_string(&file).unwrap();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields = fields.split(' ').map(|it| it.parse().unwrap_or(0));
        let fields: Vec<u64> = fields.collect();
        fields[11] + fields[12]
    };
    let (begun, before) = (Instant::now(), ticks());
    // The time is what is measured.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let used = ticks() - before;
    let took = begun.elapsed();
    assert!(
        u128::from(used) * 100 < took.as_millis(),
        "{used} hundredths of a second in {took:?}"
    );
    terminal.types("p");
    terminal.shows(&["PICTURE PAUSED"], &[]).await;
    terminal.types("?");
    terminal.shows(&["Help", "to the shell"], &[]).await;
}
