//! execpool: a PostgreSQL connection pool per execution, under one budget per pod.

pub mod config;
pub mod protocol;
pub mod server;
