//! One connection to PostgreSQL: reaching it, logging in, cancelling, cleaning, ending it.
//!
//! | module | gives |
//! |---|---|
//! | [`address`] | where a server listens |
//! | [`backend`] | a process of a server's that serves one connection |
//! | [`socket`] | a descriptor registered for reading only |
//! | [`connection`] | a logged-in server connection and what is asked of it between sessions |
//! | [`auth`] | the answers to the server's authentication requests |
//! | [`cancel`] | a cancel request seen through to its end |
//! | `reach` | a socket to a server, in TLS or not |
//! | [`search`](mod@search) | which of several servers is taken |
//! | [`tls`] | TLS to the server |
//! | [`wire`] | such a socket for who wants a stream |
//! | [`password`] | the password of an upstream, from a file or a command |
//! | [`error`] | why a connection could not be had, for the client and for the operator |

pub mod address;
pub mod auth;
pub mod backend;
pub mod cancel;
pub mod connection;
pub mod error;
pub mod password;
mod reach;
pub mod search;
pub mod socket;
pub mod tls;
pub mod wire;

pub use address::Address;
pub use backend::Backend;
pub use connection::{Connection, Login};
pub use error::ConnectError;
pub use password::{Password, PasswordError};
pub use reach::{Way, open, resolve, ways};
pub use search::{Seeker, search};
