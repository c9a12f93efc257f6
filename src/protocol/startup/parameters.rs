//! What a server's session begins with.

use super::VERSION_3_0;
use crate::protocol::message::{set_length, text};
use std::collections::BTreeMap;

/// Startup parameters for the server, without user and database, sorted by name and each name once:
/// two clients that ask for the same in another order share a pool. Names and values are as the
/// client wrote them; a value need not be UTF-8, as it is in the client's encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Parameters(Vec<(String, Vec<u8>)>);

impl Parameters {
    /// Sorts parameters by name. Names compare without case, as the server compares them; where one
    /// comes twice the last counts, as there.
    pub fn new(parameters: Vec<(String, Vec<u8>)>) -> Self {
        let by_name: BTreeMap<String, (String, Vec<u8>)> = parameters
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), (name, value)))
            .collect();
        Self(by_name.into_values().collect())
    }

    /// The value of a parameter, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    }

    /// All parameters, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes the value of a parameter that is there; an empty value removes it.
    pub(super) fn replace(&mut self, name: &str, value: Vec<u8>) {
        if value.is_empty() {
            self.0
                .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        } else if let Some(known) = self
            .0
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            known.1 = value;
        }
    }

    /// The whole startup message, in protocol 3.0, for a server.
    pub fn encode(&self, user: &str, database: &str) -> Vec<u8> {
        let mut out = vec![0; 4];
        out.extend_from_slice(&VERSION_3_0.to_be_bytes());
        let own = [("user", user.as_bytes()), ("database", database.as_bytes())];
        for (name, value) in own.into_iter().chain(self.iter()) {
            text(name.as_bytes(), &mut out);
            text(value, &mut out);
        }
        out.push(0);
        set_length(&mut out, 0);
        out
    }
}
