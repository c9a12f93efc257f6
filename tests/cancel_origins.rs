//! A cancel request counts for sessions of its own origin alone: the same user of the system, or TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use nix::unistd::geteuid;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use std::os::unix::fs::PermissionsExt;
use support::session::{error, rows};
use support::sidecar::upstream;
use support::{Database, Postgres, Raw, SOON, Sidecar, eventually};

/// Somebody else.
const STRANGER: u32 = 54_321;
const PASSWORD: &str = "pencil";
/// What a session is told to be cancelled by: process and key.
type Key = (i32, i32);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The user who runs the tests, over the socket.
    Ourselves,
    /// Another user, over the socket.
    Stranger,
    Tcp,
}

use Origin::{Ourselves, Stranger, Tcp};

/// A sidecar that everybody reaches.
struct Place {
    database: Database,
    sidecar: Sidecar,
}

impl Place {
    async fn new(name: &str) -> Self {
        let database = Postgres::shared().database(name).await;
        let sidecar = Sidecar::options()
            .config(yaml(&database, "any"))
            .file("password", PASSWORD)
            .start()
            .await;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(sidecar.dir(), open).unwrap();
        Self { database, sidecar }
    }

    async fn connect(&self, origin: Origin) -> Raw {
        match origin {
            Ourselves => self.sidecar.raw().await,
            Stranger => Raw::connect_as(STRANGER, &self.sidecar.socket()).await,
            Tcp => Raw::connect_tcp(self.sidecar.tcp().await).await,
        }
    }

    /// A session that has come in, in an execution of its own.
    async fn enter(&self, origin: Origin, execution: &str) -> (Raw, Key) {
        let mut raw = self.connect(origin).await;
        let parameters = [
            ("user", "app"),
            ("database", "app"),
            ("execpool.execution_id", execution),
        ];
        raw.send_with(|out| frontend::startup_message(parameters, out).unwrap())
            .await;
        if origin == Tcp {
            prove(&mut raw).await;
        }
        let told = raw.read_until(b'Z').await;
        let key = told.iter().find(|message| message.kind == b'K');
        (raw, key.unwrap_or_else(|| panic!("{told:?}")).key())
    }

    /// Sends a request and waits until it was dealt with. Nobody is told anything.
    async fn cancel(&self, origin: Origin, (pid, key): Key) {
        let mut request = self.connect(origin).await;
        request
            .send_with(|out| frontend::cancel_request(pid, key, out))
            .await;
        assert_eq!(request.read_bytes(1).await, b"", "{origin:?}");
    }

    /// Waits until the server runs what a session has just sent.
    async fn runs(&self, sql: &str) {
        eventually(SOON, "the server runs it", async || {
            let filter = format!(
                "datname = '{}' AND state = 'active' AND query = '{}'",
                self.database.name,
                sql.replace('\'', "''")
            );
            let active = Postgres::shared().activity(&filter).await;
            (active.len() == 1).then_some(()).ok_or(active)
        })
        .await;
    }

    /// Keeps whoever [`waits_for`] this number waiting until it is dropped.
    async fn keeps_waiting(&self, number: u8) -> tokio_postgres::Client {
        let keeper = self.database.client().await;
        let lock = format!("SELECT pg_advisory_lock({number})");
        keeper.batch_execute(&lock).await.unwrap();
        keeper
    }

    async fn allow(&self, uids: &str) {
        self.sidecar.reload(&yaml(&self.database, uids)).await;
    }

    /// Waits until so many were refused as users who are not allowed.
    async fn has_refused(&self, many: u64) {
        eventually(SOON, "it is counted", async || {
            let status = self.sidecar.get("/v1/status").await;
            let refused = &status["sessions"]["refused"]["cancel_not_allowed"];
            (refused.as_u64().unwrap_or(0) == many)
                .then_some(())
                .ok_or(status)
        })
        .await;
    }
}

fn yaml(database: &Database, uids: &str) -> String {
    format!(
        "{}listen: {{dir: '{{dir}}', mode: '0666', allow_uids: '{uids}', tcp: '127.0.0.1:0', \
         tcp_password_file: '{{dir}}/password'}}\ntelemetry: {{listen: off}}\n",
        upstream("app", &database.url())
    )
}

