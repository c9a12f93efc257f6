//! Keys: what makes server connections interchangeable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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
    /// The startup parameters that the client sent; what the upstream adds is in the target.
    pub parameters: Parameters,
}

/// One key, and what is known of its server. Kept for as long as a session or a server
/// connection has it, and a while longer.
#[derive(Debug)]
pub struct Key {
    id: KeyId,
    spec: KeySpec,
    target: Arc<Target>,
    /// Set once, under the lender's lock.
    is_retired: AtomicBool,
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

    /// What it is made of.
    #[must_use]
    pub fn spec(&self) -> &KeySpec {
        &self.spec
    }

    /// Whether its upstream leads elsewhere by now: none of its connections is kept, and whoever
    /// wants one should ask for the key of its spec anew.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Relaxed)
    }

    /// What its server reported; none while it was never reached.
    #[must_use]
    pub fn profile(&self) -> Option<Arc<Profile>> {
        self.profile.lock().clone()
    }

    /// What was learned of another key's server is true of this one's.
    pub(super) fn inherit(&self, other: &Self) {
        *self.profile.lock() = other.profile();
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
            spec: spec.clone(),
            is_retired: AtomicBool::new(false),
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

    /// The key that took the place of one that is retired; the same one where there is none.
    pub(super) fn current(&self, key: &Arc<Key>) -> Arc<Key> {
        let is_old = key.is_retired();
        let new = is_old.then(|| self.by_spec.get(&key.spec)).flatten();
        Arc::clone(new.unwrap_or(key))
    }

    /// Retires all keys of an upstream, and answers them: their specs mean other ones from now on.
    pub(super) fn retire(&mut self, upstream: UpstreamNumber) -> Vec<Arc<Key>> {
        let retired = self.by_spec.extract_if(|spec, _| spec.upstream == upstream);
        let retired: Vec<Arc<Key>> = retired.map(|(_, key)| key).collect();
        for key in &retired {
            key.is_retired.store(true, Relaxed);
        }
        retired
    }

    /// Forgets the retired keys that only we have, and answers their numbers.
    pub(super) fn forget_retired(&mut self) -> Vec<KeyId> {
        let unused = self
            .by_id
            .extract_if(|_, key| key.is_retired() && Arc::strong_count(key) == 1);
        unused.map(|(id, _)| id).collect()
    }

    /// Forgets all that only we have: one reference for each map.
    fn forget_unused(&mut self) {
        self.by_spec.retain(|_, key| Arc::strong_count(key) > 2);
        let used: HashSet<_> = self.by_spec.values().map(|key| key.id).collect();
        // The retired ones are forgotten by themselves.
        self.by_id
            .retain(|id, key| used.contains(id) || key.is_retired());
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
    fn a_retired_key_is_known_while_somebody_has_it_and_its_spec_means_another() {
        let mut keys = Keys::default();
        let old = keys.of(spec(1), target);
        keys.of(spec(2), target);
        assert_eq!(keys.retire(UpstreamNumber(1)).len(), 0);
        assert_eq!(keys.retire(UpstreamNumber(0)).len(), 2);
        assert!(old.is_retired() && keys.get(old.id()).is_some());
        assert_eq!(keys.current(&old).id(), old.id(), "nobody has asked anew");
        let new = keys.of(spec(1), target);
        assert_ne!(new.id(), old.id());
        assert_eq!(keys.current(&old).id(), new.id());
        assert_eq!(keys.forget_retired().len(), 1);
        for number in 3..2 * REMEMBERED {
            keys.of(spec(number), target);
        }
        assert!(keys.get(old.id()).is_some(), "somebody has it");
        let id = old.id();
        drop(old);
        assert_eq!(keys.forget_retired(), [id]);
        assert!(keys.get(id).is_none());
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
