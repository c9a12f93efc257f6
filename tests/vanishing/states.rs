//! The states that a session can be in when one of its ends goes.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::support::session::batch;

/// A state, and how a session gets there.
pub(crate) struct State {
    pub(crate) name: &'static str,
    /// What is sent in place of a startup message, where it is before that.
    pub(crate) startup: Option<Vec<u8>>,
    /// What is sent in the session.
    pub(crate) sent: Vec<u8>,
    pub(crate) reached: Reached,
}

/// How one sees that it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reached {
    /// There is nothing to see.
    AtOnce,
    /// The session is in this state, as execpool tells.
    Session(&'static str),
    /// Its backend waits for this.
    Event(&'static str),
    /// Its backend is in this state.
    Server(&'static str),
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    encoded(|out| frontend::query(sql, out).unwrap())
}

pub(crate) fn segment(sql: &str) -> Vec<u8> {
    encoded(|out| {
        batch(sql, out);
        frontend::sync(out);
    })
}

pub(crate) fn copy_data(bytes: &[u8]) -> Vec<u8> {
    encoded(|out| frontend::CopyData::new(bytes).unwrap().write(out))
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.to_vec()
}

/// The first half of it.
fn half(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// Marks the session, so that it can be seen whether the next one gets it.
const MARK: &str =
    "SET work_mem = '1MB'; LISTEN c; SELECT pg_advisory_lock(1); PREPARE p AS SELECT 1";

/// More than all buffers on the way hold.
pub(crate) const MUCH: &str = "SELECT repeat('x', 1000000) FROM generate_series(1, 100)";

pub(crate) fn all() -> Vec<State> {
    use Reached::{AtOnce, Event, Server, Session};
    let state = |name, sent: &[Vec<u8>], reached| State {
        name,
        startup: None,
        sent: sent.concat(),
        reached,
    };
    let before = |name, startup: Vec<u8>| State {
        name,
        startup: Some(startup),
        sent: Vec::new(),
        reached: AtOnce,
    };
    let parse = |name: &str, sql: &str| {
        let (name, sql) = (name.to_owned(), sql.to_owned());
        encoded(move |out| frontend::parse(&name, &sql, [], out).unwrap())
    };
    let unsynced = |sql: &str| {
        let sql = sql.to_owned();
        encoded(move |out| batch(&sql, out))
    };
    let long = "SELECT 1 AS a_long_name, 2 AS another_long_name, 3 AS a_third_long_name";
    let mark = query(MARK);
    let ssl = vec![0, 0, 0, 8, 4, 210, 22, 47];
    let startup = encoded(|out| {
        let named = [("user", "app"), ("database", "app")];
        frontend::startup_message(named, out).unwrap();
    });
    let bind = encoded(|out| batch("SELECT 1", out));
    let bind_starts = parse("", "SELECT 1").len();
    vec![
        before("nothing sent", Vec::new()),
        before("after SSLRequest", ssl.clone()),
        before("within the startup message", half(startup.clone())),
        before(
            "within the startup message, after SSLRequest",
            [ssl, half(startup)].concat(),
        ),
        state("unbound", &[], Session("unbound")),
        state(
            "within a first Query",
            &[half(query(long))],
            Session("active"),
        ),
        state(
            "within a Query",
            &[mark.clone(), half(query(long))],
            Session("idle"),
        ),
        state(
            "within a Parse",
            &[mark.clone(), half(parse("s", long))],
            Session("idle"),
        ),
        state(
            "within a Bind",
            &[mark.clone(), bind[..bind_starts + 7].to_vec()],
            Session("active"),
        ),
        state(
            "between Parse and Sync",
            &[mark.clone(), parse("s", long)],
            Session("active"),
        ),
        state(
            "after Execute, before Sync",
            &[mark.clone(), unsynced("INSERT INTO t VALUES ('x')")],
            Session("active"),
        ),
        state(
            "active, simple",
            &[mark.clone(), query("SELECT pg_sleep(600)")],
            Event("PgSleep"),
        ),
        state(
            "active, extended",
            &[mark.clone(), segment("SELECT pg_sleep(600)")],
            Event("PgSleep"),
        ),
        state(
            "rows that nobody reads",
            &[mark.clone(), query(MUCH)],
            Event("ClientWrite"),
        ),
        state(
            "in a transaction",
            &[
                mark.clone(),
                query("BEGIN; INSERT INTO t VALUES ('x'); CREATE TEMP TABLE u (a int)"),
            ],
            Server("idle in transaction"),
        ),
        state(
            "in a failed transaction",
            &[mark.clone(), query("BEGIN"), query("SELECT 1/0")],
            Server("idle in transaction (aborted)"),
        ),
        state(
            "copy in, within a row",
            &[
                mark.clone(),
                query("COPY t FROM STDIN"),
                copy_data(b"one\n"),
                half(copy_data(b"a second one that is longer\n")),
            ],
            Server("active"),
        ),
        state(
            "copy out",
            &[mark.clone(), query(&format!("COPY ({MUCH}) TO STDOUT"))],
            Event("ClientWrite"),
        ),
        state(
            "in the queue",
            &[query("SELECT pg_sleep(600)")],
            Session("waiting"),
        ),
        state(
            "pipelined",
            &[
                mark.clone(),
                segment("SELECT pg_sleep(600)"),
                segment("SELECT set_config('work_mem', '2MB', false)"),
                segment("SELECT 1/0"),
                unsynced("SELECT 2"),
            ],
            Event("PgSleep"),
        ),
    ]
}
