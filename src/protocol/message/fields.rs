//! The fields of an ErrorResponse or NoticeResponse that the server sent.

use super::{Severity, SqlState, message};
use memchr::memchr;

/// The fields of an error or notice, borrowed from the message's body.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// The body up to the zero byte that ends the list, which is not part of it.
    list: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads a message's body (what follows the length). `None` when it is no list of fields: a
    /// value without its end, no terminator, or bytes behind the terminator.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        loop {
            let (&code, after) = rest.split_first()?;
            if code == 0 {
                return after.is_empty().then(|| Self {
                    list: &body[..body.len() - 1],
                });
            }
            rest = &after[memchr(0, after)? + 1..];
        }
    }

    /// All fields as code and value, in the server's order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.list;
        std::iter::from_fn(move || {
            let (&code, after) = rest.split_first()?;
            let end = memchr(0, after)?;
            rest = &after[end + 1..];
            Some((code, &after[..end]))
        })
    }

    /// The value of the first field with this code, such as `b'M'` for the message.
    pub fn get(&self, code: u8) -> Option<&'a [u8]> {
        self.iter()
            .find_map(|(c, value)| (c == code).then_some(value))
    }

    /// The SQLSTATE, if there is a well-formed one.
    pub fn sqlstate(&self) -> Option<SqlState> {
        SqlState::from_bytes(self.get(b'C')?)
    }

    /// The message as text, with what is not UTF-8 replaced.
    pub fn message(&self) -> String {
        String::from_utf8_lossy(self.get(b'M').unwrap_or_default()).into_owned()
    }
}

/// The server's ErrorResponse or NoticeResponse told with another severity, as a whole message:
/// fields `S` and `V` are replaced, every other byte stays as the server sent it. Such is needed
/// where the server ends its connection (FATAL) but the session lives on (ERROR), or the reverse.
/// A body that is no list of fields is passed on unchanged.
pub fn with_severity(body: &[u8], severity: Severity) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 16);
    message(
        &mut out,
        severity.message_type(),
        |to| match Fields::parse(body) {
            None => to.extend_from_slice(body),
            Some(fields) => {
                for (code, value) in fields.iter() {
                    to.push(code);
                    match code {
                        b'S' | b'V' => to.extend_from_slice(severity.as_str().as_bytes()),
                        _ => to.extend_from_slice(value),
                    }
                    to.push(0);
                }
                to.push(0);
            }
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &[u8] = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0Fproc.c\0L353\0RInitProcess\0\0";

    #[test]
    fn fields_are_found_by_their_code() {
        let fields = Fields::parse(BODY).unwrap();
        assert_eq!(fields.sqlstate(), Some(SqlState::TOO_MANY_CONNECTIONS));
        assert_eq!(fields.message(), "sorry, too many clients already");
        assert_eq!(fields.get(b'H'), None);
    }

    #[test]
    fn only_the_severity_changes_when_a_fatal_is_told_as_an_error() {
        let told = with_severity(BODY, Severity::Error);
        let expected = b"SERROR\0VERROR\0C53300\0Msorry, too many clients already\0Fproc.c\0L353\0RInitProcess\0\0";
        assert_eq!(told[0], b'E');
        assert_eq!(
            i32::from_be_bytes(told[1..5].try_into().unwrap()) as usize,
            told.len() - 1
        );
        assert_eq!(&told[5..], expected);
        assert_eq!(&with_severity(&told[5..], Severity::Fatal)[5..], BODY);
    }

    #[test]
    fn a_body_without_its_ends_is_not_a_list_of_fields() {
        for bad in [&b""[..], b"S", b"SERROR", b"SERROR\0", b"SERROR\0\0x"] {
            assert!(Fields::parse(bad).is_none(), "{bad:?}");
            assert_eq!(&with_severity(bad, Severity::Error)[5..], bad);
        }
        assert_eq!(Fields::parse(b"\0").unwrap().iter().count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(body: Vec<u8>) {
            if let Some(fields) = Fields::parse(&body) {
                let again: usize = fields.iter().map(|(_, value)| value.len() + 2).sum();
                prop_assert_eq!(again + 1, body.len());
            }
            with_severity(&body, Severity::Fatal);
        }
    }
}
