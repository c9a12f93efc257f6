//! The charts, as Helm 3 and Helm 4 render them: what they come to, and what they refuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "charts/configured.rs"]
mod configured;
#[path = "charts/knobs.rs"]
mod knobs;
#[path = "charts/platform.rs"]
mod platform;
#[path = "charts/pod.rs"]
mod pod;
#[path = "charts/refused.rs"]
mod refused;
#[path = "charts/tools.rs"]
mod tools;
#[path = "charts/written.rs"]
mod written;
