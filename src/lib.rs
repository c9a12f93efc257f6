//! execpool: a PostgreSQL connection pool per execution, under one budget per pod.
//!
//! # Words
//!
//! *Client* is the application's side, *server* is PostgreSQL's. An **execution** is one run of the
//! app: a name, a deadline, its pools. A **pool** holds server connections for one execution and one
//! **upstream** (a database reached as one user). A **session** is one client connection; a
//! **checkout** lends it a server connection, which is **returned**. The **budget** is how many server
//! connections the pod may have. *Frontend* and *backend* are said of the direction of a message alone.
//!
//! # The life of a query
//!
//! [`listener`] accepts a connection; [`client`] reads its startup packet ([`protocol::startup`]), joins
//! it to its execution ([`execution`]) and answers. At its first message the session waits for a
//! checkout: the gate of [`pool`] decides when, a [`server`] connection is dialled or found idle. From
//! then on one task relays both directions ([`protocol::frontend`], [`protocol::backend`]), keeping
//! account of what is owed ([`protocol::expect`]) and of what others may see ([`session`]). When the
//! client leaves, the connection is cleaned and returned, and goes to the next in line.
//!
//! Beside that path, on a thread of its own: the [`control`] API, which looks and ends, the
//! [`monitor`], which asks the databases, the log ([`telemetry`]), what has happened ([`events`]; in one
//! execution: [`story`]) and whether connections run out ([`reactor`]). [`app`] wires it all; `cli` and
//! `ctl` are the command line, `demo` shows all of it at work.

pub mod app;
pub mod budget;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod ctl;
pub mod demo;
pub mod events;
pub mod execution;
pub mod listener;
pub mod metrics;
pub mod monitor;
pub mod pool;
pub mod protocol;
pub mod reactor;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod story;
pub mod telemetry;
