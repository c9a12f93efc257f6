//! Messages of our own, and reading the server's errors.
//!
//! Every encoder appends one whole message to the buffer it is given, so that several messages go
//! out in one write. Texts end at a zero byte on the wire; a zero inside one becomes `?`.

mod fields;
mod report;
mod sqlstate;

pub use fields::{Fields, with_severity};
pub use report::{Report, Severity, seconds};
pub use sqlstate::SqlState;

/// Appends AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    message(out, b'R', |body| {
        body.extend_from_slice(&0i32.to_be_bytes())
    });
}

/// Appends BackendKeyData with the four-byte key of protocol 3.0.
pub fn backend_key_data(pid: i32, key: [u8; 4], out: &mut Vec<u8>) {
    message(out, b'K', |body| {
        body.extend_from_slice(&pid.to_be_bytes());
        body.extend_from_slice(&key);
    });
}

/// Appends ParameterStatus. The value is in the client's encoding, hence bytes.
pub fn parameter_status(name: &str, value: &[u8], out: &mut Vec<u8>) {
    message(out, b'S', |body| {
        text(name.as_bytes(), body);
        text(value, body);
    });
}

/// Appends ReadyForQuery with the transaction status: `I` idle, `T` in a transaction, `E` in a
/// failed one.
pub fn ready_for_query(status: u8, out: &mut Vec<u8>) {
    message(out, b'Z', |body| body.push(status));
}

/// Appends a message of this type whose body `fill` writes, and sets its length.
pub(super) fn message(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    set_length(out, start);
}

/// Writes the number of bytes from `start` to the end into the four bytes at `start`.
pub(super) fn set_length(out: &mut [u8], start: usize) {
    // Our messages hold a few sentences or a startup packet: far below what an i32 counts.
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a text and the zero byte that ends it; zero bytes inside become `?`.
pub(super) fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().map(|&b| if b == 0 { b'?' } else { b }));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::message::backend::Message;

    /// What an independent reader of the protocol makes of the bytes.
    fn read(bytes: &[u8]) -> Message {
        let mut buffer = bytes.into();
        let message = Message::parse(&mut buffer).unwrap().unwrap();
        assert!(buffer.is_empty(), "one message and nothing behind it");
        message
    }

    #[test]
    fn messages_of_our_own_are_read_back_by_an_independent_parser() {
        let mut out = Vec::new();
        authentication_ok(&mut out);
        assert!(matches!(read(&out), Message::AuthenticationOk));

        out.clear();
        backend_key_data(4_194_305, [0xde, 0xad, 0xbe, 0xef], &mut out);
        let Message::BackendKeyData(key) = read(&out) else {
            panic!("not BackendKeyData")
        };
        assert_eq!(key.process_id(), 4_194_305);
        assert_eq!(key.secret_key().to_be_bytes(), [0xde, 0xad, 0xbe, 0xef]);

        out.clear();
        parameter_status("TimeZone", b"Etc/UTC", &mut out);
        let Message::ParameterStatus(status) = read(&out) else {
            panic!("not ParameterStatus")
        };
        assert_eq!(
            (status.name().unwrap(), status.value().unwrap()),
            ("TimeZone", "Etc/UTC")
        );

        for state in *b"ITE" {
            out.clear();
            ready_for_query(state, &mut out);
            let Message::ReadyForQuery(ready) = read(&out) else {
                panic!("not ReadyForQuery")
            };
            assert_eq!(ready.status(), state);
        }
    }

    #[test]
    fn a_zero_byte_inside_a_text_cannot_end_it_early() {
        let mut out = Vec::new();
        parameter_status("a\0b", b"c\0d", &mut out);
        assert_eq!(&out[5..], b"a?b\0c?d\0");
    }

    #[test]
    fn messages_are_appended_behind_each_other() {
        let mut out = Vec::new();
        authentication_ok(&mut out);
        ready_for_query(b'I', &mut out);
        assert_eq!(out, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    }
}
