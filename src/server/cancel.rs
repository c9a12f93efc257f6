//! A cancel request seen through to its end.

use std::io;
use std::net::SocketAddr;

use crate::protocol::startup::cancel_request;

use crate::config::Tls;

use super::reach::{Way, open};
use super::{Address, ConnectError};

/// Asks the server at `address`, on the machine and by the way of the connection that is meant, to cancel what backend `pid` runs, and waits until the
/// server has closed the request's connection: only then has the signal been sent, and a
/// server connection must not be lent again before.
///
/// Cancel safe, but a request that was dropped half-way may or may not take effect.
///
/// # Errors
/// The server could not be reached, or the connection broke.
pub async fn cancel(
    address: &Address,
    machine: Option<SocketAddr>,
    tls: &Tls,
    way: Way,
    pid: i32,
    key: [u8; 4],
) -> Result<(), ConnectError> {
    let socket = open(address, machine, tls, way, None).await?;
    let broken = |source: io::Error| ConnectError::broken(address, source);
    let request = cancel_request(pid, key);
    socket.write_all(&request).await.map_err(broken)?;
    let mut ignored = [0; 64];
    while socket.read(&mut ignored).await.map_err(broken)? > 0 {}
    Ok(())
}
