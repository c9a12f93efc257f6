//! What is told about the inside.
//!
//! | module | gives |
//! |---|---|
//! | [`log`] | events as lines on standard error, and never a wait for who reads them |

pub mod log;

pub use log::{LogError, LogGuard, init, install_panic_hook};
