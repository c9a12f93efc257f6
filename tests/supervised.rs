//! Without Kubernetes: what `deploy/systemd`, `deploy/compose` and `docs/operations.md` give a supervisor to go by
//! restarts the app where the reactor has decided so, and leaves it alone where it has not.
//!
//! The app forgets all connections that there are, needs one more, and has learned better once it was restarted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "supervised/compose.rs"]
mod compose;
#[path = "supervised/place.rs"]
mod place;
#[path = "supervised/shell.rs"]
mod shell;
#[path = "supervised/systemd.rs"]
mod systemd;
