//! `execpool top`: watches a running execpool, on the full screen of a terminal or, without one, as
//! plain text.
//!
//! | module | gives |
//! |---|---|
//! | `plain` | one picture after the other, for pipes and dumb terminals |
//! | `run` | the loop of the full screen: keys, looks, events, signals |
//! | `feed` | what happens, from the stream of events |
//! | `look` | what an answer says |
//! | `model` `order` `keys` `act` | what is shown, and what input makes of it: values alone |
//! | `screen` `paint` | from the model to what is painted |
//! | `display` | taking the terminal and giving it back |

mod act;
mod display;
mod feed;
mod keys;
mod look;
mod model;
mod order;
mod paint;
mod plain;
mod run;
#[cfg(test)]
mod samples;
mod screen;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;

use super::command::{Ask, duration};
use super::terminal::{colours, complain, room};

/// The time between two looks of the plain form unless something else is said.
const PLAIN: Duration = Duration::from_secs(2);

/// The same on the full screen.
const SCREEN: Duration = Duration::from_secs(1);

/// Watch a running execpool: status, executions and sessions, who holds most first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  execpool top\n  \
    execpool top --interval 5s\n  \
    execpool top --once\n  \
    execpool top --json | jq .status.budget\n\n\
    On a terminal it fills the screen: ? tells the keys, q ends it. It sorts (s), filters (/), looks\n\
    closer (Enter), and ends executions (e) and sessions (K) or cancels queries (c) after a question.\n\
    Without a terminal nothing is cleared: one picture follows the other.\n\
    With --json each is one line: status, executions, sessions.\n\
    Exit status: 0 ended by q, Ctrl-C, a signal or --once, 1 not answered, 2 wrong usage.")]
pub struct Watch {
    /// The time between two looks, such as 5s; 1s without, 2s as plain text
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    interval: Option<(String, Duration)>,
    /// Look once
    #[arg(long)]
    once: bool,
    /// How to ask.
    #[command(flatten)]
    ask: Ask,
}

impl Watch {
    /// The time between two looks.
    fn time(&self, usual: Duration) -> Duration {
        self.interval.as_ref().map_or(usual, |(_, time)| *time)
    }
}

/// Looks again and again. Whether somebody answered to the end.
///
/// # Errors
/// Standard output or the terminal can't be written.
pub(super) async fn watch(watch: Watch, env: &[(String, String)]) -> io::Result<bool> {
    let client = watch.ask.client(env);
    let json = watch.ask.json;
    let has_terminal = io::stdout().is_terminal() && !is_dumb(env) && !watch.once && !json;
    let watched = if has_terminal && io::stdin().is_terminal() {
        run::run(client, watch.time(SCREEN), paint::Palette::of(env)).await
    } else {
        let look = plain::Look {
            interval: watch.time(PLAIN),
            once: watch.once,
            json,
            screen: has_terminal,
            colours: colours(env),
            room: room(),
        };
        plain::watch(&client, look).await
    };
    match watched {
        Ok(printed) => printed.map(|()| true),
        Err(error) => complain(&error, json).map(|()| false),
    }
}

/// Whether the terminal can do no more than lines.
fn is_dumb(env: &[(String, String)]) -> bool {
    let term = env.iter().find(|(name, _)| name == "TERM");
    term.is_none_or(|(_, term)| term.is_empty() || term == "dumb")
}