/// Proves the password.
async fn prove(raw: &mut Raw) {
    let mut scram = ScramSha256::new(PASSWORD.as_bytes(), ChannelBinding::unsupported());
    raw.read_until(b'R').await;
    raw.send_with(|out| {
        frontend::sasl_initial_response("SCRAM-SHA-256", scram.message(), out).unwrap();
    })
    .await;
    let first = raw.read().await.unwrap();
    scram.update(&first.body[4..]).unwrap();
    raw.send_with(|out| frontend::sasl_response(scram.message(), out).unwrap())
        .await;
    let last = raw.read().await.unwrap();
    scram.finish(&last.body[4..]).unwrap();
}

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|out| frontend::query(sql, out).unwrap())
        .await;
}

/// A query that answers when the keeper of this number lets it.
fn waits_for(number: u8, answer: &str) -> String {
    format!("SELECT '{answer}' FROM pg_advisory_lock_shared({number})")
}

fn only_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        println!("skipped: only root can be somebody else");
    }
    is_root
}

#[tokio::test]
async fn a_request_cancels_what_its_own_user_runs_or_tcp_and_nothing_of_another_origin() {
    if !only_root() {
        return;
    }
    let place = Place::new("origins").await;
    let holds = async |number: u8, own: Origin| {
        let keeper = place.keeps_waiting(number).await;
        let (mut raw, key) = place.enter(own, &format!("{own:?}")).await;
        let sql = waits_for(number, &format!("{own:?}"));
        send(&mut raw, &sql).await;
        place.runs(&sql).await;
        for other in [Ourselves, Stranger, Tcp] {
            if other != own {
                place.cancel(other, key).await;
            }
        }
        drop(keeper);
        let whole = raw.read_until(b'Z').await;
        assert_eq!(rows(&whole), [format!("{own:?}")], "{whole:?}");

        let sql = format!("SELECT '{own:?}' FROM pg_sleep(600)");
        send(&mut raw, &sql).await;
        place.runs(&sql).await;
        place.cancel(own, key).await;
        let told = raw.read_until(b'Z').await;
        assert_eq!(error(&told)[&'C'], "57014", "{own:?}");
    };
    tokio::join!(holds(1, Ourselves), holds(2, Stranger), holds(3, Tcp));
    place.has_refused(0).await;
}

#[tokio::test]
async fn a_user_who_may_not_connect_cancels_nothing_not_even_his_own() {
    if !only_root() {
        return;
    }
    let place = Place::new("barred").await;
    let (mut raw, key) = place.enter(Stranger, "his").await;
    let (mut ours, our_key) = place.enter(Ourselves, "ours").await;
    place.allow(&geteuid().to_string()).await;
    let keeper = place.keeps_waiting(1).await;
    let sql = waits_for(1, "whole");
    send(&mut raw, &sql).await;
    place.runs(&sql).await;
    place.cancel(Stranger, key).await;
    place.cancel(Stranger, our_key).await;
    place.cancel(Ourselves, key).await;
    place.has_refused(2).await;
    drop(keeper);
    assert_eq!(rows(&raw.read_until(b'Z').await), ["whole"]);
    assert_eq!(ours.ask("SELECT 1").await, "1");
    // Allowed again, he may.
    place.allow("any").await;
    let sql = "SELECT pg_sleep(600)";
    send(&mut raw, sql).await;
    place.runs(sql).await;
    place.cancel(Stranger, key).await;
    assert_eq!(error(&raw.read_until(b'Z').await)[&'C'], "57014");
}

#[tokio::test]
async fn who_waits_is_not_freed_by_a_request_of_another_origin() {
    if !only_root() {
        return;
    }
    let place = Place::new("waits").await;
    let yaml = yaml(&place.database, "any") + "pool: {size: 1, overflow: 0, timeout: 10m}\n";
    place.sidecar.reload(&yaml).await;
    let (mut holder, _) = place.enter(Ourselves, "a").await;
    holder.query("BEGIN").await;
    let (mut raw, key) = place.enter(Stranger, "a").await;
    send(&mut raw, "SELECT 'had'").await;
    place.sidecar.session_is("a", "waiting").await;
    place.cancel(Ourselves, key).await;
    place.cancel(Tcp, key).await;
    place.sidecar.session_is("a", "waiting").await;
    place.cancel(Stranger, key).await;
    assert_eq!(error(&raw.read_until(b'Z').await)[&'C'], "57014");
    drop(holder);
    assert_eq!(raw.ask("SELECT 'had'").await, "had");
}
