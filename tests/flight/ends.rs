//! What is kept of executions that have ended: the stories of those that ended badly.

use serde_json::json;

use super::support::session::place;
use super::support::sidecar::upstream;
use super::support::{Sidecar, eventually};
use super::{SOON, Told, until};

async fn delete(sidecar: &Sidecar, execution: &str) {
    let path = format!("/v1/executions/{execution}");
    assert_eq!(sidecar.control("DELETE", &path, None).await.0, 200);
}

#[tokio::test]
async fn one_that_ends_well_leaves_no_story() {
    let (_database, sidecar) = place("ends_well", "").await;
    let mut raw = sidecar.session("app", "run").await;
    raw.query("SELECT 1").await;
    raw.query("SELECT 1/0").await;
    drop(raw);
    until(&sidecar, "run", "session.left").await;
    delete(&sidecar, "run").await;
    let told = Told::ended(&sidecar, "run").await;
    assert_eq!(told.answer["ended_badly"], false, "{}", told.answer);
    assert_eq!(told.answer.get("events"), None, "{}", told.answer);
    assert_eq!(told.answer.get("events_dropped"), None, "{}", told.answer);
}

#[tokio::test]
async fn an_app_that_leaks_finds_its_story_after_the_end() {
    let more = "session: {leak_after: 300ms}\n";
    let (_database, sidecar) = place("leaks", more).await;
    let named = [
        ("execpool.execution_id", "run"),
        ("execpool.caller", "agent.py:42 fetch < agent.py:7 run"),
    ];
    let (mut leaked, _) = sidecar.started("app", &named).await;
    leaked.query("BEGIN").await;
    until(&sidecar, "run", "session.leak_suspect").await;
    delete(&sidecar, "run").await;
    let told = Told::ended(&sidecar, "run").await;
    assert_eq!(told.answer["ended_badly"], true);
    assert_eq!(told.answer["reason"], "deleted");
    told.assert_in_order(&[
        "execution.began",
        "session.joined",
        "checkout.lent",
        "session.queries",
        "session.leak_suspect",
        "execution.ending",
        "execution.ended",
    ]);
    let joined = told.one("session.joined");
    assert_eq!(joined["caller"], "agent.py:42 fetch < agent.py:7 run");
    // Without being asked for it is not told, and the next generation has a story of its own.
    let plain = sidecar.get("/v1/executions/run").await;
    assert_eq!(
        (plain.get("events"), &plain["ended_badly"]),
        (None, &json!(true))
    );
    let body = json!({"id": "run"});
    let (status, _) = sidecar.control("POST", "/v1/executions", Some(body)).await;
    assert_eq!(status, 201);
    assert_eq!(Told::of(&sidecar, "run").await.names(), ["execution.began"]);
    let told = Told::ended(&sidecar, "run").await;
    assert_eq!(
        told.answer["generation"], 1,
        "the ended one, though another is active"
    );
}

#[tokio::test]
async fn what_makes_an_end_bad_keeps_its_story() {
    let more = "hold: {grace: 100ms}\npool: {size: 1, overflow: 0";
    let (database, sidecar) = place("bad_ends", &format!("{more}}}\n")).await;
    // One that waited in vain, whatever it ended by.
    let mut holder = sidecar.session("app", "refused").await;
    holder.query("SELECT 1").await;
    let yaml = upstream("app", &database.url());
    let hasty = format!("{yaml}{more}, timeout: 200ms}}\n");
    sidecar.reload(&hasty).await;
    let mut late = sidecar.session("app", "refused").await;
    late.query("SELECT 1").await;
    delete(&sidecar, "refused").await;
    sidecar.reload(&format!("{yaml}{more}}}\n")).await;
    // One whose app went away.
    let create = async |body| {
        sidecar
            .control("POST", "/v1/executions", Some(body))
            .await
            .0
    };
    assert_eq!(create(json!({"id": "lost"})).await, 201);
    drop(sidecar.stream("/v1/executions/lost/hold").await);
    // One whose time was up.
    assert_eq!(
        create(json!({"id": "late", "deadline": "200ms"})).await,
        201
    );
    // One of which a session was ended.
    let mut raw = sidecar.session("app", "dismissed").await;
    raw.query("SELECT 1").await;
    let id = sidecar.sessions_of("dismissed").await[0]["id"].clone();
    let path = format!("/v1/sessions/{id}");
    assert_eq!(sidecar.control("DELETE", &path, None).await.0, 200);
    delete(&sidecar, "dismissed").await;
    for (execution, telling) in [
        ("refused", "checkout.refused"),
        ("lost", "execution.hold_closed"),
        ("late", "execution.ending"),
        ("dismissed", "session.dismissed"),
    ] {
        let told = Told::ended(&sidecar, execution).await;
        assert_eq!(told.answer["ended_badly"], true, "{execution}");
        told.one(telling);
        if execution == "late" {
            assert_eq!(told.answer["reason"], "deadline");
        }
    }
}

#[tokio::test]
async fn an_unknown_name_gets_the_usual_answer_with_what_helps() {
    let (_database, sidecar) = place("unknown_name", "").await;
    for (path, hint) in [
        ("/v1/executions/run?events=true", "?ended=true lists them"),
        (
            "/v1/executions/shared?ended=true&events=true",
            "without ended=true an active one is told",
        ),
    ] {
        let (status, problem) = sidecar.control("GET", path, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (404, &json!("no_such_execution"))
        );
        assert!(
            problem["hint"].as_str().unwrap().contains(hint),
            "{problem}"
        );
    }
    let (status, _) = sidecar
        .control("GET", "/v1/executions/shared?events=perhaps", None)
        .await;
    assert_eq!(status, 400);
    eventually(SOON, "it answers", async || {
        let (status, _) = sidecar.control("GET", "/v1/status", None).await;
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
}
