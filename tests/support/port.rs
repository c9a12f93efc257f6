//! Ports of the loopback that nobody else is given.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port that nobody else is given as long as this lives, whether its server runs or not: a socket has
/// it that does not listen, so that who connects is refused.
///
/// The kernel lets one listen where another is only bound, if both say that the address may be reused,
/// as all servers do here.
pub(crate) struct Port {
    pub(crate) number: u16,
    _kept: TcpSocket,
}

impl Port {
    /// One of 127.0.0.1.
    pub(crate) fn free() -> Self {
        Self::free_at(Ipv4Addr::LOCALHOST, 0)
    }

    /// This one of some address; any, if it is 0.
    pub(crate) fn free_at(ip: Ipv4Addr, port: u16) -> Self {
        let kept = TcpSocket::new_v4().expect("there is IPv4");
        kept.set_reuseaddr(true).expect("it may be reused");
        kept.bind(SocketAddr::from((ip, port)))
            .expect("the port is free");
        Self {
            number: kept.local_addr().expect("it is bound").port(),
            _kept: kept,
        }
    }

    /// One that is kept until the test program ends.
    pub(crate) fn for_good() -> u16 {
        let port = Self::free();
        let number = port.number;
        // Its socket is open as long as the program runs.
        std::mem::forget(port);
        number
    }
}
