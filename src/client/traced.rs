//! The span of a checkout: from the beginning of its wait to the end of its use.
//!
//! It is made when all of it is known. Where nobody makes spans it costs a branch.

use std::time::{Duration, Instant, SystemTime};

use crate::pool::{Checkout, Limit};
use crate::protocol::message::{Fields, SqlState};
use crate::server::Address;
use crate::session::{Ending, Session, Totals};
use crate::telemetry::{Span, Traces};

use super::relay::Over;
use super::startup::Admission;
use super::wait::Waited;

/// What its span is called.
const NAME: &str = "execpool.checkout";

/// What is known of a session's checkout up to now.
#[derive(Debug, Default)]
pub(super) struct Traced {
    /// None where there is none, or where nobody makes spans.
    open: Option<Box<Open>>,
    /// How long the session waited when it came in, which is told with its first checkout.
    at_startup: Option<Duration>,
}

#[derive(Debug)]
struct Open {
    begun: Instant,
    at: SystemTime,
    /// What kept it waiting, if it had to.
    limit: Option<Limit>,
    /// When it got its server connection.
    granted: Option<Instant>,
    /// Where that leads.
    address: Option<(String, u16)>,
    /// What the session had done before.
    before: Totals,
    /// Why its use is over.
    end: Option<End>,
}

/// Why a checkout is over that was used.
#[derive(Debug)]
enum End {
    /// By the client.
    Left,
    /// By what it is told.
    Failed(SqlState, String),
    /// By the server.
    ServerGone,
}

impl Traced {
    /// The session begins to wait.
    pub(super) fn waits(&mut self, traces: Option<&Traces>, session: &Session) {
        if traces.is_none() {
            return;
        }
        let begun = Instant::now();
        self.open = Some(Box::new(Open {
            begun,
            at: SystemTime::now(),
            limit: None,
            granted: None,
            address: None,
            before: session.totals(begun),
            end: None,
        }));
    }

    /// This keeps the session waiting.
    pub(super) fn is_limited(&mut self, limit: Limit) {
        if let Some(open) = &mut self.open {
            open.limit = Some(limit);
        }
    }

    /// How the wait ended. One in vain is a span of its own.
    pub(super) fn waited(&mut self, traces: Option<&Traces>, who: &Admission, waited: &Waited) {
        let Some(open) = &mut self.open else { return };
        let (end, outcome) = match waited {
            Waited::Got(_) => {
                open.granted = Some(Instant::now());
                return;
            }
            Waited::Refused(error) => match refusal(error) {
                end @ End::Failed(SqlState::QUERY_CANCELED, _) => (end, "cancelled"),
                end => (end, "refused"),
            },
            Waited::Ended(ending) => (of_ending(ending), "ended"),
            Waited::Gone => (End::Left, "left"),
        };
        open.end = Some(end);
        self.over(traces, who, outcome);
    }

    /// What was got is kept for the session's first query.
    pub(super) fn parked(&mut self) {
        if let Some(open) = self.open.take() {
            self.at_startup = Some(open.begun.elapsed());
        }
    }

    /// It came to nothing that anybody need know.
    pub(super) fn forget(&mut self) {
        self.open = None;
    }

    /// It is used from now on.
    pub(super) fn used(&mut self, checkout: &Checkout) {
        if let Some(open) = &mut self.open {
            open.address = checkout.address().map(Address::place);
        }
    }

    /// Its use ends like this.
    pub(super) fn ends(&mut self, over: &Over) {
        if let Some(open) = &mut self.open {
            open.end = Some(match over {
                Over::Terminated | Over::Vanished | Over::Violated(_) => End::Left,
                Over::ServerGone => End::ServerGone,
                Over::Ended(ending) => of_ending(ending),
            });
        }
    }

    /// It is over: `outcome` says what became of the server connection.
    pub(super) fn over(&mut self, traces: Option<&Traces>, who: &Admission, outcome: &'static str) {
        let (Some(open), Some(traces)) = (self.open.take(), traces) else {
            return;
        };
        let mut span = traces.begin(NAME, who.membership.parent().as_ref(), open.at);
        let session = who.seat.session();
        let used = used(session, &open, Instant::now());
        if span.is_recorded() {
            describe(&mut span, who);
            open.describe(&mut span, &used, outcome);
            if let Some(waited) = self.at_startup.take() {
                span.set("execpool.checkout.startup_wait", waited.as_secs_f64());
            }
        }
        // Its end is that of its use: what it takes to clean the connection is not the session's.
        let lasted = match open.granted {
            Some(granted) => granted.duration_since(open.begun) + used.held.total(),
            None => open.begun.elapsed(),
        };
        span.end(open.at + lasted);
    }
}

