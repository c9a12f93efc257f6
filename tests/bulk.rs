//! As much as PostgreSQL takes or gives in one piece passes, and what one side does not take is
//! not read of the other: execpool's memory stays as it is, and it does nothing while it waits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postgres_protocol::message::frontend;
use support::session::{error, kinds, place, rows};
use support::{Database, Postgres, Raw, SOON, Sidecar, eventually};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const MEBIBYTE: usize = 1 << 20;
/// Near what PostgreSQL allows for one field: 1 GiB with all that is around it.
const FIELD: usize = 1_000_000_000;
/// Pieces of 1 MiB: over 1 GiB.
const PIECES: usize = 1100;
/// What a session may add to the sidecar's memory.
const FLAT: u64 = 16 * MEBIBYTE as u64;
const BYTEA: u32 = 17;

/// The server needs several GiB for a field of this size: one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How much resident memory a sidecar has gained since.
struct Memory<'a> {
    sidecar: &'a Sidecar,
    before: u64,
}

impl<'a> Memory<'a> {
    fn of(sidecar: &'a Sidecar) -> Self {
        let before = sidecar.peak();
        Self { sidecar, before }
    }

    #[track_caller]
    fn assert_flat(&self) {
        let grown = self.sidecar.peak() - self.before;
        assert!(grown < FLAT, "it has grown by {} KiB", grown / 1024);
    }
}

async fn ask(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

/// Asserts that a body is some bytes of a header and then nothing but `x` and ends of lines.
fn is_x(at: &mut usize, header: usize, piece: &[u8], expected: &[u8]) {
    let behind = header.saturating_sub(*at).min(piece.len());
    for part in piece[behind..].chunks(expected.len()) {
        assert!(*part == expected[..part.len()], "something else within it");
    }
    *at += piece.len();
}

/// Parse, and Bind of one value of so many bytes up to its value, for `SELECT length($1)`.
fn before_value(length: usize) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    frontend::parse("", "SELECT length($1)", [BYTEA], &mut out).unwrap();
    // Unnamed portal and statement; one format, binary; one value; no format of results.
    let head = [0, 0, 0, 1, 0, 1, 0, 1];
    let total = 4 + head.len() + 4 + length + 2;
    out.extend_from_slice(b"B");
    out.extend_from_slice(&u32::try_from(total).unwrap().to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    out.to_vec()
}

/// What is behind the value: no formats of results, Execute and Sync.
fn behind_value() -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    out.extend_from_slice(&[0, 0]);
    frontend::execute("", 0, &mut out).unwrap();
    frontend::sync(&mut out);
    out.to_vec()
}

/// Sends one value, piece by piece, and counts what was taken.
async fn send_value(raw: &mut Raw, length: usize, taken: &AtomicUsize) {
    let piece = vec![b'x'; MEBIBYTE];
    raw.send(&before_value(length)).await;
    let mut left = length;
    while left > 0 {
        let size = left.min(piece.len());
        raw.send(&piece[..size]).await;
        taken.fetch_add(size, Ordering::SeqCst);
        left -= size;
    }
    raw.send(&behind_value()).await;
}

