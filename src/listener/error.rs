//! Why a socket could not be had.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a socket could not be had. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// There is no such directory.
    #[error(
        "the socket directory {} does not exist; create it, or set listen.dir to one that does",
        .0.display()
    )]
    Missing(PathBuf),
    /// It is something else.
    #[error("listen.dir is {}, which is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Nothing can be created in it.
    #[error(
        "cannot create sockets in {}: {source}; it must be writable for user {uid}",
        dir.display()
    )]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// The user that this process runs as.
        uid: u32,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another execpool has it.
    #[error(
        "another execpool{} uses {}; stop it, or set listen.dir to another directory",
        of_pid(*pid), dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other process, where it is known.
        pid: Option<i32>,
    },
    /// Something else listens on the socket.
    #[error(
        "{} is in use by another process{}; stop it, or set listen.dir or listen.port",
        path.display(), of_pid(*pid)
    )]
    Live {
        /// The socket.
        path: PathBuf,
        /// The process, where it is known.
        pid: Option<i32>,
    },
    /// A file that is no socket is in the way.
    #[error("{} is there and is not a socket; remove it, or set listen.dir or listen.port", .0.display())]
    NotASocket(PathBuf),
    /// The operating system takes no path of that length for a socket.
    #[error(
        "the path {} is {} bytes long, and a socket's may have 107; set listen.dir to a shorter one",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// `listen.group` names no group.
    #[error("listen.group is \"{0}\", and there is no such group")]
    NoGroup(String),
    /// Something else listens at the address.
    #[error("{0} is in use by another process; stop it, or set listen.tcp to another port")]
    TcpInUse(SocketAddr),
    /// The address could not be listened at.
    #[error("cannot listen at {address}, which is listen.tcp: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The socket could not be made, or not be given its group or permissions.
    #[error("cannot listen on {}: {source}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

fn of_pid(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
