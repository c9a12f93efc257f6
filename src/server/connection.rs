//! A logged-in server connection, and what is asked of it between two sessions.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Role, Tls};
use crate::metrics::Class;
use crate::protocol::message::{Fields, SqlState};
use crate::protocol::startup::Parameters;

use super::auth::{Authentication, Channel, Step};
use super::reach::{Way, open, ways};
use super::socket::{Pending, Socket};
use super::{Address, Backend, ConnectError};

/// No message of a start-up, a ping or a reset is longer; more is not PostgreSQL.
const MAX_MESSAGE: usize = 1 << 20;

/// The setting by which a server looks whether its client is still there.
const CHECK: &str = "client_connection_check_interval";

/// What a server is, in one column, as every version tells it.
const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery()::text || ' ' || \
    pg_catalog.current_setting('transaction_read_only')";

/// Everything that a login needs.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// Where the server listens.
    pub address: &'a Address,
    /// Which machine of those that its name means; none: the first that answers.
    pub machine: Option<SocketAddr>,
    /// As whom.
    pub user: &'a str,
    /// To which database.
    pub database: &'a str,
    /// The password, if one is configured.
    pub password: Option<&'a [u8]>,
    /// How the server is spoken to.
    pub tls: &'a Arc<Tls>,
    /// The client's other startup parameters.
    pub parameters: &'a Parameters,
    /// Whether the server is to look every second, amid a query, whether we are still there: a
    /// process that is killed leaves no query behind. Servers that can't are not asked.
    pub checks_client: bool,
    /// How long reaching the server and logging in may take together.
    pub timeout: Duration,
    /// The idleness of a TCP connection after which the kernel asks whether the server is there.
    pub keepalive: Duration,
}

/// A server connection that is logged in and between two sessions.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    address: Address,
    /// What was reached; a broken socket no longer knows it.
    machine: Option<SocketAddr>,
    tls: Arc<Tls>,
    pid: i32,
    key: [u8; 4],
    /// What the server reported last, by name.
    reported: Vec<(String, Vec<u8>)>,
    /// The status of the last ReadyForQuery: `I`, `T` or `E`.
    status: u8,
    /// Whether the server was a standby at the login, where it says so.
    was_standby: Option<bool>,
    /// Whether it has refused a write.
    refused_write: bool,
    created: Instant,
    /// Bytes read and not yet taken apart.
    unread: Vec<u8>,
    /// Why the way was not had that was to be taken first.
    second_choice: Option<Box<ConnectError>>,
}

/// Why a connection may not be lent again. It is closed; the client does not see it.
#[derive(Debug, thiserror::Error)]
pub enum Unclean {
    /// The server answered the reset with an error.
    #[error("the reset failed: {} {message}", .sqlstate.as_str())]
    Failed {
        /// The server's SQLSTATE.
        sqlstate: SqlState,
        /// What it said.
        message: String,
    },
    /// Something came that is no answer to the reset.
    #[error("message {0:?} came in answer to the reset")]
    Unexpected(char),
    /// A transaction is still open after it.
    #[error("the connection is not idle after the reset")]
    NotIdle,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

impl Unclean {
    /// What it is counted as.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Failed { sqlstate, .. } => Class::of(sqlstate.as_str()),
            Self::Unexpected(_) | Self::NotIdle | Self::Broken(_) => Class::CONNECTION,
        }
    }
}

impl Connection {
    /// Reaches the server and logs in, until its first ReadyForQuery.
    ///
    /// Cancel safe: dropping the future closes the socket, and the server with it ends
    /// the backend that it had begun.
    ///
    /// # Errors
    /// See [`ConnectError`]; the server's own ErrorResponse is kept as it came.
    pub async fn connect(login: &Login<'_>) -> Result<Self, ConnectError> {
        let start = tokio::time::timeout(login.timeout, Self::start(login));
        start.await.map_err(|_| ConnectError::Timeout {
            address: login.address.clone(),
            after: login.timeout,
        })?
    }

