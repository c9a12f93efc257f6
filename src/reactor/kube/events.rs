//! Events of Kubernetes (events.k8s.io/v1) about the pod. The same reason, about the same, within six
//! minutes is one event, whose series counts. While the API is away the last few are kept and posted afterwards.
//!
//! The library's own recorder does the same while all is well; it keeps nothing that was not
//! posted, and what was posted and not answered it posts a second time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::reactor::report::cut;
use crate::reactor::{Notice, Reason};

use super::backoff::{Backoff, random};
use super::client::Call;
use super::failure::{Cause, Deed, Failure};
use super::hand::Hand;
use super::place::Place;
use super::time;

/// Who reports.
const CONTROLLER: &str = "execpool.dev/execpool";

/// The longest pause within a series: what Kubernetes' own components take.
const SERIES: Duration = Duration::from_secs(6 * 60);

/// How long one waits to be posted: as long as the API keeps one by default.
const STALE: Duration = Duration::from_secs(60 * 60);

/// How many wait to be posted. The oldest goes first.
const WAITING: usize = 16;

/// The most bytes of a note.
const NOTE: usize = 1000;

/// What one series is of: a reason, and what it is about.
type Kind = (Reason, &'static str);

/// An event, with all its repetitions so far.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    kind: Kind,
    note: String,
    name: String,
    first: SystemTime,
    last: SystemTime,
    count: u32,
}

/// What waits to be posted, and what was.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    news: Notify,
    /// Told when one waits no more.
    gone: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Told>,
    /// The last one of each kind that the API has.
    posted: HashMap<Kind, Told>,
}

impl State {
    /// One more. It joins one that waits, or continues one that was posted.
    fn add(&mut self, kind: Kind, note: &str, pod: &str, now: SystemTime) {
        let is_open = |told: &&mut Told| told.kind == kind && within(told.last, now, SERIES);
        if let Some(told) = self.waiting.iter_mut().rev().find(is_open) {
            told.count += 1;
            told.last = now;
            return;
        }
        let posted = self.posted.get(&kind);
        let told = match posted.filter(|told| within(told.last, now, SERIES)) {
            Some(told) => Told {
                count: told.count + 1,
                last: now,
                ..told.clone()
            },
            None => Told {
                kind,
                note: cut(note, NOTE).to_owned(),
                name: name(pod, now),
                first: now,
                last: now,
                count: 1,
            },
        };
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(told);
    }

    /// The next to be posted, and whether the API has its beginning.
    fn next(&mut self, now: SystemTime) -> Option<(Told, bool)> {
        self.waiting.retain(|told| within(told.last, now, STALE));
        let told = self.waiting.front()?.clone();
        let posted = self.posted.get(&told.kind);
        let is_begun = posted.is_some_and(|posted| posted.name == told.name);
        Some((told, is_begun))
    }

    /// The API has it. It stays where it was repeated meanwhile.
    fn posted(&mut self, told: Told) {
        let is_same = |front: &Told| front.name == told.name && front.count == told.count;
        if self.waiting.front().is_some_and(is_same) {
            self.waiting.pop_front();
        }
        self.posted.insert(told.kind, told);
    }

    /// The API has forgotten it.
    fn forgotten(&mut self, told: &Told) {
        self.posted.remove(&told.kind);
    }
}

impl Outbox {
    /// Keeps it to be posted.
    pub(super) fn add(&self, notice: &Notice, note: &str, pod: &str) {
        let kind = (notice.reason, notice.about);
        self.state.lock().add(kind, note, pod, SystemTime::now());
        self.news.notify_one();
    }

    /// Forgets what was not posted.
    pub(super) fn clear(&self) {
        self.state.lock().waiting.clear();
        self.gone.notify_waiters();
    }

    /// The API has it.
    fn posted(&self, told: Told) {
        self.state.lock().posted(told);
        self.gone.notify_waiters();
    }

    /// Until none waits to be posted. Cancel safe.
    pub(super) async fn emptied(&self) {
        loop {
            // Whatever goes from here on is told to this one.
            let gone = self.gone.notified();
            if self.state.lock().waiting.is_empty() {
                return;
            }
            gone.await;
        }
    }

