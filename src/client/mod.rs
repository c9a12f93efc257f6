//! The wire protocol towards the application: who connects to the PostgreSQL socket is let in,
//! waits for a server connection, is relayed, and is told what went wrong.
//!
//! The life of a session: [`service`] accepts it, `greeting` reads its first packet, `startup`
//! lets it in, `visit` keeps it until it queries, `wait` gets it a server connection, `relay`
//! passes its messages, `parting` gives the connection back.
//!
//! | module | gives |
//! |---|---|
//! | [`service`] | everything that sessions share, and the loop that accepts them |
//! | `line` | the client's socket with a buffer that all sessions share |
//! | `anteroom` | where connections are that have not yet come in |
//! | `greeting` | the first packet |
//! | `login` | the password over TCP |
//! | `startup` | admission: which upstream, which execution, which key |
//! | `visit` | a session from its admission to its end |
//! | `wait` | the wait for a server connection, as the client sees it |
//! | `refuse` | errors for what was sent in vain, one for each segment |
//! | `relay`, `lane`, `scan` | both directions between two sockets |
//! | `forbid` | `SET execpool.…` within a session |
//! | `taint` | what a session leaves behind |
//! | `traced` | the span of a checkout |
//! | `remember` | the texts of prepared statements |
//! | `parting` | what becomes of a server connection at the end |
//! | `cancel` | cancel requests and their keys |
//! | `words` | what clients are told |

mod anteroom;
mod cancel;
mod forbid;
mod greeting;
mod lane;
mod line;
mod login;
mod parting;
mod refuse;
mod relay;
mod remember;
mod scan;
pub mod service;
mod startup;
mod taint;
mod traced;
mod visit;
mod wait;
mod words;

pub use service::{Served, Service, Serving, Settings, Standing};
