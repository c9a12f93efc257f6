//! The configuration as the rest of the program reads it.

use super::{PasswordSource, Reactor, SessionAttrs, Tls};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that can be set, complete and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The PostgreSQL socket.
    pub listen: Listen,
    /// The control socket.
    pub control: Control,
    /// The databases that are served, at least one, by unique names.
    pub upstreams: Vec<Upstream>,
    /// The pod's server connections.
    pub budget: Budget,
    /// What upstreams use where they don't say otherwise.
    pub pool: Pool,
    /// What executions use where they don't say otherwise.
    pub execution: Execution,
    /// The life line of an execution.
    pub hold: Hold,
    /// What a session may do for how long.
    pub session: Session,
    /// What an emergency cleanup may end.
    pub cleanup: Cleanup,
    /// When the pod is short of connections.
    pub exhaustion: Exhaustion,
    /// What may be done about that.
    pub reactor: Reactor,
    /// The sweep.
    pub maintenance: Maintenance,
    /// What is told about the inside.
    pub telemetry: Telemetry,
    /// What errors tell.
    pub errors: Errors,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// The log.
    pub log: Log,
}

/// The PostgreSQL socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The directory of the sockets.
    pub dir: PathBuf,
    /// The number in the socket's name.
    pub port: u16,
    /// The permissions of the sockets.
    pub mode: u32,
    /// The group of the sockets, by name or number; none: the process's own.
    pub group: Option<String>,
    /// The users that may connect; none: any that the permissions let in.
    pub allow_uids: Option<Vec<u32>>,
    /// How many sessions there may be at once.
    pub max_sessions: u32,
    /// Where TCP connections are taken; none: nowhere.
    pub tcp: Option<Tcp>,
}

/// The PostgreSQL listener on TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Where it listens.
    pub at: Loopback,
    /// The file with the password, or with its verifier.
    pub password_file: PathBuf,
}

/// An address that only this machine, or this pod, reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// One address.
    Address(SocketAddr),
    /// This port of 127.0.0.1 and, where there is IPv6, of `::1`.
    Localhost(u16),
}

impl Loopback {
    /// The first address, which must be had.
    pub fn first(self) -> SocketAddr {
        match self {
            Self::Address(address) => address,
            Self::Localhost(port) => (Ipv4Addr::LOCALHOST, port).into(),
        }
    }

    /// The second one, where there is one: of the same port as the first got.
    pub fn second(self, port: u16) -> Option<SocketAddr> {
        match self {
            Self::Address(_) => None,
            Self::Localhost(_) => Some((Ipv6Addr::LOCALHOST, port).into()),
        }
    }
}

impl std::fmt::Display for Loopback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Localhost(port) => write!(f, "localhost:{port}"),
        }
    }
}

impl Listen {
    /// The path of the PostgreSQL socket, as libpq derives it from directory and port.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }
}

/// The control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The users that may connect; none: any that the permissions let in.
    pub allow_uids: Option<Vec<u32>>,
    /// Whether the administrative routes are there.
    pub admin: bool,
}

/// One PostgreSQL database, reached as one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What clients name as their database; `*` takes every other name.
    pub name: String,
    /// Where it is and as whom.
    pub target: Target,
    /// What answers there.
    pub kind: UpstreamKind,
    /// Whether a client may name any user (which is then ignored).
    pub any_user: bool,
    /// The longest that one connect may take.
    pub connect_timeout: Duration,
    /// Idle time of a TCP connection before the kernel probes it.
    pub keepalive: Duration,
    /// Its pools' knobs: its own over the global ones.
    pub pool: Pool,
}

/// What answers at an upstream's hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKind {
    /// PostgreSQL.
    Postgres,
    /// A pooler such as PgBouncer: its backends are not ours, and what a session has set in one is
    /// not undone by a reset.
    Pooler,
}

/// Where a database is, and what is sent at startup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where to dial, in this order; at least one.
    pub hosts: Vec<Host>,
    /// Which of the hosts is taken.
    pub session_attrs: SessionAttrs,
    /// The user to connect as.
    pub user: String,
    /// The database; for the upstream `*` the client's word takes its place.
    pub database: String,
    /// Where the password comes from.
    pub password: PasswordSource,
    /// Further startup parameters from the URL, such as `application_name` and `options`.
    pub parameters: Vec<(String, String)>,
    /// How the server is spoken to.
    pub tls: Arc<Tls>,
}

