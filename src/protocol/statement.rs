//! What a statement's text says: what of it may be shown, and what it does to its session.
//!
//! The text is split into words by sqlparser's tokenizer, checked against PostgreSQL's own lexical
//! rules; no statement is parsed. Nothing here runs on the path of a message unless a
//! person asks to see a statement or the cheap look before each function finds something.

mod effects;
mod hide;
mod lex;
mod show;

pub use effects::{carries_over, names_execpool_setting};
pub use show::shown;