    /// Tries one way, and then the other, as libpq does.
    async fn start(login: &Login<'_>) -> Result<Self, ConnectError> {
        let mut last = None;
        let mut checks = login.checks_client && !has_check(login.parameters);
        for way in ways(login.address, login.tls) {
            let mut started = Self::start_by(login, *way, checks).await;
            if checks && matches!(&started, Err(error) if error.is_about(CHECK)) {
                // An old server, or something between: it works without.
                checks = false;
                started = Self::start_by(login, *way, checks).await;
            }
            match started {
                Err(error) if error.is_the_other_way_worth_a_try() => last = Some(error),
                Ok(connection) => {
                    return Ok(Self {
                        second_choice: last.map(Box::new),
                        ..connection
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(ConnectError::NoAddress))
    }

    async fn start_by(login: &Login<'_>, way: Way, checks: bool) -> Result<Self, ConnectError> {
        let socket = open(
            login.address,
            login.machine,
            login.tls,
            way,
            Some(login.keepalive),
        )
        .await?;
        let mut connection = Self {
            machine: socket.peer(),
            socket,
            address: login.address.clone(),
            tls: Arc::clone(login.tls),
            pid: 0,
            key: [0; 4],
            reported: Vec::new(),
            status: 0,
            was_standby: None,
            refused_write: false,
            created: Instant::now(),
            unread: Vec::new(),
            second_choice: None,
        };
        let startup = match checks {
            true => with_check(login.parameters).encode(login.user, login.database),
            false => login.parameters.encode(login.user, login.database),
        };
        let broken = |source| ConnectError::broken(login.address, source);
        connection.write(&startup).await.map_err(broken)?;
        let mut login = Authentication::new(
            login.address,
            login.user,
            login.password,
            Channel::of(&connection.socket, login.tls),
        );
        while connection.status == 0 {
            let (kind, body) = connection.message().await.map_err(broken)?;
            connection.started_with(kind, body, &mut login).await?;
        }
        connection.was_standby = connection.says("in_hot_standby");
        Ok(connection)
    }

    /// Takes one message of the start-up.
    async fn started_with(
        &mut self,
        kind: u8,
        body: Vec<u8>,
        login: &mut Authentication<'_>,
    ) -> Result<(), ConnectError> {
        match kind {
            b'R' => {
                if let Step::Send(answer) = login.answer(&body)? {
                    let sent = self.write(&answer).await;
                    sent.map_err(|source| self.broken(source))?;
                }
            }
            _ if !login.is_complete() && kind != b'E' => {
                return Err(ConnectError::ServerNotAuthentic(self.address.clone()));
            }
            b'K' => {
                let (pid, key) = key_data(&body).ok_or_else(|| self.broken(malformed()))?;
                (self.pid, self.key) = (pid, key);
            }
            b'E' => return Err(ConnectError::Refused(body)),
            b'Z' => self.status = ready(&body).map_err(|source| self.broken(source))?,
            b'S' => self.report(&body),
            // Notices of a start-up, and the answer to a newer protocol, change nothing.
            b'N' | b'v' => {}
            _ => return Err(self.broken(malformed())),
        }
        Ok(())
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The backend that serves it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        Backend {
            pid: self.pid,
            machine: self.machine(),
        }
    }

    /// The machine that it leads to; none for a socket.
    #[must_use]
    pub fn machine(&self) -> Option<SocketAddr> {
        self.machine
    }

    /// What the server is: as it reports it, or else as it answers.
    ///
    /// Not cancel safe: a connection that was asked and not heard must be closed.
    ///
    /// # Errors
    /// See [`Unclean`].
    pub async fn role(&mut self) -> Result<Role, Unclean> {
        let said = (
            self.says("in_hot_standby"),
            self.says("default_transaction_read_only"),
        );
        if let (Some(is_standby), Some(is_read_only)) = said {
            return Ok(Role {
                is_standby,
                is_read_only,
            });
        }
        let answer = self.ask(ROLE).await?;
        Ok(Role {
            is_standby: answer.first() == Some(&b't'),
            is_read_only: answer.ends_with(b"on"),
        })
    }

    /// Whether the server is what it was at the login, as far as it has said: after a failover it
    /// may take no writes, and a session that was lent it would fail.
    #[must_use]
    pub fn is_what_it_was(&self) -> bool {
        !self.refused_write && self.says("in_hot_standby") == self.was_standby
    }

    /// A relay has seen that the server takes no writes.
    pub fn saw_refused_write(&mut self) {
        self.refused_write = true;
    }

    fn says(&self, name: &str) -> Option<bool> {
        self.reported(name).map(|value| value == b"on")
    }

    /// How it is spoken to, and by which way that came about: a cancel request goes the same.
    #[must_use]
    pub fn way(&self) -> (Arc<Tls>, Way) {
        let way = match self.socket.is_encrypted() {
            true => Way::Tls,
            false => Way::Plain,
        };
        (Arc::clone(&self.tls), way)
    }

    /// Why it is not in TLS although that was tried first; taken out, so that it is told once.
    pub fn take_failed_tls(&mut self) -> Option<Box<ConnectError>> {
        let failed = self.second_choice.take();
        failed.filter(|_| !self.socket.is_encrypted())
    }

    /// The process id of the backend.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The secret with which the backend can be cancelled.
    #[must_use]
    pub fn key(&self) -> [u8; 4] {
        self.key
    }

    /// The transaction status that the server last told: `I`, `T` or `E`.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }

    /// When it was opened.
    #[must_use]
    pub fn created(&self) -> Instant {
        self.created
    }

    /// What the server last reported of `name` by ParameterStatus.
    #[must_use]
    pub fn reported(&self, name: &str) -> Option<&[u8]> {
        let found = self.reported.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// All that the server reports, in the order in which it first did.
    pub fn all_reported(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.reported
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The socket, for a relay. Who reads from it tells the connection what it saw: see
    /// [`Connection::saw_ready`] and [`Connection::saw_report`].
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// A relay has seen ReadyForQuery with this status, `I`, `T` or `E`.
    pub fn saw_ready(&mut self, status: u8) {
        self.status = status;
    }

    /// A relay has seen a ParameterStatus.
    pub fn saw_report(&mut self, name: &[u8], value: &[u8]) {
        let name = String::from_utf8_lossy(name);
        match self.reported.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value.to_vec(),
            None => self.reported.push((name.into_owned(), value.to_vec())),
        }
    }

    /// Whether the server is there and has said nothing since, without a round trip.
    /// What it says unasked between two sessions is mostly its end; a connection that
    /// was told anything else is cheaper to replace than to understand.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.unread.is_empty() && self.socket.pending() == Pending::Nothing
    }

    /// Asks the server for an empty answer.
    ///
    /// Not cancel safe: the answer to a ping that was dropped is still to come, so the
    /// connection must be closed.
    ///
    /// # Errors
    /// See [`Unclean`].
    pub async fn ping(&mut self) -> Result<(), Unclean> {
        self.run("", |kind| kind == b'I').await
    }

    /// Ends an open transaction and undoes what the session set, by `reset` (such as
    /// `DISCARD ALL`) as a query of its own: within a transaction it would fail.
    ///
    /// Not cancel safe: a connection whose cleaning was dropped must be closed.
    ///
    /// # Errors
    /// The connection is not clean and must be closed: see [`Unclean`].
    pub async fn clean(&mut self, reset: &str) -> Result<(), Unclean> {
        if self.status != b'I' {
            self.run("ROLLBACK", |kind| kind == b'C').await?;
        }
        self.run(reset, |kind| kind == b'C').await
    }

    /// Runs one statement with one row of one column, and answers that.
    async fn ask(&mut self, sql: &str) -> Result<Vec<u8>, Unclean> {
        let mut row = Vec::new();
        self.query(sql, |kind| kind == b'C', Some(&mut row)).await?;
        // The number of columns, and the length of the one.
        Ok(row.split_off(row.len().min(6)))
    }

    /// Runs one statement without rows; `answers` says which message must come, once,
    /// before ReadyForQuery.
    async fn run(&mut self, sql: &str, answers: fn(u8) -> bool) -> Result<(), Unclean> {
        self.query(sql, answers, None).await
    }

    /// Runs one statement; where rows are wanted, the last one goes to `row`.
    async fn query(
        &mut self,
        sql: &str,
        answers: fn(u8) -> bool,
        mut row: Option<&mut Vec<u8>>,
    ) -> Result<(), Unclean> {
        let mut query = vec![b'Q'];
        // The statement comes from the configuration, some dozens of bytes.
        query.extend((sql.len() as i32 + 5).to_be_bytes());
        query.extend(sql.as_bytes());
        query.push(0);
        self.write(&query).await?;
        let mut answered = false;
        loop {
            let (kind, body) = self.message().await?;
            match kind {
                b'Z' if !answered => return Err(Unclean::Unexpected('Z')),
                b'Z' => {
                    self.status = ready(&body)?;
                    let idle = self.status == b'I';
                    return idle.then_some(()).ok_or(Unclean::NotIdle);
                }
                b'E' => return Err(said(&body)),
                b'S' => self.report(&body),
                b'T' if row.is_some() => {}
                b'D' if row.is_some() => {
                    if let Some(row) = &mut row {
                        **row = body;
                    }
                }
                // Notices, and what the session still listened to.
                b'N' | b'A' => {}
                kind if answers(kind) && !answered => answered = true,
                other => return Err(Unclean::Unexpected(char::from(other))),
            }
        }
    }

    /// Says goodbye and waits until the server has closed: the backend is gone by then,
    /// its slot free, and its end in the server's log.
    ///
    /// Cancel safe: dropping the future closes the socket at once.
    pub async fn terminate(self) {
        // A broken connection needs no goodbye; the server ends it by itself.
        let _ = self.write(b"X\0\0\0\x04").await;
        self.socket.finish_writing();
        let mut ignored = [0; 4096];
        while matches!(self.socket.read(&mut ignored).await, Ok(1..)) {}
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The next whole message: its type and body.
    async fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = take_message(&mut self.unread)? {
                return Ok(message);
            }
            match self.socket.read(&mut chunk).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.unread.extend(&chunk[..read]),
            }
        }
    }

    fn report(&mut self, body: &[u8]) {
        let mut parts = body.splitn(3, |byte| *byte == 0);
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            self.saw_report(name, value);
        }
    }

    fn broken(&self, source: io::Error) -> ConnectError {
        ConnectError::broken(&self.address, source)
    }
}

/// Whether the app has a word of its own about the check.
fn has_check(parameters: &Parameters) -> bool {
    let says = |(name, value): (&str, &[u8])| {
        name == CHECK || memchr::memmem::find(value, CHECK.as_bytes()).is_some()
    };
    parameters.iter().any(says)
}

fn with_check(parameters: &Parameters) -> Parameters {
    let all = parameters
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_vec()));
    Parameters::new(all.chain([(CHECK.to_owned(), b"1s".to_vec())]).collect())
}

