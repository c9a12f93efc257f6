//! A session from its admission to its end.

use std::sync::Arc;
use std::time::Instant;

use crate::metrics::{Close, Timings};
use crate::pool::{Checkout, Profile, Refused, WaiterId};
use crate::protocol::frontend::Scanner;
use crate::protocol::message::{
    Severity, authentication_ok, backend_key_data, parameter_status, ready_for_query,
};
use crate::protocol::startup::Startup;
use crate::server::Address;
use crate::session::{Ending, Mail, Session, State};

use super::cancel::Registration;
use super::line::Line;
use super::parting::part;
use super::refuse::Refusal;
use super::relay::{Meters, Relay};
use super::service::Service;
use super::startup::{Admission, key_again};
use super::taint::Taint;
use super::traced::Traced;
use super::wait::{TERMINATE, Wait, Waited, tell_failed};
use super::words;

/// How much is read of a client before its first message is looked at, in bytes.
const FIRST_READ: usize = 16 * 1024;

/// How much of a refusal is put together before the client is told it, in bytes.
const TOLD_AT_ONCE: usize = 64 * 1024;

/// A session that was let in.
pub(super) struct Visit {
    service: Arc<Service>,
    line: Line,
    admission: Admission,
    mail: Mail,
    /// What the client has sent that nobody has looked at.
    held: Vec<u8>,
    traced: Traced,
}

/// What a session was told when it came in.
struct Told {
    profile: Arc<Profile>,
    /// Kept for as long as the session can be cancelled.
    _cancel: Registration,
}

/// A server connection that is used: how long is told when this is dropped, however it ends.
struct InUse {
    timings: Arc<Timings>,
    since: Instant,
}

impl InUse {
    fn of(timings: Arc<Timings>) -> Self {
        Self {
            timings,
            since: Instant::now(),
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.timings.used(self.since.elapsed());
    }
}

/// Whether a session goes on.
enum Next {
    Stay,
    Leave,
}

impl Visit {
    pub(super) fn new(
        service: Arc<Service>,
        line: Line,
        admission: Admission,
        mail: Mail,
        held: Vec<u8>,
    ) -> Self {
        Self {
            service,
            line,
            admission,
            mail,
            held,
            traced: Traced::default(),
        }
    }

    /// The whole session.
    pub(super) async fn run(mut self, startup: Box<Startup>) {
        let opening = opening(&startup);
        drop(startup);
        if let Some(told) = self.come_in(opening).await {
            while matches!(self.turn(&told).await, Next::Stay) {}
        }
        self.session().transition(State::Closing);
        let lender = self.service.executions().lender();
        let (pool, key) = (self.admission.pool, &self.admission.key);
        lender.unpark(pool, key, WaiterId(self.session().id().0));
    }

    fn session(&self) -> &Arc<Session> {
        self.admission.seat.session()
    }

    /// Answers the startup message: from a server connection where one is at hand, or where its
    /// key has never connected, so that what is wrong is told where drivers expect it.
    async fn come_in(&mut self, opening: Vec<u8>) -> Option<Told> {
        let key = Arc::clone(&self.admission.key);
        let mut opening = Some(opening);
        self.begins_to_wait();
        let waited = match key.profile() {
            None => self.wait(Severity::Fatal, &mut opening).await,
            Some(profile) => match self.at_once().await {
                Some(waited) => waited,
                None => {
                    self.traced.forget();
                    return self
                        .answer(opening.unwrap_or_default(), profile, None)
                        .await;
                }
            },
        };
        self.has_waited(&waited);
        match waited {
            Waited::Got(checkout) => {
                self.traced.parked();
                key.learn(checkout.reported());
                let (profile, pid) = (key.profile()?, checkout.pid());
                self.session().tell_ready(pid.unwrap_or_default());
                checkout.park(WaiterId(self.session().id().0));
                self.answer(opening.unwrap_or_default(), profile, pid).await
            }
            Waited::Refused(error) => {
                let _ = self.line.socket.try_write(&error);
                self.session().closes(Close::Refused);
                None
            }
            Waited::Ended(ending) => {
                self.line.say_goodbye(&ending.report);
                None
            }
            Waited::Gone => {
                self.session().closes(Close::Vanished);
                None
            }
        }
    }

    /// A server connection, if it costs nobody anything and takes no longer than a connect.
    async fn at_once(&self) -> Option<Waited> {
        let (pool, key) = (self.admission.pool, &self.admission.key);
        let lender = self.service.executions().lender();
        if !lender.has_at_once(pool, key) {
            return None;
        }
        let checkout = lender.checkout_early(pool, key, WaiterId(self.session().id().0));
        let patience = key.target().connect_timeout;
        let begun = Instant::now();
        // Large, and there for a moment: a session must not carry it along.
        match tokio::time::timeout(patience, Box::pin(checkout))
            .await
            .ok()?
        {
            Ok(checkout) => Some(Waited::Got(Box::new(checkout))),
            Err(Refused::Dial(error)) => {
                tell_failed(&self.service, &self.admission, &error, begun.elapsed());
                Some(Waited::Refused(error.to_client(Severity::Fatal)))
            }
            // Its session is told why, at the next turn.
            Err(Refused::Ended) => None,
        }
    }

