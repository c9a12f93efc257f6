//! What a cancel request does in each state of a session: it stops what runs, and only that, or
//! nothing; the session works on. For keys that name a real backend and for those that don't.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use support::session::{assert_in, batch, error, kinds, rows};
use support::sidecar::upstream;
use support::{Database, Message, Postgres, Raw, SOON, Sidecar, eventually};

/// Above every process id that a server gives.
const SYNTHETIC: i32 = 4_194_304;
/// More than all buffers on the way hold.
const MUCH: &str = "SELECT repeat('x', 1000000) FROM generate_series(1, 100)";

/// Whether a session was told the backend that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Early,
    Late,
}

/// One server connection, and the session that is cancelled.
struct Place {
    database: Database,
    sidecar: Sidecar,
}

impl Place {
    async fn new(name: &str) -> Self {
        let database = Postgres::shared().database(name).await;
        let table = "CREATE TABLE t (a text)";
        database.client().await.batch_execute(table).await.unwrap();
        let yaml = upstream("app", &database.url())
            + "budget: {size: 1, overflow: 0}\npool: {timeout: 10m, notice_after: 10m}\n";
        let sidecar = Sidecar::start(yaml).await;
        // The key of all sessions is known from here on.
        drop(sidecar.session("app", "one").await);
        sidecar.settles().await;
        Self { database, sidecar }
    }

    /// A session that has not queried, with its key.
    async fn enter(&self, key: Key) -> (Raw, (i32, i32)) {
        let holder = match key {
            Key::Early => None,
            Key::Late => Some(self.holder().await),
        };
        let named = [("execpool.execution_id", "one")];
        let (raw, told) = self.sidecar.started("app", &named).await;
        assert_in(&told);
        let data = told.iter().find(|message| message.kind == b'K').unwrap();
        assert_eq!(data.key().0 > SYNTHETIC, key == Key::Late);
        if let Some(holder) = holder {
            drop(holder);
            eventually(SOON, "the holder has gone", async || {
                let budget = self.sidecar.get("/v1/status").await["budget"].take();
                if budget["used"] == 0 {
                    Ok(())
                } else {
                    Err(budget)
                }
            })
            .await;
        }
        (raw, data.key())
    }

    /// A session that has the one server connection.
    async fn holder(&self) -> Raw {
        let mut holder = self.sidecar.session("app", "one").await;
        holder.query("BEGIN").await;
        holder
    }

    /// Sends a request and waits until it was dealt with.
    async fn cancel(&self, (pid, key): (i32, i32)) {
        let mut request = self.sidecar.raw().await;
        request
            .send_with(|out| frontend::cancel_request(pid, key, out))
            .await;
        request.expect_closed().await;
    }

    async fn waits_in(&self, event: &str) {
        Postgres::shared().waits_in(&self.database, event).await;
    }

    async fn each(&self, state: impl AsyncFn(&Self, &mut Raw, (i32, i32))) {
        for key in [Key::Early, Key::Late] {
            let (mut raw, data) = self.enter(key).await;
            state(self, &mut raw, data).await;
            assert_whole(&mut raw, &format!("{key:?}")).await;
            drop(raw);
            self.sidecar.settles().await;
        }
    }
}

/// What comes next is not cancelled, and gets its own answer.
async fn assert_whole(raw: &mut Raw, what: &str) {
    let told = raw.query("SELECT 'whole' FROM pg_sleep(0.1)").await;
    assert_eq!(kinds(&told), "TDCZ", "{what}: {told:?}");
    assert_eq!(rows(&told), ["whole"], "{what}");
    assert_eq!(told[3].transaction_status(), 'I', "{what}");
}

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|out| frontend::query(sql, out).unwrap())
        .await;
}

fn segment(sql: &str, out: &mut BytesMut) {
    batch(sql, out);
    frontend::sync(out);
}

#[track_caller]
fn assert_cancelled(told: &[Message], status: char) {
    assert_eq!(error(told)[&'C'], "57014", "{told:?}");
    assert_eq!(told.last().unwrap().transaction_status(), status);
}

#[tokio::test]
async fn what_does_not_run_is_not_cancelled() {
    let place = Place::new("still").await;
    place
        .each(async |place, raw, key| {
            // Unbound.
            place.cancel(key).await;
            assert_whole(raw, "unbound").await;
            // Idle.
            place.cancel(key).await;
            assert_whole(raw, "idle").await;
            raw.query("BEGIN").await;
            place.cancel(key).await;
            let told = raw.query("SELECT 'in' FROM pg_sleep(0.05)").await;
            assert_eq!(rows(&told), ["in"], "in a transaction: {told:?}");
            raw.query("SELECT 1/0").await;
            place.cancel(key).await;
            assert_eq!(error(&raw.query("SELECT 1").await)[&'C'], "25P02");
            raw.query("ROLLBACK").await;
        })
        .await;
}

