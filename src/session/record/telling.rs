//! What a session tells its execution's recorder, in the transitions that count.
//!
//! These are the hooks of whoever wants to know what becomes of checkouts: [`Strand::lent`] is where
//! one begins, [`Session::returned`] is where it ends, with everything that is known of it.
//!
//! Queries tell nothing, and cost nothing: what they were shows by the session's totals when something
//! else happens to it. That it asked nothing for a while is such a thing only where it lasts; the more
//! often it does in one checkout, the longer it must be, so that a session that asks something now and
//! then for a day does not wash out how it began.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::story::{Entry, Recorder, Span, What, Who, Word};

use super::{Live, Session, State, Totals, Transaction};

/// How long a session must have asked nothing for that to be told, at first.
const GAP: Duration = Duration::from_secs(1);
/// After how many of these in one checkout the next must be twice as long.
const GAPS: u32 = 4;

/// A session's part of its execution's story.
#[derive(Debug)]
pub(super) struct Strand {
    recorder: Arc<Recorder>,
    who: Arc<Who>,
    /// What was done before its queries that are not told yet.
    before: Totals,
    /// When the first of these was sent.
    since: Instant,
    /// How many errors the server has answered to them, and the last one.
    errors: u32,
    sqlstate: [u8; 5],
    /// How long it must ask nothing for that to be told.
    gap: Duration,
    /// How often it did, in this checkout.
    gaps: u32,
    /// Since when it has its server connection.
    lent: Option<Instant>,
}

impl Strand {
    fn new(recorder: Arc<Recorder>, who: Who, now: Instant) -> Self {
        Self {
            recorder,
            who: Arc::new(who),
            before: Totals::default(),
            since: now,
            errors: 0,
            sqlstate: *b"     ",
            gap: GAP,
            gaps: 0,
            lent: None,
        }
    }

    fn tell(&self, what: What, at: Instant) {
        self.recorder.tell(Some(&self.who), what, at);
    }

    fn entry(&self, what: What, at: Instant) -> Entry {
        self.recorder.entry(Some(&self.who), what, at)
    }

    /// A server connection was lent to it, on which it works from now on.
    fn lent(&mut self, pid: i32, waited: Duration, now: Instant) {
        self.lent = Some(now);
        (self.gap, self.gaps, self.since) = (GAP, 0, now);
        let waited = Span::of(waited);
        self.tell(What::Lent { pid, waited }, now);
    }

    /// Its queries that were not told yet, by what it has done up to now; `until` is when it last
    /// asked or was answered.
    fn queries(&self, totals: &Totals, until: Instant) -> Option<What> {
        let count = totals.queries - self.before.queries;
        let active = totals.held.active.saturating_sub(self.before.held.active);
        let class = match self.errors {
            0 => *b"  ",
            _ => [self.sqlstate[0], self.sqlstate[1]],
        };
        (count > 0).then_some(What::Queries {
            count: short(count),
            span: Span::of(until.saturating_duration_since(self.since)),
            active: Span::of(active),
            class,
        })
    }

    fn failures(&self) -> Option<What> {
        (self.errors > 0).then_some(What::Errors {
            sqlstate: self.sqlstate,
            phase: Word::of("relay"),
            count: self.errors,
        })
    }

    /// Something else happens: its queries up to now are one entry.
    fn close_run(&mut self, totals: Totals, until: Instant, now: Instant) {
        if let Some(queries) = self.queries(&totals, until) {
            self.tell(queries, self.since);
        }
        if let Some(failures) = self.failures() {
            self.tell(failures, until);
        }
        self.before = totals;
        self.since = now;
        self.errors = 0;
    }

    /// It has asked nothing for long enough to be told.
    fn count_gap(&mut self) {
        self.gaps += 1;
        if self.gaps.is_multiple_of(GAPS) {
            self.gap = self.gap.saturating_mul(2);
        }
    }
}

