//! A process of a server's that serves one connection.

use std::net::SocketAddr;

/// A backend, and where it lives: on another machine the same number is another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Its process id.
    pub pid: i32,
    /// The machine that was reached; none over a Unix socket.
    pub machine: Option<SocketAddr>,
}