#[tokio::test]
async fn who_waits_in_the_queue_is_told_57014_and_stays() {
    let place = Place::new("queue").await;
    place
        .each(async |place, raw, key| {
            let holder = place.holder().await;
            send(raw, "SELECT 1").await;
            place.sidecar.session_is("one", "waiting").await;
            place.cancel(key).await;
            let told = raw.read_until(b'Z').await;
            assert_eq!(kinds(&told), "EZ");
            assert_cancelled(&told, 'I');
            place.cancel(key).await;
            drop(holder);
        })
        .await;
}

#[tokio::test]
async fn what_runs_is_cancelled_once_however_often_it_is_asked() {
    let place = Place::new("runs").await;
    place
        .each(async |place, raw, key| {
            for (is_simple, requests) in [(true, 1), (false, 1), (true, 3)] {
                match is_simple {
                    true => send(raw, "SELECT pg_sleep(600)").await,
                    false => {
                        raw.send_with(|out| segment("SELECT pg_sleep(600)", out))
                            .await;
                    }
                }
                place.waits_in("PgSleep").await;
                for _ in 0..requests {
                    place.cancel(key).await;
                }
                assert_cancelled(&raw.read_until(b'Z').await, 'I');
                assert_whole(raw, "behind it").await;
            }
            raw.query("BEGIN").await;
            send(raw, "SELECT pg_sleep(600)").await;
            place.waits_in("PgSleep").await;
            place.cancel(key).await;
            assert_cancelled(&raw.read_until(b'Z').await, 'E');
            raw.query("ROLLBACK").await;
        })
        .await;
}

#[tokio::test]
async fn of_a_pipeline_only_the_running_part_is_cancelled() {
    let place = Place::new("pipeline").await;
    place
        .each(async |place, raw, key| {
            raw.send_with(|out| {
                segment("SELECT 1", out);
                segment("SELECT pg_sleep(600)", out);
                segment("SELECT 3 FROM pg_sleep(0.1)", out);
                segment("SELECT 4 FROM pg_sleep(0.1)", out);
            })
            .await;
            place.waits_in("PgSleep").await;
            place.cancel(key).await;
            assert_eq!(rows(&raw.read_until(b'Z').await), ["1"]);
            assert_cancelled(&raw.read_until(b'Z').await, 'I');
            // PostgreSQL signals the backend and its process group: two signals for one request, the
            // second of which may fall on what comes behind, but on no more than one.
            let mut hit = 0;
            for whole in ["3", "4"] {
                let told = raw.read_until(b'Z').await;
                if rows(&told) != [whole] {
                    assert_cancelled(&told, 'I');
                    hit += 1;
                }
            }
            assert!(hit < 2, "both");
        })
        .await;
}

#[tokio::test]
async fn a_copy_is_cancelled_in_either_direction() {
    let place = Place::new("copies").await;
    place
        .each(async |place, raw, key| {
            send(raw, &format!("COPY ({MUCH}) TO STDOUT")).await;
            place.waits_in("ClientWrite").await;
            place.cancel(key).await;
            let told = raw.read_until(b'Z').await;
            assert_cancelled(&told, 'I');

            send(raw, "COPY t FROM STDIN").await;
            assert_eq!(kinds(&raw.read_until(b'G').await), "G");
            place.cancel(key).await;
            // The server looks when it next has a row.
            let row = || frontend::CopyData::new(&b"x\n"[..]).unwrap();
            raw.send_with(|out| row().write(out)).await;
            assert_cancelled(&raw.read_until(b'Z').await, 'I');
            assert_eq!(raw.ask("SELECT count(*) FROM t").await, "0");
        })
        .await;
}

#[tokio::test]
async fn wrong_keys_and_those_of_ended_sessions_cancel_nothing() {
    let place = Place::new("wrong").await;
    let (mut ended, old) = place.enter(Key::Early).await;
    let backend = ended.backend().await;
    drop(ended);
    place.sidecar.settles().await;
    place
        .each(async |place, raw, (pid, key)| {
            let keeper = place.database.client().await;
            let lock = "SELECT pg_advisory_lock(1)";
            keeper.batch_execute(lock).await.unwrap();
            let waits = "SELECT pg_backend_pid() FROM pg_advisory_lock_shared(1)";
            send(raw, waits).await;
            place.waits_in("advisory").await;
            for wrong in [
                old,
                (pid, !key),
                (pid, 0),
                (pid + 1, key),
                (backend, key ^ 1),
                (0, 0),
                (-1, key),
            ] {
                place.cancel(wrong).await;
            }
            drop(keeper);
            let told = raw.read_until(b'Z').await;
            assert_eq!(rows(&told), [backend.to_string()], "{told:?}");
        })
        .await;
}
