//! Who is at the other end of a client's connection.

use std::fmt;
use std::net::SocketAddr;

/// Who is at the other end of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process that opened the Unix socket.
    Unix {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its number; none where it lives in another PID namespace.
        pid: Option<i32>,
    },
    /// Somebody who knew the password, at this address.
    Tcp(SocketAddr),
}

impl Peer {
    /// Whether both are of one origin, so that one may cancel what the other one does: the same user
    /// of the system, or both of TCP, where nobody can be told from anybody.
    #[must_use]
    pub fn is_of_one_origin_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Unix { uid, .. }, Self::Unix { uid: other, .. }) => uid == other,
            (Self::Tcp(_), Self::Tcp(_)) => true,
            (Self::Unix { .. }, Self::Tcp(_)) | (Self::Tcp(_), Self::Unix { .. }) => false,
        }
    }

    /// Its process, where the system tells.
    #[must_use]
    pub fn pid(self) -> Option<i32> {
        match self {
            Self::Unix { pid, .. } => pid,
            Self::Tcp(_) => None,
        }
    }

    /// Its user, where the system tells.
    #[must_use]
    pub fn uid(self) -> Option<u32> {
        match self {
            Self::Unix { uid, .. } => Some(uid),
            Self::Tcp(_) => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, pid: None, .. } => write!(f, "user {uid}"),
            Self::Unix {
                uid,
                pid: Some(pid),
                ..
            } => write!(f, "user {uid}, process {pid}"),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_origin_is_one_user_or_tcp() {
        let user = |uid, pid| Peer::Unix { uid, gid: 9, pid };
        let tcp = |port| Peer::Tcp(([127, 0, 0, 1], port).into());
        assert!(user(7, Some(1)).is_of_one_origin_with(user(7, None)));
        assert!(!user(7, Some(1)).is_of_one_origin_with(user(8, Some(1))));
        assert!(tcp(1).is_of_one_origin_with(tcp(2)));
        assert!(!tcp(1).is_of_one_origin_with(user(0, None)));
        assert!(!user(0, None).is_of_one_origin_with(tcp(1)));
    }
}
