//! The plain form: status, executions and sessions, one picture after the other.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::error::CtlError;
use super::super::page::Page;
use super::super::{PATIENCE, executions, sessions, status, terminal};

/// Clears the screen and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(in crate::ctl) struct Look {
    /// The time between two looks.
    pub(in crate::ctl) interval: Duration,
    /// Whether one look is enough.
    pub(in crate::ctl) once: bool,
    pub(in crate::ctl) json: bool,
    /// Whether a terminal is there to be cleared.
    pub(in crate::ctl) screen: bool,
    pub(in crate::ctl) colours: bool,
    /// How wide and how high it is.
    pub(in crate::ctl) room: Option<(usize, usize)>,
}

/// Looks until it is interrupted, or nobody answers any more.
pub(in crate::ctl) async fn watch(client: &Client, look: Look) -> Result<io::Result<()>, CtlError> {
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
