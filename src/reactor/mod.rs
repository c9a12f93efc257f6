//! What is done when server connections run out.
//!
//! | module | gives |
//! |---|---|
//! | [`snapshot`] | how it stands, at one look |
//! | [`policy`] | from when on it is what |
//! | [`history`] | what earlier looks have found |
//! | [`decide`](decide()) | what is to be done: values alone, no clock, no I/O |

mod decide;
mod history;
mod policy;
mod snapshot;
#[cfg(test)]
mod tests;

pub use decide::{Action, Change, decide};
pub use history::History;
pub use policy::Policy;
pub use snapshot::{Holder, Snapshot};