/// One address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an IP address; resolved at each connect.
    Tcp {
        /// The name or address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A directory with a socket in it.
    Unix {
        /// The directory.
        dir: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

/// The pod's server connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// How many may stay open idle, at least 1.
    pub size: u32,
    /// How many more while in use.
    pub overflow: u32,
    /// How many idle ones may wait in the reserve; at most `size`.
    pub warm: u32,
}

impl Budget {
    /// The most server connections that may be open at once.
    pub fn total(&self) -> u32 {
        self.size.saturating_add(self.overflow)
    }
}

/// The connections of one execution to one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// How many may stay open idle, at least 1.
    pub size: u32,
    /// How many more while in use.
    pub overflow: u32,
    /// The longest wait for a server connection.
    pub timeout: Duration,
    /// The wait before the client is told that it waits.
    pub notice_after: Duration,
    /// The age at which a connection is replaced (give or take 10 %).
    pub recycle: Duration,
    /// The idleness at which a connection is closed.
    pub idle_timeout: Duration,
    /// Whether a connection is asked before it is lent.
    pub pre_ping: bool,
    /// How long it must have been idle to be asked.
    pub ping_after: Duration,
    /// When a session returns its connection.
    pub mode: PoolMode,
    /// The statement that cleans a returned connection.
    pub reset: String,
}

impl Pool {
    /// The most server connections that the pool may hold at once.
    pub fn total(&self) -> u32 {
        self.size.saturating_add(self.overflow)
    }
}

/// When a session returns its server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When it disconnects.
    Session,
}

/// What executions use where they don't say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The deadline; none: no deadline.
    pub max_duration: Option<Duration>,
    /// How long an implicit execution lives without a session.
    pub idle_timeout: Duration,
    /// How long the id of an ended execution is refused.
    pub tombstone: Duration,
    /// What becomes of sessions that name no execution.
    pub untagged: Untagged,
    /// How long running queries may go on when it ends.
    pub grace: Duration,
}

/// What becomes of sessions that name no execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untagged {
    /// They join the standing execution `shared`.
    Shared,
    /// Each gets an execution of its own.
    Session,
    /// They are refused.
    Reject,
}

/// The life line of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Between the last hold's close and the end.
    pub grace: Duration,
}

/// What a session may do for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Wait inside a transaction.
    pub idle_in_transaction: Limit,
    /// Keep a transaction open.
    pub transaction: Limit,
    /// Hold a server connection and ask nothing before it is a leak suspect; none: for ever.
    pub leak_after: Option<Duration>,
    /// Whether an emergency cleanup may end suspects that belong to no named execution.
    pub reclaim_leaks: bool,
}

/// What an emergency cleanup may end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleanup {
    /// Sessions that have been idle within a transaction for so long.
    pub idle_in_transaction: Duration,
}

/// When the pod is short of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhaustion {
    /// The share of the budget above which it is a warning.
    pub warning: Share,
    /// The wait for the budget above which there are no connections left.
    pub wait: Duration,
    /// How long it must be so.
    pub after: Duration,
    /// How long it must have lasted to be more than a passing shortage.
    pub sustained_after: Duration,
}

/// A part of a whole: above 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// In thousandths: 1 to 1,000.
    pub thousandths: u32,
}

/// A limit in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// When the client gets a NOTICE; none: never.
    pub notice: Option<Duration>,
    /// When the session is ended; none: never.
    pub end: Option<Duration>,
}

/// The sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// How often; none: never.
    pub interval: Option<Duration>,
}

/// What is told about the inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Where probes are answered; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// How often the status is logged; none: never.
    pub status_log: Option<Duration>,
    /// How many of the largest executions are told by name over OTLP.
    pub top_executions: u32,
    /// Whether spans are sent.
    pub traces: bool,
}

/// What errors tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    /// What a client without a connection learns of those who have one.
    pub holders: Holders,
}

/// What a client without a connection learns of those who have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holders {
    /// Execution, caller, state and age, last statement without literals.
    Full,
    /// The executions' ids alone.
    Ids,
    /// Nothing.
    None,
}

/// The end of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// From SIGTERM to the exit, at most.
    pub grace: Duration,
    /// Whether the app is gone by then.
    pub mode: ShutdownMode,
}

/// What runs beside the process when SIGTERM arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// A native sidecar: the app has gone.
    Sidecar,
    /// A container beside a live app: it stays for the whole grace.
    Plain,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A filter expression that the subscriber's `EnvFilter` takes.
    pub level: String,
    /// The shape of a line.
    pub format: LogFormat,
}

/// The shape of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For reading.
    Text,
}
