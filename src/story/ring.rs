//! The last entries of a story, and what is drawn together in them.

use std::sync::Arc;
use std::time::Duration;

use super::{Span, What, Who};

/// How many entries are kept; the oldest goes first.
pub const MOST: usize = 200;

/// The room of the first entries; then it doubles.
const FIRST: usize = 8;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// To whose session; none if to the execution as a whole.
    pub who: Option<Arc<Who>>,
    /// When, in microseconds since the execution began.
    pub at: u64,
    /// What.
    pub what: What,
}

// What `docs/control-api.md` promises of the memory rests on it.
const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    /// When, since the execution began.
    #[must_use]
    pub fn offset(&self) -> Duration {
        Duration::from_micros(self.at)
    }
}

/// The last entries. It grows as it is filled, up to [`MOST`]; then the oldest makes room.
#[derive(Debug, Default)]
pub struct Ring {
    entries: Vec<Entry>,
    /// Where the oldest is, once it is full.
    oldest: usize,
    dropped: u64,
    is_ending: bool,
    is_troubled: bool,
}

impl Ring {
    /// Takes one in, or adds it to one that is there. Allocates only while it grows.
    pub fn put(&mut self, entry: Entry) {
        self.is_ending |= matches!(entry.what, What::Ending { .. });
        self.is_troubled |= entry.what.is_trouble();
        if self.draw_together(&entry) {
            return;
        }
        let what = match entry.what {
            What::Left { .. } if self.is_ending => What::SessionsGone {
                count: 1,
                last: Span::default(),
            },
            what => what,
        };
        let who = entry
            .who
            .filter(|_| !matches!(what, What::SessionsGone { .. }));
        self.push(Entry {
            who,
            what,
            at: entry.at,
        });
    }

    /// How many have made room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether something has happened by which an execution ends badly.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.is_troubled
    }

    /// All that are there, in the order in which they came.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let (late, early) = self.entries.split_at(self.oldest);
        early.iter().chain(late)
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() < MOST {
            if self.entries.len() == self.entries.capacity() {
                let more = self.entries.len().max(FIRST);
                self.entries
                    .reserve_exact(more.min(MOST - self.entries.len()));
            }
            self.entries.push(entry);
            return;
        }
        self.entries[self.oldest] = entry;
        self.oldest = (self.oldest + 1) % MOST;
        self.dropped += 1;
    }

    /// Adds it to an entry of its kind, where a story is better told like that: heartbeats and the
    /// sessions that go at the end to the last of theirs, wherever that is; resources to the last entry
    /// of all. What an end does with lent connections is told by the end.
    fn draw_together(&mut self, entry: &Entry) -> bool {
        match entry.what {
            What::Heartbeat { .. } | What::ResourceRegistered { .. } => {}
            What::ResourceReleased { .. } | What::ResourceExpired { .. } => {}
            What::Left { .. } if self.is_ending => {}
            What::Returned { how, .. } if self.is_ending => return how.as_str() == "closed",
            _ => return false,
        }
        let (late, early) = self.entries.split_at_mut(self.oldest);
        let mut latest = early.iter_mut().chain(late).rev();
        let since = |at: u64| Span::of(Duration::from_micros(entry.at.saturating_sub(at)));
        if let What::Heartbeat { .. } | What::Left { .. } = entry.what {
            return latest.any(|known| match (&mut known.what, entry.what) {
                (What::Heartbeat { count, last }, What::Heartbeat { .. })
                | (What::SessionsGone { count, last }, What::Left { .. }) => {
                    *count = count.saturating_add(1);
                    *last = since(known.at);
                    true
                }
                _ => false,
            });
        }
        let known = latest.next().map(|known| &mut known.what);
        match (known, entry.what) {
            (
                Some(What::ResourceRegistered { kind, count }),
                What::ResourceRegistered { kind: of, .. },
            )
            | (
                Some(What::ResourceExpired { kind, count }),
                What::ResourceExpired { kind: of, .. },
            ) if *kind == of => {
                *count = count.saturating_add(1);
                true
            }
            (Some(What::ResourceReleased { count }), What::ResourceReleased { .. }) => {
                *count = count.saturating_add(1);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::Word;

    fn entry(at: u64, what: What) -> Entry {
        Entry {
            who: None,
            at,
            what,
        }
    }

    fn heartbeat() -> What {
        What::Heartbeat {
            count: 1,
            last: Span::default(),
        }
    }

    #[test]
    fn the_last_200_are_kept_and_it_grows_no_further() {
        let mut ring = Ring::default();
        assert_eq!(ring.entries.capacity(), 0, "nothing costs nothing");
        for at in 0..1_000 {
            ring.put(entry(at, What::Joined));
        }
        let kept: Vec<u64> = ring.iter().map(|entry| entry.at).collect();
        assert_eq!(kept, (800..1_000).collect::<Vec<_>>());
        assert_eq!(ring.dropped(), 800);
        assert_eq!(ring.entries.capacity(), MOST);
    }

    #[test]
    fn heartbeats_are_one_entry_that_tells_the_last() {
        let mut ring = Ring::default();
        for at in 0..500 {
            ring.put(entry(at * 1_000_000, heartbeat()));
            if at % 10 == 0 {
                ring.put(entry(at * 1_000_000, What::Joined));
            }
        }
        let beats: Vec<&Entry> = ring
            .iter()
            .filter(|entry| matches!(entry.what, What::Heartbeat { .. }))
            .collect();
        let last = Span::of(Duration::from_secs(499));
        assert_eq!(beats.len(), 1);
        assert_eq!(beats[0].what, What::Heartbeat { count: 500, last });
    }

    #[test]
    fn resources_of_a_kind_are_drawn_together_until_something_else_happens() {
        let mut ring = Ring::default();
        let registered = |kind| What::ResourceRegistered {
            kind: Word::of(kind),
            count: 1,
        };
        for what in [
            registered("file"),
            registered("file"),
            registered("http"),
            What::Joined,
            registered("http"),
        ] {
            ring.put(entry(0, what));
        }
        let counts: Vec<Option<u32>> = ring
            .iter()
            .map(|entry| match entry.what {
                What::ResourceRegistered { count, .. } => Some(count),
                _ => None,
            })
            .collect();
        assert_eq!(counts, [Some(2), Some(1), None, Some(1)]);
    }

    #[test]
    fn the_end_of_many_sessions_leaves_room_for_what_led_to_it() {
        let mut ring = Ring::default();
        let left = What::Left {
            queries: 1,
            held: Span::default(),
        };
        ring.put(entry(0, left));
        let reason = Word::of("deadline");
        ring.put(entry(1, What::Ending { reason }));
        for at in 2..1_000 {
            let (how, held) = (Word::of("closed"), Span::default());
            ring.put(entry(at, What::Returned { how, held }));
            ring.put(entry(at, left));
        }
        let count = 998;
        let last = Span::of(Duration::from_micros(997));
        let told: Vec<What> = ring.iter().map(|entry| entry.what).collect();
        assert_eq!(
            told,
            [
                left,
                What::Ending { reason },
                What::SessionsGone { count, last }
            ]
        );
        assert!(!ring.is_troubled());
    }
}
