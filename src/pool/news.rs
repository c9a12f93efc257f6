//! What the lender tells the log and who follows the events: whether databases are there, and what
//! they take.

use std::sync::Arc;
use std::time::Duration;

use crate::events::{Event, Events, Seconds, Text};
use crate::server::ConnectError;

use super::UpstreamNumber;
use super::ledger::Ledger;
use super::lender::Lender;

impl Lender {
    /// Where events are told.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The upstreams' names, by their numbers.
    pub fn name_upstreams(&self, names: Vec<Arc<str>>) {
        self.ledger.lock().names = names;
    }

    /// A dial has found nobody where somebody was.
    pub(super) fn tell_away(&self, name: &str, error: &ConnectError) {
        let error = error.for_others();
        let event = Event::DatabaseAway {
            upstream: Text::name(name),
            error: Text::sentence(&error),
        };
        tracing::warn!(
            event = event.name(),
            upstream = name,
            error,
            "the database is away: who needs it waits"
        );
        self.events.tell(event);
    }

    /// A dial has succeeded again.
    pub(super) fn tell_back(&self, name: &str, away: Duration) {
        let event = Event::DatabaseBack {
            upstream: Text::name(name),
            away_seconds: Seconds(away),
        };
        tracing::info!(
            event = event.name(),
            upstream = name,
            away_seconds = away.as_secs_f64(),
            "the database is back"
        );
        self.events.tell(event);
    }

    /// A dial was refused, as the database takes no more. The event comes once, until more were
    /// taken or even less is.
    pub(super) fn tell_full(&self, upstream: UpstreamNumber, error: &ConnectError) {
        let (name, effective, limit, is_news) = {
            let mut inner = self.ledger.lock();
            let budget = inner.gate.budget();
            let (effective, limit) = (budget.effective(), budget.limit());
            let is_news = inner.told_limit.is_none_or(|told| effective < told);
            if is_news {
                inner.told_limit = Some(effective);
            }
            (inner.name(upstream), effective, limit, is_news)
        };
        if !is_news {
            return;
        }
        let event = Event::DatabaseLimited {
            upstream: Text::name(&name),
            budget_effective: effective as u64,
            budget_limit: limit as u64,
            error: Text::sentence(&error.for_others()),
        };
        tracing::warn!(
            event = event.name(),
            upstream = &*name,
            budget_effective = effective,
            budget_limit = limit,
            %error,
            "the database has no connection left"
        );
        self.events.tell(event);
    }

    /// Tells that the database takes more than it last did, if so: a connection above that is open,
    /// or the budget is whole.
    pub(super) fn tell_raised(&self) {
        let (effective, limit, is_limited) = {
            let mut inner = self.ledger.lock();
            let Some(told) = inner.told_limit else {
                return;
            };
            let budget = inner.gate.budget();
            let (limit, is_limited) = (budget.limit(), budget.limited_by_database());
            let (open, effective) = (budget.open(), budget.effective());
            if is_limited && open <= told {
                return;
            }
            inner.told_limit = is_limited.then_some(open);
            (effective, limit, is_limited)
        };
        let event = Event::DatabaseLimitRaised {
            budget_effective: effective as u64,
            budget_limit: limit as u64,
            limited_by_database: is_limited,
        };
        tracing::info!(
            event = event.name(),
            budget_effective = effective,
            budget_limit = limit,
            limited_by_database = is_limited,
            "the database takes more connections again"
        );
        self.events.tell(event);
    }
}

impl Ledger {
    /// The name of an upstream.
    pub(super) fn name(&self, upstream: UpstreamNumber) -> Arc<str> {
        let known = self.names.get(upstream.0 as usize);
        known.map_or_else(|| upstream.0.to_string().into(), Arc::clone)
    }
}
