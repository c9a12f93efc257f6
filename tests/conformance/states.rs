//! Conversations for the states of the protocol, written by hand. Those of the extended protocol
//! alone are in [`super::extended`].

use super::conversation::{Await, Conversation};
use super::messages::{batch, bind, execute, message, parse, query, sync, turn};

/// All of them; each leaves the session idle.
pub(crate) fn all() -> Vec<Conversation> {
    use Await::{Kind, Ready};
    let one = |name: &str, sent: &[Vec<u8>], ready| {
        Conversation::new(name, vec![turn(sent, Ready(ready))])
    };
    let copy = "CREATE TEMP TABLE t(a int); COPY t FROM STDIN; SELECT a + 0 FROM t";
    let rows = message(b'd', b"1\n2\n");
    let function = [
        0, 0, 5, 117, 0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 255, 255, 255, 249, 0, 1,
    ];
    vec![
        one("simple", &[query("SELECT 1 AS a, NULL")], 1),
        one(
            "several, one of which fails",
            &[query("SELECT 1; SELECT 1/0; SELECT 2")],
            1,
        ),
        one("empty", &[query("")], 1),
        one("sync alone", &[sync()], 1),
        one(
            "pipeline",
            &[
                batch("SELECT 1"),
                sync(),
                batch("SELECT 1/0"),
                batch("SELECT 2"),
                sync(),
                batch(""),
                sync(),
            ],
            3,
        ),
        one(
            "named",
            &[
                parse("s", "SELECT 1"),
                message(b'D', b"Ss\0"),
                bind("p", "s"),
                execute("p", 0),
                message(b'C', b"Pp\0"),
                message(b'C', b"Ss\0"),
                sync(),
            ],
            1,
        ),
        Conversation::new(
            "flush",
            vec![
                turn(&[batch("SELECT 1"), message(b'H', b"")], Kind(b'C')),
                turn(&[sync()], Ready(1)),
            ],
        ),
        Conversation::new(
            "row limit",
            vec![
                turn(
                    &[
                        parse("", "SELECT generate_series(1,3)"),
                        bind("", ""),
                        execute("", 2),
                        message(b'H', b""),
                    ],
                    Kind(b's'),
                ),
                turn(&[execute("", 2), sync()], Ready(1)),
            ],
        ),
        one("function call", &[message(b'F', &function)], 1),
        one(
            "failed transaction",
            &[
                query("BEGIN"),
                query("SELECT 1/0"),
                query("SELECT 1"),
                query("COMMIT"),
            ],
            4,
        ),
        one(
            "notice, parameter, notification",
            &[
                query("DO 'BEGIN RAISE NOTICE $$x$$; END'"),
                query("SET TimeZone='Asia/Tokyo'"),
                query("LISTEN c; NOTIFY c, 'x'"),
            ],
            3,
        ),
        Conversation::new(
            "copy in",
            vec![
                turn(&[query(copy)], Kind(b'G')),
                turn(&[rows.clone(), message(b'c', b"")], Ready(1)),
            ],
        ),
        Conversation::new(
            "copy given up",
            vec![
                turn(&[query(copy)], Kind(b'G')),
                turn(&[rows.clone(), message(b'f', b"why\0")], Ready(1)),
            ],
        ),
        Conversation::new(
            "copy with a bad row",
            vec![
                turn(&[query(copy)], Kind(b'G')),
                turn(&[message(b'd', b"x\n"), rows, message(b'c', b"")], Ready(1)),
            ],
        ),
        one("copy out", &[query("COPY (VALUES (1), (2)) TO STDOUT")], 1),
    ]
}
