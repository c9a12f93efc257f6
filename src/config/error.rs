//! Why a configuration is refused.

use super::url::UrlProblem;
use super::{AppProbe, Loopback, Restart};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file, at this line (from 1; 0 where it is not known).
    File(u64),
    /// This variable of the environment.
    Env(String),
    /// This flag.
    Flag(String),
    /// The URL of the upstream.
    Url,
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Origin {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Origin".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(0) => f.write_str("file"),
            Self::File(line) => write!(f, "file, line {line}"),
            Self::Env(name) => write!(f, "environment, {name}"),
            Self::Flag(name) => write!(f, "flag, {name}"),
            Self::Url => f.write_str("url"),
        }
    }
}

/// One thing that is wrong with a configuration. No text of it contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not YAML, or not a mapping.
    #[error("{}:{line}:{column}: {reason}", file.display())]
    Yaml {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// What the parser says.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key} ({origin}){}", did_you_mean(nearest))]
    UnknownKey {
        /// The whole path.
        key: String,
        /// Who said it.
        origin: Origin,
        /// The nearest that exists.
        nearest: Option<String>,
    },
    /// A value that the knob does not take.
    #[error("{key}: {value:?} is not {allowed} ({origin})")]
    Invalid {
        /// The knob.
        key: String,
        /// What was written.
        value: String,
        /// What is allowed.
        allowed: String,
        /// Who said it.
        origin: Origin,
    },
    /// A mapping or a list where a value belongs, or the other way around.
    #[error("{key}: expected {expected} ({origin})")]
    Shape {
        /// The knob or section.
        key: String,
        /// What belongs there.
        expected: &'static str,
        /// Who said it.
        origin: Origin,
    },
    /// `pool.mode: transaction`.
    #[error(
        "{key}: \"transaction\" is not served by this version, which serves \"session\" ({origin})"
    )]
    Transaction {
        /// The knob.
        key: String,
        /// Who said it.
        origin: Origin,
    },
    /// An overflow of -1, which elsewhere means: no limit.
    #[error(
        "{key}: there is no unlimited overflow: connections without a limit are what locks a database up; give a number from 0 ({origin})"
    )]
    Unlimited {
        /// The knob.
        key: String,
        /// Who said it.
        origin: Origin,
    },
    /// A URL that can't be used.
    #[error("{key}: {problem}, in {url:?} ({origin})")]
    Url {
        /// The knob.
        key: String,
        /// What is wrong.
        problem: UrlProblem,
        /// The URL without its password.
        url: String,
        /// Who said it.
        origin: Origin,
    },
    /// An upstream without a URL.
    #[error("{key}: missing: every upstream needs its url")]
    NoUrl {
        /// The knob.
        key: String,
    },
    /// No database at all.
    #[error(
        "no upstream is named: set DATABASE_URL=postgresql://user@host:5432/database, or list `upstreams` with a url each in the configuration file"
    )]
    NoUpstream,
    /// Two upstreams of one name.
    #[error("{key}: the name {name:?} is taken by another upstream")]
    DuplicateName {
        /// The knob.
        key: String,
        /// The name.
        name: String,
    },
    /// Two places for one password.
    #[error("{key}: the {other} gives a password as well; keep one of the two")]
    TwoPasswords {
        /// The knob.
        key: String,
        /// The other place.
        other: &'static str,
    },
    /// The kernel's limit on socket paths.
    #[error("listen.dir: the socket's path {} has {length} bytes, at most 107 are possible", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// A reserve larger than what may stay open.
    #[error("budget.warm: {warm} is over budget.size, which is {size}")]
    Warm {
        /// `budget.warm`.
        warm: u32,
        /// `budget.size`.
        size: u32,
    },
    /// A TCP listener without a password.
    #[error(
        "listen.tcp_password_file: missing: listen.tcp is {at}, and whoever connects there must prove a password"
    )]
    NoTcpPassword {
        /// `listen.tcp`.
        at: Loopback,
    },
    /// A restart by an API that must not be called.
    #[error(
        "reactor.restart: {:?} is done by the Kubernetes API, and reactor.kubernetes is off; write liveness or exit-code, which need no API, or let reactor.kubernetes be auto", restart.as_str()
    )]
    RestartNeedsKubernetes {
        /// `reactor.restart`.
        restart: Restart,
    },
    /// A restart by a probe that nobody can ask.
    #[error(
        "reactor.restart: \"liveness\" needs telemetry.listen, where the kubelet asks for /livez/app, and that is off"
    )]
    LivenessNeedsPort,
    /// A probe of the app that is execpool's own.
    #[error(
        "reactor.app_probe: {probe} is execpool's own telemetry.listen: name the app's probe, which it asks on the app's behalf"
    )]
    OwnProbe {
        /// `reactor.app_probe`.
        probe: AppProbe,
    },
    /// An upstream that is execpool's own TCP listener.
    #[error(
        "{key}: leads to {at}, which is listen.tcp, execpool's own listener: name PostgreSQL's address"
    )]
    OwnListener {
        /// The knob.
        key: String,
        /// `listen.tcp`.
        at: Loopback,
    },
    /// An upstream that is execpool's own socket.
    #[error("{key}: leads to {}, which is execpool's own socket: name PostgreSQL's address", socket.display())]
    OwnSocket {
        /// The knob.
        key: String,
        /// The socket.
        socket: PathBuf,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!(": did you mean {name}?"),
        None => String::new(),
    }
}
