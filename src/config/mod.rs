//! The knobs: read from file, environment and flags, checked at the edge.
//!
//! Parsing is pure: nothing here opens a file, and nothing logs.

mod attrs;
mod check;
mod error;
mod knobs;
mod layers;
mod markdown;
mod nearest;
mod plan;
mod reactor;
mod render;
mod resolve;
mod running;
mod secret;
mod target;
mod tls;
mod types;
mod url;
mod value;
mod yaml;

#[cfg(test)]
mod tests;

pub use attrs::{Role, SessionAttrs};
pub use error::{ConfigError, Origin};
pub use knobs::{KNOBS, Kind, Knob, Reload, UPSTREAM_KNOBS};
pub use layers::Sources;
pub use markdown::knobs_markdown;
pub use nearest::{distance, nearest};
pub use plan::{Change, Plan};
pub use reactor::{AppProbe, KubernetesUse, Reactor, Restart};
pub use render::{Shown, ShownKnob, render, show};
pub use resolve::{Effective, Loaded, Origins, Reloaded, load, reload};
pub use running::{Running, RunningShown};
pub use secret::{PasswordSource, Secret};
pub use tls::{ChannelBinding, Identity, Roots, SslMode, Tls};
pub use types::*;
pub use url::UrlProblem;
pub use value::duration;
