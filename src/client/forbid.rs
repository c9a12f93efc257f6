//! `SET execpool.…` within a session: refused by the server itself.
//!
//! An error of our own would break the order of a pipeline's answers, and leave a transaction
//! open that the client believes failed. So the statement is replaced by a name that is no SQL
//! and that nobody can guess, and the syntax error that quotes it by our own words.

use memchr::memmem;

use crate::protocol::frontend::Message;
use crate::protocol::message::{Report, Severity, SqlState};
use crate::protocol::statement::names_execpool_setting;

/// The statement that is put in place of a refused one.
#[derive(Debug)]
pub(super) struct Forbidden {
    statement: String,
}

impl Forbidden {
    /// One that nobody can guess: with 0 random bits, where the system has none, it is as good,
    /// as nobody gains by guessing it.
    pub(super) fn new() -> Self {
        let mut random = [0; 16];
        let _ = getrandom::fill(&mut random);
        // A name of over 63 bytes would be cut by the server.
        let statement = format!("execpool_refused_{:032x}", u128::from_ne_bytes(random));
        Self { statement }
    }

    /// What is sent in place of a message that sets one of our settings.
    pub(super) fn in_place_of(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        match message {
            Message::Query { sql } if names_execpool_setting(sql) => Some(self.query()),
            Message::Parse { name, sql } if names_execpool_setting(sql) => Some(self.parse(name)),
            _ => None,
        }
    }

    fn query(&self) -> Vec<u8> {
        framed(b'Q', &[self.statement.as_bytes(), b"\0"])
    }

    fn parse(&self, name: &[u8]) -> Vec<u8> {
        framed(b'P', &[name, b"\0", self.statement.as_bytes(), b"\0\0\0"])
    }

    /// What the client is told in place of the server's error, if that is the answer to ours.
    pub(super) fn in_place_of_error(&self, body: &[u8]) -> Option<Vec<u8>> {
        memmem::find(body, self.statement.as_bytes())?;
        let mut out = Vec::new();
        Report::new(
            Severity::Error,
            SqlState::CANT_CHANGE_RUNTIME_PARAM,
            "execpool: a session cannot change its execpool settings",
        )
        .with_hint("Name them when you connect: options=-c execpool.execution_id=ID.")
        .encode(&mut out);
        Some(out)
    }
}

fn framed(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![kind];
    // A name within what is looked into, and a statement of our own: some kilobytes at most.
    out.extend((length as u32 + 4).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_sets_our_settings_is_replaced() {
        let forbidden = Forbidden::new();
        let set = Message::Query {
            sql: b"SET execpool.execution_id = 'x'",
        };
        let by = forbidden.in_place_of(&set).unwrap();
        assert_eq!(by[0], b'Q');
        assert_eq!(
            u32::from_be_bytes(by[1..5].try_into().unwrap()) as usize,
            by.len() - 1
        );
        let other = Message::Query {
            sql: b"SELECT 'SET execpool.execution_id = 1'",
        };
        assert!(forbidden.in_place_of(&other).is_none());
        let parse = Message::Parse {
            name: b"s1",
            sql: b"select set_config('execpool.label', 'x', false)",
        };
        assert!(forbidden.in_place_of(&parse).unwrap().starts_with(b"P"));
    }

    #[test]
    fn only_the_error_that_quotes_ours_is_retold() {
        let forbidden = Forbidden::new();
        let quoted = format!(
            "SERROR\0C42601\0Msyntax error at or near \"{}\"\0\0",
            forbidden.statement
        );
        let told = forbidden.in_place_of_error(quoted.as_bytes()).unwrap();
        assert!(memmem::find(&told, b"55P02").is_some());
        let other = b"SERROR\0C42601\0Msyntax error at or near \"execpool_refused_\"\0\0";
        assert!(forbidden.in_place_of_error(other).is_none());
    }
}