/// What the session has done by this checkout.
fn used(session: &Session, open: &Open, now: Instant) -> Totals {
    let (mut used, before) = (session.totals(now), &open.before);
    used.queries -= before.queries;
    used.leaks -= before.leaks;
    used.held.active -= before.held.active;
    used.held.in_transaction -= before.held.in_transaction;
    used.held.idle -= before.held.idle;
    used
}

impl Open {
    fn describe(&self, span: &mut Span, used: &Totals, outcome: &'static str) {
        let waited = match self.granted {
            Some(granted) => granted.duration_since(self.begun),
            None => self.begun.elapsed(),
        };
        span.set("execpool.checkout.outcome", outcome);
        span.set("execpool.checkout.wait", waited.as_secs_f64());
        if let Some(limit) = self.limit {
            span.set("execpool.checkout.limit", limit.as_str());
        }
        if self.granted.is_some() {
            span.event("execpool.checkout.granted", self.at + waited);
            let queries = i64::try_from(used.queries).unwrap_or(i64::MAX);
            let held = used.held;
            span.set("execpool.checkout.queries", queries);
            span.set("execpool.checkout.held", held.total().as_secs_f64());
            span.set("execpool.checkout.active", held.active.as_secs_f64());
            let in_transaction = held.in_transaction.as_secs_f64();
            span.set("execpool.checkout.idle_in_transaction", in_transaction);
            span.set("execpool.checkout.idle", held.idle.as_secs_f64());
            span.set("execpool.checkout.leak_suspect", used.leaks > 0);
        }
        if let Some((host, port)) = &self.address {
            span.set_text("server.address", host);
            span.set("server.port", i64::from(*port));
        }
        match &self.end {
            Some(End::Failed(sqlstate, message)) => {
                span.set_text("db.response.status_code", sqlstate.as_str());
                span.fail(sqlstate.as_str(), message.clone());
            }
            Some(End::ServerGone) => {
                span.fail("server_gone", "the server closed the connection".to_owned());
            }
            Some(End::Left) | None => {}
        }
    }
}

/// Whose it is.
fn describe(span: &mut Span, who: &Admission) {
    let session = who.seat.session();
    let identity = session.identity();
    let number = i64::try_from(session.id().0).unwrap_or(i64::MAX);
    span.set("db.system.name", "postgresql");
    span.set_text("db.namespace", &who.key.target().database);
    span.set_text("db.client.connection.pool.name", &identity.upstream);
    span.set_text("execpool.execution.id", identity.execution.as_str());
    span.set("execpool.session.id", number);
    if let Some(label) = &identity.label {
        span.set_text("execpool.label", label);
    }
    if let Some(caller) = &identity.caller {
        span.set_text("execpool.caller", caller);
        if let Some((file, line, function)) = place(caller) {
            span.set_text("code.file.path", file);
            span.set("code.line.number", line);
            span.set_text("code.function.name", function);
        }
    }
}

/// File, line and function of the first place in `file:line function < file:line function`.
fn place(caller: &str) -> Option<(&str, i64, &str)> {
    let first = caller.split(" < ").next()?;
    let (place, function) = first.trim().rsplit_once(' ')?;
    let (file, line) = place.rsplit_once(':')?;
    Some((file, line.parse().ok()?, function))
}

fn of_ending(ending: &Ending) -> End {
    let report = &ending.report;
    End::Failed(report.sqlstate, report.message.clone())
}

/// What a client was told that got nothing.
fn refusal(error: &[u8]) -> End {
    // Behind the type and the length.
    let fields = error.get(5..).and_then(Fields::parse);
    let sqlstate = fields.as_ref().and_then(Fields::sqlstate);
    End::Failed(
        sqlstate.unwrap_or(SqlState::INTERNAL_ERROR),
        fields.map_or_else(String::new, |fields| fields.message()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{Report, Severity};

    #[test]
    fn the_first_place_of_a_caller_is_read_where_it_is_one() {
        for (caller, read) in [
            (
                "app/db.py:12 connect < app/run.py:7 main",
                Some(("app/db.py", 12, "connect")),
            ),
            ("C:\\a b.py:3 f", Some(("C:\\a b.py", 3, "f"))),
            ("somewhere", None),
            ("a.py:x f", None),
            ("", None),
        ] {
            assert_eq!(place(caller), read, "{caller}");
        }
    }

    #[test]
    fn a_refusal_is_read_from_what_the_client_was_told() {
        let mut told = Vec::new();
        let code = SqlState::TOO_MANY_CONNECTIONS;
        Report::new(Severity::Error, code, "full")
            .with_detail("who holds")
            .encode(&mut told);
        match refusal(&told) {
            End::Failed(sqlstate, message) => {
                assert_eq!((sqlstate, message.as_str()), (code, "full"));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            refusal(b""),
            End::Failed(SqlState::INTERNAL_ERROR, _)
        ));
    }
}
