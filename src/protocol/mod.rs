//! The PostgreSQL wire protocol as pure functions over bytes: no sockets, no clock, no tokio.

pub mod message;
pub mod startup;
pub mod statement;
