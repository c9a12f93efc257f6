//! Both directions between a client and its server connection.
//!
//! One task reads both sockets into the buffer that all sessions share and writes what it read to
//! the other side at once; only what the other side does not take is kept, and then its source is
//! not read. No timer, no allocation and no wake-up of another task is on this path.

mod standing;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::metrics::{Code, Counters, Operations};
use crate::protocol::expect::Expectations;
use crate::protocol::frame::Violation;
use crate::protocol::message::{Report, SqlState};
use crate::protocol::{backend, frontend};
use crate::server::Connection;
use crate::session::{Ending, Gatepost, Grace, Mail, Session, State};
use crate::story::{What, Word};

use super::forbid::Forbidden;
use super::lane::Lane;
use super::line::Line;
use super::remember::Statements;
use super::scan::{FromClient, FromServer};
use super::taint::Taint;
use standing::Standing;

/// Why a relay is over.
#[derive(Debug)]
pub(super) enum Over {
    /// The client has said goodbye.
    Terminated,
    /// The client has gone without a word.
    Vanished,
    /// The client has sent what is no message.
    Violated(Violation),
    /// The server has closed, or sent what is no message.
    ServerGone,
    /// The session is ended from outside.
    Ended(Box<Ending>),
}

/// A client and its server connection, while they are one session.
pub(super) struct Relay<'a> {
    line: &'a Line,
    connection: &'a mut Connection,
    session: &'a Session,
    forbidden: &'a Forbidden,
    gatepost: &'a Gatepost,
    standing: Option<Standing<'a>>,
    up: Lane,
    down: Lane,
    frontend: frontend::Scanner,
    backend: backend::Scanner,
    expectations: Expectations,
    statements: Statements,
    /// Whether the server's answers have been those to what was asked, up to now.
    in_step: bool,
    /// What a session may leave behind: looked for only where it matters.
    taint: Taint,
    /// What the client is to be told between two messages.
    notices: Vec<u8>,
    /// Whether the server itself has told the client that it ends the session.
    server_said_goodbye: bool,
    meters: Meters,
    /// With what the operation under way has failed, if it has.
    failing: Option<Code>,
}

