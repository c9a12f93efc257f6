//! What a client sends, what it waits for in between, and what of the answers may differ.

use std::time::Duration;

use tokio_postgres::Client;

use super::support::{Message, Raw};

/// Long enough that the other side reads what was sent before.
const MOMENT: Duration = Duration::from_millis(1);

/// A client's part of a session.
#[derive(Clone)]
pub(crate) struct Conversation {
    pub(crate) name: String,
    pub(crate) turns: Vec<Turn>,
}

/// What a client sends at once, and what it waits for before it goes on.
#[derive(Clone)]
pub(crate) struct Turn {
    pub(crate) sent: Vec<u8>,
    /// What another session of the database does once it is sent.
    pub(crate) meanwhile: Option<&'static str>,
    pub(crate) awaits: Await,
}

/// What a client waits for.
#[derive(Clone, Copy)]
pub(crate) enum Await {
    /// So many ReadyForQuery.
    Ready(usize),
    /// A message of a type.
    Kind(u8),
    /// So many messages.
    Messages(usize),
    /// The end of the session.
    End,
}

/// Where the client's bytes are cut: what comes behind a cut is sent a moment later.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Nowhere,
    At(usize),
    /// Behind each so many bytes of a turn.
    Each(usize),
}

impl Cut {
    pub(crate) const EVERYWHERE: Self = Self::Each(1);
}

impl Conversation {
    pub(crate) fn new(name: &str, turns: Vec<Turn>) -> Self {
        Self {
            name: name.to_owned(),
            turns,
        }
    }

    /// How many bytes the client sends.
    pub(crate) fn length(&self) -> usize {
        self.turns.iter().map(|turn| turn.sent.len()).sum()
    }

    /// Says the client's part, cut somewhere, and hears what it is told.
    pub(crate) async fn play(&self, raw: &mut Raw, cut: Cut, other: &Client) -> Vec<Message> {
        let (mut told, mut before) = (Vec::new(), 0);
        for turn in &self.turns {
            turn.send(raw, cut, before).await;
            if let Some(sql) = turn.meanwhile {
                other.batch_execute(sql).await.expect("another session can");
            }
            turn.hear(raw, &mut told).await;
            before += turn.sent.len();
        }
        told
    }
}

impl Turn {
    /// Sends it, where `before` bytes of the conversation were sent already.
    async fn send(&self, raw: &mut Raw, cut: Cut, before: usize) {
        let pieces: Vec<&[u8]> = match cut {
            Cut::Nowhere => vec![&self.sent],
            Cut::At(at) if at > before && at < before + self.sent.len() => {
                let (first, second) = self.sent.split_at(at - before);
                vec![first, second]
            }
            Cut::At(_) => vec![&self.sent],
            Cut::Each(size) => self.sent.chunks(size).collect(),
        };
        for (place, piece) in pieces.into_iter().enumerate() {
            if place > 0 {
                tokio::time::sleep(MOMENT).await;
            }
            // A server that has closed already says so in what is read.
            let _ = raw.try_send(piece).await;
        }
    }

    /// Hears what it waits for.
    pub(crate) async fn hear(&self, raw: &mut Raw, told: &mut Vec<Message>) {
        let mut left = match self.awaits {
            Await::Ready(count) | Await::Messages(count) => count,
            Await::Kind(_) | Await::End => 1,
        };
        while left > 0 {
            let Some(message) = raw.read().await else {
                return;
            };
            left -= usize::from(match self.awaits {
                Await::Ready(_) => message.kind == b'Z',
                Await::Kind(kind) => message.kind == kind,
                Await::Messages(_) => true,
                Await::End => false,
            });
            told.push(message);
        }
    }
}

/// The messages without what differs between any two sessions of one server, and what is ours.
/// This list is all of it:
/// - BackendKeyData and NotificationResponse tell a process id (and a key).
pub(crate) fn normalised(messages: &[Message]) -> Vec<Message> {
    let normal = |message: &Message| {
        let mut message = message.clone();
        match message.kind {
            b'K' => message.body = Vec::new(),
            b'A' => message.body[..4].fill(0),
            _ => {}
        }
        message
    };
    messages.iter().map(normal).collect()
}

/// Asserts that two runs were told the same.
#[track_caller]
pub(crate) fn assert_same(expected: &[Message], told: &[Message], what: &str) {
    let (expected, told) = (normalised(expected), normalised(told));
    if expected != told {
        panic!("{what}:\n directly {expected:?}\n  proxied {told:?}");
    }
}
