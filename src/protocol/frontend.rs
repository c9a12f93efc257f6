//! What a client sends within its session, read as it passes through.
//!
//! Five bytes tell a message's type and length. The few types that say something about the session
//! are looked into, up to [`LOOK`] bytes; all other bytes are counted, never read. The framing is
//! the same in both directions, so [`super::backend`] shares it.

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
const HEADER: usize = 5;

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
    pub(super) range: Range<usize>,
    pub(super) truncated: bool,
}

/// Finds the messages in a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// How many bytes of a message that has begun to pass are still to come.
    left: usize,
}

impl Framing {
    pub(super) fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        rule: impl Fn(u8) -> Option<Rule>,
        mut on: impl FnMut(Frame<'a>) -> Result<(), Violation>,
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
                on(Frame {
                    kind,
                    body: &seen[HEADER..],
                    range: at..at + total,
                    truncated: look == Look::Whole && total > LOOK,
                })?;
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

/// A message of the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Where the message lies in the bytes that were fed, with its header. It ends behind them if
    /// the message is longer than [`LOOK`] or is CopyData.
    pub range: Range<usize>,
    /// Whether the message is longer than [`LOOK`], so that the text in it may be cut off.
    pub truncated: bool,
    /// What it says.
    pub message: Message<'a>,
}

/// What a prepared statement or portal is: the two kinds of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// What a message of the client's says. Texts are in the client's encoding, hence bytes; an empty
/// name is the unnamed statement or portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are those of the protocol's documentation.
pub enum Message<'a> {
    /// A simple query.
    Query { sql: &'a [u8] },
    /// Makes a prepared statement.
    Parse { name: &'a [u8], sql: &'a [u8] },
    /// Makes a portal of a prepared statement.
    Bind {
        portal: &'a [u8],
        statement: &'a [u8],
    },
    /// Runs a portal; 0 rows are all rows.
    Execute { portal: &'a [u8], max_rows: i32 },
    /// Drops a prepared statement or portal.
    Close { target: Target, name: &'a [u8] },
    /// Asks what a prepared statement or portal takes and gives.
    Describe { target: Target, name: &'a [u8] },
    /// Ends a batch of the extended protocol.
    Sync,
    /// Asks for the answers so far.
    Flush,
    /// Calls a function by its number; nothing else of it is read.
    FunctionCall,
    /// Rows of a COPY; its body passes unread.
    CopyData,
    /// The end of a COPY's rows.
    CopyDone,
    /// The end of a COPY that is given up.
    CopyFail { reason: &'a [u8] },
    /// The end of the session.
    Terminate,
}

/// Reads what a client sends within its session.
#[derive(Debug, Default)]
pub struct Scanner {
    framing: Framing,
}

impl Scanner {
    /// Reads the next bytes of the stream and tells `on` the messages in them, each once and in
    /// order. Returns how many of the bytes may be forwarded; the rest, fewer than [`LOOK`], the
    /// caller keeps and gives again at the beginning of the next call, with more behind it.
    ///
    /// # Errors
    /// The first thing that no client may send. Nothing more can be read from this stream; events
    /// of the messages before it have been told.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        self.framing.feed(bytes, rule, |frame| {
            let message = read(&frame)?;
            on(Event {
                range: frame.range,
                truncated: frame.truncated,
                message,
            });
            Ok(())
        })
    }

    /// Whether what may be forwarded so far ends between two messages.
    pub fn at_boundary(&self) -> bool {
        self.framing.at_boundary()
    }
}

/// The types a client may send in a session, with the limits of the server's own reader.
fn rule(kind: u8) -> Option<Rule> {
    Some(match kind {
        b'Q' | b'P' | b'B' => Rule::large(Look::Whole),
        b'F' | b'd' => Rule::large(Look::Header),
        b'C' | b'D' | b'E' | b'S' | b'H' | b'X' | b'c' | b'f' => Rule::small(Look::Whole),
        _ => return None,
    })
}

fn read<'a>(frame: &Frame<'a>) -> Result<Message<'a>, Violation> {
    let mut body = Body::new(frame);
    let message = match frame.kind {
        b'Q' => Message::Query { sql: body.text()? },
        b'P' => {
            let (name, sql) = (body.name()?, body.text()?);
            return Ok(Message::Parse { name, sql });
        }
        b'B' => {
            let (portal, statement) = (body.name()?, body.name()?);
            return Ok(Message::Bind { portal, statement });
        }
        b'E' => Message::Execute {
            portal: body.name()?,
            max_rows: i32::from_be_bytes(body.bytes()?),
        },
        b'C' => Message::Close {
            target: target(&mut body)?,
            name: body.name()?,
        },
        b'D' => Message::Describe {
            target: target(&mut body)?,
            name: body.name()?,
        },
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail {
            reason: body.text()?,
        },
        // The bodies of these are not the relay's to judge.
        b'F' => return Ok(Message::FunctionCall),
        b'd' => return Ok(Message::CopyData),
        b'X' => return Ok(Message::Terminate),
        kind => return Err(Violation::UnknownType { kind }),
    };
    body.end()?;
    Ok(message)
}

