//! A pod with the sidecar on a real node: the example's chart, installed with Helm, run by a
//! kubelet and containerd, beside a PostgreSQL. Skipped with a reason where the machine can't.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "node/stage.rs"]
#[allow(dead_code, reason = "scenarios use their own part of this")]
mod stage;
mod support;

#[path = "node/life.rs"]
mod life;
#[path = "node/remedies.rs"]
mod remedies;
