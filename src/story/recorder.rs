//! One execution's recorder, and its story as it is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ring::Ring;
use super::{Entry, What, Who};

/// What is told of one generation of an execution.
#[derive(Debug)]
pub struct Recorder {
    /// When the execution began.
    began: Instant,
    /// Taken for a few instructions, on the data plane's thread alone.
    ring: Mutex<Ring>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Recorder {
    /// Of an execution that began then.
    #[must_use]
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            ring: Mutex::default(),
        }
    }

    /// Something has happened, to a session or to the execution as a whole. Reads no clock.
    pub fn tell(&self, who: Option<&Arc<Who>>, what: What, at: Instant) {
        let entry = self.entry(who, what, at);
        self.ring.lock().put(entry);
    }

    /// It as an entry that nobody is told of.
    #[must_use]
    pub fn entry(&self, who: Option<&Arc<Who>>, what: What, at: Instant) -> Entry {
        let at = at.saturating_duration_since(self.began).as_micros();
        Entry {
            who: who.cloned(),
            at: u64::try_from(at).unwrap_or(u64::MAX),
            what,
        }
    }

    /// Whether something has happened by which an execution ends badly.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.ring.lock().is_troubled()
    }

    /// All that is known, and what has not come to an end: `open`.
    #[must_use]
    pub fn story(&self, mut open: Vec<Entry>) -> Story {
        let ring = self.ring.lock();
        let mut entries: Vec<Entry> = ring.iter().cloned().collect();
        let dropped = ring.dropped();
        drop(ring);
        // What is told when it is over comes late; what came first stays first.
        entries.sort_by_key(|entry| entry.at);
        open.sort_by_key(|entry| entry.at);
        Story {
            began: self.began,
            entries,
            open,
            dropped,
        }
    }
}

/// The story of one generation of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// When it began.
    pub began: Instant,
    /// What happened, in the order of its time.
    pub entries: Vec<Entry>,
    /// What lasts, as far as it has come, in the order in which it began.
    pub open: Vec<Entry>,
    /// How many older entries are gone.
    pub dropped: u64,
}

impl Story {
    /// All of it in the order of time, with whether it lasts.
    #[must_use]
    pub fn told(&self) -> Vec<(&Entry, bool)> {
        let over = self.entries.iter().map(|entry| (entry, false));
        let lasts = self.open.iter().map(|entry| (entry, true));
        let mut all: Vec<_> = over.chain(lasts).collect();
        all.sort_by_key(|(entry, _)| entry.at);
        all
    }

    /// How long before `now` an entry was.
    #[must_use]
    pub fn ago(&self, entry: &Entry, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.began);
        since.saturating_sub(entry.offset())
    }

    /// How much room it takes, in bytes; who is in several entries counts once.
    #[must_use]
    pub fn size(&self) -> usize {
        let who = self.entries.iter().filter_map(|entry| entry.who.as_ref());
        let who: BTreeMap<u64, usize> = who.map(|who| (who.session, who.size())).collect();
        self.entries.len() * size_of::<Entry>() + who.values().sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::Span;

    #[test]
    fn a_story_is_told_in_the_order_of_time_and_says_what_lasts() {
        let began = Instant::now();
        let recorder = Recorder::new(began);
        let later = |seconds| began + Duration::from_secs(seconds);
        let who = Arc::new(Who::new(7, Some(1), Some("agent.py:7"), None, None));
        recorder.tell(Some(&who), What::Joined, later(1));
        let lasted = Span::of(Duration::from_secs(7));
        recorder.tell(Some(&who), What::TransactionEnded { lasted }, later(9));
        recorder.tell(Some(&who), What::TransactionBegan, later(2));
        let time = Span::of(Duration::from_secs(3));
        let in_transaction = false;
        let idles = What::Idle {
            in_transaction,
            time,
        };
        let open = recorder.entry(Some(&who), idles, later(10));
        drop(who);
        let story = recorder.story(vec![open]);
        let told = story.told().into_iter();
        let told: Vec<_> = told
            .map(|(entry, lasts)| (entry.what.name(), lasts, entry.at / 1_000_000))
            .collect();
        assert_eq!(
            told,
            [
                ("session.joined", false, 1),
                ("session.transaction_began", false, 2),
                ("session.transaction_ended", false, 9),
                ("session.idle", true, 10),
            ]
        );
        let who = story.entries[0].who.as_ref();
        assert_eq!(
            who.map(|who| who.session),
            Some(7),
            "it outlives its session"
        );
        assert_eq!(story.ago(&story.open[0], later(12)).as_secs(), 2);
    }
}
