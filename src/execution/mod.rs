//! Executions: the runs of the app, how they begin, how long they live and how they end.
//!
//! | module | gives |
//! |---|---|
//! | [`registry`] | who may join which, and when each ends: values alone, without clock or socket |
//! | [`executions`] | the same with their sessions and pools |
//! | [`teardown`] | how one ends |
//! | [`maintenance`] | what is done about what an end has left behind |
//! | [`view`] | how they are shown |
//! | [`remote`] | how another thread asks |

pub mod counts;
pub mod error;
pub mod executions;
pub mod maintenance;
pub mod memory;
pub mod reason;
pub mod registry;
pub mod remote;
pub mod rules;
pub mod run;
pub mod teardown;
pub mod view;

pub use counts::Counts;
pub use error::{Conflict, Refused};
pub use executions::{Executions, Hold, Membership, Request, Terminate, Upstream};
pub use maintenance::Leftover;
pub use reason::{Reason, ReasonText};
pub use registry::{Created, Registry};
pub use remote::{Gone, Remote};
pub use rules::{Rules, Untagged};
pub use run::{Kind, Remains, Run, State, Summary};
pub use teardown::Ended;
pub use view::{PoolView, View};
