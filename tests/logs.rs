//! The log: what it says in a storm, and that each line is in `docs/logs.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use execpool::events;
use serde_json::Value;
use support::{Postgres, SOON, Sidecar, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// The calls of `tracing` in a text above `debug`: the level and the arguments.
fn lines_of(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for level in ["error", "warn", "info"] {
        let call = format!("tracing::{level}!(");
        for (at, _) in text.match_indices(&call) {
            let rest = &text[at + call.len()..];
            found.push((level, &rest[..end_of(rest)]));
        }
    }
    found
}

/// Where the parenthesis closes that is open before a text.
fn end_of(text: &str) -> usize {
    let (mut depth, mut is_text, mut is_escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("a call that does not end: {text:.80}");
}

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !path.ends_with("tests.rs")
        {
            found.push((
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
}

/// What stands in quotes behind each `before` of a text.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let parts = text.split(before).skip(1);
    parts.filter_map(|part| part.split('"').next()).collect()
}

/// The rows of the table: event, and its levels.
fn table() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .map(|cells| (cells[1].trim_matches('`').to_owned(), cells[2].to_owned()))
        .collect()
}

/// Events that have no line above `debug`: there may be one for each query of a run.
const NO_LINES: [&str; 2] = ["execution.began", "execution.adopted"];

#[test]
fn each_line_of_the_log_is_in_the_table_and_the_other_way_round() {
    let table = table();
    let mut named: BTreeSet<String> = events::NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    named.retain(|name| !NO_LINES.contains(&name.as_str()));
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    for (path, text) in &all {
        // What is kept in a variable of that name.
        named.extend(
            quoted(text, "let event = \"")
                .into_iter()
                .map(str::to_owned),
        );
        for (level, arguments) in lines_of(text) {
            let first = arguments.trim_start();
            let has_event = first.starts_with("event = ") || first.starts_with("event,");
            // The macro of `app/exhaustion.rs` is given its level.
            assert!(
                has_event,
                "{path}: say which event first: {level} {first:.120}"
            );
            for name in quoted(arguments, "event = \"") {
                named.insert(name.to_owned());
                let levels = table.get(name);
                let levels = levels.unwrap_or_else(|| panic!("{name} is not in docs/logs.md"));
                assert!(
                    levels.contains(level),
                    "{name} is {level}, and not {levels}"
                );
            }
        }
    }
    let written: BTreeSet<String> = table.into_keys().collect();
    assert_eq!(named, written, "left: in the code; right: in docs/logs.md");
}

/// The lines of an event.
fn of(sidecar: &Sidecar, event: &str) -> Vec<Value> {
    let lines = sidecar.log();
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == event).collect()
}

/// How many facts these lines tell, with those that were left out.
fn told(sidecar: &Sidecar, event: &str) -> u64 {
    let own = of(sidecar, event);
    let left_out = of(sidecar, "log.left_out");
    let left_out = left_out.iter().filter(|line| line["of"] == event);
    let unsaid = own
        .iter()
        .chain(left_out)
        .filter_map(|line| line["unsaid"].as_u64());
    own.len() as u64 + unsaid.sum::<u64>()
}

/// So many at once, until all are through.
async fn storm<F: Future<Output = ()> + Send + 'static>(many: usize, one: impl Fn(usize) -> F) {
    let mut under_way = JoinSet::new();
    for number in 0..many {
        while under_way.len() >= 50 {
            under_way.join_next().await.unwrap().unwrap();
        }
        under_way.spawn(one(number));
    }
    under_way.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_told_in_a_bounded_number_of_lines_that_count_all_of_it() {
    let database = Postgres::shared().database("storm").await;
    let yaml = support::sidecar::upstream("app", &database.url())
        + "budget: {size: 40}\npool: {size: 1, overflow: 0";
    let sidecar = Sidecar::start(yaml.clone() + "}\n").await;
    let mut held = sidecar.session("app", "full").await;
    held.query("BEGIN").await;
    // Only now, as the first connection may take longer.
    sidecar.reload(&(yaml + ", timeout: 200ms}\n")).await;
    let start = Instant::now();
    let before = sidecar.log().len();

    // Garbage, unknown databases, other users, ids that are none.
    const EACH: usize = 1000;
    let socket = sidecar.socket();
    storm(EACH, |_| {
        let socket = socket.clone();
        async move {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            // Its end may have been seen before it is written.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        }
    })
    .await;
    let host = sidecar.pg_host().to_owned();
    let refused = |url: String| async move {
        let told = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        assert!(told.is_err());
    };
    storm(EACH, |number| {
        refused(format!("postgresql://app@/no{number}?host={host}"))
    })
    .await;
    storm(EACH, |_| {
        refused(format!("postgresql://other@/app?host={host}"))
    })
    .await;
    storm(EACH, |_| {
        refused(format!(
            "postgresql://app@/app?host={host}&application_name=execpool:.no"
        ))
    })
    .await;
    // Waits in vain, in one execution.
    const WAITS: usize = 500;
    storm(WAITS, |_| refused(sidecar.url_in("app", "full"))).await;

    let all = 4 * EACH as u64;
    let claim = "all of it is told or counted";
    eventually(SOON, claim, async || {
        let status = sidecar.get("/v1/status").await;
        let counts = status["sessions"]["refused"].as_object().unwrap();
        let counted: u64 = counts.values().filter_map(Value::as_u64).sum();
        let told = (
            told(&sidecar, "session.refused"),
            told(&sidecar, "checkout.refused"),
        );
        let right = counted >= all && told == (counted, WAITS as u64);
        if right { Ok(()) } else { Err((counted, told)) }
    })
    .await;
    let seconds = start.elapsed().as_secs() as usize + 1;
    let lines = sidecar.log().len() - before;
    // Ten a second of each name at most, and what is said at the end of a storm.
    assert!(lines <= 25 * seconds + 50, "{lines} lines in {seconds} s");
    for line in of(&sidecar, "session.refused") {
        assert!(
            line["kind"].is_string() && line["level"] == "INFO",
            "{line}"
        );
    }
    for line in of(&sidecar, "checkout.refused") {
        let named = [
            "execution_id",
            "session_id",
            "upstream",
            "limit",
            "sqlstate",
        ];
        assert!(named.iter().all(|name| !line[name].is_null()), "{line}");
    }
}
