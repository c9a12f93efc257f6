//! The first packet of a client.

use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::message::Report;
use crate::protocol::startup::{MAX_STARTUP, Packet, Startup, parse};

use super::line::Line;
use super::words;

/// How long a client may take to say who it is and, where it must, to prove it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What a client wants.
pub(super) enum Greeting {
    /// A session; with it, what the client has sent behind its startup message.
    Startup(Box<Startup>, Vec<u8>),
    /// That another session is cancelled.
    Cancel {
        /// The process id from that session's BackendKeyData.
        pid: i32,
        /// The key from that session's BackendKeyData.
        key: [u8; 4],
    },
    /// Nothing: it has gone.
    Gone,
    /// What it sent is refused; with it, a word for counting.
    Refused(Report, &'static str),
}

/// Reads until the client has said what it wants. Encryption is declined: the connection is local.
pub(super) async fn greet(line: &Line, deadline: Instant) -> Greeting {
    match tokio::time::timeout_at(deadline, read(line)).await {
        Ok(greeting) => greeting,
        Err(_) => Greeting::Refused(words::startup_timeout(PATIENCE), "timeout"),
    }
}

async fn read(line: &Line) -> Greeting {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes) {
            Err(error) => return Greeting::Refused(error.report(), error.kind()),
            Ok(Some((packet, length))) => {
                bytes.drain(..length);
                match packet {
                    Packet::Startup(startup) => return Greeting::Startup(Box::new(startup), bytes),
                    Packet::Cancel { pid, key } => return Greeting::Cancel { pid, key },
                    Packet::Ssl | Packet::GssEnc => {
                        if line.write(b"N").await.is_err() {
                            return Greeting::Gone;
                        }
                    }
                }
            }
            Ok(None) => match line.read(&mut bytes, MAX_STARTUP).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Greeting::Gone,
            },
        }
    }
}