    fn next(&self) -> Option<(Told, bool)> {
        self.state.lock().next(SystemTime::now())
    }
}

/// Posts for ever, one after the other.
pub(super) async fn post(hand: Arc<Hand>, events: Arc<Outbox>) {
    let mut backoff = Backoff::default();
    loop {
        let Some((told, is_begun)) = events.next() else {
            hand.keeper.idle(Deed::Event);
            events.news.notified().await;
            continue;
        };
        match send(&hand, &told, is_begun).await {
            Ok(()) => {
                hand.keeper.succeeded(Deed::Event);
                events.posted(told);
                backoff.reset();
            }
            // Events live for an hour; it is begun anew.
            Err(failure) if failure.cause == Cause::NotFound && is_begun => {
                events.state.lock().forgotten(&told);
            }
            Err(failure) => {
                hand.keeper.failed(&failure);
                sleep(backoff.next(failure.after, random())).await;
            }
        }
    }
}

async fn send(hand: &Hand, told: &Told, is_begun: bool) -> Result<(), Failure> {
    let Place { namespace, .. } = &hand.api.place;
    let all = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let call = match is_begun {
        true => Call::merge(
            &format!("{all}/{}", told.name),
            &json!({"series": series(told)}),
        ),
        false => Call::create(&all, &event(&hand.api.place, told)),
    };
    match hand.api.call(Deed::Event, &call).await {
        // It had been created, and the answer got lost.
        Err(failure) if failure.cause == Cause::Conflict && !is_begun => Ok(()),
        other => other.map(drop),
    }
}

fn series(told: &Told) -> Value {
    json!({"count": told.count, "lastObservedTime": time::micro(told.last)})
}

/// The event as it is created.
fn event(place: &Place, told: &Told) -> Value {
    let (reason, _) = told.kind;
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": told.name, "namespace": place.namespace},
        "eventTime": time::micro(told.first),
        "type": if reason.is_normal() { "Normal" } else { "Warning" },
        "reason": reason.as_str(),
        "action": action(reason),
        "note": told.note,
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": place.namespace,
            "name": place.pod,
            "uid": place.uid,
        },
        "reportingController": CONTROLLER,
        "reportingInstance": cut(&place.pod, 128),
    });
    if told.count > 1 {
        event["series"] = series(told);
    }
    event
}

/// What was done, for machines.
fn action(reason: Reason) -> &'static str {
    match reason {
        Reason::PoolWarning | Reason::PoolExhausted | Reason::PoolRecovered => "WatchingPool",
        Reason::PoolCleanup => "CleaningUp",
        Reason::PoolRestart => "Restarting",
        Reason::PoolRestartRefused => "RefusingRestart",
    }
}

/// A name that no other event has: the pod's, cut to leave room for the time.
fn name(pod: &str, now: SystemTime) -> String {
    let nanos = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    // Names of Kubernetes are ASCII.
    let pod = pod.get(..pod.len().min(220)).unwrap_or_default();
    format!("{}.{nanos:x}", pod.trim_end_matches(['.', '-']))
}

