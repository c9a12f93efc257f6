//! execpool: a PostgreSQL connection pool per execution, under one budget per pod.

pub mod app;
pub mod budget;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod ctl;
pub mod execution;
pub mod listener;
pub mod metrics;
pub mod monitor;
pub mod pool;
pub mod protocol;
pub mod server;
pub mod session;
pub mod telemetry;
