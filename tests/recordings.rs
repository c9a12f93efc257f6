//! What drivers really send is answered through execpool as PostgreSQL answers it, byte by byte,
//! from their startup message to their goodbye, however the bytes of either side are cut.
//!
//! A program of a driver's is recorded once, straight at the server; what it sent is said again to
//! the server and to execpool.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[allow(
    dead_code,
    reason = "a recording waits for less than what is written by hand"
)]
#[path = "conformance/conversation.rs"]
mod conversation;

use conversation::{Await, Conversation, Cut, Turn, assert_same};
use support::recorder::{Recorder, Recording, Said};
use support::{Database, Fault, Message, Postgres, Proxy, Raw, SOON, Sidecar, driver, eventually};

/// What the programs work on. Its numbers stay the same from one run to the next.
const SCHEMA: &str = "CREATE TYPE mood AS ENUM ('sad', 'happy'); \
    CREATE TABLE items (a int PRIMARY KEY, b text, c jsonb, d int[], e bytea, f mood)";
/// The sizes into which a client's bytes are cut.
const SIZES: [usize; 4] = [1, 4, 7, 61];
/// In how many places the server's bytes are cut, one at a time.
const SPLITS: usize = 24;

/// Takes the whole messages off the beginning of what a server said.
fn take_whole(bytes: &mut Vec<u8>) -> Vec<Message> {
    let mut whole = Vec::new();
    while let Some(length) = bytes.get(1..5) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        if bytes.len() <= length {
            break;
        }
        let message: Vec<u8> = bytes.drain(..=length).collect();
        whole.push(Message {
            kind: message[0],
            body: message[5..].to_vec(),
        });
    }
    whole
}

fn says_goodbye(recording: &Recording) -> bool {
    matches!(recording.last(), Some(Said::Client(bytes)) if bytes.ends_with(b"X\0\0\0\x04"))
}

/// What a client sent, in turns: before it went on, it had heard so many messages. And these.
fn conversation_of(name: &str, recording: &Recording) -> (Conversation, Vec<Message>) {
    let mut turns: Vec<Turn> = Vec::new();
    let (mut told, mut cut_off, mut heard) = (Vec::new(), Vec::new(), usize::MAX);
    for said in recording {
        match said {
            Said::Client(bytes) if heard == 0 => {
                turns.last_mut().unwrap().sent.extend_from_slice(bytes);
            }
            Said::Client(bytes) => {
                heard = 0;
                turns.push(Turn {
                    sent: bytes.clone(),
                    meanwhile: None,
                    awaits: Await::Messages(0),
                });
            }
            Said::Server(bytes) => {
                cut_off.extend_from_slice(bytes);
                let whole = take_whole(&mut cut_off);
                heard += whole.len();
                turns.last_mut().unwrap().awaits = Await::Messages(heard);
                told.extend(whole);
            }
        }
    }
    assert!(cut_off.is_empty(), "{name}: the server was cut off");
    let last = turns.last_mut().expect("it has said something");
    last.awaits = Await::End;
    (Conversation::new(name, turns), told)
}

/// Runs `tests/drivers/{program}.py` and says again what it said.
async fn is_answered_alike(program: &str) {
    let postgres = Postgres::shared();
    let database = postgres.database(program).await;
    let other = database.client().await;
    other.batch_execute(SCHEMA).await.unwrap();
    let recorder = Recorder::start(postgres).await;
    driver::run(program, &recorder.url(&database)).await;
    let recording = eventually(SOON, "its goodbye is heard", async || {
        match recorder.recordings().as_slice() {
            [one] if says_goodbye(one) => Ok(one.clone()),
            [one] => Err(format!("{one:?}")),
            all => panic!("{program} uses {} connections", all.len()),
        }
    })
    .await;
    let (conversation, recorded) = conversation_of(program, &recording);
    assert!(conversation.turns.len() > 10, "a program of some length");

    let mut direct = Raw::connect(&postgres.socket()).await;
    let expected = conversation.play(&mut direct, Cut::Nowhere, &other).await;
    drop(direct);
    assert_same(&recorded, &expected, "the recording does not hold");
    play_proxied(&conversation, &expected, &database, &other).await;
}

async fn play_proxied(
    conversation: &Conversation,
    expected: &[Message],
    database: &Database,
    other: &tokio_postgres::Client,
) {
    let proxy = Proxy::unix(Postgres::shared()).await;
    let name = &database.name;
    let url = proxy.url(database);
    let yaml = format!("upstreams:\n  - name: {name}\n    url: \"{url}\"\n");
    let sidecar = Sidecar::start(yaml).await;
    let length: usize = expected.iter().map(|told| told.body.len() + 5).sum();
    let cuts = SIZES.map(|size| (Cut::Each(size), Fault::None));
    let splits =
        (1..=SPLITS).map(|part| (Cut::Nowhere, Fault::SplitAt(length * part / (SPLITS + 1))));
    for (cut, fault) in [(Cut::Nowhere, Fault::None)]
        .into_iter()
        .chain(cuts)
        .chain(splits)
    {
        proxy.set(fault);
        let mut raw = sidecar.raw().await;
        let told = conversation.play(&mut raw, cut, other).await;
        proxy.set(Fault::None);
        assert_same(
            expected,
            &told,
            &format!("{} {cut:?} {fault:?}", conversation.name),
        );
        drop(raw);
        sidecar.settles().await;
    }
}

#[tokio::test]
async fn what_psycopg_sends_is_answered_as_the_server_answers_it() {
    is_answered_alike("recorded_psycopg").await;
}

#[tokio::test]
async fn what_asyncpg_sends_is_answered_as_the_server_answers_it() {
    is_answered_alike("recorded_asyncpg").await;
}

#[tokio::test]
async fn what_sqlalchemy_sends_is_answered_as_the_server_answers_it() {
    is_answered_alike("recorded_sqlalchemy").await;
}
