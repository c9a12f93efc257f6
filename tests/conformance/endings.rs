//! Conversations that end the session.
//!
//! A client is told what came before the end byte by byte as PostgreSQL tells it. The end itself
//! PostgreSQL tells in one of several ways, or not at all; execpool tells it with the same SQLSTATE.

use std::time::Duration;

use super::conversation::{Await, Conversation, Turn};
use super::messages::{batch, bind, execute, message, parse, query, sync, turn};
use super::support::Message;

/// What ends a session, and what it leaves in table `kept`.
pub(crate) struct Ending {
    pub(crate) conversation: Conversation,
    pub(crate) rows: i64,
    /// How long execpool waits at the end, for the server or for a client that does not read.
    pub(crate) patience: Duration,
}

/// How long a query may go on after a goodbye.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a client may take for its last answers, where they do not fit into the socket.
const GOODBYE: Duration = Duration::from_millis(40);

/// All of them. Each session is in a database with a table `kept(a int)`.
pub(crate) fn all() -> Vec<Ending> {
    let insert = || query("INSERT INTO kept VALUES (1)");
    let end = || message(b'X', b"");
    let unknown = || message(b'y', b"");
    let ending = |name: &str, turns: Vec<Turn>, rows| Ending {
        conversation: Conversation::new(name, turns),
        rows,
        patience: DRAIN,
    };
    let at_once =
        |name: &str, sent: &[Vec<u8>], rows| ending(name, vec![turn(sent, Await::End)], rows);
    let amid_copy = |name: &str, sent: Vec<u8>| {
        let turns = vec![
            turn(&[query("COPY kept FROM STDIN")], Await::Kind(b'G')),
            turn(&[message(b'd', b"1\n"), sent], Await::End),
        ];
        ending(name, turns, 0)
    };
    vec![
        at_once("goodbye", &[end()], 0),
        at_once("a query, and goodbye", &[insert(), end()], 1),
        at_once(
            "a query that takes its time, and goodbye",
            &[query("INSERT INTO kept SELECT 1 FROM pg_sleep(0.1)"), end()],
            1,
        ),
        at_once(
            "a pipeline, and goodbye",
            &[
                batch("INSERT INTO kept VALUES (1)"),
                sync(),
                batch("SELECT 1/0"),
                sync(),
                batch("INSERT INTO kept VALUES (2)"),
                sync(),
                end(),
            ],
            2,
        ),
        at_once(
            "a transaction that is left open, and goodbye",
            &[query("BEGIN"), insert(), end()],
            0,
        ),
        Ending {
            patience: GOODBYE,
            ..at_once(
                "much, and goodbye",
                &[
                    query("SELECT repeat('x', 100000) FROM generate_series(1, 10)"),
                    end(),
                ],
                0,
            )
        },
        at_once("an unknown type", &[unknown()], 0),
        at_once("a query, and an unknown type", &[insert(), unknown()], 1),
        at_once(
            "a pipeline, and an unknown type",
            &[
                parse("", "INSERT INTO kept VALUES (1)"),
                bind("", ""),
                execute("", 0),
                sync(),
                unknown(),
            ],
            1,
        ),
        at_once(
            "a query, and a length that is too short",
            &[insert(), b"Q\0\0\0\x03".to_vec()],
            1,
        ),
        at_once(
            "a query, and a length that is too long",
            &[insert(), b"S\0\0\x7f\xff".to_vec()],
            1,
        ),
        amid_copy("a query amid a copy", query("SELECT 1")),
        amid_copy("an unknown type amid a copy", unknown()),
        amid_copy("goodbye amid a copy", end()),
        at_once(
            "ended by an administrator",
            &[query("SELECT pg_terminate_backend(pg_backend_pid())")],
            0,
        ),
    ]
}

/// The SQLSTATE of protocol_violation.
const VIOLATION: &str = "08P01";

/// Whether two sessions were told the same up to their end, and of the end, if PostgreSQL
/// tells of it, the same SQLSTATE. What is told of a violation is in each one's own words.
pub(crate) fn ends_alike(
    conversation: &Conversation,
    expected: &[Message],
    told: &[Message],
) -> bool {
    let (before, end) = split(expected);
    let (told_before, told_end) = split(told);
    let last = conversation.turns.last().expect("it has turns");
    let is_goodbye = last.sent.ends_with(b"X\0\0\0\x04");
    let is_alike = match (end, told_end) {
        // Of a wrong length PostgreSQL tells its log alone.
        ([], []) => true,
        // Who says goodbye amid a COPY is reproved by PostgreSQL, and by nobody else.
        (_, []) => is_goodbye,
        ([], [ours]) => is_fatal_violation(ours),
        ([.., theirs], [.., ours]) => is_fatal_violation(theirs) && is_fatal_violation(ours),
        _ => false,
    };
    before == told_before && is_alike
}

/// What was told before the errors that end a session for what it sent.
fn split(told: &[Message]) -> (&[Message], &[Message]) {
    let is_violation =
        |message: &&Message| message.kind == b'E' && message.fields()[&'C'] == VIOLATION;
    let count = told.iter().rev().take_while(is_violation).count();
    told.split_at(told.len() - count)
}

fn is_fatal_violation(message: &Message) -> bool {
    let fields = message.fields();
    fields[&'V'] == "FATAL" && fields[&'C'] == VIOLATION
}
