//! Where a server listens.

use std::fmt;
use std::path::PathBuf;

use crate::config::Host;

/// A PostgreSQL server's address, as libpq's `host` and `port` name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name or an IP address; a name is resolved anew at each connect.
    Tcp {
        /// Name or address, an IPv6 address without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix socket, `.s.PGSQL.<port>` in `dir`.
    Unix {
        /// The socket's directory.
        dir: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

impl Address {
    /// Whether what is sent stays on this machine, out of any network's sight.
    #[must_use]
    pub fn is_local_socket(&self) -> bool {
        matches!(self, Self::Unix { .. })
    }

    /// The host, or the directory of the socket, and the port: as it is told of what is measured.
    #[must_use]
    pub fn place(&self) -> (String, u16) {
        match self {
            Self::Tcp { host, port } => (host.clone(), *port),
            Self::Unix { dir, port } => (dir.display().to_string(), *port),
        }
    }
}

impl From<&Host> for Address {
    fn from(host: &Host) -> Self {
        match host.clone() {
            Host::Tcp { host, port } => Self::Tcp { host, port },
            Host::Unix { dir, port } => Self::Unix { dir, port },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port } => write!(f, "{}/.s.PGSQL.{port}", dir.display()),
        }
    }
}