/// Whether it is not longer ago than that. A clock that went back makes nothing old.
fn within(at: SystemTime, now: SystemTime, most: Duration) -> bool {
    now.duration_since(at).unwrap_or_default() < most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn add(state: &mut State, reason: Reason, seconds: u64) {
        add_about(state, (reason, "it"), seconds);
    }

    fn add_about(state: &mut State, kind: Kind, seconds: u64) {
        state.add(kind, &format!("at {seconds}"), "agent", at(seconds));
    }

    fn post(state: &mut State, seconds: u64) -> Option<(u32, bool)> {
        let (told, is_begun) = state.next(at(seconds))?;
        state.posted(told.clone());
        Some((told.count, is_begun))
    }

    #[test]
    fn the_same_within_six_minutes_is_a_series_and_later_it_is_another_event() {
        let mut state = State::default();
        for (seconds, expected) in [
            (0, (1, false)),
            (300, (2, true)),
            (650, (3, true)),
            (1020, (1, false)),
        ] {
            add(&mut state, Reason::PoolWarning, seconds);
            assert_eq!(post(&mut state, seconds), Some(expected), "at {seconds}");
        }
        assert_eq!(post(&mut state, 1020), None);
    }

    #[test]
    fn what_is_about_something_else_is_an_event_of_its_own() {
        let mut state = State::default();
        for about in ["exhausted", "sustained"] {
            add_about(&mut state, (Reason::PoolExhausted, about), 0);
        }
        assert_eq!(post(&mut state, 0), Some((1, false)));
        assert_eq!(post(&mut state, 0), Some((1, false)));
        for about in ["sustained", "exhausted"] {
            add_about(&mut state, (Reason::PoolExhausted, about), 60);
            let (told, is_begun) = state.next(at(60)).unwrap();
            assert_eq!((told.kind.1, told.count, is_begun), (about, 2, true));
            state.posted(told);
        }
        assert_eq!(post(&mut state, 60), None);
    }

    #[test]
    fn what_is_repeated_while_the_api_is_away_is_posted_once_with_its_count() {
        let mut state = State::default();
        for seconds in [0, 60, 120] {
            add(&mut state, Reason::PoolExhausted, seconds);
        }
        add(&mut state, Reason::PoolRecovered, 130);
        assert_eq!(post(&mut state, 140), Some((3, false)));
        assert_eq!(post(&mut state, 140), Some((1, false)));
        assert_eq!(post(&mut state, 140), None);
    }

    #[test]
    fn what_is_repeated_while_it_is_being_posted_is_posted_again() {
        let mut state = State::default();
        add(&mut state, Reason::PoolWarning, 0);
        let (told, _) = state.next(at(0)).unwrap();
        add(&mut state, Reason::PoolWarning, 1);
        state.posted(told);
        assert_eq!(post(&mut state, 1), Some((2, true)));
        assert_eq!(post(&mut state, 1), None);
    }

    #[test]
    fn only_the_last_few_are_kept_and_none_for_longer_than_an_hour() {
        let mut state = State::default();
        for number in 0..100 {
            add(&mut state, Reason::PoolWarning, number * 400);
        }
        assert_eq!(state.waiting.len(), WAITING);
        let last = 99 * 400;
        let kept = std::iter::from_fn(|| post(&mut state, last)).count();
        assert_eq!(kept, 9, "those of the last hour");
    }

    #[test]
    fn an_event_that_the_api_has_forgotten_is_begun_anew() {
        let mut state = State::default();
        add(&mut state, Reason::PoolWarning, 0);
        post(&mut state, 0);
        add(&mut state, Reason::PoolWarning, 5);
        let (told, is_begun) = state.next(at(5)).unwrap();
        assert!(is_begun);
        state.forgotten(&told);
        assert_eq!(post(&mut state, 5), Some((2, false)));
    }

    #[test]
    fn names_and_notes_are_as_long_as_kubernetes_takes_them() {
        let long = name(&"a-".repeat(126), at(0));
        assert!(long.len() <= 253 && !long.contains("-."), "{long}");
        assert_eq!(cut(&"ä".repeat(2000), NOTE - 1).len(), NOTE - 2);
        assert_eq!(cut("short", NOTE), "short");
    }

    #[tokio::test]
    async fn who_waits_for_all_to_be_posted_waits_for_the_last_and_never_for_none() {
        let outbox = Outbox::default();
        outbox.emptied().await;
        let notice = |about| Notice {
            reason: Reason::PoolRestart,
            about,
            words: String::new(),
        };
        outbox.add(&notice("evict"), "it is so", "agent");
        outbox.add(&notice("rollout"), "it is so", "agent");
        let emptied = outbox.emptied();
        let mut emptied = std::pin::pin!(emptied);
        for _ in 0..2 {
            let soon = tokio::time::timeout(Duration::from_millis(10), &mut emptied);
            assert!(soon.await.is_err(), "one is still there");
            let (told, _) = outbox.next().unwrap();
            outbox.posted(told);
        }
        emptied.await;
    }
}
