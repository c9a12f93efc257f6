//! Reloads amid queries, and many of them.

use std::process::Stdio;

use super::support::sidecar::upstream;
use super::support::tools::postgres_program;
use super::support::{Postgres, eventually};
use super::{SOON, place};

/// What changes from reload to reload, in turn.
fn variants(yaml: &str) -> [String; 4] {
    [
        format!("{yaml}budget: {{size: 2, overflow: 1}}\npool: {{size: 1, overflow: 1}}\n"),
        format!("{yaml}pool: {{reset: RESET ALL, timeout: 19s}}\nlog: {{level: warn}}\n"),
        format!("{yaml}    connect_timeout: 9s\nlisten: {{mode: 0600}}\n"),
        yaml.to_owned(),
    ]
}

#[tokio::test]
async fn no_query_fails_while_the_configuration_changes_again_and_again() {
    let (_database, sidecar, yaml) = place("pgbench", "").await;
    let script = sidecar.dir().join("script");
    std::fs::write(&script, "SELECT :client_id;\n").unwrap();
    // A connection for each transaction: many come, wait and go.
    let child = tokio::process::Command::new(postgres_program("pgbench"))
        .args([
            "--no-vacuum",
            "--connect",
            "--client=6",
            "--jobs=6",
            "--time=8",
        ])
        .args(["--host", sidecar.pg_host(), "--username=app", "--file"])
        .arg(&script)
        .arg("app")
        .env("PGAPPNAME", "execpool:bench")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut done = std::pin::pin!(child.wait_with_output());
    let (mut reloads, variants) = (0, variants(&yaml));
    let output = loop {
        tokio::select! {
            output = &mut done => break output.unwrap(),
            _ = sidecar.reload(&variants[reloads % 4]) => reloads += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("number of failed transactions: 0"), "{out}");
    assert!(!err.contains("ERROR") && !err.contains("FATAL"), "{err}");
    assert!(reloads >= 4, "each of them was taken: {reloads}");
    sidecar.reload(&yaml).await;
    sidecar.settles().await;
}

#[tokio::test]
async fn a_hundred_reloads_leak_nothing() {
    let (database, sidecar, yaml) = place("hundred", "").await;
    let other = Postgres::shared().database("hundred_other").await;
    let mut stays = sidecar.session("app", "stays").await;
    let backend = stays.backend().await;
    let mut unbound = sidecar.session("app", "unbound").await;
    let round = async |number: usize| {
        let url = if number.is_multiple_of(2) {
            database.url()
        } else {
            other.url()
        };
        let timeout = 5 + number % 3;
        let yaml = upstream("app", &url) + &format!("    connect_timeout: {timeout}s\n");
        let added = format!("  - name: log\n    url: \"{}\"\n", other.url());
        let yaml = if number.is_multiple_of(3) {
            yaml + &added
        } else {
            yaml
        };
        sidecar.reload(&yaml).await;
        let mut raw = sidecar.session("app", "comes").await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
    };
    for number in 0..20 {
        round(number).await;
    }
    let (descriptors, memory) = (sidecar.descriptors(), sidecar.rss());
    for number in 20..120 {
        round(number).await;
    }
    sidecar.reload(&yaml).await;
    assert_eq!(stays.backend().await, backend);
    assert_eq!(
        unbound.ask("SELECT current_database()").await,
        database.name
    );
    drop((stays, unbound));
    sidecar.settles().await;
    eventually(SOON, "no more descriptors than before", async || {
        let now = sidecar.descriptors();
        if now <= descriptors + 2 {
            Ok(())
        } else {
            Err((now, descriptors))
        }
    })
    .await;
    let grown = sidecar.rss().saturating_sub(memory);
    assert!(grown < 2 << 20, "{grown} bytes");
    eventually(SOON, "nothing is left where nothing leads", async || {
        let left = Postgres::shared()
            .activity(&format!("datname = '{}'", other.name))
            .await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    let config = sidecar.get("/v1/config").await;
    assert!(
        config["reloads"].as_u64() >= Some(100),
        "{}",
        config["reloads"]
    );
}
