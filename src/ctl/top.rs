//! `execpool top`: status, executions and sessions, again and again.

use std::io;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::command::{Ask, duration};
use super::error::CtlError;
use super::page::Page;
use super::{PATIENCE, executions, sessions, status, terminal};

/// Clears the screen and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// The time between two looks unless something else is said.
const USUAL: Duration = Duration::from_secs(2);

/// Watch a running execpool: status, executions and sessions, who holds most first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  execpool top\n  \
    execpool top --interval 5s\n  \
    execpool top --once\n\n\
    Ctrl-C ends it. Without a terminal nothing is cleared: one picture follows the other.\n\
    With --json each is one line: status, executions, sessions.\n\
    Exit status: 0 ended by Ctrl-C or --once, 1 not answered, 2 wrong usage.")]
pub struct Watch {
    /// The time between two looks, such as 5s; 2s without
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) interval: Option<(String, Duration)>,
    /// Look once
    #[arg(long)]
    pub(super) once: bool,
    /// How to ask.
    #[command(flatten)]
    pub(super) ask: Ask,
}

impl Watch {
    /// The time between two looks.
    pub(super) fn time(&self) -> Duration {
        self.interval.as_ref().map_or(USUAL, |(_, time)| *time)
    }
}

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The time between two looks.
    pub(super) interval: Duration,
    /// Whether one look is enough.
    pub(super) once: bool,
    pub(super) json: bool,
    /// Whether a screen is there to be cleared.
    pub(super) screen: bool,
    pub(super) colours: bool,
    /// How wide and how high it is.
    pub(super) room: Option<(usize, usize)>,
}

/// Looks until it is interrupted, or nobody answers any more.
pub(super) async fn watch(client: &Client, look: Look) -> Result<io::Result<()>, CtlError> {
    loop {
        let seen = seen(client).await?;
        let text = match look.json {
            true => format!("{seen}\n"),
            false => page(&seen, look),
        };
        if let Err(error) = terminal::print(&text) {
            return Ok(Err(error));
        }
        if look.once {
            return Ok(Ok(()));
        }
        tokio::select! {
            () = tokio::time::sleep(look.interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Ok(())),
        }
    }
}

/// All that is shown of one moment.
async fn seen(client: &Client) -> Result<Value, CtlError> {
    let mut seen = json!({});
    for (name, path) in [
        ("status", "/v1/status"),
        ("executions", "/v1/executions"),
        ("sessions", "/v1/sessions"),
    ] {
        seen[name] = client.ask("GET", path, None, PATIENCE).await?;
    }
    Ok(seen)
}

/// Those who hold most come first, and as many lines as there is room for.
fn page(seen: &Value, look: Look) -> String {
    let mut page = Page::new(look.colours).within(look.room.map(|(width, _)| width));
    status::show(&seen["status"], &mut page);
    page.line("");
    executions::show(&by(&seen["executions"], "held_seconds"), &mut page);
    page.line("");
    sessions::show(&by(&seen["sessions"], "held_seconds"), &mut page);
    let text = page.finish();
    match (look.screen, look.room) {
        (true, Some((_, height))) => {
            let lines = text.lines().take(height.saturating_sub(1));
            let shown: String = lines.flat_map(|line| [line, "\n"]).collect();
            format!("{CLEAR}{shown}")
        }
        (true, None) => format!("{CLEAR}{text}"),
        (false, _) => format!("{text}\n"),
    }
}

/// The list with the largest first.
fn by(list: &Value, name: &str) -> Value {
    let mut all = list.as_array().cloned().unwrap_or_default();
    let size = |one: &Value| one[name].as_f64().unwrap_or_default();
    all.sort_by(|one, other| size(other).total_cmp(&size(one)));
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_comes_first_and_the_screen_is_not_overrun() {
        let session = |id: u64, held: u64| json!({"id": id, "held_seconds": held, "state": "idle"});
        let sessions: Vec<Value> = (1..100).map(|id| session(id, id)).collect();
        let seen = json!({"status": {}, "executions": [], "sessions": sessions});
        let mut look = Look {
            interval: Duration::ZERO,
            once: true,
            json: false,
            screen: true,
            colours: false,
            room: Some((200, 24)),
        };
        let text = page(&seen, look);
        assert!(
            text.starts_with(CLEAR) && text.lines().count() <= 23,
            "{text}"
        );
        let first = text
            .lines()
            .find(|line| line.contains("idle") && line.contains("99"));
        assert!(first.is_some(), "{text}");
        look.screen = false;
        look.room = None;
        assert!(!page(&seen, look).contains('\x1b'));
    }
}