fn target(body: &mut Body<'_>) -> Result<Target, Violation> {
    match body.bytes()? {
        [b'S'] => Ok(Target::Statement),
        [b'P'] => Ok(Target::Portal),
        _ => Err(body.malformed()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// Feeds a stream cut at these points: what was forwarded, and each event with its place in the
    /// whole stream.
    pub(in super::super) fn feed_cut(
        stream: &[u8],
        cuts: &[usize],
        mut feed: impl FnMut(&[u8], usize, &mut Vec<String>) -> Result<usize, Violation>,
    ) -> Result<(Vec<u8>, Vec<String>), Violation> {
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let (mut forwarded, mut events) = (Vec::new(), Vec::new());
        for end in ends {
            let at = forwarded.len();
            let passed = feed(&stream[at..end], at, &mut events)?;
            forwarded.extend_from_slice(&stream[at..at + passed]);
            assert!(
                end - forwarded.len() < LOOK,
                "keeps less than it looks into"
            );
        }
        Ok((forwarded, events))
    }

    fn scan(stream: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<String>), Violation> {
        let mut scanner = Scanner::default();
        feed_cut(stream, cuts, |bytes, at, events| {
            scanner.feed(bytes, &mut |event| {
                let range = event.range.start + at..event.range.end + at;
                events.push(format!("{range:?} {} {:?}", event.truncated, event.message));
            })
        })
    }

    /// The messages of a stream fed at once, without their places.
    fn messages(stream: &[u8]) -> Result<Vec<String>, Violation> {
        let mut seen = Vec::new();
        Scanner::default().feed(stream, &mut |event| {
            seen.push(format!("{:?}", event.message))
        })?;
        Ok(seen)
    }

    #[test]
    fn each_type_is_read_as_the_documentation_lays_it_out() {
        let cases: [(u8, &[u8], Message<'_>); 13] = [
            (b'Q', b"select 1\0", Message::Query { sql: b"select 1" }),
            (
                b'P',
                b"s\0select $1\0\0\0",
                Message::Parse {
                    name: b"s",
                    sql: b"select $1",
                },
            ),
            (
                b'B',
                b"p\0s\0\0\0\0\0\0\0",
                Message::Bind {
                    portal: b"p",
                    statement: b"s",
                },
            ),
            (
                b'E',
                b"p\0\0\0\0\x07",
                Message::Execute {
                    portal: b"p",
                    max_rows: 7,
                },
            ),
            (
                b'C',
                b"Ss\0",
                Message::Close {
                    target: Target::Statement,
                    name: b"s",
                },
            ),
            (
                b'D',
                b"P\0",
                Message::Describe {
                    target: Target::Portal,
                    name: b"",
                },
            ),
            (b'S', b"", Message::Sync),
            (b'H', b"", Message::Flush),
            (b'F', b"\0\0\0\x01", Message::FunctionCall),
            (b'd', b"rows", Message::CopyData),
            (b'c', b"", Message::CopyDone),
            (b'f', b"why\0", Message::CopyFail { reason: b"why" }),
            (b'X', b"", Message::Terminate),
        ];
        for (kind, body, expected) in cases {
            let bytes = framed(kind, body);
            let mut seen = 0;
            let passed = Scanner::default().feed(&bytes, &mut |event| {
                assert_eq!((event.range, event.truncated), (0..bytes.len(), false));
                assert_eq!(event.message, expected);
                seen += 1;
            });
            assert_eq!((passed, seen), (Ok(bytes.len()), 1));
        }
    }

    #[test]
    fn what_no_client_may_send_is_a_protocol_violation() {
        let unknown = Violation::UnknownType { kind: b'G' };
        assert_eq!(messages(b"GET / HTTP/1.1"), Err(unknown));
        assert_eq!(unknown.sqlstate().as_str(), "08P01");
        for (kind, length, fine) in [
            (b'S', 3, false),
            (b'Q', 0, false),
            (b'E', 10_000, true),
            (b'E', 10_001, false),
            (b'd', (1 << 30) - 1, true),
            (b'd', 1 << 30, false),
        ] {
            let head = [&[kind][..], &u32::to_be_bytes(length)].concat();
            let expected = if fine {
                Ok(())
            } else {
                Err(Violation::Length { kind, length })
            };
            assert_eq!(messages(&head).map(drop), expected, "{length}");
        }
        for (kind, body) in [
            (b'Q', &b"select 1"[..]),
            (b'Q', b"a\0b\0"),
            (b'P', b"name\0sql"),
            (b'B', b"portal\0"),
            (b'E', b"\0\0\0"),
            (b'C', b"X\0"),
            (b'S', b"\0"),
        ] {
            let expected = Err(Violation::Malformed { kind });
            assert_eq!(messages(&framed(kind, body)), expected);
        }
    }

    #[test]
    fn a_long_message_is_told_by_its_beginning_and_passes_as_it_comes() {
        let bytes = framed(b'Q', &[vec![b'x'; 3 * LOOK], vec![0]].concat());
        let mut scanner = Scanner::default();
        let early = scanner.feed(&bytes[..LOOK - 1], &mut |_| panic!("too early"));
        assert_eq!(early, Ok(0));
        let mut seen = 0;
        let passed = scanner.feed(&bytes[..LOOK + 9], &mut |event| {
            assert_eq!((event.range, event.truncated), (0..bytes.len(), true));
            let sql = &bytes[HEADER..LOOK];
            assert_eq!(event.message, Message::Query { sql });
            seen += 1;
        });
        assert_eq!((passed, seen), (Ok(LOOK + 9), 1));
        assert!(!scanner.at_boundary());
        let rest = scanner.feed(&bytes[LOOK + 9..], &mut |_| panic!("told twice"));
        assert_eq!(rest, Ok(bytes.len() - LOOK - 9));
        assert!(scanner.at_boundary());
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let text = || {
            prop_oneof![
                8 => prop::collection::vec(1u8.., 0..40),
                1 => (1u8.., LOOK - 20..LOOK + 20).prop_map(|(byte, n)| vec![byte; n]),
            ]
        };
        prop_oneof![
            text().prop_map(|sql| framed(b'Q', &[&sql[..], b"\0"].concat())),
            text().prop_map(|sql| framed(b'P', &[b"n\0", &sql[..], b"\0\0\0"].concat())),
            text().prop_map(|values| framed(b'B', &[b"p\0s\0", &values[..]].concat())),
            text().prop_map(|data| framed(b'd', &data)),
            Just(framed(b'E', b"\0\0\0\0\0")),
            Just(framed(b'D', b"Sx\0")),
            Just(framed(b'S', b"")),
        ]
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_it_passes_whole_with_the_same_events(
            messages in prop::collection::vec(message(), 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let stream = messages.concat();
            let (forwarded, events) = scan(&stream, &cuts).unwrap();
            prop_assert_eq!(&forwarded, &stream);
            prop_assert_eq!(events.len(), messages.len());
            prop_assert_eq!(events, scan(&stream, &[]).unwrap().1);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(prop_oneof![Just(0), Just(b'Q'), Just(8), any::<u8>()], 0..200),
            cuts in prop::collection::vec(any::<usize>(), 0..5),
        ) {
            let _ = scan(&bytes, &cuts);
            let _ = scan(&framed(b"QPBEDCSHFcfdX"[bytes.len() % 13], &bytes), &cuts);
        }
    }
}
