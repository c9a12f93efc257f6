//! What one scan of the bytes of either direction has seen.

use crate::metrics::{Class, Code, Counters, Phase};
use crate::protocol::expect::{Answer, Expectations, Sent};
use crate::protocol::message::{Fields, SqlState};
use crate::protocol::{backend, frontend};
use crate::server::Connection;

use super::forbid::Forbidden;
use super::lane::Replacement;
use super::remember::Statements;

/// What one scan of the client's bytes has seen.
#[derive(Default)]
pub(super) struct FromClient<'b> {
    /// Whether the server has something to answer.
    pub(super) works: bool,
    pub(super) queries: u64,
    /// The text of the last simple query.
    pub(super) sql: Option<&'b [u8]>,
    /// Whether the last query was a prepared statement's.
    pub(super) executed: bool,
    pub(super) replacements: Vec<Replacement>,
    pub(super) terminated_at: Option<usize>,
    /// Where the last message ends.
    pub(super) end: usize,
}

impl<'b> FromClient<'b> {
    /// Takes one message, in its order.
    pub(super) fn take(
        &mut self,
        event: frontend::Event<'b>,
        expectations: &mut Expectations,
        statements: &mut Statements,
        forbidden: &Forbidden,
    ) {
        use frontend::Message as M;
        if self.terminated_at.is_some() {
            return;
        }
        self.end = event.range.end;
        match event.message {
            M::Terminate => self.terminated_at = Some(event.range.start),
            M::Query { sql } => {
                self.queries += 1;
                (self.sql, self.executed) = (Some(sql), false);
            }
            M::Parse { name, sql } => statements.prepared(name, sql),
            M::Bind { statement, .. } => statements.bound(statement),
            M::Execute { .. } => {
                self.queries += 1;
                self.executed = true;
            }
            M::FunctionCall => self.queries += 1,
            _ => {}
        }
        if let Some(sent) = Sent::of(&event.message) {
            self.works = true;
            expectations.sent(sent);
        }
        if let Some(by) = forbidden.in_place_of(&event.message) {
            let range = event.range;
            self.replacements.push(Replacement { range, by });
        }
    }
}

/// What one scan of the server's bytes has seen.
#[derive(Default)]
pub(super) struct FromServer {
    /// The status that the last ReadyForQuery tells.
    pub(super) ready: Option<u8>,
    /// Whether one of them said that no transaction is open.
    pub(super) between: bool,
    pub(super) fatal: bool,
    pub(super) out_of_step: bool,
    /// With what the operation under way has failed, if it has.
    pub(super) failing: Option<Code>,
    /// The same of what was answered.
    pub(super) failed: Option<Code>,
    /// How many errors there were, and the code of the last.
    pub(super) errors: u32,
    pub(super) error: Option<SqlState>,
    pub(super) replacements: Vec<Replacement>,
}

impl FromServer {
    /// Takes one message, in its order.
    pub(super) fn take(
        &mut self,
        event: backend::Event<'_>,
        expectations: &mut Expectations,
        connection: &mut Connection,
        forbidden: &Forbidden,
        counters: &Counters,
    ) {
        use backend::Message as M;
        match event.message {
            M::ReadyForQuery { status } => {
                connection.saw_ready(status);
                self.ready = Some(status);
                self.between |= status == b'I';
                self.failed = self.failed.or(self.failing.take());
            }
            M::ParameterStatus { name, value } => connection.saw_report(name, value),
            M::ErrorResponse { body } => {
                if let Some(fields) = Fields::parse(body) {
                    let sqlstate = fields.sqlstate().unwrap_or(SqlState::INTERNAL_ERROR);
                    counters.failed(Phase::Relay, Class::of(sqlstate.as_str()));
                    self.failing.get_or_insert(Code::of(sqlstate.as_str()));
                    self.fatal |= is_fatal(&fields);
                    self.errors += 1;
                    self.error = fields.sqlstate();
                    if takes_no_writes(&fields) {
                        connection.saw_refused_write();
                    }
                }
                if let Some(by) = forbidden.in_place_of_error(body) {
                    let range = event.range.clone();
                    self.replacements.push(Replacement { range, by });
                }
            }
            _ => {}
        }
        if let Some(answer) = Answer::of(&event.message) {
            self.out_of_step |= expectations.answered(answer).is_err();
        }
    }
}

/// Whether the server says that it, or the transaction, takes no writes.
fn takes_no_writes(error: &Fields<'_>) -> bool {
    error.sqlstate() == Some(SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// Whether the server ends the session with this error.
fn is_fatal(error: &Fields<'_>) -> bool {
    matches!(error.get(b'V'), Some(b"FATAL" | b"PANIC"))
}
