//! The texts of prepared statements, so that it can be told what a session runs.

use std::collections::VecDeque;

/// How many named statements are remembered of one session.
const MOST: usize = 64;
/// How much of each, in bytes.
const MAX_TEXT: usize = 256;

/// The beginnings of a session's prepared statements, the latest of them. It allocates only when
/// a statement is prepared by a new name.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// By the hash of the name, the latest last. Two names with one hash would show each other's
    /// text; nothing else depends on it.
    named: VecDeque<(u64, Box<[u8]>)>,
    unnamed: Vec<u8>,
    /// Which one was bound last; the unnamed one without.
    bound: Option<u64>,
}

impl Statements {
    /// Parse: a statement has this text from now on.
    pub(super) fn prepared(&mut self, name: &[u8], sql: &[u8]) {
        let text = &sql[..sql.len().min(MAX_TEXT)];
        if name.is_empty() {
            self.unnamed.clear();
            self.unnamed.extend_from_slice(text);
            return;
        }
        let name = hash(name);
        self.named.retain(|(known, _)| *known != name);
        if self.named.len() == MOST {
            self.named.pop_front();
        }
        self.named.push_back((name, text.into()));
    }

    /// Bind: a portal is made of this statement.
    pub(super) fn bound(&mut self, name: &[u8]) {
        self.bound = (!name.is_empty()).then(|| hash(name));
    }

    /// The beginning of the statement that was bound last; none if it is not remembered.
    pub(super) fn current(&self) -> Option<&[u8]> {
        let Some(bound) = self.bound else {
            return (!self.unnamed.is_empty()).then_some(&self.unnamed);
        };
        let mut named = self.named.iter();
        named
            .find(|(name, _)| *name == bound)
            .map(|(_, text)| &text[..])
    }
}

/// FNV-1a.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_that_was_bound_last_is_the_current_one() {
        let mut statements = Statements::default();
        assert_eq!(statements.current(), None);
        statements.prepared(b"", b"select 0");
        statements.prepared(b"a", b"select 1");
        statements.prepared(b"b", b"select 2");
        assert_eq!(statements.current(), Some(&b"select 0"[..]));
        statements.bound(b"a");
        assert_eq!(statements.current(), Some(&b"select 1"[..]));
        statements.prepared(b"a", b"select 3");
        assert_eq!(statements.current(), Some(&b"select 3"[..]));
        statements.bound(b"unknown");
        assert_eq!(statements.current(), None);
    }

    #[test]
    fn names_and_texts_take_bounded_room() {
        let mut statements = Statements::default();
        for number in 0..1000 {
            statements.prepared(format!("s{number}").as_bytes(), &[b'x'; 5000]);
        }
        assert_eq!(statements.named.len(), MOST);
        statements.bound(b"s999");
        assert_eq!(statements.current().unwrap().len(), MAX_TEXT);
        statements.bound(b"s0");
        assert_eq!(statements.current(), None);
    }
}
