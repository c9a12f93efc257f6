//! What execpool measures, as `/metrics` of the real process tells it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "metrics/bounds.rs"]
mod bounds;
#[path = "metrics/deltas.rs"]
mod deltas;
#[path = "metrics/largest.rs"]
mod largest;
#[path = "metrics/scraped.rs"]
mod scraped;
#[path = "metrics/served.rs"]
mod served;
#[path = "metrics/table.rs"]
mod table;
