//! `execpool executions ID --events`.

use postgres_protocol::message::frontend;
use tokio::process::Command;

use super::support::Sidecar;
use super::support::session::place;
use super::support::sidecar::upstream;
use super::until;

/// Standard output, standard error, and the exit code.
async fn execpool(sidecar: &Sidecar, args: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
    let command = command
        .args(args)
        .env_clear()
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir());
    let output = command.output().await.expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
    )
}

#[tokio::test]
async fn a_run_that_hangs_is_told_so_that_a_person_sees_why() {
    let more = "session: {leak_after: 1s}\npool: {size: 1, overflow: 0";
    let (database, sidecar) = place("hangs", &format!("{more}}}\n")).await;
    let named = [
        ("execpool.execution_id", "run"),
        ("execpool.caller", "agent.py:42 fetch < agent.py:7 run"),
    ];
    let (mut raw, _) = sidecar.started("app", &named).await;
    // At once: what a busy machine adds between them would be told, too.
    raw.send_with(|out| {
        frontend::query("BEGIN", out).unwrap();
        frontend::query("SELECT 1", out).unwrap();
    })
    .await;
    raw.read_until(b'Z').await;
    raw.read_until(b'Z').await;
    let hasty = format!("{more}, timeout: 200ms}}\n");
    sidecar
        .reload(&(upstream("app", &database.url()) + &hasty))
        .await;
    let mut late = sidecar.session("app", "run").await;
    late.query("SELECT 1").await;
    until(&sidecar, "run", "session.leak_suspect").await;
    let (out, err, code) = execpool(&sidecar, &["executions", "run", "--events"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("run generation 1 active"), "{out}");
    let mut rest = lines.iter();
    for wanted in [
        "began (implicit), deadline in 30m00s",
        "joined",
        "agent.py:42 fetch < agent.py:7 run, process",
        "got backend",
        "2 queries in",
        "idle in transaction …",
        "suspected of being forgotten",
    ] {
        assert!(rest.any(|line| line.contains(wanted)), "{wanted}: {out}");
    }
    assert!(out.contains("REFUSED 53300 after "), "{out}");
    assert!(out.contains("the execution's pool is full"), "{out}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{out}");
    assert!(
        !out.contains('\x1b'),
        "no colours but on terminals: {out:?}"
    );
    let args = ["executions", "run", "--events", "--json"];
    let (out, _, code) = execpool(&sidecar, &args).await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(json["events"][0]["event"], "execution.began");
    let events = json["events"].as_array().unwrap();
    let refused = events
        .iter()
        .find(|event| event["event"] == "checkout.refused");
    let waited = refused.unwrap()["waited_seconds"].as_f64().unwrap();
    assert!(waited >= 0.2, "{waited}");
    // Afterwards.
    let (status, _) = sidecar.control("DELETE", "/v1/executions/run", None).await;
    assert_eq!(status, 200);
    let args = ["executions", "run", "--events", "--ended"];
    let (out, _, code) = execpool(&sidecar, &args).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.starts_with("run generation 1 ended (deleted) badly\n"),
        "{out}"
    );
    assert!(out.contains("is ending: deleted"), "{out}");
    let (out, _, code) = execpool(&sidecar, &["executions", "run"]).await;
    assert_eq!(
        (code, out.lines().count()),
        (Some(0), 2),
        "one alone: {out}"
    );
    // What is wrong is said as everywhere.
    let (_, err, code) = execpool(&sidecar, &["executions", "rum", "--events"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("there is no execution rum"), "{err}");
    assert!(
        err.contains("GET /v1/executions?ended=true lists them"),
        "{err}"
    );
    let (_, err, code) = execpool(&sidecar, &["executions", "--events"]).await;
    assert_eq!(code, Some(2), "{err}");
}
