//! The last events, and how readers follow them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::spare::Spare;
use super::time::rfc3339;
use super::{Event, Text};

/// How long readers are left alone after news, so that a burst wakes each of them seldom.
const REST: Duration = Duration::from_millis(10);

/// How many events are kept.
pub const KEPT: usize = 1000;

/// An event as it is sent: on one line of JSON, of 1,024 bytes at most.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Its number in this process, from 1, without gaps.
    pub id: u64,
    /// When it was told: RFC 3339, UTC, to the millisecond.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// What has happened: its name as `event`, and its fields.
    #[serde(flatten)]
    pub event: Event,
}

/// An event that is kept.
#[derive(Debug)]
pub struct Entry {
    record: Record,
    /// Made by the first reader, for all: who tells an event does not write it out.
    json: Mutex<Option<Bytes>>,
}

impl Entry {
    /// The event.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The same as JSON, on one line.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let mut json = self.json.lock();
        let made = json.get_or_insert_with(|| {
            // Names, texts and numbers: JSON can say them.
            serde_json::to_vec(&self.record).unwrap_or_default().into()
        });
        made.clone()
    }
}

/// How far the events have come, for who follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tide {
    /// The number of the last one.
    pub last: u64,
    /// Whether no more will be shown to readers.
    pub over: bool,
}

/// How many lines of the log were left out before one; none where that is nothing.
pub type Unsaid = Option<u64>;

/// What comes after an event.
#[derive(Debug, Default)]
pub struct Batch {
    /// How many have come in between and are not kept any more.
    pub lost: u64,
    /// The next ones.
    pub entries: Vec<Arc<Entry>>,
}

/// The last [`KEPT`] events. Who tells one waits for no reader: the lock is held for as long as it
/// takes to copy a few pointers, and one task is woken however many read.
#[derive(Debug, Default)]
pub struct Events {
    /// A leaf: nothing is locked, awaited or written out under it.
    kept: Mutex<Kept>,
    /// Told for the herald.
    news: Notify,
    tide: watch::Sender<Tide>,
    /// Lines of the log that were written lately. A leaf, too.
    lines: Mutex<Spare>,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    over: bool,
    /// The numbers are those up to `last`.
    entries: VecDeque<Arc<Entry>>,
    spare: Spare,
}

impl Events {
    /// Tells an event. One that an app may cause at any rate is told 10 times a second at most, with
    /// how many were not.
    pub fn tell(&self, mut event: Event) {
        let oldest;
        {
            let mut kept = self.kept.lock();
            if !kept.spare.lets(&mut event, Instant::now()) {
                return;
            }
            kept.last += 1;
            let record = Record {
                id: kept.last,
                time: SystemTime::now(),
                event,
            };
            let json = Mutex::default();
            kept.entries.push_back(Arc::new(Entry { record, json }));
            oldest = match kept.entries.len() > KEPT {
                true => kept.entries.pop_front(),
                false => None,
            };
        }
        self.news.notify_one();
        // Not under the lock.
        drop(oldest);
    }

    /// Whether a line of the log that an app may cause at any rate is to be written now: ten of a name a
    /// second, and one of each execution, or of whatever else is given for it. Then, how many of its like
    /// were left out before it; none where that is nothing.
    #[must_use]
    pub fn line(&self, name: &'static str, execution: Option<&str>) -> Option<Unsaid> {
        let execution = execution.map(Text::name);
        let before = self.lines.lock().may(name, execution, Instant::now())?;
        Some((before > 0).then_some(before))
    }

    /// How many lines of each name were left out at the end of a storm, which no other line tells.
    #[must_use]
    pub fn lines_left_out(&self) -> Vec<(&'static str, u64)> {
        self.lines.lock().rest(Instant::now())
    }

    /// The number of the last event; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.kept.lock().last
    }

    /// Up to `most` events after the one of that number.
    #[must_use]
    pub fn after(&self, id: u64, most: usize) -> Batch {
        let kept = self.kept.lock();
        let first = kept.last - kept.entries.len() as u64 + 1;
        let lost = first.saturating_sub(id.saturating_add(1));
        // There are a thousand.
        let from = id.saturating_add(1).saturating_sub(first) as usize;
        let entries = kept.entries.iter().skip(from).take(most).cloned();
        Batch {
            lost,
            entries: entries.collect(),
        }
    }

    /// Tells how far the events have come, from now on, as long as the herald runs.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Tide> {
        self.tide.subscribe()
    }

    /// Readers are to go when they have read what was told until now.
    pub fn close(&self) {
        self.kept.lock().over = true;
        self.rise();
    }

    /// Tells readers of news, from a task of its own on their thread, so that who tells an event
    /// wakes one task alone. Never ends. Cancel safe.
    pub async fn herald(&self) {
        loop {
            self.news.notified().await;
            self.rise();
            tokio::time::sleep(REST).await;
        }
    }

    fn rise(&self) {
        let tide = {
            let kept = self.kept.lock();
            Tide {
                last: kept.last,
                over: kept.over,
            }
        };
        self.tide.send_replace(tide);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(batch: &Batch) -> Vec<u64> {
        let ids = batch.entries.iter().map(|entry| entry.record().id);
        ids.collect()
    }

    #[test]
    fn what_is_kept_is_read_from_any_number_on_and_what_is_not_is_counted() {
        let events = Events::default();
        assert_eq!(events.last(), 0);
        assert!(events.after(0, 9).entries.is_empty());
        for _ in 0..KEPT as u64 + 5 {
            events.tell(Event::Drain {});
        }
        let last = KEPT as u64 + 5;
        assert_eq!(events.last(), last);
        let (first, fifth) = (events.after(0, 3), events.after(5, 2));
        assert_eq!((first.lost, ids(&first)), (5, vec![6, 7, 8]));
        assert_eq!((fifth.lost, ids(&fifth)), (0, vec![6, 7]));
        assert_eq!(events.after(0, usize::MAX).entries.len(), KEPT);
        assert_eq!(ids(&events.after(last - 1, 9)), [last]);
        for beyond in [last, last + 1, u64::MAX] {
            let batch = events.after(beyond, 9);
            assert_eq!((batch.lost, ids(&batch)), (0, vec![]));
        }
    }

    #[test]
    fn no_event_is_longer_than_a_kibibyte() {
        for event in Event::samples() {
            let name = event.name();
            let record = Record {
                id: u64::MAX,
                time: SystemTime::UNIX_EPOCH,
                event,
            };
            let json = serde_json::to_string(&record).unwrap();
            assert!(json.len() <= 1024, "{name}: {} bytes", json.len());
            assert!(!json.contains('\n'), "{json}");
        }
    }

    #[tokio::test]
    async fn readers_are_told_by_the_herald_and_of_the_end_at_once() {
        let events = Arc::new(Events::default());
        let mut tide = events.follow();
        let heralding = Arc::clone(&events);
        let herald = tokio::spawn(async move { heralding.herald().await });
        events.tell(Event::Drain {});
        assert_eq!(tide.wait_for(|tide| tide.last == 1).await.unwrap().last, 1);
        events.close();
        assert!(tide.borrow().over);
        herald.abort();
    }
}
