//! Why a server connection could not be had: the kind, what the client is told, and the
//! operator's metric label all derive from one value.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Phase;
use crate::protocol::message::{Fields, Report, Severity, SqlState, with_severity};

use super::tls::TlsProblem;
use super::{Address, PasswordError};

/// A connect that failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there, or the name does not resolve.
    #[error("cannot reach PostgreSQL at {address}: {source}")]
    Unreachable {
        /// Where it was looked for.
        address: Address,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The server did not finish the start-up within the upstream's `connect_timeout`.
    #[error("PostgreSQL at {address} did not answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// Who did not answer.
        address: Address,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server ended the start-up with an ErrorResponse; its body, as it came.
    #[error("PostgreSQL refused the connection: {}", Fields::parse(.0).map(|f| f.message()).unwrap_or_default())]
    Refused(Vec<u8>),
    /// The server wants a password, and none is configured.
    #[error("PostgreSQL at {0} wants a password, and none is configured")]
    PasswordMissing(Address),
    /// Servers were reached, and none of them is what the upstream's `target_session_attrs` asks for.
    #[error("none of the upstream's hosts suits target_session_attrs={wanted}: {}", listed(.found))]
    NoneSuits {
        /// What is asked for.
        wanted: &'static str,
        /// The hosts, and what speaks against each.
        found: Vec<(Address, String)>,
    },
    /// The upstream names no host.
    #[error("the upstream names no host")]
    NoAddress,
    /// The configured password can't be read.
    #[error(transparent)]
    PasswordUnreadable(#[from] Arc<PasswordError>),
    /// The server wants the password in clear text over a network without TLS.
    #[error("PostgreSQL at {0} wants the password in clear text over an unprotected network")]
    CleartextRefused(Address),
    /// An authentication method that is not served.
    #[error("PostgreSQL at {address} wants {method} authentication, which is not served")]
    MethodNotServed {
        /// Who wants it.
        address: Address,
        /// The method's name.
        method: &'static str,
    },
    /// The server could not prove that it knows the password (SCRAM).
    #[error("PostgreSQL at {0} failed to prove that it knows the password")]
    ServerNotAuthentic(Address),
    /// TLS could not be had.
    #[error("no TLS with PostgreSQL at {address}: {problem}")]
    Tls {
        /// With whom.
        address: Address,
        /// What is wrong.
        problem: TlsProblem,
    },
    /// The connection broke, or what came is not PostgreSQL's protocol.
    #[error("the connection to {address} broke during start-up: {source}")]
    Broken {
        /// With whom.
        address: Address,
        /// How.
        source: io::Error,
    },
}

impl ConnectError {
    /// A connection that broke; by TLS, where that is why.
    pub(crate) fn broken(address: &Address, source: io::Error) -> Self {
        let address = address.clone();
        let tls = source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls.cloned() {
            Some(error) => Self::Tls {
                address,
                problem: error.into(),
            },
            None => Self::Broken { address, source },
        }
    }

    /// A handshake that did not come to its end.
    pub(super) fn unsecured(address: &Address, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match source.kind() {
            Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe => Self::Tls {
                address: address.clone(),
                problem: TlsProblem::Closed,
            },
            _ => Self::broken(address, source),
        }
    }

    /// Whether the same server may let us in with TLS instead of without, or the other way around.
    /// Not so where the answer to the request for TLS was none: who gave it is not the server.
    #[must_use]
    pub fn is_the_other_way_worth_a_try(&self) -> bool {
        match self {
            Self::Tls { problem, .. } => !matches!(problem, TlsProblem::Answer),
            _ => self.sqlstate().as_str() == "28000" && matches!(self, Self::Refused(_)),
        }
    }

    /// Whether the server refuses a parameter of this name.
    pub(super) fn is_about(&self, name: &str) -> bool {
        let Self::Refused(body) = self else {
            return false;
        };
        // An unknown setting; PgBouncer calls it a violation of the protocol.
        let is_kind = matches!(self.sqlstate().as_str(), "42704" | "08P01");
        is_kind && Fields::parse(body).is_some_and(|fields| fields.message().contains(name))
    }

    /// The step that failed.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Tls { .. }
            | Self::NoneSuits { .. }
            | Self::NoAddress => Phase::Connect,
            Self::Refused(_) if self.sqlstate().class() != "28" => Phase::Connect,
            _ => Phase::Auth,
        }
    }

    /// The server's SQLSTATE where it gave one, else the one that fits.
    #[must_use]
    pub fn sqlstate(&self) -> SqlState {
        match self {
            Self::Refused(body) => Fields::parse(body)
                .and_then(|fields| fields.sqlstate())
                .unwrap_or(SqlState::CONNECTION_FAILURE),
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::NoneSuits { .. }
            | Self::NoAddress => SqlState::UNABLE_TO_CONNECT,
            Self::Broken { .. } => SqlState::CONNECTION_FAILURE,
            Self::PasswordMissing(_)
            | Self::PasswordUnreadable(_)
            | Self::CleartextRefused(_)
            | Self::MethodNotServed { .. }
            | Self::ServerNotAuthentic(_) => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        }
    }

    /// Whether the server does not take the password: another one may do.
    #[must_use]
    pub fn is_password_refused(&self) -> bool {
        // PAM and LDAP, by which clouds look at tokens, say 28000.
        matches!(self, Self::Refused(_)) && self.sqlstate().class() == "28"
    }

    /// Whether the server has no slot left: waiting may help, and a lower budget does.
    #[must_use]
    pub fn is_limited_by_database(&self) -> bool {
        let Self::Refused(body) = self else {
            return false;
        };
        let is_poolers = |fields: Fields<'_>| is_poolers_limit(&fields.message());
        self.sqlstate() == SqlState::TOO_MANY_CONNECTIONS
            || Fields::parse(body).is_some_and(is_poolers)
    }

    /// Whether another host of the same upstream may do better: this one is not there, or
    /// takes nobody now.
    #[must_use]
    pub fn is_elsewhere_worth_a_try(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Timeout { .. }
                | Self::Broken { .. }
                | Self::Tls {
                    problem: TlsProblem::Closed,
                    ..
                }
        ) || self.sqlstate() == SqlState::CANNOT_CONNECT_NOW
    }

    /// Whether the same may succeed a moment later, with nothing changed: the server is not there, or
    /// is not what it was, as while it is restarted or another takes its place.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.is_elsewhere_worth_a_try() || matches!(self, Self::NoneSuits { .. })
    }

    /// What others than the client may read of it. A server that refuses a parameter of the startup
    /// (class 22) quotes its value, which is the client's own.
    #[must_use]
    pub fn for_others(&self) -> String {
        match self {
            Self::Refused(_) if self.sqlstate().class() == "22" => {
                "PostgreSQL refused a startup parameter; the client was told which".to_owned()
            }
            _ => self.to_string(),
        }
    }

    /// The ErrorResponse for the client: the server's own words where it had any.
    #[must_use]
    pub fn to_client(&self, severity: Severity) -> Vec<u8> {
        if let Self::Refused(body) = self {
            return with_severity(body, severity);
        }
        let mut out = Vec::new();
        Report::new(severity, self.sqlstate(), format!("execpool: {self}"))
            .with_hint(self.hint())
            .encode(&mut out);
        out
    }

    /// What to do, as a sentence of its own; the same for all of a kind.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoneSuits { .. } => {
                "After a failover this passes by itself; else check the hosts' roles, or target_session_attrs."
            }
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::NoAddress => {
                "Check that the database is up and that the upstream's host and port are right."
            }
            Self::Tls { problem, .. } => problem.hint(),
            Self::PasswordMissing(_) => {
                "Set the upstream's password_file or password_command, or the password in its URL, or PGPASSWORD."
            }
            Self::PasswordUnreadable(error) => error.hint(),
            Self::CleartextRefused(_) => {
                "Use scram-sha-256 in the server's pg_hba.conf, or TLS, or a Unix socket."
            }
            Self::MethodNotServed { .. } => {
                "Use scram-sha-256 for this user in the server's pg_hba.conf."
            }
            Self::ServerNotAuthentic(_) => {
                "Something that is not the database may be listening there: check the address."
            }
            // Told in the server's own words.
            Self::Refused(_) => "See the server's message.",
        }
    }
}

/// Whether a pooler says that it takes no more clients, for which poolers have no SQLSTATE:
/// PgBouncer names the setting (`max_client_conn`, `max_db_client_connections`,
/// `max_user_client_connections`), others say it in words.
fn is_poolers_limit(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let is_about = |words: &str| message.contains(words);
    is_about("max_client_conn")
        || is_about("client_connections)")
        || is_about("max client connections reached")
}

/// Hosts and what speaks against them, in a sentence.
fn listed(found: &[(Address, String)]) -> String {
    let each = found
        .iter()
        .map(|(address, why)| format!("{address}: {why}"));
    each.collect::<Vec<_>>().join("; ")
}
