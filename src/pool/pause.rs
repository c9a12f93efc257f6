//! What an operator asks of all pools: to stand still, to go on, to replace every connection, to
//! keep no reserve.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::events::{By, Event, Seconds};
use crate::session::Gatepost;

use super::gate::Counts;
use super::lender::Lender;
use super::stock::Place;

/// How often it is logged that nothing is lent.
const REMIND: Duration = Duration::from_secs(60);

/// A pause, while it lasts.
#[derive(Debug)]
pub(super) struct Pause {
    since: Instant,
    /// When it ends by itself.
    until: Option<Instant>,
    reminded: Instant,
}

/// A pause as it is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused {
    /// How long it has lasted.
    pub age: Duration,
    /// When it ends by itself; none: never.
    pub left: Option<Duration>,
}

/// What became of all connections that are to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// Idle ones, which are being closed.
    pub closed: usize,
    /// Lent ones, which are closed when they come back.
    pub lent: usize,
}

impl Lender {
    /// Lends nothing any more and dials nothing; sessions that have a connection stand still
    /// between two transactions. It ends by [`Lender::resume`] or after `time`. A pause that lasts
    /// already goes on, until the end that was said last.
    pub fn pause(&self, time: Option<Duration>) {
        let now = Instant::now();
        // What no clock can tell is never.
        let until = time.and_then(|time| now.checked_add(time));
        let mut inner = self.ledger.lock();
        let is_news = inner.pause.is_none();
        match &mut inner.pause {
            Some(pause) => pause.until = until,
            none => {
                *none = Some(Pause {
                    since: now,
                    until,
                    reminded: now,
                });
            }
        }
        inner.gate.pause();
        drop(inner);
        self.gatepost.shut();
        self.pause_moves.notify_one();
        if is_news {
            let event = Event::Pause {
                for_seconds: time.map(Seconds),
            };
            tracing::warn!(
                event = event.name(),
                for_seconds = time.map(|time| time.as_secs_f64()),
                "paused: nothing is lent"
            );
            self.events.tell(event);
        }
    }

    /// Lends again, to those first who have waited longest. Answers whether there was a pause.
    pub fn resume(self: &Arc<Self>) -> bool {
        self.resume_by(By::Operator)
    }

    fn resume_by(self: &Arc<Self>, by: By) -> bool {
        let Some(pause) = self.ledger.lock().pause.take() else {
            return false;
        };
        self.change(|inner| inner.gate.resume(), None);
        self.gatepost.open();
        let paused = pause.since.elapsed();
        let event = Event::Resume {
            paused_seconds: Seconds(paused),
            by,
        };
        tracing::info!(
            event = event.name(),
            paused_seconds = paused.as_secs_f64(),
            by = by.as_str(),
            "resumed"
        );
        self.events.tell(event);
        true
    }

    /// The pause that lasts now.
    #[must_use]
    pub fn paused(&self) -> Option<Paused> {
        let now = Instant::now();
        let inner = self.ledger.lock();
        inner.pause.as_ref().map(|pause| Paused {
            age: now.saturating_duration_since(pause.since),
            left: pause
                .until
                .map(|until| until.saturating_duration_since(now)),
        })
    }

    /// Ends a pause whose time is over; a forgotten one is an outage, so one that lasts is logged
    /// every minute. Answers when there is something to do next, unless [`Lender::pause_moves`] before.
    pub fn watch_pause(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let mut inner = self.ledger.lock();
        let pause = inner.pause.as_mut()?;
        if pause.until.is_some_and(|until| until <= now) {
            drop(inner);
            self.resume_by(By::Time);
            return None;
        }
        if now.saturating_duration_since(pause.reminded) >= REMIND {
            pause.reminded = now;
            tracing::warn!(
                event = "pause.lasts",
                paused_seconds = now.saturating_duration_since(pause.since).as_secs_f64(),
                "still paused: nothing is lent until POST /v1/resume or `execpool resume`"
            );
        }
        let remind = pause.reminded + REMIND;
        Some(pause.until.map_or(remind, |until| until.min(remind)))
    }

    /// Waits until a pause begins, or is to end at another time. For one who waits, and cancel safe.
    pub async fn pause_moves(&self) {
        self.pause_moves.notified().await;
    }

    /// Where sessions stand still during a pause.
    #[must_use]
    pub fn gatepost(&self) -> &Gatepost {
        &self.gatepost
    }

    /// How many connections are in each phase, over all pools.
    #[must_use]
    pub fn totals(&self) -> Counts {
        self.ledger.lock().gate.totals()
    }

    /// Replaces every connection: idle ones are closed now, lent ones and those that are being
    /// dialled when they come back.
    pub fn reconnect(self: &Arc<Self>) -> Replaced {
        self.epoch.fetch_add(1, Relaxed);
        let idle = self.ledger.lock().stock.take_all();
        let replaced = Replaced {
            closed: idle.len(),
            lent: self.totals().lent,
        };
        self.close_idle(idle);
        let event = Event::Reconnect {
            closed: replaced.closed as u64,
            lent: replaced.lent as u64,
        };
        tracing::info!(
            event = event.name(),
            closed = replaced.closed,
            lent = replaced.lent,
            "every server connection is replaced"
        );
        self.events.tell(event);
        replaced
    }

    /// From now on no connection waits in the reserve.
    pub fn give_up_reserve(self: &Arc<Self>) {
        self.change(|inner| inner.gate.give_up_reserve(), None);
    }

    /// Which connections are current: those that were dialled in this epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// Whether a clean connection may be lent again.
    pub(super) fn may_be_lent(&self, place: &Place) -> bool {
        place.expires > Instant::now() && place.epoch == self.epoch()
    }
}
