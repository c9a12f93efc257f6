//! Sessions: one client connection each, as everybody but its own task sees it.
//!
//! | module | gives |
//! |---|---|
//! | [`gatepost`] | where sessions stand still while nothing is to run |
//! | [`mailbox`] | what a session is told from outside: notices, and its end |
//! | [`limits`] | how long a session may keep a transaction open |
//! | [`leak`] | which sessions seem to be forgotten |
//! | [`grace`] | how long a query may go on when its session is told to end |
//! | [`state`] | where a session stands, and how long it has held a server connection |
//! | [`peer`] | who is at the other end of a connection |
//! | [`record`] | what is known of one session, and how it is told to end |
//! | [`table`] | all sessions, and their counts |

pub mod gatepost;
pub mod grace;
pub mod leak;
pub mod limits;
pub mod mailbox;
pub mod peer;
pub mod record;
pub mod state;
pub mod table;

pub use gatepost::Gatepost;
pub use grace::{Grace, GraceGiver};
pub use leak::Leak;
pub use limits::{Limit, Limits};
pub use mailbox::Mail;
pub use peer::Peer;
pub use record::{Ending, Identity, Session, Snapshot, Totals};
pub use state::{Held, State};
pub use table::{Counts, Oldest, Seat, Table};

use std::fmt;

/// The number of a session, from 1, in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
