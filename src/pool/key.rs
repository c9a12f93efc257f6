//! Keys: what makes server connections interchangeable.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::protocol::startup::Parameters;

use super::{KeyId, Target, UpstreamNumber};

/// How many keys are remembered beyond those in use: their names come from clients.
const REMEMBERED: usize = 1024;

/// What a server reported when it was first reached with a key: ParameterStatus by name.
pub type Profile = Vec<(String, Vec<u8>)>;

/// What a key is made of: server connections that were opened alike serve the same sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeySpec {
    /// The upstream.
    pub upstream: UpstreamNumber,
    /// The database.
    pub database: String,
    /// The startup parameters that are forwarded.
    pub parameters: Parameters,
}

/// One key, and what is known of its server. Kept for as long as a session or a server
/// connection has it, and a while longer.
#[derive(Debug)]
pub struct Key {
    id: KeyId,
    target: Arc<Target>,
    profile: Mutex<Option<Arc<Profile>>>,
}

impl Key {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Where its connections lead, and how.
    #[must_use]
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// What its server reported; none while it was never reached.
    #[must_use]
    pub fn profile(&self) -> Option<Arc<Profile>> {
        self.profile.lock().clone()
    }

    /// Remembers what its server reports.
    pub fn learn<'a>(&self, reported: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let profile = reported
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect();
        *self.profile.lock() = Some(Arc::new(profile));
    }
}

/// All keys that are in use or remembered.
#[derive(Debug, Default)]
pub(super) struct Keys {
    next: u32,
    by_spec: HashMap<KeySpec, Arc<Key>>,
    by_id: HashMap<KeyId, Arc<Key>>,
}

impl Keys {
    /// The key of this spec; `target` says what a new one leads to.
    pub(super) fn of(&mut self, spec: KeySpec, target: impl FnOnce() -> Target) -> Arc<Key> {
        if let Some(key) = self.by_spec.get(&spec) {
            return Arc::clone(key);
        }
        if self.by_spec.len() >= REMEMBERED {
            self.forget_unused();
        }
        let key = Arc::new(Key {
            id: KeyId(self.next),
            target: Arc::new(target()),
            profile: Mutex::new(None),
        });
        // Wraps after four billion keys, of which some thousand are kept.
        self.next = self.next.wrapping_add(1);
        self.by_spec.insert(spec, Arc::clone(&key));
        self.by_id.insert(key.id, Arc::clone(&key));
        key
    }

    /// The key of this number, which somebody still has.
    pub(super) fn get(&self, id: KeyId) -> Option<&Arc<Key>> {
        self.by_id.get(&id)
    }

    /// Forgets all that only we have: one reference for each map.
    fn forget_unused(&mut self) {
        self.by_spec.retain(|_, key| Arc::strong_count(key) > 2);
        let used: std::collections::HashSet<_> = self.by_spec.values().map(|key| key.id).collect();
        self.by_id.retain(|id, _| used.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialer::tests::target;
    use super::*;

    fn spec(number: usize) -> KeySpec {
        KeySpec {
            upstream: UpstreamNumber(0),
            database: format!("database {number}"),
            parameters: Parameters::default(),
        }
    }

    #[test]
    fn the_same_spec_has_the_same_key_and_remembers_its_profile() {
        let mut keys = Keys::default();
        let key = keys.of(spec(1), target);
        key.learn([("TimeZone", &b"UTC"[..])].into_iter());
        let again = keys.of(spec(1), target);
        assert_eq!(again.id(), key.id());
        assert_eq!(again.profile().unwrap().len(), 1);
        assert_ne!(keys.of(spec(2), target).id(), key.id());
    }

    #[test]
    fn names_from_clients_take_bounded_room_and_what_is_used_stays() {
        let mut keys = Keys::default();
        let used = keys.of(spec(0), target);
        for number in 1..10 * REMEMBERED {
            keys.of(spec(number), target);
        }
        assert!(keys.by_spec.len() <= REMEMBERED && keys.by_id.len() <= REMEMBERED);
        assert!(keys.get(used.id()).is_some());
        assert_eq!(keys.of(spec(0), target).id(), used.id());
    }
}
