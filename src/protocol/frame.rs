//! How the messages of both directions stand in their streams.
//!
//! Five bytes tell a message's type and length. The few types that say something about the session
//! are looked into, up to [`LOOK`] bytes; all other bytes are counted, never read.

use std::ops::Range;

use super::message::SqlState;

/// How much of one message is looked into, in bytes with its header. Whoever feeds a scanner needs
/// a buffer of at least this size.
pub const LOOK: usize = 16 * 1024;

/// The longest length word of a message with a text or data: what the server can allocate at once.
const LARGE: u32 = (1 << 30) - 1;
/// The longest length word of all other messages, as in the server.
const SMALL: u32 = 10_000;
/// Type and length.
pub(super) const HEADER: usize = 5;

/// Why the bytes are not a message that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A type byte that this side never sends in a session.
    #[error("invalid message type 0x{kind:02X}")]
    UnknownType {
        /// The type byte.
        kind: u8,
    },
    /// A length that does not count itself, or is above the limit of its type.
    #[error("invalid length {length} of a message of type 0x{kind:02X}")]
    Length {
        /// The type byte.
        kind: u8,
        /// The length word.
        length: u32,
    },
    /// The message's fields do not fill it as its type demands: a missing zero byte, most often.
    /// Also a name that does not end within [`LOOK`]; the server's own are 63 bytes long at most.
    #[error("malformed message of type 0x{kind:02X}")]
    Malformed {
        /// The type byte.
        kind: u8,
    },
}

impl Violation {
    /// The SQLSTATE to report: always `protocol_violation`, 08P01.
    pub fn sqlstate(&self) -> SqlState {
        SqlState::PROTOCOL_VIOLATION
    }
}

/// How far a message of some type is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It passes without an event.
    Nothing,
    /// An event as soon as its header is there.
    Header,
    /// An event once it is there whole, or its first [`LOOK`] bytes are.
    Whole,
}

/// What holds for all messages of one type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    look: Look,
    limit: u32,
}

impl Rule {
    pub(super) const fn small(look: Look) -> Self {
        Self { look, limit: SMALL }
    }

    pub(super) const fn large(look: Look) -> Self {
        Self { look, limit: LARGE }
    }
}

/// One message that is looked into.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    /// What of the message is at hand, without its header.
    pub(super) body: &'a [u8],
    pub(super) truncated: bool,
}

/// A message that is looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<M> {
    /// Where the message lies in the bytes that were fed, with its header. It ends behind them if
    /// the message is longer than [`LOOK`] or passes by its header.
    pub range: Range<usize>,
    /// Whether the message is longer than [`LOOK`], so that its body or the last text in it may be
    /// cut off.
    pub truncated: bool,
    /// What it says.
    pub message: M,
}

/// Finds the messages in a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// How many bytes of a message that has begun to pass are still to come.
    left: usize,
}

impl Framing {
    /// Tells `on` what `read` makes of each message that `rule` wants looked into; returns how many
    /// How many bytes of a message that has begun to pass are still to come.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// of the bytes may be forwarded.
    pub(super) fn feed<'a, M>(
        &mut self,
        bytes: &'a [u8],
        rule: fn(u8) -> Option<Rule>,
        read: impl Fn(&Frame<'a>) -> Result<M, Violation>,
        on: &mut impl FnMut(Event<M>),
    ) -> Result<usize, Violation> {
        let mut at = self.left.min(bytes.len());
        self.left -= at;
        while let Some(&[kind, a, b, c, d]) = bytes[at..].first_chunk::<HEADER>() {
            let Rule { look, limit } = rule(kind).ok_or(Violation::UnknownType { kind })?;
            let length = u32::from_be_bytes([a, b, c, d]);
            if length < 4 || length > limit {
                return Err(Violation::Length { kind, length });
            }
            let total = length as usize + 1;
            let needed = match look {
                Look::Nothing | Look::Header => HEADER,
                Look::Whole => total.min(LOOK),
            };
            let Some(seen) = bytes.get(at..at + needed) else {
                break;
            };
            if look != Look::Nothing {
                let truncated = look == Look::Whole && total > LOOK;
                let message = read(&Frame {
                    kind,
                    body: &seen[HEADER..],
                    truncated,
                })?;
                on(Event {
                    range: at..at + total,
                    truncated,
                    message,
                });
            }
            let end = bytes.len().min(at + total);
            self.left = at + total - end;
            at = end;
        }
        Ok(at)
    }

    pub(super) fn at_boundary(&self) -> bool {
        self.left == 0
    }
}

/// Takes the fields off the body of one message.
pub(super) struct Body<'a> {
    kind: u8,
    rest: &'a [u8],
    truncated: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(frame: &Frame<'a>) -> Self {
        Self {
            kind: frame.kind,
            rest: frame.body,
            truncated: frame.truncated,
        }
    }

    /// A name: ends at a zero byte, which must be within what is at hand.
    pub(super) fn name(&mut self) -> Result<&'a [u8], Violation> {
        let end = memchr::memchr(0, self.rest).ok_or(self.malformed())?;
        let name = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(name)
    }

    /// A text: ends at a zero byte, or where the look ends.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Violation> {
        match memchr::memchr(0, self.rest) {
            None if self.truncated => Ok(std::mem::take(&mut self.rest)),
            _ => self.name(),
        }
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// The end of a message whose fields are all read.
    pub(super) fn end(&self) -> Result<(), Violation> {
        if self.rest.is_empty() || self.truncated {
            return Ok(());
        }
        Err(self.malformed())
    }

    pub(super) fn malformed(&self) -> Violation {
        Violation::Malformed { kind: self.kind }
    }
}
