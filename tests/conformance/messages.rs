//! What a client sends, encoded by hand.

use super::conversation::{Await, Turn};

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("it is short");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

pub(crate) fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes())
}

pub(crate) fn execute(portal: &str, rows: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, rows]].concat())
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(crate) fn batch(sql: &str) -> Vec<u8> {
    [
        parse("", sql),
        bind("", ""),
        message(b'D', b"P\0"),
        execute("", 0),
    ]
    .concat()
}

pub(crate) fn turn(sent: &[Vec<u8>], awaits: Await) -> Turn {
    Turn {
        sent: sent.concat(),
        meanwhile: None,
        awaits,
    }
}

/// Nothing is sent; what another session does is told unasked.
pub(crate) fn unasked(meanwhile: &'static str, awaits: Await) -> Turn {
    Turn {
        sent: Vec::new(),
        meanwhile: Some(meanwhile),
        awaits,
    }
}

/// Parse with the types of the parameters.
pub(crate) fn parse_with(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    body.extend(u16::try_from(types.len()).expect("few").to_be_bytes());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    message(b'P', &body)
}

/// Bind of values in binary, with the results in binary; `None` is NULL.
pub(crate) fn bind_binary(portal: &str, name: &str, values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = format!("{portal}\0{name}\0").into_bytes();
    body.extend([0, 1, 0, 1]);
    body.extend(u16::try_from(values.len()).expect("few").to_be_bytes());
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).expect("short"));
        body.extend(length.to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    body.extend([0, 1, 0, 1]);
    message(b'B', &body)
}

/// Asks for what was answered up to here.
pub(crate) fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// Describe of a statement (`S`) or portal (`P`).
pub(crate) fn describe(kind: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{kind}{name}\0").as_bytes())
}

/// Close of a statement (`S`) or portal (`P`).
pub(crate) fn close(kind: char, name: &str) -> Vec<u8> {
    message(b'C', format!("{kind}{name}\0").as_bytes())
}
