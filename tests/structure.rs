//! The floors of the house: every file imports only from floors below its own, and what
//! only some rooms may touch is touched nowhere else. See `docs/structure.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms and their floors.
const FLOORS: [(&str, u8); 24] = [
    ("main", 8),
    ("app", 7),
    ("ctl", 7),
    ("demo", 7),
    ("cli", 8),
    ("client", 6),
    ("control", 6),
    ("reactor", 6),
    ("execution", 5),
    ("pool", 4),
    ("monitor", 4),
    ("server", 3),
    ("session", 3),
    ("listener", 3),
    ("telemetry", 3),
    ("protocol", 2),
    ("config", 2),
    ("budget", 2),
    ("error", 1),
    ("metrics", 1),
    ("events", 1),
    ("shutdown", 1),
    ("story", 1),
    ("lib", 8),
];

/// Crates that only these rooms may name.
const KEPT_IN: [(&str, &[&str]); 13] = [
    ("bb8::", &["pool", "monitor"]),
    ("bb8_postgres", &["monitor"]),
    ("tokio_postgres", &["monitor", "control"]),
    ("kube::", &["reactor"]),
    ("k8s_openapi", &["reactor"]),
    ("opentelemetry", &["telemetry", "metrics"]),
    ("prometheus::", &["telemetry"]),
    ("tonic::", &["telemetry"]),
    ("clap::", &["cli", "ctl", "main"]),
    ("hyper::", &["control", "ctl", "telemetry"]),
    ("sqlparser", &["protocol"]),
    ("ratatui", &["ctl"]),
    ("tracing_subscriber", &["telemetry", "config"]),
];

/// Rooms that are pure: bytes or values in, values out.
const WITHOUT_TOKIO: [&str; 3] = ["protocol", "config", "budget"];

struct Source {
    path: PathBuf,
    room: String,
    code: String,
}

/// Every source file, without its comments.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(source(&root, path));
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}

fn source(root: &Path, path: PathBuf) -> Source {
    let within = path.strip_prefix(root).expect("below src").to_owned();
    let first = within.components().next().expect("a name").as_os_str();
    let room = first.to_str().expect("UTF-8").trim_end_matches(".rs");
    let text = fs::read_to_string(&path).expect("a source can be read");
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    Source {
        room: room.to_owned(),
        code: code.join("\n"),
        path: within,
    }
}

#[test]
fn every_room_stands_on_a_floor() {
    let floors = BTreeMap::from(FLOORS);
    for source in sources() {
        let known = floors.contains_key(source.room.as_str());
        assert!(known, "{}: give its room a floor", source.path.display());
    }
}

#[test]
fn imports_go_downward_only() {
    let floors = BTreeMap::from(FLOORS);
    let mut wrong = Vec::new();
    for source in sources() {
        let own = floors[source.room.as_str()];
        for after in source.code.split("crate::").skip(1) {
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_');
            let room = &after[..end.unwrap_or(after.len())];
            let floor = floors.get(room).copied().unwrap_or(u8::MAX);
            if room != source.room && floor >= own {
                wrong.push(format!("{} imports {room}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports upward or sideways: {wrong:#?}");
}

#[test]
fn crates_stay_in_the_rooms_that_own_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, rooms) in KEPT_IN {
            if source.code.contains(name) && !rooms.contains(&source.room.as_str()) {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
        if WITHOUT_TOKIO.contains(&source.room.as_str()) && source.code.contains("tokio::") {
            wrong.push(format!("{} is not pure", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_static() {
    for source in sources() {
        for line in source.code.lines().map(str::trim_start) {
            let is_static = line.starts_with("static ")
                || line.starts_with("pub static ")
                || line.contains("thread_local!")
                || line.contains("OnceLock<");
            assert!(!is_static, "{}: {line}", source.path.display());
        }
    }
}
