//! Events: each is told when it is provoked; readers of every kind follow them, and none of them is
//! ever waited for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "events/command.rs"]
mod command;
#[path = "events/crowd.rs"]
mod crowd;
#[path = "events/follow.rs"]
mod follow;
#[path = "events/kinds.rs"]
mod kinds;
#[path = "events/leaving.rs"]
mod leaving;
#[path = "events/reader.rs"]
mod reader;
