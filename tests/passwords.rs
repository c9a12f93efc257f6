//! Passwords that change while execpool runs: files that are rotated, commands that print tokens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use support::sidecar::upstream;
use support::{Database, Postgres, PostgresOptions, SOON, Sidecar, eventually};
use tempfile::TempDir;

/// A server whose role `rotating` must give the password that it has at the time.
struct Guarded {
    postgres: Postgres,
    database: Database,
    files: TempDir,
}

impl Guarded {
    async fn start(password: &str) -> Self {
        let postgres = Postgres::start(PostgresOptions {
            hba: vec!["local all rotating scram-sha-256".to_owned()],
            ..PostgresOptions::default()
        });
        let database = postgres.database("guarded").await;
        let admin = postgres.admin().await;
        let create = format!("CREATE ROLE rotating LOGIN PASSWORD '{password}'");
        admin.batch_execute(&create).await.unwrap();
        Self {
            postgres,
            database,
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// From now on the server takes this password alone.
    async fn rotate(&self, password: &str) {
        let alter = format!("ALTER ROLE rotating PASSWORD '{password}'");
        let admin = self.postgres.admin().await;
        admin.batch_execute(&alter).await.unwrap();
    }

    /// A configuration whose password comes as `more` says.
    fn yaml(&self, more: &str) -> String {
        let url = self.database.url_as("rotating");
        format!("{}    any_user: true\n    {more}\n", upstream("app", &url))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.files.path().join(name), text).unwrap();
    }

    /// A configuration whose command notes each run, and then does this.
    fn command(&self, then: &str) -> String {
        let dir = self.files.path().display();
        self.yaml(&format!(
            "password_command: [/bin/sh, -c, \"cd '{dir}'; echo >> runs; {then}\"]"
        ))
    }

    fn runs(&self) -> usize {
        let runs = fs::read_to_string(self.files.path().join("runs"));
        runs.map_or(0, |text| text.lines().count())
    }
}

async fn works(sidecar: &Sidecar, execution: &str) {
    let client = sidecar.client("app", execution).await.unwrap();
    let row = client.query_one("SELECT current_user", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "rotating");
}

/// What a client is told that does not come in.
async fn refused(sidecar: &Sidecar, execution: &str) -> (String, String) {
    let error = sidecar.client("app", execution).await.err();
    let error = error.expect("nobody comes in");
    let said = error.as_db_error().expect("it is told why");
    (
        said.message().to_owned(),
        said.hint().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn a_token_is_made_once_for_all_and_again_when_the_server_refuses_it() {
    let server = Guarded::start("first").await;
    server.write("token", "first\n");
    let sidecar = Sidecar::start(server.command("cat token")).await;
    for execution in 0..10 {
        works(&sidecar, &format!("e{execution}")).await;
    }
    let health = sidecar.control("GET", "/v1/database/health", None).await;
    assert_eq!(health.0, 200, "{health:?}");
    assert_eq!(server.runs(), 1, "the monitor asks, too");

    // A token that is younger than a second is not asked for again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.rotate("second").await;
    server.write("token", "second\n");
    works(&sidecar, "later").await;
    works(&sidecar, "still-later").await;
    assert_eq!(server.runs(), 2);
    let config = sidecar.get("/v1/config").await;
    let shown = &config["knobs"]["upstreams[0].password_command"]["value"];
    assert_eq!(shown, "/bin/sh …", "its arguments may be anything");
}

#[tokio::test]
async fn a_command_that_fails_is_told_and_the_next_one_may_work() {
    let server = Guarded::start("first").await;
    let yaml = server.command("echo no credentials here >&2; cat token || exit 3");
    let sidecar = Sidecar::start(yaml).await;
    let (message, hint) = refused(&sidecar, "a").await;
    assert!(
        message.ends_with("the password_command \"/bin/sh\" failed with exit status 3"),
        "{message}"
    );
    assert!(hint.contains("by hand"), "{hint}");
    sidecar.logged(&["no credentials here"]).await;
    server.write("token", "wrong");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (message, _) = refused(&sidecar, "a").await;
    assert!(
        message.contains("password authentication failed"),
        "{message}"
    );
    server.write("token", "first");
    tokio::time::sleep(Duration::from_secs(1)).await;
    works(&sidecar, "a").await;
}

#[tokio::test]
async fn a_slow_command_holds_up_nobody_else() {
    let server = Guarded::start("first").await;
    server.write("token", "first");
    let other = format!(
        "{}    connect_timeout: 60s\n  - name: other\n    url: \"{}\"\n",
        server.command("until [ -e go ]; do sleep 0.1; done; cat token"),
        server.database.url()
    );
    let sidecar = Sidecar::start(other).await;
    let others = async {
        eventually(SOON, "the command runs", async || {
            let runs = server.runs();
            (runs > 0).then_some(()).ok_or(runs)
        })
        .await;
        for _ in 0..10 {
            let client = sidecar.client("other", "quick").await.unwrap();
            client.batch_execute("SELECT 1").await.unwrap();
            sidecar.get("/v1/status").await;
        }
        server.write("go", "");
    };
    // A command has ten seconds, which a machine that stands still may use up.
    let (start, tries) = (Instant::now(), Cell::new(0));
    let slow = eventually(SOON, "it comes in", async || {
        tries.set(tries.get() + 1);
        let client = sidecar.client("app", "slow").await?;
        client.query_one("SELECT 1", &[]).await
    });
    let ((), _) = tokio::join!(others, slow);
    if tries.get() == 1 && start.elapsed() < Duration::from_secs(10) {
        assert_eq!(server.runs(), 1, "the monitor asks, too");
    }
}

/// Puts a file in place as Kubernetes does with a Secret: by one change of one link.
fn mount(dir: &Path, version: &str, password: &str) {
    fs::create_dir(dir.join(version)).unwrap();
    fs::write(dir.join(version).join("password"), password).unwrap();
    let young = dir.join("..data_tmp");
    symlink(version, &young).unwrap();
    fs::rename(young, dir.join("..data")).unwrap();
}

#[tokio::test]
async fn a_password_file_that_is_rotated_is_used_at_the_next_connect() {
    let server = Guarded::start("first").await;
    let dir = server.files.path();
    mount(dir, "..1", "first\n");
    symlink("..data/password", dir.join("password")).unwrap();
    let file = dir.join("password");
    let yaml = server.yaml(&format!("password_file: {}", file.display()));
    let sidecar = Sidecar::start(yaml).await;
    let old = sidecar.client("app", "old").await.unwrap();
    old.batch_execute("SELECT 1").await.unwrap();

    server.rotate("second").await;
    mount(dir, "..2", "second\n");
    works(&sidecar, "new").await;
    old.batch_execute("SELECT 1").await.unwrap();

    // Taken away, it is missed by name; back again, it is used.
    fs::remove_file(dir.join("..data")).unwrap();
    let (message, hint) = refused(&sidecar, "missing").await;
    let path = file.to_str().unwrap();
    assert!(
        message.contains("cannot read the password file"),
        "{message}"
    );
    assert!(
        message.contains(path) && hint.contains("password_file"),
        "{message} {hint}"
    );
    mount(dir, "..3", "second\n");
    works(&sidecar, "missing").await;
}
