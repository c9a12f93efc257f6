//! Who may do what over which socket, tried by processes of other users of the system.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;
use serde_json::{Value, json};
use support::schema::complaint;
use support::session::place;
use support::{Database, Raw, Sidecar};

/// Somebody else, with a group of that number.
const STRANGER: u32 = 54_321;

/// Sends requests over a Unix socket and prints the answers: status, and body where it ends.
const PROGRAM: &str = r#"
import http.client, json, socket, sys
class Line(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(sys.argv[1])
told = []
for method, path, body in json.loads(sys.argv[2]):
    line = Line("execpool")
    line.request(method, path, json.dumps(body) if body is not None else None)
    answer = line.getresponse()
    kind = answer.headers.get("content-type", "")
    text = answer.read() if "json" in kind and "ndjson" not in kind else b""
    told.append([answer.status, json.loads(text) if text else None])
    line.close()
print(json.dumps(told))
"#;

/// False, and says so, where nobody can be somebody else.
fn can_be_others() -> bool {
    let can = geteuid().is_root();
    if !can {
        println!("skipped: only root can be somebody else");
    }
    can
}

/// A sidecar whose directory everybody may enter.
async fn open_place(name: &str, more: &str) -> (Database, Sidecar) {
    let (database, sidecar) = place(name, more).await;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sidecar.dir(), open).unwrap();
    (database, sidecar)
}

/// A request: method, path, body.
type Asked = (&'static str, String, Value);

/// What a user is answered to each of these.
fn asked_by(
    uid: u32,
    gid: u32,
    socket: &Path,
    asked: &[Asked],
) -> Result<Vec<(u16, Value)>, String> {
    let output = Command::new("/usr/bin/python3")
        .args(["-c", PROGRAM])
        .arg(socket)
        .arg(json!(asked).to_string())
        .uid(uid)
        .gid(gid)
        .current_dir("/")
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

/// Every operation that is described, with something to ask it for.
fn everything(id: &str) -> Vec<Asked> {
    let document = execpool::control::openapi::document();
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let method = match method.as_str() {
                "get" => "GET",
                "post" => "POST",
                "delete" => "DELETE",
                other => panic!("{other} {path}"),
            };
            let path = path.replace("{id}", id).replace("{rid}", "1");
            all.push((method, path, Value::Null));
        }
    }
    assert!(all.len() >= 24, "{all:?}");
    all
}