/// Where a relay counts, and tells how long the server takes; none: nobody wants to know.
#[derive(Debug, Clone)]
pub(super) struct Meters {
    pub(super) counters: Arc<Counters>,
    pub(super) operations: Option<Arc<Operations>>,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        line: &'a Line,
        connection: &'a mut Connection,
        session: &'a Session,
        forbidden: &'a Forbidden,
        gatepost: &'a Gatepost,
        taint: Taint,
        meters: Meters,
    ) -> Self {
        Self {
            line,
            connection,
            session,
            forbidden,
            gatepost,
            standing: None,
            up: Lane::default(),
            down: Lane::default(),
            frontend: frontend::Scanner::default(),
            backend: backend::Scanner::default(),
            expectations: Expectations::default(),
            statements: Statements::default(),
            in_step: true,
            taint,
            notices: Vec::new(),
            server_said_goodbye: false,
            meters,
            failing: None,
        }
    }

    /// Whether the server has told the client that it ends the session.
    pub(super) fn was_told(&self) -> bool {
        self.server_said_goodbye
    }

    /// What is under way will not be answered: it has failed, with `code` unless the server has told
    /// one.
    pub(super) fn gave_up(&mut self, code: Code) {
        let Some(operations) = &self.meters.operations else {
            return;
        };
        if let Some(took) = self.session.unanswered_for() {
            operations.answered(took, self.failing.take().or(Some(code)));
        }
    }

    /// Whether the session has left something behind that a reset does not undo.
    pub(super) fn is_tainted(&self) -> bool {
        self.taint == Taint::Found
    }

    /// What it does is cancelled, by whom.
    pub(super) fn is_cancelled(&self, origin: &str) {
        let origin = Word::of(origin);
        self.session.tell(What::Cancelled { origin });
    }

    /// Tells the client something before the server's first answer.
    pub(super) fn tell(&mut self, messages: &[u8]) -> io::Result<()> {
        self.down.send(messages, &self.line.socket)
    }

    /// Relays, beginning with `held`, which the client has sent already, until something ends it.
    pub(super) async fn run(&mut self, held: &[u8], mail: &mut Mail) -> Over {
        if let Some(over) = self.pass_up(held) {
            return over;
        }
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ending) = mail.poll_end(cx) {
                return Poll::Ready(Over::Ended(ending));
            }
            if mail.has_notices() {
                self.take_notices(mail);
            }
            let over = loop {
                if let Poll::Ready(over) = self.poll_up(cx) {
                    return Poll::Ready(over);
                }
                let over = self.poll_down(cx);
                if over.is_ready() || !self.is_released() {
                    break over;
                }
            };
            if over.is_pending() && !self.notices.is_empty() {
                self.tell_notices();
            }
            over
        })
        .await
    }

    /// Has the client told, at once or at the end of the message that is passing. One that does not
    /// take what it got is told later, or never: nobody waits for that.
    #[cold]
    fn take_notices(&mut self, mail: &mut Mail) {
        mail.take_notices(&mut self.notices);
        self.tell_notices();
    }

    /// Tells the client what it is to be told, if no message has begun and it has taken all.
    fn tell_notices(&mut self) {
        if self.server_said_goodbye {
            self.notices = Vec::new();
        }
        if self.notices.is_empty() || !self.backend.at_boundary() || !self.down.is_flushed() {
            return;
        }
        let notices = std::mem::take(&mut self.notices);
        // A client that has gone is noticed where it is read.
        let _ = self.tell(&notices);
    }

    /// Goes on until the server has answered all, until `grace` is over at the latest. Nothing new is taken from
    /// the client but the rows of a COPY that has begun.
    pub(super) async fn finish(&mut self, grace: &Grace) {
        let work = std::future::poll_fn(|cx| {
            let up_is_over = match self.expectations.in_copy() {
                true => self.poll_up(cx).is_ready(),
                false => {
                    let sent = self.up.poll_flush(cx, self.connection.socket());
                    matches!(sent, Poll::Ready(Err(_)))
                }
            };
            if up_is_over || self.poll_down(cx).is_ready() || self.is_idle() {
                return Poll::Ready(());
            }
            Poll::Pending
        });
        tokio::select! {
            () = work => {}
            () = grace.over() => {}
        }
    }

    /// Tells the client nothing more.
    pub(super) fn hush(&mut self) {
        self.down.sink();
    }

    /// Waits until the server has answered all that the client has asked, for at most `patience`;
    /// the client is told it while it is there. Answers whether the connection can be given back.
    pub(super) async fn drain(&mut self, patience: Duration) -> bool {
        // A COPY that is cut off is not repaired, as its server waits for rows; nor is a batch that
        // no Sync has ended, which the server would give up with its connection.
        let is_cut_off = self.expectations.outstanding() == 0 && !self.is_idle();
        if self.expectations.in_copy() || is_cut_off {
            return false;
        }
        self.down.try_only();
        let work = std::future::poll_fn(|cx| {
            loop {
                if self.is_idle() {
                    return Poll::Ready(true);
                }
                let sent = self.up.poll_flush(cx, self.connection.socket());
                if matches!(sent, Poll::Ready(Err(_))) {
                    return Poll::Ready(false);
                }
                // Ready means over; pending may have made it idle.
                let read = self.poll_down(cx);
                if read.is_ready() {
                    return Poll::Ready(false);
                }
                if !self.is_idle() {
                    return Poll::Pending;
                }
            }
        });
        tokio::time::timeout(patience, work).await.unwrap_or(false)
    }

    /// Tells the client why its session ends, if no message of the server's has begun. Waits, but
    /// not for long, until the client has taken it.
    pub(super) async fn say_goodbye(&mut self, report: &Report, patience: Duration) {
        if !self.backend.at_boundary() || self.server_said_goodbye {
            return;
        }
        let mut out = Vec::new();
        report.encode(&mut out);
        if self.tell(&out).is_ok() {
            self.flush(patience).await;
        }
        self.line.socket.finish_writing();
    }

    /// Waits, for at most `patience`, until the client has taken what it was told.
    pub(super) async fn flush(&mut self, patience: Duration) {
        let flush = std::future::poll_fn(|cx| self.down.poll_flush(cx, &self.line.socket));
        let _ = tokio::time::timeout(patience, flush).await;
    }

    /// Whether the server has answered all that was asked, and said nothing else.
    pub(super) fn is_idle(&self) -> bool {
        self.in_step
            && self.expectations.is_idle()
            && self.up.is_flushed()
            && self.down.unscanned.is_empty()
            && self.backend.at_boundary()
    }

    /// From the client to the server.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        loop {
            if let Err(_broken) =
                std::task::ready!(self.up.poll_flush(cx, self.connection.socket()))
            {
                // The server's last words, and its end, come the other way.
                self.up.sink();
            }
            if (self.standing.is_some() || self.gatepost.is_shut())
                && let Some(over) = std::task::ready!(self.poll_gatepost(cx))
            {
                return Poll::Ready(over);
            }
            let line = self.line;
            let Ok(readable) = std::task::ready!(line.socket.poll_readable(cx)) else {
                return Poll::Ready(Over::Vanished);
            };
            let mut buffer = line.scratch.lend();
            let kept = self.up.unscanned.len();
            self.up.put_kept(&mut buffer);
            let over = match readable.read(&mut buffer[kept..]) {
                Ok(None) => None,
                Ok(Some(0)) | Err(_) => Some(Over::Vanished),
                Ok(Some(read)) => self.pass_up(&buffer[..kept + read]),
            };
            if let Some(over) = over {
                return Poll::Ready(over);
            }
        }
    }

    /// From the server to the client.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        loop {
            if let Err(_broken) = std::task::ready!(self.down.poll_flush(cx, &self.line.socket)) {
                return Poll::Ready(Over::Vanished);
            }
            let line = self.line;
            let Ok(readable) = std::task::ready!(self.connection.socket().poll_readable(cx)) else {
                return Poll::Ready(Over::ServerGone);
            };
            let mut buffer = line.scratch.lend();
            let kept = self.down.unscanned.len();
            self.down.put_kept(&mut buffer);
            let over = match readable.read(&mut buffer[kept..]) {
                Ok(None) => None,
                Ok(Some(0)) | Err(_) => Some(Over::ServerGone),
                Ok(Some(read)) if self.notices.is_empty() => self.pass_down(&buffer[..kept + read]),
                Ok(Some(read)) => self.pass_down_with_notices(&buffer[..kept + read]),
            };
            if let Some(over) = over {
                return Poll::Ready(over);
            }
        }
    }

    /// Scans and forwards what the client has sent.
    fn pass_up(&mut self, bytes: &[u8]) -> Option<Over> {
        let mut seen = FromClient::default();
        let fed = self.frontend.feed(bytes, &mut |event| {
            self.taint.look_at(&event);
            seen.take(
                event,
                &mut self.expectations,
                &mut self.statements,
                self.forbidden,
            );
        });
        if seen.works {
            let statement = if seen.executed {
                self.statements.current()
            } else {
                seen.sql
            };
            self.session.sent(seen.queries, statement);
        }
        let (whole, over) = match (fed, seen.terminated_at) {
            (_, Some(at)) => (at, Some(Over::Terminated)),
            (Ok(whole), None) => (whole, None),
            // What came before it is done, as the server would have.
            (Err(violation), None) => (seen.end.min(bytes.len()), Some(Over::Violated(violation))),
        };
        let to = self.connection.socket();
        if self
            .up
            .forward(&bytes[..whole], &seen.replacements, to)
            .is_err()
        {
            self.up.sink();
        }
        self.up
            .keep(if over.is_none() { &bytes[whole..] } else { &[] });
        over
    }

    /// The same, with the notices put where the message ends that has begun to pass.
    #[cold]
    fn pass_down_with_notices(&mut self, bytes: &[u8]) -> Option<Over> {
        let (passing, behind) = bytes.split_at(self.backend.left().min(bytes.len()));
        if !passing.is_empty() {
            let over = self.pass_down(passing);
            if over.is_some() {
                return over;
            }
        }
        // What was read a moment ago had been taken by the client up to then, and is not much.
        if self.backend.at_boundary() && !self.server_said_goodbye {
            let notices = std::mem::take(&mut self.notices);
            if self.tell(&notices).is_err() {
                return Some(Over::Vanished);
            }
        }
        match behind.is_empty() {
            true => None,
            false => self.pass_down(behind),
        }
    }

    /// Scans and forwards what the server has sent.
    fn pass_down(&mut self, bytes: &[u8]) -> Option<Over> {
        let mut seen = FromServer {
            failing: self.failing,
            ..FromServer::default()
        };
        let fed = self.backend.feed(bytes, &mut |event| {
            seen.take(
                event,
                &mut self.expectations,
                self.connection,
                self.forbidden,
                &self.meters.counters,
            );
        });
        self.failing = seen.failing;
        self.server_said_goodbye |= seen.fatal;
        if seen.errors > 0 {
            let error = seen.error.unwrap_or(SqlState::INTERNAL_ERROR);
            self.session.failed(seen.errors, *error.as_bytes());
        }
        if seen.out_of_step && self.in_step {
            self.in_step = false;
            tracing::warn!(
                event = "server.out_of_step",
                session_id = self.session.id().0,
                execution_id = %self.session.identity().execution,
                upstream = &*self.session.identity().upstream,
                "the server sent what nothing had asked for; its connection will be closed"
            );
        }
        let Ok(whole) = fed else {
            return Some(Over::ServerGone);
        };
        let (part, rest) = bytes.split_at(whole);
        if self
            .down
            .forward(part, &seen.replacements, &self.line.socket)
            .is_err()
        {
            return Some(Over::Vanished);
        }
        self.down.keep(rest);
        if let Some(status) = seen.ready {
            let in_transaction = status != b'I';
            let stands = (self.expectations.outstanding() == 0).then(|| match in_transaction {
                true => State::InTransaction,
                false if self.expectations.is_idle() => State::Idle,
                // A batch without its Sync has begun behind it.
                false => State::Active,
            });
            let took = self.session.ready(in_transaction, seen.between, stands);
            if let Some(operations) = &self.meters.operations {
                operations.answered(took, seen.failed);
            }
        }
        None
    }
}
