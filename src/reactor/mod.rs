//! What is done when server connections run out.
//!
//! | module | gives |
//! |---|---|
//! | `snapshot` | how it stands, at one look |
//! | `policy` | from when on it is what |
//! | `history` | what earlier looks have found |
//! | `restarts` | which restarts there were, also before this process |
//! | `clock` | what time it is, and by how much that was set |
//! | [`decide`](decide()) | what is to be done: values alone, no clock, no I/O |
//! | `action` | what that may be |
//! | `guard` | what forbids it |
//! | `kube` | the hand on the Kubernetes API, by which rungs 2 and 4 act |
//! | `report` | what the pod tells of it |
//! | `notice` | what its Events say |

mod action;
mod clock;
mod decide;
mod guard;
mod history;
mod kube;
mod notice;
mod policy;
mod report;
mod restarts;
mod snapshot;
#[cfg(test)]
mod tests;

pub use action::{Action, Change, Reason, Rung};
pub use clock::{Moment, Step, Up};
pub use decide::decide;
pub use guard::Guard;
pub use history::{Heard, History};
pub use kube::{Failure, Kubernetes, Limits, Missing, NotDone, Place, Standing};
pub use notice::Notice;
pub use policy::Policy;
pub use report::{Condition, Report};
pub use restarts::{Restarts, Unreadable};
pub use snapshot::{Circumstances, Holder, Snapshot};
