//! Executions: the runs of the app, how they begin, how long they live and how they end.
//!
//! | module | gives |
//! |---|---|
//! | [`registry`] | who may join which, and when each ends: values alone, without clock or socket |
//! | [`executions`] | the same with their sessions and pools |
//! | [`deadline`] | what time alone does to them: ends, and the warning before |
//! | `registering` | those registered and released, by the names of executions |
//! | [`resources`] | what apps have registered with theirs |
//! | [`membership`] | a session's part in one, and a hold |
//! | [`teardown`] | how one ends |
//! | [`maintenance`] | what is done about what an end has left behind |
//! | [`cancel`] [`dismissal`] | how a session is cancelled, and how a single one ends |
//! | `telling` | what happens in one, as its recorder keeps it |
//! | [`cleanup`] [`tidying`] | whom an emergency cleanup ends, and how it does |
//! | `traced` | the span of one |
//! | [`view`] | how they are shown |
//! | [`rates`] | how fast sessions and executions come and go |
//! | [`remote`] | how another thread asks |

pub mod cancel;
pub mod cleanup;
pub mod counts;
pub mod deadline;
pub mod dismissal;
pub mod error;
pub mod executions;
pub mod maintenance;
pub mod membership;
pub mod memory;
pub mod rates;
pub mod reason;
mod registering;
pub mod registry;
pub mod remote;
pub mod resources;
pub mod rules;
pub mod run;
pub mod teardown;
mod telling;
pub mod tidying;
mod traced;
pub mod view;

pub use counts::Counts;
pub use error::{Conflict, Refused};
pub use executions::{Executions, Request, Terminate, Upstream};
pub use maintenance::Leftover;
pub use membership::{Hold, Membership};
pub use rates::{Ever, PerSecond, Rates};
pub use reason::{Reason, ReasonText};
pub use registry::{Created, Registry};
pub use remote::{Gone, Remote};
pub use resources::{Registered, ResourceCounts, ResourceId, ResourceKind};
pub use rules::{Rules, Untagged};
pub use run::{Kind, Remains, Run, State, Summary};
pub use teardown::Ended;
pub use view::{Large, PoolView, View};
