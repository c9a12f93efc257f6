//! Conversations of the extended protocol, in errors, and of what comes unasked.

use super::conversation::{Await, Conversation, Turn};
use super::messages::{
    batch, bind, bind_binary, close, describe, execute, flush, message, parse, parse_with, query,
    sync, turn, unasked,
};

const INT4: u32 = 23;
const BYTEA: u32 = 17;

/// All of them; each leaves the session idle.
pub(crate) fn all() -> Vec<Conversation> {
    [portals(), copies(), errors(), from_others()].concat()
}

fn said(name: &str, turns: Vec<Turn>) -> Conversation {
    Conversation::new(name, turns)
}

fn portals() -> Vec<Conversation> {
    use Await::{Kind, Ready};
    let series = "SELECT generate_series(1,3)";
    let values: [Option<&[u8]>; 3] = [Some(&[0, 0, 0, 7]), Some(b"\0S\xff"), None];
    let types = [INT4, BYTEA, INT4];
    vec![
        said(
            "binary parameters and results",
            vec![
                turn(
                    &[
                        parse_with("b", "SELECT $1 + 1, $2, $3, now() IS NULL", &types),
                        describe('S', "b"),
                        flush(),
                    ],
                    Kind(b'T'),
                ),
                turn(
                    &[
                        bind_binary("p", "b", &values),
                        describe('P', "p"),
                        execute("p", 0),
                        sync(),
                    ],
                    Ready(1),
                ),
            ],
        ),
        said(
            "flush, then close",
            vec![
                turn(
                    &[parse("s", "SELECT 1"), bind("p", "s"), flush()],
                    Kind(b'2'),
                ),
                turn(&[execute("p", 0), flush()], Kind(b'C')),
                turn(&[close('P', "p"), flush()], Kind(b'3')),
                turn(&[close('S', "s"), close('S', "never"), sync()], Ready(1)),
            ],
        ),
        said(
            "suspended, gone on with and closed",
            vec![
                turn(
                    &[parse("", series), bind("p", ""), execute("p", 1), flush()],
                    Kind(b's'),
                ),
                turn(&[execute("p", 1), flush()], Kind(b's')),
                turn(&[close('P', "p"), execute("p", 1), sync()], Ready(1)),
            ],
        ),
        said(
            "suspended across syncs in a transaction",
            vec![
                turn(&[query("BEGIN")], Ready(1)),
                turn(
                    &[parse("", series), bind("p", ""), execute("p", 2), sync()],
                    Ready(1),
                ),
                turn(&[execute("p", 2), close('P', "p"), sync()], Ready(1)),
                turn(&[query("COMMIT")], Ready(1)),
            ],
        ),
    ]
}

fn copies() -> Vec<Conversation> {
    use Await::{Kind, Ready};
    let begin = || {
        [
            query("CREATE TEMP TABLE t(a int)"),
            parse("", "COPY t FROM STDIN"),
            bind("", ""),
            execute("", 0),
        ]
        .concat()
    };
    let done = || [message(b'c', b""), sync()].concat();
    let rows = message(b'd', b"1\n2\n");
    let bad = message(b'd', b"1\nx\n");
    let count = || query("SELECT count(*) FROM t");
    vec![
        said(
            "copy in, extended, with a flush",
            vec![
                turn(&[begin(), flush()], Kind(b'G')),
                turn(&[rows.clone(), done(), count()], Ready(2)),
            ],
        ),
        said(
            "copy in, extended, as libpq does: a sync on either side",
            vec![
                turn(&[begin(), sync()], Kind(b'G')),
                turn(&[rows.clone(), done(), count()], Ready(2)),
            ],
        ),
        said(
            "copy in, extended, with a bad row",
            vec![
                turn(&[begin(), sync()], Kind(b'G')),
                turn(&[bad.clone(), rows.clone(), done()], Ready(1)),
                turn(&[count()], Ready(1)),
            ],
        ),
        said(
            "copy in, extended, with a bad row and a flush",
            vec![
                turn(&[begin(), flush()], Kind(b'G')),
                turn(&[bad], Kind(b'E')),
                turn(&[rows.clone(), done()], Ready(1)),
            ],
        ),
        said(
            "copy in, extended, given up",
            vec![
                turn(&[begin(), sync()], Kind(b'G')),
                turn(&[rows, message(b'f', b"why\0"), sync()], Ready(1)),
                turn(&[count()], Ready(1)),
            ],
        ),
        said(
            "copy out, extended",
            vec![turn(
                &[
                    batch("COPY (VALUES (1), (2)) TO STDOUT"),
                    batch("SELECT 1"),
                    sync(),
                ],
                Ready(1),
            )],
        ),
        said(
            "copy out, extended, with an error amid the rows",
            vec![turn(
                &[
                    batch("COPY (SELECT 1/(3-i) FROM generate_series(1,5) i) TO STDOUT"),
                    sync(),
                ],
                Ready(1),
            )],
        ),
        said(
            "replication in a session that is none",
            vec![turn(
                &[query("START_REPLICATION 0/0"), query("SELECT 1")],
                Ready(2),
            )],
        ),
    ]
}