/// Waits until the server has its answer and nobody takes it. A large one takes it a while.
async fn waits_to_send(database: &Database) {
    let stuck = format!(
        "datname = '{}' AND wait_event = 'ClientWrite'",
        database.name
    );
    eventually(5 * SOON, "its server waits to send", async || {
        let stuck = Postgres::shared().activity(&stuck).await;
        if stuck.is_empty() { Err(()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_row_of_a_gigabyte_passes_and_is_not_kept() {
    let _alone = ALONE.lock().await;
    let (database, sidecar) = place("row", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.backend().await;
    let memory = Memory::of(&sidecar);
    ask(&mut raw, &format!("SELECT repeat('x', {FIELD})")).await;
    waits_to_send(&database).await;
    assert_eq!(raw.read().await.unwrap().kind, b'T');
    let (expected, mut at) = (vec![b'x'; MEBIBYTE], 0);
    let row = raw.skim(|piece| is_x(&mut at, 6, piece, &expected)).await;
    assert_eq!(row, Some((b'D', FIELD + 6)));
    assert_eq!(kinds(&raw.read_until(b'Z').await), "CZ");
    memory.assert_flat();
}

#[tokio::test]
async fn a_parameter_of_a_gigabyte_passes_and_is_not_kept() {
    let _alone = ALONE.lock().await;
    let (_database, sidecar) = place("parameter", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.backend().await;
    let memory = Memory::of(&sidecar);
    send_value(&mut raw, FIELD, &AtomicUsize::new(0)).await;
    let told = raw.read_until(b'Z').await;
    assert_eq!(rows(&told), [FIELD.to_string()], "{told:?}");
    memory.assert_flat();
}

#[tokio::test]
async fn a_row_that_is_too_long_for_the_server_is_its_own_error() {
    let _alone = ALONE.lock().await;
    let (_database, sidecar) = place("too_long", "").await;
    let mut raw = sidecar.session("app", "a").await;
    let told = raw.query("SELECT repeat('x', 1100000000)").await;
    assert_eq!(error(&told)[&'C'], "54000", "{told:?}");
    assert_eq!(raw.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn copies_of_over_a_gibibyte_pass_either_way_and_are_not_kept() {
    let _alone = ALONE.lock().await;
    let (_database, sidecar) = place("copies", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("CREATE TEMP TABLE t (a text)").await;
    let memory = Memory::of(&sidecar);

    // All is read; of it, the last row is kept.
    ask(&mut raw, "COPY t FROM STDIN WHERE a = 'end'").await;
    assert_eq!(raw.read_until(b'G').await.len(), 1);
    let mut line = vec![b'x'; MEBIBYTE - 1];
    line.push(b'\n');
    let mut message = vec![b'd'];
    message.extend(u32::try_from(MEBIBYTE + 4).unwrap().to_be_bytes());
    message.extend_from_slice(&line);
    for _ in 0..PIECES {
        raw.send(&message).await;
    }
    raw.send(b"d\0\0\0\x08end\nc\0\0\0\x04").await;
    let told = raw.read_until(b'Z').await;
    assert_eq!(told[0].body, b"COPY 1\0", "{told:?}");
    memory.assert_flat();

    let sql = format!(
        "COPY (SELECT repeat('x', {MEBIBYTE} - 1) FROM generate_series(1, {PIECES})) TO STDOUT"
    );
    ask(&mut raw, &sql).await;
    assert_eq!(raw.read_until(b'H').await.len(), 1);
    for _ in 0..PIECES {
        let mut at = 0;
        let row = raw.skim(|piece| {
            let rest = &line[at..];
            assert!(*piece == rest[..piece.len()], "something else within it");
            at += piece.len();
        });
        assert_eq!(row.await, Some((b'd', MEBIBYTE)));
    }
    assert_eq!(kinds(&raw.read_until(b'Z').await), "cCZ");
    memory.assert_flat();
}

/// A sidecar that waits uses no processor, keeps nothing, and serves the others.
async fn waits_well(sidecar: &Sidecar, memory: &Memory<'_>, neighbour: Option<&mut Raw>) {
    // What has begun to move comes to its rest first.
    eventually(SOON, "it uses no processor", async || {
        let before = sidecar.ticks();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let used = sidecar.ticks() - before;
        if used <= 3 { Ok(()) } else { Err(used) }
    })
    .await;
    if let Some(neighbour) = neighbour {
        assert_eq!(neighbour.ask("SELECT 1").await, "1");
    }
    memory.assert_flat();
}

#[tokio::test]
async fn while_a_client_reads_nothing_nothing_is_kept_and_all_arrives_when_it_reads() {
    let _alone = ALONE.lock().await;
    let (database, sidecar) = place("no_reader", "").await;
    let mut neighbour = sidecar.session("app", "b").await;
    neighbour.backend().await;
    let mut raw = sidecar.session("app", "a").await;
    raw.backend().await;
    let memory = Memory::of(&sidecar);
    ask(
        &mut raw,
        "SELECT repeat('x', 1000000) FROM generate_series(1, 300)",
    )
    .await;
    waits_to_send(&database).await;
    waits_well(&sidecar, &memory, Some(&mut neighbour)).await;
    assert_eq!(raw.read().await.unwrap().kind, b'T');
    let expected = vec![b'x'; MEBIBYTE];
    for _ in 0..300 {
        let mut at = 0;
        let row = raw.skim(|piece| is_x(&mut at, 6, piece, &expected)).await;
        assert_eq!(row, Some((b'D', 1_000_006)));
    }
    assert_eq!(kinds(&raw.read_until(b'Z').await), "CZ");
    memory.assert_flat();
}

const LONG: usize = 200_000_000;

/// Sends in a task of its own, after `first`, and waits until nothing more is taken.
async fn stuck_in_sending(mut raw: Raw, first: &str) -> JoinHandle<Raw> {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    ask(&mut raw, first).await;
    let sending = tokio::spawn(async move {
        send_value(&mut raw, LONG, &counted).await;
        raw
    });
    let mut last = usize::MAX;
    eventually(SOON, "nothing more is taken", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = taken.load(Ordering::SeqCst);
        let is_stuck = now == last;
        last = now;
        if is_stuck { Ok(()) } else { Err(now) }
    })
    .await;
    assert!(last < LONG / 10, "{last} bytes were taken");
    sending
}

/// All that was sent has arrived.
async fn arrives(sending: JoinHandle<Raw>) {
    let mut raw = sending.await.unwrap();
    let first = raw.read_until(b'Z').await;
    assert_eq!(kinds(&first), "TDCZ", "{first:?}");
    let second = raw.read_until(b'Z').await;
    assert_eq!(rows(&second), [LONG.to_string()], "{second:?}");
}

#[tokio::test]
async fn while_a_server_reads_nothing_nothing_is_kept_and_all_arrives_when_it_reads() {
    let _alone = ALONE.lock().await;
    let (database, sidecar) = place("busy", "").await;
    let mut neighbour = sidecar.session("app", "b").await;
    neighbour.backend().await;
    let mut raw = sidecar.session("app", "a").await;
    raw.backend().await;
    let holder = database.client().await;
    holder
        .batch_execute("SELECT pg_advisory_lock(7)")
        .await
        .unwrap();
    let memory = Memory::of(&sidecar);
    let sending = stuck_in_sending(raw, "SELECT pg_advisory_lock(7)").await;
    waits_well(&sidecar, &memory, Some(&mut neighbour)).await;
    holder
        .batch_execute("SELECT pg_advisory_unlock(7)")
        .await
        .unwrap();
    arrives(sending).await;
    memory.assert_flat();
}

#[tokio::test]
async fn while_a_session_waits_in_the_queue_nothing_is_kept_and_all_arrives_when_it_is_served() {
    let _alone = ALONE.lock().await;
    let more = "budget: {size: 1, overflow: 0}\npool: {timeout: 10m}\n";
    let (_database, sidecar) = place("queue", more).await;
    let mut holder = sidecar.session("app", "b").await;
    holder.backend().await;
    let raw = sidecar.session("app", "a").await;
    let memory = Memory::of(&sidecar);
    let sending = stuck_in_sending(raw, "SELECT 1").await;
    waits_well(&sidecar, &memory, None).await;
    drop(holder);
    arrives(sending).await;
    memory.assert_flat();
}
