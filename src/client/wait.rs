//! The wait for a server connection, as the client sees it.

use std::io;
use std::time::{Duration, Instant};

use crate::events::{Event, Seconds, Text};
use crate::pool::{Checkout, Limit, Refused, WaiterId};
use crate::protocol::message::{Report, Severity};
use crate::server::ConnectError;
use crate::session::{Ending, Mail, Session};
use crate::story::{Span, What, Word};

use super::line::Line;
use super::service::Service;
use super::startup::Admission;
use super::traced::Traced;
use super::words::{self, Wanting};

/// How much is read of a client that waits, in bytes; then it is only noticed at the end of the
/// wait if it goes.
pub(super) const MOST_HELD: usize = 64 * 1024;

/// The message that ends a session.
pub(super) const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// How a wait ended.
pub(super) enum Waited {
    /// With a server connection.
    Got(Box<Checkout>),
    /// With an error, encoded.
    Refused(Vec<u8>),
    /// The session is ended from outside.
    Ended(Box<Ending>),
    /// The client has gone.
    Gone,
}

/// A session that waits.
pub(super) struct Wait<'a> {
    pub(super) service: &'a Service,
    pub(super) line: &'a Line,
    pub(super) admission: &'a Admission,
    /// How bad it is for the session to get nothing.
    pub(super) severity: Severity,
    /// What must be sent before the first notice, and is taken by it.
    pub(super) opening: &'a mut Option<Vec<u8>>,
    pub(super) traced: &'a mut Traced,
}

