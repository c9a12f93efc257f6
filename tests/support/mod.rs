//! What the integration tests share: a real PostgreSQL, the built execpool in
//! front of it, and the means to look at both from outside.
//!
//! | module | gives |
//! |---|---|
//! | [`postgres`] | a throw-away server per test program, a database per test |
//! | [`connection_log`] | what that server logged about connections |
//! | [`sidecar`] | the execpool binary with a socket directory of its own |
//! | [`api`] | the control API in this process, with sessions that are played |
//! | [`raw`] | a client that sends any bytes and shows each message |
//! | [`session`] | sessions over `raw`, and what they are told |
//! | [`schema`] | the control API's description, against which every answer is held |
//! | [`proxy`] | a relay that freezes, cuts, delays and refuses |
//! | [`receiver`] | a receiver of OTLP that takes, refuses, rejects or never answers |
//! | [`recorder`] | a relay that writes down what a driver and the server say |
//! | [`driver`] | the driver programs, and the comparison of two runs |
//! | [`pgbouncer`] | PgBouncer in front of a database |
//! | [`collector`] | an OpenTelemetry Collector, and what it has taken |
//! | [`prometheus`] | Prometheus, its answers and its alerts |
//! | [`alertmanager`] | Alertmanager, and the alerts that it has |
//! | [`port`] | ports that nobody else is given |
//! | [`daemon`] | what these run by |
//! | [`cluster`] | a Kubernetes: its API alone, or one with a node |
//! | [`image`] | the container images, and what is in them |
//! | [`helm`] | the charts, as Helm 3 and Helm 4 render them |
//! | [`memory`] | what a sidecar remembers of restarts |
//! | [`load`] | pgbench and psycopg, whose every failed query is told |
//! | [`terminal`] | a pseudo-terminal, and what is to be seen in it |
//! | [`wait`] | waiting for something to become true |
//!
//! Nothing outlives a test program, however it ends: see [`guard`].
//!
//! Everything here fails by panicking with a sentence, as a test does.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses its own part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test that asked for it"
)]

pub(crate) mod alertmanager;
pub(crate) mod api;
pub(crate) mod cluster;
pub(crate) mod collector;
pub(crate) mod connection_log;
pub(crate) mod daemon;
pub(crate) mod driver;
pub(crate) mod guard;
pub(crate) mod helm;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod pgbouncer;
pub(crate) mod port;
pub(crate) mod postgres;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod receiver;
pub(crate) mod recorder;
pub(crate) mod schema;
pub(crate) mod session;
pub(crate) mod sidecar;
mod template;
pub(crate) mod terminal;
pub(crate) mod tools;
pub(crate) mod wait;

pub(crate) use postgres::{Database, Postgres, PostgresOptions};
pub(crate) use proxy::{Fault, Proxy};
pub(crate) use raw::{Message, Raw};
pub(crate) use sidecar::Sidecar;
pub(crate) use wait::{SOON, eventually};
