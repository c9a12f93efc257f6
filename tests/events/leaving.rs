//! Readers that leave, in every way, and readers that do not read.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::follow::{has_begun, last, provoke};
use crate::reader::{Reader, assert_gapless};
use crate::support::session::place;
use crate::support::{SOON, Sidecar, eventually};

/// How long execpool waits for a reader that reads nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the sidecar has no more descriptors than before.
pub(crate) async fn descriptors_are(sidecar: &Sidecar, before: usize) {
    eventually(
        SOON,
        "the descriptors are given back",
        async || match sidecar.descriptors() {
            now if now <= before => Ok(()),
            now => Err((now, before)),
        },
    )
    .await;
}

/// The sidecar's descriptors, once connections that were closed lately are gone.
pub(crate) async fn descriptors(sidecar: &Sidecar) -> usize {
    let (mut before, mut same) = (usize::MAX, 0);
    eventually(SOON, "the descriptors stay as they are", async || {
        // Who is answered has come after those who have left before.
        sidecar.get("/v1/status").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = sidecar.descriptors();
        let is_same = now == std::mem::replace(&mut before, now);
        same = if is_same { same + 1 } else { 0 };
        (same == 3).then_some(now).ok_or(now)
    })
    .await
}

/// A reader by hand, that has read the head of its stream.
pub(crate) fn by_hand(sidecar: &Sidecar, query: &str) -> UnixStream {
    let mut stream = UnixStream::connect(sidecar.control_socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let request = format!("GET /v1/events?{query} HTTP/1.1\r\nHost: execpool\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{head:?}");
    stream
}

#[tokio::test]
async fn readers_that_leave_in_any_way_leave_nothing() {
    let (_database, sidecar) = place("leaving", "").await;
    has_begun(&sidecar).await;
    let before = descriptors(&sidecar).await;
    for way in ["close", "reset", "half-close", "kill"] {
        let mut streams: Vec<UnixStream> = Vec::new();
        let mut children = Vec::new();
        for _ in 0..20 {
            match way {
                "kill" => {
                    let child = Command::new(env!("CARGO_BIN_EXE_execpool"))
                        .args(["events", "--since", "0", "--socket"])
                        .arg(sidecar.control_socket())
                        .stdout(Stdio::piped())
                        .spawn()
                        .unwrap();
                    children.push(child);
                }
                // What is unread at its close resets a Unix socket.
                "reset" => streams.push(by_hand(&sidecar, "last_event_id=0")),
                _ => streams.push(by_hand(&sidecar, "")),
            }
        }
        for child in &mut children {
            // It has begun to read.
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut [0; 1])
                .unwrap();
        }
        if way == "reset" {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(sidecar.descriptors() >= before + 20, "{way}");
        for stream in &streams {
            if way == "half-close" {
                stream.shutdown(Shutdown::Write).unwrap();
            }
        }
        let halves = match way {
            "half-close" => streams,
            _ => {
                drop(streams);
                Vec::new()
            }
        };
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        descriptors_are(&sidecar, before).await;
        drop(halves);
    }
    let mut reader = Reader::open(&sidecar, "").await;
    reader.is_in().await;
    provoke(&sidecar, 1).await;
    assert_eq!(reader.next().await.unwrap().name, "reconnect");
}

#[tokio::test]
async fn who_does_not_read_harms_nobody_and_is_cut_off_and_comes_back() {
    let (_database, sidecar) = place("slow", "").await;
    has_begun(&sidecar).await;
    let begun = last(&sidecar).await;
    let before = descriptors(&sidecar).await;
    let memory = sidecar.rss();
    let slow: Vec<UnixStream> = (0..20).map(|_| by_hand(&sidecar, "")).collect();
    let mut fast = Reader::open(&sidecar, "").await;
    fast.is_in().await;
    let start = Instant::now();
    // More than a socket, and all that execpool makes in advance, hold.
    let provoking = provoke(&sidecar, 4000);
    let reading = fast.reaches(begun + 4000);
    let ((), told) = tokio::join!(provoking, reading);
    assert_gapless(&told, begun);
    let grown = sidecar.rss().saturating_sub(memory);
    assert!(grown < 20 << 20, "{grown} bytes for 20 that do not read");
    eventually(
        PATIENCE + SOON,
        "they are cut off",
        async || match sidecar.descriptors() {
            now if now <= before + 1 => Ok(()),
            now => Err((now, before)),
        },
    )
    .await;
    let took = start.elapsed();
    assert!(took >= PATIENCE, "not patiently: {took:?}");
    let mut text = String::new();
    let mut one = slow.into_iter().next().unwrap();
    // It ends amid a piece.
    let _ = one.read_to_string(&mut text);
    let blocks = text.rsplit("\n\n").skip(1);
    let ids = blocks.filter_map(|block| {
        let line = block.lines().find_map(|line| line.strip_prefix("id: "))?;
        line.parse::<u64>().ok()
    });
    let read = ids.max().expect("it had read something");
    assert!(read < begun + 4000, "it was cut off before the end");
    // Back with an id that is kept, it has lost nothing.
    let newest = last(&sidecar).await;
    let query = format!("last_event_id={}", newest - 900);
    let mut back = Reader::open(&sidecar, &query).await;
    let told = back.reaches(newest).await;
    assert_gapless(&told, newest - 900);
}
