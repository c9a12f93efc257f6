//! What the server sends within a session, read as it passes through.
//!
//! Rows and most else pass by their headers alone; see [`super::frame`] for the framing.

use super::frame::{self, Body, Frame, Framing, Look, Rule, Violation};

/// A message of the server's.
pub type Event<'a> = frame::Event<Message<'a>>;

/// What a message of the server's says. Texts are in the client's encoding, hence bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are those of the protocol's documentation.
pub enum Message<'a> {
    /// A round of queries is over; the status is `I`, `T` or `E`.
    ReadyForQuery { status: u8 },
    /// A setting has this value now.
    ParameterStatus { name: &'a [u8], value: &'a [u8] },
    /// An error, with its fields as they came.
    ErrorResponse { body: &'a [u8] },
    /// A notice, with its fields as they came.
    NoticeResponse { body: &'a [u8] },
    /// A statement is done.
    CommandComplete { tag: &'a [u8] },
    /// What a cancel request must name. The key has 4 bytes, more since protocol 3.2.
    BackendKeyData { pid: i32, key: &'a [u8] },
    /// The server waits for a COPY's rows.
    CopyInResponse,
    /// The server sends a COPY's rows.
    CopyOutResponse,
    /// Both stream to each other: replication.
    CopyBothResponse,
    /// NOTIFY from another session.
    NotificationResponse { pid: i32, channel: &'a [u8] },
    /// A message of the extended protocol, or a function call, is answered: ParseComplete,
    /// BindComplete, CloseComplete, NoData, RowDescription, PortalSuspended, EmptyQueryResponse or
    /// FunctionCallResponse; its body passes unread.
    Completion { kind: u8 },
}

/// Reads what a server sends within a session.
#[derive(Debug, Default)]
pub struct Scanner {
    framing: Framing,
}

impl Scanner {
    /// Reads the next bytes of the stream and tells `on` the messages in them that are looked into,
    /// each once and in order. Returns how many of the bytes may be forwarded; the rest, fewer than
    /// [`LOOK`](super::frame::LOOK), the caller keeps and gives again at the beginning of the
    /// next call, with more behind it.
    ///
    /// # Errors
    /// The first thing that no server sends. Nothing more can be read from this stream; events of
    /// the messages before it have been told.
    pub fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        on: &mut impl FnMut(Event<'a>),
    ) -> Result<usize, Violation> {
        self.framing.feed(bytes, rule, read, on)
    }

    /// How many bytes are still to come of a message that has begun to pass; 0 between two messages.
    pub fn left(&self) -> usize {
        self.framing.left()
    }

    /// Whether what may be forwarded so far ends between two messages.
    pub fn at_boundary(&self) -> bool {
        self.framing.at_boundary()
    }
}

fn rule(kind: u8) -> Option<Rule> {
    Some(match kind {
        b'Z' | b'K' => Rule::small(Look::Whole),
        b'S' | b'E' | b'N' | b'C' | b'A' => Rule::large(Look::Whole),
        b'G' | b'H' | b'W' => Rule::large(Look::Header),
        b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'T' | b'V' => Rule::large(Look::Header),
        // Rows, COPY rows and their end, parameters, authentication, negotiation.
        b'D' | b'd' | b'c' | b't' | b'R' | b'v' => Rule::large(Look::Nothing),
        _ => return None,
    })
}

fn read<'a>(frame: &Frame<'a>) -> Result<Message<'a>, Violation> {
    let mut body = Body::new(frame);
    let message = match frame.kind {
        b'Z' => match body.bytes()? {
            [status @ (b'I' | b'T' | b'E')] => Message::ReadyForQuery { status },
            _ => return Err(body.malformed()),
        },
        b'S' => Message::ParameterStatus {
            name: body.name()?,
            value: body.text()?,
        },
        b'C' => Message::CommandComplete { tag: body.text()? },
        b'E' => return Ok(Message::ErrorResponse { body: frame.body }),
        b'N' => return Ok(Message::NoticeResponse { body: frame.body }),
        b'K' => {
            let pid = i32::from_be_bytes(body.bytes()?);
            let key = &frame.body[4..];
            return Ok(Message::BackendKeyData { pid, key });
        }
        b'A' => {
            let pid = i32::from_be_bytes(body.bytes()?);
            let channel = body.name()?;
            return Ok(Message::NotificationResponse { pid, channel });
        }
        b'G' => return Ok(Message::CopyInResponse),
        b'H' => return Ok(Message::CopyOutResponse),
        b'W' => return Ok(Message::CopyBothResponse),
        kind => return Ok(Message::Completion { kind }),
    };
    body.end()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::super::frontend::tests::{feed_cut, framed};
    use super::super::message;
    use super::*;
    use proptest::prelude::*;

    fn scan(stream: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<String>), Violation> {
        let mut scanner = Scanner::default();
        feed_cut(stream, cuts, |bytes, at, events| {
            scanner.feed(bytes, &mut |event| {
                let range = event.range.start + at..event.range.end + at;
                events.push(format!("{range:?} {} {:?}", event.truncated, event.message));
            })
        })
    }

    #[test]
    fn our_own_messages_are_read_back() {
        let mut bytes = Vec::new();
        message::authentication_ok(&mut bytes);
        message::parameter_status("TimeZone", b"Etc/UTC", &mut bytes);
        message::backend_key_data(7, [1, 2, 3, 4], &mut bytes);
        message::ready_for_query(b'T', &mut bytes);
        let expected = [
            Message::ParameterStatus {
                name: b"TimeZone",
                value: b"Etc/UTC",
            },
            Message::BackendKeyData {
                pid: 7,
                key: &[1, 2, 3, 4],
            },
            Message::ReadyForQuery { status: b'T' },
        ];
        let mut seen = 0;
        let passed = Scanner::default().feed(&bytes, &mut |event| {
            assert_eq!(event.message, expected[seen]);
            seen += 1;
        });
        assert_eq!((passed, seen), (Ok(bytes.len()), expected.len()));
    }

    #[test]
    fn what_no_server_sends_is_a_violation() {
        for (bytes, expected) in [
            (framed(b'Q', b""), Violation::UnknownType { kind: b'Q' }),
            (framed(b'Z', b"X"), Violation::Malformed { kind: b'Z' }),
            (framed(b'Z', b""), Violation::Malformed { kind: b'Z' }),
            (framed(b'K', b"\0\0"), Violation::Malformed { kind: b'K' }),
            (framed(b'C', b"BEGIN"), Violation::Malformed { kind: b'C' }),
            (
                b"Z\0\0\0\x03".to_vec(),
                Violation::Length {
                    kind: b'Z',
                    length: 3,
                },
            ),
        ] {
            assert_eq!(scan(&bytes, &[]), Err(expected));
        }
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let body = || prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (prop::sample::select(&b"DdTENGH123nsIVtRvcW"[..]), body())
                .prop_map(|(kind, body)| framed(kind, &body)),
            (16_000usize..17_000).prop_map(|n| framed(b'E', &vec![b'M'; n])),
            (0usize..40_000).prop_map(|n| framed(b'D', &vec![0; n])),
            Just(framed(b'C', b"INSERT 0 1\0")),
            Just(framed(b'A', b"\0\0\0\x01channel\0payload\0")),
            Just(framed(b'S', b"name\0value\0")),
            Just(framed(b'Z', b"I")),
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
            prop_assert_eq!(events, scan(&stream, &[]).unwrap().1);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in prop::sample::select(&b"ZSENCKGHWA123nsITVDdctRv"[..]),
            cuts in prop::collection::vec(any::<usize>(), 0..5),
        ) {
            let _ = scan(&bytes, &cuts);
            let _ = scan(&framed(kind, &bytes), &cuts);
        }
    }
}
