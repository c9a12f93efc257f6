//! Executions: the runs of the app, how they begin, how long they live and how they end.
//!
//! All of it is values: no clock, no socket. Who calls says what time it is and carries out what
//! an end demands. [`Registry`] is where to begin.

pub mod counts;
pub mod error;
pub mod memory;
pub mod reason;
pub mod registry;
pub mod rules;
pub mod run;

pub use counts::Counts;
pub use error::{Conflict, Refused};
pub use reason::{Reason, ReasonText};
pub use registry::{Created, Registry};
pub use rules::{Rules, Untagged};
pub use run::{Kind, Run, State, Summary};
