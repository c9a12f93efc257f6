//! Listening on Unix sockets: a directory that is ours, sockets in it, accepting.
//!
//! | module | gives |
//! |---|---|
//! | [`directory`] | the socket directory, claimed for one process, and the sockets in it |
//! | [`mod@accept`] | accepting that survives a lack of descriptors |
//! | [`error`] | why a socket could not be had |

pub mod accept;
pub mod directory;
pub mod error;

pub use accept::accept;
pub use directory::{Access, BoundSocket, Directory};
pub use error::ListenError;
