//! Listening on TCP, on the loopback alone.

use std::io;
use std::net::{SocketAddr, TcpListener};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

use super::ListenError;

/// Idle time before a client is asked whether it is still there, in seconds; then three times, at a
/// third of it each.
const KEEPALIVE: u32 = 30;

/// Listens at `first` and, where that is possible, at what `second` says for its port. Of one address
/// there is one listener; one that a process before us has left is taken over at once.
///
/// # Errors
/// Something listens there, or the operating system refuses.
pub fn bind_tcp(
    first: SocketAddr,
    second: impl FnOnce(u16) -> Option<SocketAddr>,
) -> Result<Vec<TcpListener>, ListenError> {
    let listener = bind(first)?;
    let failed = |source| ListenError::Tcp {
        address: first,
        source,
    };
    let port = listener.local_addr().map_err(failed)?.port();
    let mut all = vec![listener];
    if let Some(second) = second(port) {
        match bind(second) {
            Ok(listener) => all.push(listener),
            Err(ListenError::Tcp { source, .. }) if is_no_such_family(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The standard library sets SO_REUSEADDR, which lets connections in TIME_WAIT be, and never
/// SO_REUSEPORT, which would let another process share.
fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::TcpInUse(address),
        _ => ListenError::Tcp { address, source },
    })
}

/// Whether the machine has no IPv6.
fn is_no_such_family(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable
        || code == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

/// Makes a client's connection send at once, and notice a client that is silently gone.
///
/// There is no limit on how long a client may read nothing: a database would wait as well.
///
/// # Errors
/// The connection is gone.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &(KEEPALIVE / 3))?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_address_has_one_listener_and_the_second_one_learns_what_to_set() {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let first = bind_tcp(any, |_| None).unwrap();
        let address = first[0].local_addr().unwrap();
        let refused = bind_tcp(address, |_| None).unwrap_err().to_string();
        assert!(refused.contains("listen.tcp"), "{refused}");
        assert!(refused.contains(&address.to_string()), "{refused}");
        drop(first);
        bind_tcp(address, |_| None).unwrap();
    }

    #[test]
    fn the_second_address_has_the_port_of_the_first() {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let both = bind_tcp(any, |port| Some(([127, 0, 0, 2], port).into())).unwrap();
        let ports: Vec<u16> = both
            .iter()
            .map(|it| it.local_addr().unwrap().port())
            .collect();
        assert_eq!(ports, [ports[0]; 2]);
    }

    #[test]
    fn a_second_address_that_the_machine_does_not_have_is_let_be() {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        // Kept for documentation: no machine has it.
        let both = bind_tcp(any, |port| Some(([192, 0, 2, 1], port).into())).unwrap();
        assert_eq!(both.len(), 1);
    }
}
