//! What has happened, for whoever wants to know: the last thousand events, each with its number.
//!
//! Whoever knows of a fact tells it to [`Events`], which is handed down from the wiring; readers
//! follow at their own pace and are never waited for. What happens thousands of times a second, a
//! session, a checkout, is no event.
//!
//! | module | gives |
//! |---|---|
//! | [`event`] | the closed set of events, their names and fields |
//! | [`feed`] | the last of them, and how readers follow |
//! | `schema` | what an event looks like, for who reads it |
//! | `spare` | how often the same may be told |
//! | [`text`] | texts of others, bounded |
//! | [`time`] | moments and durations as they are sent |

pub mod event;
pub mod feed;
mod schema;
mod spare;
pub mod text;
pub mod time;

pub use event::{Act, By, Event, NAMES};
pub use feed::{Batch, Entry, Events, KEPT, Record, Tide, Unsaid};
pub use text::Text;
pub use time::Seconds;