#[tokio::test]
async fn a_barred_user_is_refused_by_every_route_and_told_what_to_do() {
    if !can_be_others() {
        return;
    }
    let more = "listen: {mode: '0666', dir: '{dir}'}\ncontrol: {allow_uids: 0}\ntelemetry: {listen: off}\n";
    let (_database, sidecar) = open_place("barred", more).await;
    let all = everything("shared");
    let answers = asked_by(STRANGER, STRANGER, &sidecar.control_socket(), &all).unwrap();
    for ((method, path, _), (status, problem)) in all.iter().zip(answers) {
        assert_eq!(status, 403, "{method} {path}: {problem}");
        assert_eq!(complaint(method, path, status, &problem), None);
        assert_eq!(problem["code"], "user_not_allowed", "{method} {path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("user 54321"), "{detail}");
        let hint = problem["hint"].as_str().unwrap();
        assert!(hint.contains("control.allow_uids"), "{hint}");
    }
    // It has changed nothing, and the others are served.
    let status = sidecar.get("/v1/status").await;
    assert_eq!(status["draining"], false, "{status}");
}

/// What is served while `control.admin` is off, in an order in which all of it can be done.
fn allowed() -> Vec<(Asked, u16)> {
    let ask = |method, path: &str, body| (method, path.to_owned(), body);
    let null = Value::Null;
    vec![
        (
            ask(
                "POST",
                "/v1/executions",
                json!({"id": "mine", "deadline": "1m"}),
            ),
            201,
        ),
        (ask("GET", "/v1/executions", null.clone()), 200),
        (ask("GET", "/v1/executions/mine", null.clone()), 200),
        (
            ask("POST", "/v1/executions/mine/heartbeat", null.clone()),
            200,
        ),
        (
            ask(
                "POST",
                "/v1/executions/mine/resources",
                json!({"kind": "file", "name": "a"}),
            ),
            201,
        ),
        (
            ask("DELETE", "/v1/executions/mine/resources/1", null.clone()),
            204,
        ),
        (
            ask(
                "POST",
                "/v1/executions/mine/query",
                json!({"sql": "SELECT 1"}),
            ),
            200,
        ),
        (ask("GET", "/v1/status", null.clone()), 200),
        (ask("GET", "/v1/sessions", null.clone()), 200),
        (ask("GET", "/v1/database/health", null.clone()), 200),
        (ask("GET", "/v1/events", null.clone()), 200),
        (ask("GET", "/v1/config", null.clone()), 200),
        (ask("GET", "/openapi.json", null.clone()), 200),
        (
            ask("GET", "/api/memory/debug/connections/status", null.clone()),
            200,
        ),
        (ask("DELETE", "/v1/executions/mine", null.clone()), 200),
        (ask("POST", "/v1/executions", json!({"id": "held"})), 201),
        (ask("GET", "/v1/executions/held/hold", null), 200),
    ]
}

#[tokio::test]
async fn with_admin_off_another_user_has_the_reading_routes_and_its_own_scope_and_no_more() {
    if !can_be_others() {
        return;
    }
    let more =
        "listen: {mode: '0666', dir: '{dir}'}\ncontrol: {admin: off}\ntelemetry: {listen: off}\n";
    let (_database, sidecar) = open_place("admin_off", more).await;
    let socket = sidecar.control_socket();
    let table = allowed();
    let asked: Vec<Asked> = table.iter().map(|(asked, _)| asked.clone()).collect();
    let answers = asked_by(STRANGER, STRANGER, &socket, &asked).unwrap();
    for ((asked, expected), (status, body)) in table.iter().zip(answers) {
        assert_eq!(status, *expected, "{asked:?}: {body}");
    }

    // All else, also what is served one day and is not in the table.
    let mut session = sidecar.session("app", "busy").await;
    assert_eq!(session.ask("SELECT 1").await, "1");
    let is_allowed = |(method, path, _): &Asked| {
        let mut known = asked.iter();
        known.any(|(m, p, _)| m == method && p.replace("held", "mine") == *path)
    };
    let mut rest = everything("mine");
    rest.retain(|asked| !is_allowed(asked));
    // An execution that the app has not named is none of its own.
    for id in ["shared", "session-1"] {
        rest.push(("DELETE", format!("/v1/executions/{id}"), Value::Null));
    }
    assert!(rest.len() >= 12, "{rest:?}");
    let answers = asked_by(STRANGER, STRANGER, &socket, &rest).unwrap();
    for ((method, path, _), (status, problem)) in rest.iter().zip(answers) {
        assert_eq!(status, 403, "{method} {path}: {problem}");
        assert_eq!(complaint(method, path, status, &problem), None);
        assert_eq!(problem["code"], "admin_off", "{method} {path}");
        let hint = problem["hint"].as_str().unwrap();
        assert!(hint.contains("control.admin: on"), "{hint}");
    }
    assert_eq!(session.ask("SELECT 2").await, "2", "it has lost nothing");
}

#[tokio::test]
async fn a_session_shows_its_peers_user_group_and_process() {
    let (_database, sidecar) = open_place(
        "peers",
        "listen: {mode: '0666', dir: '{dir}'}\ntelemetry: {listen: off}\n",
    )
    .await;
    let own = sidecar.session("app", "own").await;
    let peer = sidecar.sessions_of("own").await[0]["peer"].clone();
    let ids = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    assert_eq!(
        peer,
        json!({"uid": ids.0, "gid": ids.1, "pid": std::process::id()})
    );
    drop(own);
    if !can_be_others() {
        return;
    }
    let mut other = Raw::connect_as(STRANGER, &sidecar.socket()).await;
    let named = [
        ("user", "app"),
        ("database", "app"),
        ("execpool.execution_id", "other"),
    ];
    other.startup(&named).await;
    let peer = sidecar.sessions_of("other").await[0]["peer"].clone();
    assert_eq!(
        (&peer["uid"], &peer["gid"]),
        (&json!(STRANGER), &json!(STRANGER)),
        "{peer}"
    );
}

#[tokio::test]
async fn who_is_neither_the_user_nor_in_the_group_of_the_sockets_opens_none() {
    if !can_be_others() {
        return;
    }
    let more = "listen: {group: '54321', dir: '{dir}'}\ntelemetry: {listen: off}\n";
    let (_database, sidecar) = open_place("groups", more).await;
    let asked = [("GET", "/v1/status".to_owned(), Value::Null)];
    for socket in [sidecar.control_socket(), sidecar.socket()] {
        let barred = asked_by(STRANGER, STRANGER + 1, &socket, &asked);
        let why = barred.unwrap_err();
        assert!(why.contains("PermissionError"), "{why}");
    }
    let answers = asked_by(STRANGER + 1, STRANGER, &sidecar.control_socket(), &asked).unwrap();
    assert_eq!(answers[0].0, 200);
}
