//! What a client sends within its session, read as it passes through.
//!
//! See [`super::frame`] for the framing.

use super::frame::{self, Body, Frame, Framing, Look, Rule, Violation};

/// A message of the client's.
pub type Event<'a> = frame::Event<Message<'a>>;

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
    /// order. Returns how many of the bytes may be forwarded; the rest, fewer than [`LOOK`](super::frame::LOOK), the
    /// caller keeps and gives again at the beginning of the next call, with more behind it.
    ///
    /// # Errors
    /// The first thing that no client may send. Nothing more can be read from this stream; events
    /// of the messages before it have been told.
    pub fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        on: &mut impl FnMut(Event<'a>),
    ) -> Result<usize, Violation> {
        self.framing.feed(bytes, rule, read, on)
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
    use super::super::frame::{HEADER, LOOK};
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