/// A number of things, in four bytes.
fn short(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Session {
    /// What happens to it is told to this recorder from now on, beginning with that it came.
    pub fn tells(&self, recorder: Arc<Recorder>) {
        let identity = &self.identity;
        let who = Who::new(
            self.id.0,
            identity.peer.pid(),
            identity.caller.as_deref(),
            identity.label.as_deref(),
            identity.application_name.as_deref(),
        );
        let strand = Strand::new(recorder, who, self.opened);
        strand.tell(What::Joined, self.opened);
        self.live.lock().strand = Some(strand);
    }

    /// Something has happened to it, now. Reads the clock: not for what happens with each query.
    pub fn tell(&self, what: What) {
        self.tell_at(what, Instant::now());
    }

    /// The same, then.
    pub fn tell_at(&self, what: What, at: Instant) {
        self.live.lock().tell(what, at);
    }

    /// The server has answered with so many errors, the last with this code.
    #[cold]
    pub fn failed(&self, count: u32, sqlstate: [u8; 5]) {
        if let Some(strand) = &mut self.live.lock().strand {
            strand.errors = strand.errors.saturating_add(count);
            strand.sqlstate = sqlstate;
        }
    }

    /// A server connection is at hand for it, which it has not used yet.
    pub fn tell_ready(&self, pid: i32) {
        let now = Instant::now();
        let mut live = self.live.lock();
        // It has done nothing else yet, and stands where it began.
        let waited = Span::of(now.saturating_duration_since(live.since));
        live.tell(What::Ready { pid, waited }, now);
    }

    /// Its checkout is over: how its server connection came back.
    pub fn returned(&self, how: &str) {
        let now = Instant::now();
        let mut live = self.live.lock();
        let lent = live.strand.as_mut().and_then(|strand| strand.lent.take());
        let held = lent.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let (how, held) = (Word::of(how), Span::of(held));
        live.tell(What::Returned { how, held }, now);
    }

    /// It has gone.
    pub fn tell_left(&self, now: Instant) {
        let mut live = self.live.lock();
        let totals = live.totals_at(now);
        let (queries, held) = (short(totals.queries), Span::of(totals.held.total()));
        live.tell(What::Left { queries, held }, now);
    }

    /// What it does that is not told yet, as far as it has come.
    #[must_use]
    pub fn untold(&self, now: Instant) -> Vec<Entry> {
        self.live.lock().untold(now)
    }
}

impl Live {
    /// Something has happened to it.
    pub(super) fn tell(&mut self, what: What, at: Instant) {
        let totals = self.totals_at(at);
        let until = self.busy_until(at);
        if let Some(strand) = &mut self.strand {
            strand.close_run(totals, until, at);
            strand.tell(what, at);
        }
    }

    /// A server connection was lent to it; before it stands elsewhere.
    pub(super) fn tell_lent(&mut self, pid: i32, now: Instant) {
        let waited = match self.state {
            State::Waiting => now.saturating_duration_since(self.since),
            _ => Duration::ZERO,
        };
        if let Some(strand) = &mut self.strand {
            strand.lent(pid, waited, now);
        }
    }

    /// It asks something, and has not worked up to now.
    #[inline]
    pub(super) fn tell_asked(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.since);
        let Some(strand) = &mut self.strand else {
            return;
        };
        if self.totals.queries == strand.before.queries {
            strand.since = now;
        }
        if idle >= strand.gap {
            self.tell_gap(idle, now);
        }
    }

    /// Its transaction has ended.
    #[inline]
    pub(super) fn tell_ended(&mut self, transaction: Transaction, now: Instant) {
        let Some(strand) = &self.strand else { return };
        let lasted = now.saturating_duration_since(transaction.since);
        if lasted >= strand.gap || transaction.is_told {
            self.tell_long(transaction, lasted, now);
        }
    }

    /// It gives its server connection up; before it stands elsewhere.
    #[cold]
    pub(super) fn tell_unbound(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.since);
        let idles = matches!(self.state, State::Idle | State::InTransaction);
        if idles && idle >= GAP {
            self.tell_gap(idle, now);
        }
        let totals = self.totals_at(now);
        let until = self.busy_until(now);
        if let Some(strand) = &mut self.strand {
            strand.close_run(totals, until, now);
        }
    }

    /// It has asked nothing for that long.
    #[cold]
    fn tell_gap(&mut self, idle: Duration, now: Instant) {
        let (totals, since) = (self.totals_at(now), self.since);
        let in_transaction = self.state == State::InTransaction;
        let Some(strand) = &mut self.strand else {
            return;
        };
        if let Some(transaction) = &mut self.transaction
            && !transaction.is_told
        {
            transaction.is_told = true;
            strand.tell(What::TransactionBegan, transaction.since);
        }
        strand.close_run(totals, since, now);
        let time = Span::of(idle);
        let what = What::Idle {
            in_transaction,
            time,
        };
        strand.tell(what, since);
        strand.count_gap();
    }

    #[cold]
    fn tell_long(&mut self, transaction: Transaction, lasted: Duration, now: Instant) {
        if let Some(strand) = &self.strand
            && !transaction.is_told
        {
            strand.tell(What::TransactionBegan, transaction.since);
        }
        let lasted = Span::of(lasted);
        self.tell(What::TransactionEnded { lasted }, now);
        if let Some(strand) = &mut self.strand {
            strand.count_gap();
        }
    }

    /// When it last asked, or was answered.
    fn busy_until(&self, now: Instant) -> Instant {
        match self.state {
            State::Active => now,
            _ => self.since,
        }
    }

    fn untold(&self, now: Instant) -> Vec<Entry> {
        let Some(strand) = &self.strand else {
            return Vec::new();
        };
        let until = self.busy_until(now);
        let queries = strand.queries(&self.totals_at(now), until);
        let queries = queries.map(|what| strand.entry(what, strand.since));
        let failures = strand.failures().map(|what| strand.entry(what, until));
        let began = self.transaction.filter(|it| !it.is_told);
        let began = began.filter(|it| now.saturating_duration_since(it.since) >= GAP);
        let began = began.map(|it| strand.entry(What::TransactionBegan, it.since));
        let idle = now.saturating_duration_since(self.since);
        let idles = matches!(self.state, State::Idle | State::InTransaction);
        let idle = (idles && idle >= GAP).then(|| {
            let what = What::Idle {
                in_transaction: self.state == State::InTransaction,
                time: Span::of(idle),
            };
            strand.entry(what, self.since)
        });
        let all = [began, queries, failures, idle];
        all.into_iter().flatten().collect()
    }
}
