//! The read-only port, as a kubelet asks it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status of `GET path` at an address that something listens on.
///
/// # Errors
/// Nobody is there, or what answers does not speak HTTP in time.
pub(super) async fn get(address: &str, path: &str, patience: Duration) -> io::Result<u16> {
    let asked = tokio::time::timeout(patience, ask(reachable(address)?, path)).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// From here, any of this machine's addresses is its own.
fn reachable(address: &str) -> io::Result<SocketAddr> {
    let listens: SocketAddr = address.parse().map_err(io::Error::other)?;
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listens.port()))
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(1024).read_to_string(&mut answer).await?;
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other("what answers does not speak HTTP"))
}