    /// Tells the client that it is in.
    async fn answer(
        &mut self,
        opening: Vec<u8>,
        profile: Arc<Profile>,
        pid: Option<i32>,
    ) -> Option<Told> {
        let session = self.session();
        let registered = self.service.cancels().register(session, pid);
        let cancel = match registered {
            Ok(cancel) => cancel,
            Err(error) => {
                tracing::error!(event = "cancel.no_key", %error, "the system has no random numbers for a cancel key");
                return None;
            }
        };
        let mut out = opening;
        for (name, value) in profile.iter() {
            parameter_status(name, value, &mut out);
        }
        backend_key_data(cancel.pid(), cancel.key(), &mut out);
        ready_for_query(b'I', &mut out);
        session.transition(State::Unbound);
        if self.write_or_end(&out).await.is_err() {
            self.session().closes(Close::Vanished);
            return None;
        }
        Some(Told {
            profile,
            _cancel: cancel,
        })
    }

    /// Waits until the client has sent something, gets it a server connection and relays. In
    /// session mode a session that has had a server connection leaves with it.
    async fn turn(&mut self, told: &Told) -> Next {
        if let Next::Leave = self.listen().await {
            return Next::Leave;
        }
        self.session().transition(State::Waiting);
        self.begins_to_wait();
        let waited = self.wait(Severity::Error, &mut None).await;
        self.has_waited(&waited);
        match waited {
            Waited::Got(checkout) => {
                // Large, and there only while a server connection is held.
                Box::pin(self.relay(*checkout, told)).await;
                Next::Leave
            }
            Waited::Refused(error) => {
                self.session().transition(State::Unbound);
                self.refuse(&error).await
            }
            Waited::Ended(ending) => self.end(&ending),
            Waited::Gone => self.leave(Close::Vanished),
        }
    }

    /// Waits for a message that needs a server.
    async fn listen(&mut self) -> Next {
        loop {
            if self.held.starts_with(TERMINATE) {
                return self.leave(Close::Terminated);
            }
            // What can't be a message needs no server connection, but what came before it does.
            let mut asks = false;
            let scanned = Scanner::default().feed(&self.held, &mut |_| asks = true);
            if let (Err(violation), false) = (scanned, asks) {
                self.line.say_goodbye(&words::violated(violation));
                return self.leave(Close::Protocol);
            }
            if self.held.len() >= 5 {
                return Next::Stay;
            }
            if let Next::Leave = self.read_more().await {
                return Next::Leave;
            }
        }
    }

    async fn wait(&mut self, severity: Severity, opening: &mut Option<Vec<u8>>) -> Waited {
        if self.admission.key.is_retired() {
            self.admission.key = key_again(&self.service, &self.admission);
        }
        let wait = Wait {
            service: &self.service,
            line: &self.line,
            admission: &self.admission,
            severity,
            opening,
            traced: &mut self.traced,
        };
        Box::pin(wait.run(&mut self.held, &mut self.mail)).await
    }

    fn begins_to_wait(&mut self) {
        let traces = self.service.executions().traces();
        self.traced.waits(traces, self.admission.seat.session());
    }

    fn has_waited(&mut self, waited: &Waited) {
        let traces = self.service.executions().traces();
        self.traced.waited(traces, &self.admission, waited);
    }

    /// Relays until the session is over, and gives the server connection back or closes it.
    async fn relay(&mut self, mut checkout: Checkout, told: &Told) {
        let Some(pid) = checkout.pid() else {
            return;
        };
        let canceller = checkout.canceller();
        self.admission.membership.runs(canceller.clone());
        self.session().bound(pid);
        let session = Arc::clone(self.session());
        let changed = differences(&told.profile, &checkout);
        let (in_use, meters) = self.meters(&checkout);
        self.traced.used(&checkout);
        let Some(connection) = checkout.connection() else {
            return;
        };
        let taint = Taint::new(self.service.serving().settings.has_reserve);
        let forbidden = self.service.forbidden();
        let gatepost = self.service.executions().lender().gatepost();
        let line = &self.line;
        let counters = Arc::clone(&meters.counters);
        let mut relay = Relay::new(
            line, connection, &session, forbidden, gatepost, taint, meters,
        );
        let held = std::mem::take(&mut self.held);
        let mut is_clean = false;
        if relay.tell(&changed).is_ok() {
            let over = relay.run(&held, &mut self.mail).await;
            drop(held);
            self.traced.ends(&over);
            let mail = &mut self.mail;
            let told = (&*session, &*counters);
            is_clean = part(&mut relay, over, mail, canceller.as_ref(), told).await;
        } else {
            session.closes(Close::Vanished);
        }
        let is_tainted = relay.is_tainted();
        drop(relay);
        session.transition(State::Closing);
        if is_tainted {
            checkout.taint();
        }
        self.admission.membership.runs(None);
        let how = match is_clean {
            true => checkout.give_back().await,
            false => checkout.discard(),
        };
        session.returned(how.as_str());
        let outcome = if is_clean { "returned" } else { "closed" };
        let traces = self.service.executions().traces();
        self.traced.over(traces, &self.admission, outcome);
        drop(in_use);
    }