impl Wait<'_> {
    /// Waits; what the client sends meanwhile goes onto the end of `held`.
    pub(super) async fn run(mut self, held: &mut Vec<u8>, mail: &mut Mail) -> Waited {
        let begun = Instant::now();
        let admission = self.admission;
        let session = admission.seat.session();
        let lender = self.service.executions().lender();
        let (patience, notice_after) = {
            let serving = self.service.serving();
            let pool = &serving.by(admission.upstream).config.pool;
            (pool.timeout, pool.notice_after)
        };
        let checkout = lender.checkout(admission.pool, &admission.key, WaiterId(session.id().0));
        let mut checkout = std::pin::pin!(checkout);
        let mut timeout = std::pin::pin!(tokio::time::sleep(patience));
        let mut notice = std::pin::pin!(tokio::time::sleep(notice_after));
        let mut noticed = notice_after >= patience;
        let mut hears = true;
        let mut waits = false;
        loop {
            tokio::select! {
                biased;
                news = mail.news() => {
                    if let Some(ending) = news {
                        return Waited::Ended(ending);
                    }
                    let mut notices = Vec::new();
                    mail.take_notices(&mut notices);
                    if self.tell(&notices).is_err() {
                        return Waited::Gone;
                    }
                }
                checkout = &mut checkout => {
                    if let (Ok(_), Some(timings)) = (&checkout, lender.timings(admission.upstream)) {
                        timings.waited(begun.elapsed());
                    }
                    return self.answered(checkout, mail, begun.elapsed()).await;
                }
                () = session.wait_cancelled() => {
                    let report = words::cancelled_while_waiting(self.severity);
                    return Waited::Refused(encoded(&report));
                }
                read = self.line.read(held, MOST_HELD - held.len()),
                    if hears && held.len() < MOST_HELD =>
                {
                    hears = matches!(read, Ok(1..));
                    // One that said goodbye behind its query wants it done all the same.
                    if !hears && !held.ends_with(TERMINATE) {
                        return Waited::Gone;
                    }
                }
                () = &mut notice, if !noticed => {
                    noticed = true;
                    if self.notify(session, begun.elapsed()).is_err() {
                        return Waited::Gone;
                    }
                }
                () = &mut timeout => return Waited::Refused(self.in_vain(session, begun.elapsed())),
                // All others were asked, and none is ready: it waits.
                () = std::future::ready(()), if !waits => {
                    waits = true;
                    let limit = lender.limit(admission.pool);
                    let word = Word::of(limit.as_str());
                    session.tell_at(What::Waiting { limit: word }, begun);
                    self.traced.is_limited(limit);
                }
            }
        }
    }

    async fn answered(
        &self,
        checkout: Result<Checkout, Refused>,
        mail: &mut Mail,
        waited: Duration,
    ) -> Waited {
        match checkout {
            Ok(checkout) => Waited::Got(Box::new(checkout)),
            Err(Refused::Dial(error)) => {
                tell_failed(self.service, self.admission, &error, waited);
                Waited::Refused(error.to_client(self.severity))
            }
            // Who ends an execution tells its sessions first.
            Err(Refused::Ended) => match mail.take_end() {
                Some(ending) => Waited::Ended(ending),
                None => Waited::Refused(encoded(&words::ended(self.admission.membership.id()))),
            },
        }
    }

    /// Tells the client that it waits.
    fn notify(&mut self, session: &Session, waited: Duration) -> io::Result<()> {
        let notice = self.wanting(session, waited, |wanting| {
            session.tell(What::Notice {
                limit: Word::of(wanting.shortage.limit.as_str()),
                waited: Span::of(wanting.waited),
            });
            wanting.notice()
        });
        self.tell(&encoded(&notice))
    }

    /// Tells the client something, unless it has not read for so long that it takes nothing: nobody
    /// waits for that. One that takes a part of it can't be told anything more.
    fn tell(&mut self, notices: &[u8]) -> io::Result<()> {
        let mut out = self.opening.clone().unwrap_or_default();
        out.extend_from_slice(notices);
        match self.line.socket.try_write(&out) {
            Ok(written) if written < out.len() => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {
                *self.opening = None;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Nothing came in time: the same sentence for the client and for the log.
    fn in_vain(&self, session: &Session, waited: Duration) -> Vec<u8> {
        let lender = self.service.executions().lender();
        lender.timed_out(self.admission.upstream);
        let holders = self.service.serving().settings.holders;
        let sessions = self.service.executions().sessions();
        let (report, limit) = self.wanting(session, waited, |wanting| {
            let report = wanting.refusal(self.severity, sessions, holders);
            (report, wanting.shortage.limit)
        });
        lender.waited_in_vain(limit);
        session.tell(What::Refused {
            limit: Word::of(limit.as_str()),
            sqlstate: *report.sqlstate.as_bytes(),
            waited: Span::of(waited),
        });
        let event = refused(session, &report, limit, waited);
        let events = self.service.executions().events();
        let execution = &session.identity().execution;
        if let Some(unsaid) = events.line(event.name(), Some(execution.as_str())) {
            tracing::warn!(
                event = event.name(),
                limit = limit.as_str(),
                session_id = session.id().0,
                execution_id = %execution,
                trace_id = session.identity().trace_id(),
                upstream = &*session.identity().upstream,
                sqlstate = report.sqlstate.as_str(),
                waited_seconds = waited.as_secs_f64(),
                detail = report.detail.as_deref().unwrap_or_default(),
                unsaid,
                "{}", report.message
            );
        }
        events.tell(event);
        encoded(&report)
    }

    fn wanting<R>(
        &self,
        session: &Session,
        waited: Duration,
        tell: impl FnOnce(Wanting<'_>) -> R,
    ) -> R {
        let lender = self.service.executions().lender();
        let shortage = lender.shortage(self.admission.pool, WaiterId(session.id().0));
        tell(Wanting {
            execution: self.admission.membership.id(),
            upstream: &session.identity().upstream,
            waited,
            shortage: &shortage,
        })
    }
}

/// Tells that the dial has failed that was for a session: all who listen, also where the session has
/// not asked anything yet.
pub(super) fn tell_failed(
    service: &Service,
    admission: &Admission,
    error: &ConnectError,
    waited: Duration,
) {
    let session = admission.seat.session();
    let identity = session.identity();
    session.tell(What::Failed {
        sqlstate: *error.sqlstate().as_bytes(),
        waited: Span::of(waited),
    });
    let event = Event::CheckoutFailed {
        execution_id: Text::name(identity.execution.as_str()),
        session_id: session.id().0,
        upstream: Text::name(&identity.upstream),
        sqlstate: Text::name(error.sqlstate().as_str()),
        error: Text::sentence(&error.for_others()),
        unsaid: 0,
    };
    let events = service.executions().events();
    if let Some(unsaid) = events.line(event.name(), Some(identity.execution.as_str())) {
        tracing::warn!(
            event = event.name(),
            session_id = session.id().0,
            execution_id = %identity.execution,
            trace_id = identity.trace_id(),
            upstream = &*identity.upstream,
            sqlstate = error.sqlstate().as_str(),
            error = error.for_others(),
            unsaid,
            "no server connection could be opened"
        );
    }
    events.tell(event);
}

/// The event of a wait in vain.
fn refused(session: &Session, report: &Report, limit: Limit, waited: Duration) -> Event {
    Event::CheckoutRefused {
        execution_id: Text::name(session.identity().execution.as_str()),
        session_id: session.id().0,
        upstream: Text::name(&session.identity().upstream),
        sqlstate: Text::name(report.sqlstate.as_str()),
        limit: Text::name(limit.as_str()),
        waited_seconds: Seconds(waited),
        message: Text::sentence(&report.message),
        unsaid: 0,
    }
}

fn encoded(report: &Report) -> Vec<u8> {
    let mut out = Vec::new();
    report.encode(&mut out);
    out
}
