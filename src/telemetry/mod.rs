//! What is told about the inside.
//!
//! | module | gives |
//! |---|---|
//! | [`log`] | events as lines on standard error, and never a wait for who reads them |
//! | [`probes`] | the read-only port: whether it turns, is started, is ready |

pub mod log;
pub mod probes;

pub use log::{LogError, LogGuard, init, install_panic_hook};