    /// Where it is counted, and told, how this checkout is used.
    fn meters(&self, checkout: &Checkout) -> (Option<InUse>, Meters) {
        let lender = self.service.executions().lender();
        let timings = lender.timings(self.admission.upstream);
        let at = checkout.address().map(Address::place);
        let operations = timings
            .as_ref()
            .zip(at)
            .and_then(|(timings, (host, port))| timings.operations(&host, port));
        let meters = Meters {
            counters: Arc::clone(lender.counters()),
            operations,
        };
        (timings.map(InUse::of), meters)
    }

    /// Answers what was sent in vain, with one error for each segment. All that can be read by
    /// now has waited; so it is read before the client is told anything, which it may answer.
    async fn refuse(&mut self, error: &[u8]) -> Next {
        let mut refusal = Refusal::default();
        let mut out = Vec::new();
        loop {
            let fed = match refusal.feed(&self.held, error, &mut out) {
                Ok(fed) => fed,
                Err(violation) => {
                    words::violated(violation).encode(&mut out);
                    let _ = self.line.socket.try_write(&out);
                    return self.leave(Close::Protocol);
                }
            };
            self.held.drain(..fed.taken);
            let is_much = out.len() >= TOLD_AT_ONCE;
            if !fed.terminated && !is_much && self.sent_more().await {
                continue;
            }
            if self.write_or_end(&out).await.is_err() {
                return self.leave(Close::Vanished);
            }
            if fed.terminated {
                return self.leave(Close::Terminated);
            }
            out.clear();
            if is_much {
                continue;
            }
            if refusal.is_over() && self.held.is_empty() {
                // What it sent may have been long, and it may sit here for hours.
                self.held = Vec::new();
                return Next::Stay;
            }
            if let Next::Leave = self.read_more().await {
                return Next::Leave;
            }
        }
    }

    /// Reads what the client sends next, unless it leaves or its session is ended.
    async fn read_more(&mut self) -> Next {
        loop {
            tokio::select! {
                biased;
                news = self.mail.news() => match news {
                    Some(ending) => return self.end(&ending),
                    None => {
                        if let Next::Leave = self.tell_notices() {
                            return Next::Leave;
                        }
                    }
                },
                read = self.line.read(&mut self.held, FIRST_READ) => return match read {
                    Ok(1..) => Next::Stay,
                    Ok(0) | Err(_) => self.leave(Close::Vanished),
                },
            }
        }
    }

    /// Tells the client what it is to be told, if it takes that at once. One that takes a part can't
    /// be told anything more.
    fn tell_notices(&mut self) -> Next {
        let mut notices = Vec::new();
        self.mail.take_notices(&mut notices);
        match self.line.socket.try_write(&notices) {
            Ok(written) if written < notices.len() => self.leave(Close::Vanished),
            _ => Next::Stay,
        }
    }

    /// Reads more of what the client has sent already; false where that is nothing.
    async fn sent_more(&mut self) -> bool {
        tokio::select! {
            biased;
            read = self.line.read(&mut self.held, FIRST_READ) => matches!(read, Ok(1..)),
            () = std::future::ready(()) => false,
        }
    }

    /// Writes to the client; an end of the session does not wait for a client that reads nothing.
    /// What can be written at once is: whoever listens next then tells the client of the end.
    async fn write_or_end(&mut self, bytes: &[u8]) -> Result<(), ()> {
        tokio::select! {
            biased;
            written = self.line.write(bytes) => written.map_err(drop),
            _ = self.mail.ended() => Err(()),
        }
    }

    /// It is over, for this reason, unless it was told to end before.
    fn leave(&self, why: Close) -> Next {
        self.session().closes(why);
        Next::Leave
    }

    fn end(&self, ending: &Ending) -> Next {
        self.line.say_goodbye(&ending.report);
        Next::Leave
    }
}

/// What goes before everything else that a client is told: NegotiateProtocolVersion where it asked
/// for something newer, and AuthenticationOk.
fn opening(startup: &Startup) -> Vec<u8> {
    let mut out = startup.negotiation().unwrap_or_default();
    authentication_ok(&mut out);
    out
}

/// ParameterStatus of what the server reports otherwise than the client was told.
fn differences(told: &Profile, checkout: &Checkout) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in checkout.reported() {
        let known = told.iter().find(|(known, _)| known == name);
        if known.is_none_or(|(_, known)| known != value) {
            parameter_status(name, value, &mut out);
        }
    }
    out
}
