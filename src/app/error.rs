//! Why the process does not start.

use std::io;

use crate::listener::ListenError;
use crate::reactor::Missing;
use crate::telemetry::probes::BindError;
use crate::telemetry::{ExportError, LogError};

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log can't be written as configured.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A socket could not be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The port of probes could not be had.
    #[error(transparent)]
    Probes(#[from] BindError),
    /// The standard variables of telemetry ask for what can't be had.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Kubernetes' API is to be spoken to, and can't be.
    #[error("reactor.kubernetes is on, and {0}")]
    Kubernetes(#[from] Missing),
    /// The operating system gives no event queue, or no thread.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}
