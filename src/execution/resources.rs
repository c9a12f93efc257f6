//! What apps have registered with their executions, beside server connections: values alone, without
//! clock or socket. execpool can't close any of it; it counts, remembers and tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::pool::ExecutionNumber;

/// How many resources an execution may have at once.
pub const MAX_RESOURCES: usize = 1_000;

/// What a resource is: a closed set, fit for counting by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A connection that is none of execpool's.
    Connection,
    /// A browser, or a page of one.
    Browser,
    /// An HTTP client.
    Http,
    /// An open or temporary file.
    File,
    /// Anything else.
    Other,
}

impl ResourceKind {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 5] = [
        Self::Connection,
        Self::Browser,
        Self::Http,
        Self::File,
        Self::Other,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Browser => "browser",
            Self::Http => "http",
            Self::File => "file",
            Self::Other => "other",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The number of a resource, from 1; none is given twice in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(pub u64);

/// How many resources there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceCounts([usize; ResourceKind::ALL.len()]);

impl ResourceCounts {
    /// Those of a kind.
    #[must_use]
    pub fn of(&self, kind: ResourceKind) -> usize {
        self.0[kind as usize]
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }
}

/// A resource as it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its number.
    pub id: ResourceId,
    /// What it is.
    pub kind: ResourceKind,
    /// What the app calls it.
    pub name: String,
    /// How long it has been registered.
    pub age: Duration,
    /// The time left until it is forgotten; none: until it is released, or its execution has ended.
    pub expires_in: Option<Duration>,
}

/// The execution has as many as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
struct Resource {
    kind: ResourceKind,
    name: String,
    since: Instant,
    expires: Option<Instant>,
}

impl Resource {
    fn seen(&self, id: ResourceId, now: Instant) -> Registered {
        let left = |at: Instant| at.saturating_duration_since(now);
        Registered {
            id,
            kind: self.kind,
            name: self.name.clone(),
            age: now.saturating_duration_since(self.since),
            expires_in: self.expires.map(left),
        }
    }
}

/// What one generation of an execution has.
#[derive(Debug, Default)]
struct Shelf {
    resources: BTreeMap<ResourceId, Resource>,
    counts: ResourceCounts,
}

/// All that is registered, by the generations of executions.
#[derive(Debug, Default)]
pub struct Resources {
    last: u64,
    shelves: HashMap<ExecutionNumber, Shelf>,
    /// When which is forgotten.
    expiries: BTreeSet<(Instant, ExecutionNumber, ResourceId)>,
    counts: ResourceCounts,
    expired: u64,
}

impl Resources {
    /// Registers one; with `ttl` it is forgotten after that time.
    ///
    /// # Errors
    /// The execution has [`MAX_RESOURCES`] already.
    pub fn register(
        &mut self,
        number: ExecutionNumber,
        kind: ResourceKind,
        name: String,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<Registered, Full> {
        let shelf = self.shelves.entry(number).or_default();
        if shelf.resources.len() >= MAX_RESOURCES {
            return Err(Full);
        }
        self.last += 1;
        let id = ResourceId(self.last);
        let resource = Resource {
            kind,
            name,
            since: now,
            expires: ttl.and_then(|ttl| now.checked_add(ttl)),
        };
        let seen = resource.seen(id, now);
        self.expiries
            .extend(resource.expires.map(|at| (at, number, id)));
        shelf.counts.0[kind as usize] += 1;
        self.counts.0[kind as usize] += 1;
        shelf.resources.insert(id, resource);
        Ok(seen)
    }

    /// Forgets one; false if there is none of that number.
    pub fn release(&mut self, number: ExecutionNumber, id: ResourceId) -> bool {
        self.remove(number, id).is_some()
    }

    /// Those of a generation, the oldest first.
    #[must_use]
    pub fn of(&self, number: ExecutionNumber, now: Instant) -> Vec<Registered> {
        let shelf = self.shelves.get(&number);
        let all = shelf.into_iter().flat_map(|shelf| &shelf.resources);
        all.map(|(id, resource)| resource.seen(*id, now)).collect()
    }

    /// How many a generation has.
    #[must_use]
    pub fn counts_of(&self, number: ExecutionNumber) -> ResourceCounts {
        let shelf = self.shelves.get(&number);
        shelf.map(|shelf| shelf.counts).unwrap_or_default()
    }

    /// Takes all that a generation has, the oldest first.
    pub fn take(&mut self, number: ExecutionNumber, now: Instant) -> Vec<Registered> {
        let all = self.of(number, now);
        for one in &all {
            self.remove(number, one.id);
        }
        self.shelves.remove(&number);
        all
    }

    /// Forgets those whose time is over, and answers them, the earliest first.
    pub fn expire(&mut self, now: Instant) -> Vec<(ExecutionNumber, Registered)> {
        let mut gone = Vec::new();
        while let Some(&(at, number, id)) = self.expiries.first()
            && at <= now
        {
            // What is removed leaves the expiries as well.
            let Some(resource) = self.remove(number, id) else {
                self.expiries.pop_first();
                continue;
            };
            gone.push((number, resource.seen(id, now)));
            self.expired += 1;
        }
        gone
    }

    /// When [`Resources::expire`] is to be asked next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, ..)| *at)
    }

