//! What is counted and belongs to no session, pool or execution: plain counters that the data plane
//! keeps, whether anybody exports them or not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::words::{Action, Class, Origin, Outcome, Phase};

const CLASSES: usize = Class::WORDS.len();
const OUTCOMES: usize = Outcome::WORDS.len();

/// Counts that only grow.
#[derive(Debug)]
pub struct Counters {
    errors: [[AtomicU64; CLASSES]; Phase::WORDS.len()],
    cancels: [AtomicU64; Origin::WORDS.len()],
    actions: [[AtomicU64; OUTCOMES]; Action::WORDS.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            errors: [const { [const { AtomicU64::new(0) }; CLASSES] }; Phase::WORDS.len()],
            cancels: [const { AtomicU64::new(0) }; Origin::WORDS.len()],
            actions: [const { [const { AtomicU64::new(0) }; OUTCOMES] }; Action::WORDS.len()],
        }
    }
}

impl Counters {
    /// A server connection has failed, or told an error, of this class.
    pub fn failed(&self, phase: Phase, class: Class) {
        self.errors[phase as usize][class.place()].fetch_add(1, Relaxed);
    }

    /// Something that ran or waited is cancelled.
    pub fn cancelled(&self, origin: Origin) {
        self.cancels[origin as usize].fetch_add(1, Relaxed);
    }

    /// The reactor has acted, or has not.
    pub fn acted(&self, action: Action, outcome: Outcome) {
        self.actions[action as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// How many failures there were.
    #[must_use]
    pub fn failures(&self, phase: Phase, class: Class) -> u64 {
        self.errors[phase as usize][class.place()].load(Relaxed)
    }

    /// How often something was cancelled.
    #[must_use]
    pub fn cancels(&self, origin: Origin) -> u64 {
        self.cancels[origin as usize].load(Relaxed)
    }

    /// How often the reactor has acted so.
    #[must_use]
    pub fn actions(&self, action: Action, outcome: Outcome) -> u64 {
        self.actions[action as usize][outcome as usize].load(Relaxed)
    }
}
