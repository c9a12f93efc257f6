//! The flight recorder: what has happened in one execution, for whoever asks why it hung.
//!
//! Each execution has a [`Recorder`]; who changes something tells it, in the same transition that
//! counts. It keeps the last [`MOST`] entries of 32 bytes in a ring that grows as it is filled, and
//! allocates nothing once it has grown. An entry holds no text but by reference: who did it is a
//! [`Who`] that all entries of a session share, and that lives as long as the last of them. No
//! statement, no parameter, no message of an error is ever told to it: SQLSTATEs and closed sets of
//! words alone.
//!
//! | module | gives |
//! |---|---|
//! | [`what`] | what can happen, in 16 bytes |
//! | [`word`] | the words that it is told by: a closed set |
//! | [`who`] | whose session it was |
//! | [`ring`] | the last entries, and what is drawn together in them |
//! | [`recorder`] | one execution's recorder, and its story as it is read |

pub mod recorder;
pub mod ring;
pub mod what;
pub mod who;
pub mod word;

pub use recorder::{Recorder, Story};
pub use ring::{Entry, MOST};
pub use what::{NAMES, Span, What};
pub use who::Who;
pub use word::Word;
