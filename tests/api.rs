//! The reactor's hand on the Kubernetes API, against a real API server with its controllers, rights
//! and service accounts. A relay stands before it only for faults that it can't be made to have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "api/admin.rs"]
mod admin;
#[path = "api/events.rs"]
mod events;
#[path = "api/evict.rs"]
mod evict;
#[path = "api/faults.rs"]
mod faults;
#[path = "api/front.rs"]
mod front;
#[path = "api/ground.rs"]
mod ground;
#[path = "api/log.rs"]
mod log;
#[path = "api/outage.rs"]
mod outage;
#[path = "api/reports.rs"]
mod reports;
#[path = "api/rights.rs"]
mod rights;
#[path = "api/rollout.rs"]
mod rollout;