/// Takes the first message off `bytes` if it is whole.
fn take_message(bytes: &mut Vec<u8>) -> io::Result<Option<(u8, Vec<u8>)>> {
    let Some(([kind, length @ ..], _)) = bytes.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let end = 1 + u32::from_be_bytes(*length) as usize;
    if !(5..=MAX_MESSAGE).contains(&end) {
        return Err(malformed());
    }
    if bytes.len() < end {
        return Ok(None);
    }
    let (kind, body) = (*kind, bytes[5..end].to_vec());
    bytes.drain(..end);
    Ok(Some((kind, body)))
}

fn key_data(body: &[u8]) -> Option<(i32, [u8; 4])> {
    let (pid, key) = body.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*pid), key.try_into().ok()?))
}

fn ready(body: &[u8]) -> io::Result<u8> {
    match body {
        [status @ (b'I' | b'T' | b'E')] => Ok(*status),
        _ => Err(malformed()),
    }
}

fn said(body: &[u8]) -> Unclean {
    let fields = Fields::parse(body);
    let sqlstate = fields.and_then(|fields| fields.sqlstate());
    Unclean::Failed {
        sqlstate: sqlstate.unwrap_or(SqlState::INTERNAL_ERROR),
        message: fields.map_or_else(
            || "an ErrorResponse that can't be read".to_owned(),
            |fields| fields.message(),
        ),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not PostgreSQL's protocol")
}
