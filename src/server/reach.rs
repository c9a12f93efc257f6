//! A socket to a server: in TLS or not, as the upstream's sslmode has it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use crate::config::{SslMode, Tls};

use super::socket::{Pending, Socket};
use super::tls::{self, TlsProblem};
use super::{Address, ConnectError};

/// PostgreSQL's question whether TLS may begin.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How a server is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Without TLS.
    Plain,
    /// With TLS; without where the server has none and the sslmode allows for it.
    Tls,
}

/// How a server is tried, one after the other. A Unix socket never has TLS.
#[must_use]
pub fn ways(address: &Address, tls: &Tls) -> &'static [Way] {
    match tls.mode {
        _ if address.is_local_socket() => &[Way::Plain],
        SslMode::Disable => &[Way::Plain],
        SslMode::Allow => &[Way::Plain, Way::Tls],
        SslMode::Prefer => &[Way::Tls, Way::Plain],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Way::Tls],
    }
}

/// The machines that a name means now, in the resolver's order; a single one that needs no
/// name where the address is a socket's.
///
/// Cancel safe.
///
/// # Errors
/// The name can't be resolved within `timeout`, or means nothing.
pub async fn resolve(
    address: &Address,
    timeout: Duration,
) -> Result<Vec<Option<SocketAddr>>, ConnectError> {
    let Address::Tcp { host, port } = address else {
        return Ok(vec![None]);
    };
    let unreachable = |source| ConnectError::Unreachable {
        address: address.clone(),
        source,
    };
    let found = tokio::time::timeout(timeout, lookup_host((host.as_str(), *port))).await;
    let found = found.map_err(|_| ConnectError::Timeout {
        address: address.clone(),
        after: timeout,
    })?;
    let all: Vec<_> = found.map_err(unreachable)?.map(Some).collect();
    match all.is_empty() {
        true => Err(unreachable(io::ErrorKind::NotFound.into())),
        false => Ok(all),
    }
}

/// A socket to `address` by one way; `machine` is which of those that the name means, none: the
/// first that answers.
///
/// Cancel safe: dropping the future closes the socket.
///
/// # Errors
/// The server can't be reached, or TLS can't be had.
pub async fn open(
    address: &Address,
    machine: Option<SocketAddr>,
    tls: &Tls,
    way: Way,
    keepalive: Option<Duration>,
) -> Result<Socket, ConnectError> {
    let socket = reach(address, machine, keepalive).await?;
    let Address::Tcp { host, .. } = address else {
        return Ok(socket);
    };
    if way == Way::Plain {
        return Ok(socket);
    }
    let problem = |problem| ConnectError::Tls {
        address: address.clone(),
        problem,
    };
    let broken = |source| ConnectError::broken(address, source);
    let session = tls::begin(tls, host).map_err(problem)?;
    if !tls.direct {
        match asked(&socket).await.map_err(broken)? {
            b'S' if socket.pending() == Pending::Data => return Err(problem(TlsProblem::Answer)),
            b'S' => {}
            b'N' if tls.mode < SslMode::Require => return Ok(socket),
            b'N' => return Err(problem(TlsProblem::NotSpoken)),
            // An error is the word of somebody who has proved nothing.
            _ => return Err(problem(TlsProblem::Answer)),
        }
    }
    let secured = socket.secured(session).await;
    let socket = secured.map_err(|source| ConnectError::unsecured(address, source))?;
    if tls.direct && !socket.speaks_postgresql() {
        return Err(problem(TlsProblem::Alpn));
    }
    Ok(socket)
}

/// Asks whether TLS may begin. One byte is read: what follows belongs to TLS.
async fn asked(socket: &Socket) -> io::Result<u8> {
    socket.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    match socket.read(&mut answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}

/// Connects a socket to `address`; a name is resolved anew where no machine is given. The kernel
/// watches over a TCP connection that is to be kept.
async fn reach(
    address: &Address,
    machine: Option<SocketAddr>,
    keepalive: Option<Duration>,
) -> Result<Socket, ConnectError> {
    let socket = match (address, machine) {
        (Address::Tcp { .. }, Some(machine)) => tcp(TcpStream::connect(machine), keepalive).await,
        (Address::Tcp { host, port }, None) => {
            tcp(TcpStream::connect((host.as_str(), *port)), keepalive).await
        }
        (Address::Unix { dir, port }, _) => {
            UnixStream::connect(dir.join(format!(".s.PGSQL.{port}")))
                .await
                .and_then(|stream| Socket::new(OwnedFd::from(stream.into_std()?)))
        }
    };
    socket.map_err(|source| ConnectError::Unreachable {
        address: address.clone(),
        source,
    })
}

async fn tcp(
    connect: impl Future<Output = io::Result<TcpStream>>,
    keepalive: Option<Duration>,
) -> io::Result<Socket> {
    let stream = connect.await?;
    stream.set_nodelay(true)?;
    if let Some(idle) = keepalive {
        keep_alive(&stream, idle)?;
    }
    Socket::new(OwnedFd::from(stream.into_std()?))
}

/// A peer that is silently gone is noticed after `idle` and three probes at a third of it each;
/// the same goes for what was sent and is not acknowledged.
fn keep_alive(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    // Below a second the kernel knows no idleness.
    let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX).max(1);
    let millis = seconds.saturating_mul(2_000);
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &seconds)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &seconds.div_ceil(3))?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &millis)?;
    Ok(())
}