    /// How many there are, over all executions.
    #[must_use]
    pub fn counts(&self) -> ResourceCounts {
        self.counts
    }

    /// How many have been forgotten because their time was over.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired
    }

    fn remove(&mut self, number: ExecutionNumber, id: ResourceId) -> Option<Resource> {
        let shelf = self.shelves.get_mut(&number)?;
        let resource = shelf.resources.remove(&id)?;
        if let Some(at) = resource.expires {
            self.expiries.remove(&(at, number, id));
        }
        shelf.counts.0[resource.kind as usize] -= 1;
        self.counts.0[resource.kind as usize] -= 1;
        if shelf.resources.is_empty() {
            self.shelves.remove(&number);
        }
        Some(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const A: ExecutionNumber = ExecutionNumber(1);
    const B: ExecutionNumber = ExecutionNumber(2);

    fn name(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn kinds_are_counted_in_the_order_in_which_they_are_listed_and_known_by_their_words() {
        for (place, kind) in ResourceKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            assert_eq!(ResourceKind::of_word(kind.as_str()), Some(kind));
        }
        assert_eq!(ResourceKind::of_word("socket"), None);
    }

    #[test]
    fn what_is_registered_is_counted_until_it_is_released_once() {
        let (mut all, t) = (Resources::default(), Instant::now());
        let first = all.register(A, ResourceKind::Browser, name("x"), None, t);
        let first = first.unwrap();
        let second = all.register(A, ResourceKind::File, name("x"), Some(9 * S), t);
        let second = second.unwrap();
        assert_ne!(first.id, second.id);
        assert_eq!(all.counts_of(A).of(ResourceKind::Browser), 1);
        assert_eq!((all.counts_of(A).total(), all.counts().total()), (2, 2));
        let seen = all.of(A, t + 3 * S);
        assert_eq!((seen[0].age, seen[0].expires_in), (3 * S, None));
        assert_eq!(seen[1].expires_in, Some(6 * S));
        assert!(!all.release(B, first.id), "another one's");
        assert!(all.release(A, first.id));
        assert!(!all.release(A, first.id), "a second time");
        assert!(all.release(A, second.id));
        assert_eq!((all.counts(), all.next_expiry()), Default::default());
        assert!(all.shelves.is_empty());
    }

    #[test]
    fn those_whose_time_is_over_are_forgotten_and_no_others() {
        let (mut all, t) = (Resources::default(), Instant::now());
        for (number, ttl) in [(A, Some(2 * S)), (B, Some(S)), (A, None)] {
            all.register(number, ResourceKind::Http, name("c"), ttl, t)
                .unwrap();
        }
        assert_eq!(all.next_expiry(), Some(t + S));
        assert!(all.expire(t + S / 2).is_empty());
        let gone = all.expire(t + 2 * S);
        let numbers: Vec<ExecutionNumber> = gone.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [B, A], "the earliest first");
        assert_eq!((all.expired(), all.counts().total()), (2, 1));
        assert_eq!(all.next_expiry(), None);
    }

    #[test]
    fn an_execution_has_so_many_at_most_and_what_it_leaves_is_taken_whole() {
        let (mut all, t) = (Resources::default(), Instant::now());
        for _ in 0..MAX_RESOURCES {
            all.register(A, ResourceKind::Other, name("o"), Some(S), t)
                .unwrap();
        }
        let more = all.register(A, ResourceKind::Other, name("o"), None, t);
        assert_eq!(more, Err(Full));
        all.register(B, ResourceKind::Other, name("o"), None, t)
            .unwrap();
        let taken = all.take(A, t);
        assert_eq!((taken.len(), taken[0].id), (MAX_RESOURCES, ResourceId(1)));
        assert_eq!((all.counts().total(), all.next_expiry()), (1, None));
        assert!(all.expire(t + S).is_empty());
        assert!(all.take(A, t).is_empty());
    }
}
