//! The PostgreSQL wire protocol as pure functions over bytes: no sockets, no clock, no tokio.

pub mod backend;
pub mod expect;
pub mod frame;
pub mod frontend;
pub mod message;
pub mod sasl;
pub mod scram;
pub mod startup;
pub mod statement;
pub mod traceparent;