fn errors() -> Vec<Conversation> {
    use Await::Ready;
    // A function that is none.
    let nothing = [0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 0, 0, 0];
    vec![
        said(
            "several in a transaction, one of which fails",
            vec![
                turn(&[query("BEGIN; SELECT 1; SELECT 1/0; COMMIT")], Ready(1)),
                turn(&[query("SELECT 1; SELECT 2"), query("ROLLBACK")], Ready(2)),
            ],
        ),
        said(
            "a pipeline in a transaction with errors in the middle",
            vec![turn(
                &[
                    batch("BEGIN"),
                    sync(),
                    batch("SELECT 1"),
                    batch("SELECT nothing"),
                    close('S', ""),
                    query("SELECT 'skipped'"),
                    sync(),
                    batch("SELECT 1"),
                    sync(),
                    query("ROLLBACK"),
                    batch("SELECT 2"),
                    flush(),
                    sync(),
                    sync(),
                ],
                Ready(6),
            )],
        ),
        said(
            "unknown statement, portal and function",
            vec![turn(
                &[
                    bind("", "never"),
                    sync(),
                    execute("never", 0),
                    sync(),
                    describe('P', "never"),
                    sync(),
                    message(b'F', &nothing),
                ],
                Ready(4),
            )],
        ),
        said(
            "empty ones",
            vec![turn(
                &[query(";"), batch(""), sync(), query(" -- nothing"), sync()],
                Ready(4),
            )],
        ),
        said(
            "messages of a copy outside of one",
            vec![turn(
                &[
                    message(b'd', b"1\n"),
                    message(b'c', b""),
                    message(b'f', b"why\0"),
                    flush(),
                    query("SELECT 1"),
                ],
                Ready(1),
            )],
        ),
    ]
}

/// What another session causes, told while this one is idle and while it is in a transaction.
fn from_others() -> Vec<Conversation> {
    use Await::{Kind, Ready};
    // The server tells what it does about a notification in NOTICEs of its own.
    let aloud = "SET client_min_messages = debug1; SET trace_notify = on";
    vec![
        said(
            "notified while idle",
            vec![
                turn(&[query("LISTEN c")], Ready(1)),
                unasked("NOTIFY c, 'one'", Kind(b'A')),
                unasked("NOTIFY c; NOTIFY c, 'three'", Await::Messages(2)),
                turn(&[query("SELECT 1")], Ready(1)),
            ],
        ),
        said(
            "notified while idle, with notices around",
            vec![
                turn(&[query("LISTEN c")], Ready(1)),
                turn(&[query(aloud)], Ready(1)),
                unasked("NOTIFY c, 'one'", Await::Messages(3)),
                turn(&[query("RESET trace_notify")], Ready(1)),
            ],
        ),
        said(
            "notified in a transaction",
            vec![
                turn(&[query("LISTEN c")], Ready(1)),
                turn(&[query("BEGIN")], Ready(1)),
                Turn {
                    sent: query("SELECT 1"),
                    meanwhile: Some("NOTIFY c, 'one'"),
                    awaits: Ready(1),
                },
                turn(&[query("COMMIT")], Await::Messages(3)),
            ],
        ),
    ]
}
