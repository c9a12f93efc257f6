//! Pictures for tests: a pod with three executions, one of which leaks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::keys::Key;
use super::look::Look;
use super::model::{Command, EventLine, Input, Model};

/// A status with lists, as execpool answers it.
pub(super) fn status() -> Value {
    json!({
        "version": "0.1.0", "uptime_seconds": 7384.0, "paused": false, "paused_seconds": null,
        "draining": false, "not_ready": null,
        "budget": {"size": 20, "limit": 30, "effective": 30, "used": 6, "open": 9, "waiting": 0,
            "oldest_wait_seconds": 0.0, "limited_by_database": false},
        "exhaustion": {"state": "healthy", "age_seconds": 7384.0},
        "upstreams": [{"name": "app", "reachable": true, "latency_seconds": 0.002}],
        "executions": {"active": 3, "ending": 0, "ended": {}},
        "sessions": {"total": 6, "leak_suspects": 2},
        "rates": {"sessions_opened_per_second": 1.5, "sessions_closed_per_second": 0.25,
            "executions_begun_per_second": 0.1, "executions_ended_per_second": 0.0},
        "memory": {"resident_bytes": 12_897_484},
        "included": {
            "executions": {"left_out": 0, "listed": [
                execution("run-7f3a", "explicit", 4, [4, 5, 0], 120.0, 0.02),
                execution("agent-2", "implicit", 2, [2, 2, 3], 61.0, 0.85),
                execution("shared", "shared", 0, [0, 2, 0], 5.0, 0.5),
            ]},
            "sessions": {"left_out": 0, "listed": [
                session(11, "run-7f3a", "idle", 95.0, true, "agent.py:41 plan"),
                session(12, "run-7f3a", "idle_in_transaction", 61.0, true, "agent.py:77 step"),
                session(13, "run-7f3a", "idle", 12.0, false, "agent.py:90 tool"),
                session(14, "run-7f3a", "active", 3.0, false, "agent.py:90 tool"),
                session(21, "agent-2", "active", 1.0, false, "flow.py:12 run"),
                session(22, "agent-2", "waiting", 0.5, false, "flow.py:12 run"),
            ]},
        },
    })
}

fn execution(
    id: &str,
    kind: &str,
    sessions: u64,
    [lent, open, waiting]: [u64; 3],
    held: f64,
    efficiency: f64,
) -> Value {
    json!({
        "id": id, "generation": 1, "state": "active", "kind": kind, "reason": null,
        "age_seconds": 130.0, "deadline_seconds": if id == "run-7f3a" { json!(45.0) } else { Value::Null },
        "holds": 0, "labels": {"team": "search"}, "sessions": sessions, "queries": 17,
        "held_seconds": held, "hold_efficiency": efficiency,
        "resources": {"browser": 1, "file": 0},
        "pools": [{"upstream": "app", "size": 2, "overflow": 3, "open": open, "lent": lent,
            "peak": open, "waiting": waiting, "oldest_wait_seconds": 2.5}],
    })
}

fn session(id: u64, execution: &str, state: &str, time: f64, suspect: bool, caller: &str) -> Value {
    let held = state != "waiting";
    json!({
        "id": id, "execution": execution, "upstream": "app", "database": "app",
        "application_name": "agents", "state": state, "age_seconds": time + 10.0,
        "state_age_seconds": time, "leak_suspect": suspect, "transaction_seconds": null,
        "queries": 3, "held_seconds": if held { time + 5.0 } else { 0.0 }, "hold_efficiency": 0.04,
        "caller": caller, "label": "planner", "traceparent": null,
        "server_pid": if held { json!(4000 + id) } else { Value::Null },
        "statement": "SELECT id, body FROM documents WHERE owner = $1 ORDER BY created_at DESC LIMIT ?",
    })
}

/// The same with a budget that is exhausted, and a database that allows less.
pub(super) fn exhausted() -> Value {
    let mut status = status();
    status["exhaustion"] = json!({"state": "sustained", "age_seconds": 130.0});
    status["paused"] = json!(true);
    status["paused_seconds"] = json!(61.0);
    status["draining"] = json!(true);
    for (name, value) in [
        ("used", json!(12)),
        ("open", json!(12)),
        ("effective", json!(12)),
        ("waiting", json!(17)),
        ("oldest_wait_seconds", json!(12.3)),
        ("limited_by_database", json!(true)),
    ] {
        status["budget"][name] = value;
    }
    status["upstreams"][0]["reachable"] = json!(false);
    status
}

/// A model, and the time that it is there.
pub(super) struct Shown {
    pub(super) model: Model,
    pub(super) now: Instant,
}

impl Shown {
    /// Over an answer, in a terminal of that size.
    pub(super) fn over(status: Value, size: (u16, u16)) -> Self {
        let now = Instant::now();
        let mut shown = Self {
            model: Model::new(Duration::from_secs(1), size),
            now,
        };
        shown.looks(status);
        for (at, name, rest, execution) in [
            ("10:30:00.250", "execution.begun", "run-7f3a", "run-7f3a"),
            (
                "10:30:01.000",
                "session.leak_suspect",
                "run-7f3a session=11",
                "run-7f3a",
            ),
            ("10:30:02.500", "database.limited", "app allowed=12", ""),
        ] {
            let event = EventLine {
                at: at.to_owned(),
                name: name.to_owned(),
                rest: rest.to_owned(),
                execution: execution.to_owned(),
            };
            shown.takes(Input::Event(event));
        }
        shown
    }

    /// An answer has come.
    pub(super) fn looks(&mut self, status: Value) {
        let look = Look::read(status).map_err(|error| error.to_string());
        self.takes(Input::Looked(Box::new(look)));
    }

    pub(super) fn takes(&mut self, input: Input) -> Option<Command> {
        self.model.take(input, self.now)
    }

    /// These keys are pressed; what the last of them asks for.
    pub(super) fn presses(&mut self, keys: &[Key]) -> Option<Command> {
        let mut last = None;
        for key in keys {
            last = self.takes(Input::Key(*key));
        }
        last
    }

    /// These characters are typed.
    pub(super) fn types(&mut self, text: &str) -> Option<Command> {
        let keys: Vec<Key> = text.chars().map(Key::Char).collect();
        self.presses(&keys)
    }
}
