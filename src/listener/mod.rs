//! Listening: a directory that is ours, Unix sockets in it, TCP on the loopback, accepting.
//!
//! | module | gives |
//! |---|---|
//! | [`directory`] | the socket directory, claimed for one process, and the sockets in it |
//! | [`tcp`] | TCP, on the loopback alone |
//! | [`mod@accept`] | accepting that survives a lack of descriptors |
//! | [`error`] | why a socket could not be had |

pub mod accept;
pub mod directory;
pub mod error;
pub mod tcp;

pub use accept::accept;
pub use directory::{Access, BoundSocket, Directory};
pub use error::ListenError;
pub use tcp::bind_tcp;
