//! What is remembered of names whose executions are gone, within bounds.

use crate::protocol::startup::ExecutionId;
use std::collections::{HashMap, VecDeque};

/// A value per name, for at most `max` names; the one set longest ago is forgotten first.
/// Every operation is amortised O(1).
#[derive(Debug)]
pub struct Memory<V> {
    max: usize,
    next: u64,
    values: HashMap<ExecutionId, (u64, V)>,
    /// Oldest first; an entry whose number is not the name's is stale.
    order: VecDeque<(u64, ExecutionId)>,
}

impl<V> Memory<V> {
    /// An empty memory for `max` names.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            next: 0,
            values: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// How many names are remembered.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no name is remembered.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of that name.
    pub fn get(&self, id: &ExecutionId) -> Option<&V> {
        self.values.get(id).map(|(_, value)| value)
    }

    /// Forgets that name.
    pub fn remove(&mut self, id: &ExecutionId) -> Option<V> {
        self.values.remove(id).map(|(_, value)| value)
    }

    /// Sets the name's value and makes it the youngest.
    pub fn insert(&mut self, id: ExecutionId, value: V) {
        self.next += 1;
        self.order.push_back((self.next, id.clone()));
        self.values.insert(id, (self.next, value));
        while self.values.len() > self.max {
            self.forget_oldest();
        }
        if self.order.len() > 2 * self.max {
            let values = &self.values;
            self.order
                .retain(|(n, id)| values.get(id).is_some_and(|(own, _)| own == n));
        }
    }

    /// Forgets from the oldest on, for as long as `old` says so.
    pub fn forget_while(&mut self, old: impl Fn(&V) -> bool) {
        while let Some((number, id)) = self.order.front() {
            let keeps = |(own, value): &(u64, V)| own == number && !old(value);
            if self.values.get(id).is_some_and(keeps) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((number, id)) = self.order.pop_front()
            && self.values.get(&id).is_some_and(|(own, _)| *own == number)
        {
            self.values.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_a_name_again_makes_it_the_youngest() {
        let mut memory = Memory::new(2);
        let [a, b, c] = [1, 2, 3].map(ExecutionId::session);
        for (id, value) in [(&a, 1), (&b, 2), (&a, 3), (&c, 4)] {
            memory.insert(id.clone(), value);
        }
        assert_eq!(memory.get(&a), Some(&3));
        assert_eq!(memory.get(&b), None);
        memory.forget_while(|value| *value < 4);
        assert_eq!(memory.len(), 1);
    }

    #[test]
    fn names_set_and_removed_for_ever_take_no_room() {
        let mut memory = Memory::new(4);
        for n in 0..1000 {
            memory.insert(ExecutionId::session(n), n);
            memory.remove(&ExecutionId::session(n));
            assert!(memory.is_empty() && memory.order.len() <= 8);
        }
    }
}
