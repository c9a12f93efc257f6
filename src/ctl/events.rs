//! `execpool events`: follows what happens, across restarts of the sidecar.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::client::{self, Client};
use super::command::Ask;
use super::error::CtlError;
use super::page::{Colour, Page, text_of, time};
use super::terminal::{colours, complain, print};

/// How long after a lost stream the sidecar is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long the head of a stream may take, and how long the stream may be silent: twice the time
/// between two heartbeats, and a little.
const SILENCE: Duration = Duration::from_secs(35);

/// The longest line of a stream that is kept.
const LONGEST: usize = 64 << 10;

/// Which events to follow.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  execpool events\n  \
    execpool events --since 0                 all that are kept, then what comes\n  \
    execpool events --execution run-1 --json | jq .event\n\n\
    It follows a restarted sidecar, and says when events are lost. --json prints a line of JSON\n\
    for each event. The events and their fields are in docs/control-api.md.\n\
    Exit status: 0 ended by Ctrl-C or by who reads it, 1 not answered, 2 wrong usage.")]
pub struct Follow {
    /// Of this execution alone
    #[arg(long, value_name = "ID")]
    execution: Option<String>,
    /// What came after the event of this number; 0 for all that are kept
    #[arg(long, value_name = "ID")]
    since: Option<u64>,
    /// How to ask.
    #[command(flatten)]
    ask: Ask,
}

/// Follows until Ctrl-C, or until nobody reads any more.
///
/// # Errors
/// Standard output can't be written.
pub fn follow(follow: Follow, env: &[(String, String)]) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let json = follow.ask.json;
    let ended = runtime.block_on(async {
        let interrupt = tokio::signal::ctrl_c();
        let mut followed = Followed::new(follow, env);
        tokio::select! {
            _ = interrupt => Ok(()),
            ended = followed.run() => ended,
        }
    });
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Ended::Asking(error)) => {
            complain(&error, json)?;
            Ok(ExitCode::FAILURE)
        }
        // As in `execpool events | head`.
        Err(Ended::Writing(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(Ended::Writing(error)) => Err(error.into()),
    }
}

/// Why it can't go on.
enum Ended {
    Asking(CtlError),
    Writing(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Writing(error)
    }
}

/// What is followed, and how far.
struct Followed {
    client: Client,
    execution: Option<String>,
    /// The last number that was told.
    last: Option<u64>,
    /// Which process that was.
    started: Option<String>,
    json: bool,
    colours: bool,
}

impl Followed {
    fn new(follow: Follow, env: &[(String, String)]) -> Self {
        Self {
            client: follow.ask.client(env),
            execution: follow.execution,
            last: follow.since,
            started: None,
            json: follow.ask.json,
            colours: colours(env),
        }
    }

    /// Follows stream after stream. The first must be had; later ones are waited for.
    async fn run(&mut self) -> Result<(), Ended> {
        loop {
            let query = [
                ("execution", self.execution.clone()),
                ("last_event_id", self.last.map(|id| id.to_string())),
            ];
            let path = client::path("/v1/events", query);
            match self.client.stream(&path, SILENCE).await {
                Ok((started, body)) => {
                    let is_other = self.started.is_some() && self.started != started;
                    self.started = started;
                    if is_other && self.last != Some(0) {
                        // Its numbers have begun anew, and so all of them are news.
                        self.last = Some(0);
                        self.say("execpool was started anew")?;
                        continue;
                    }
                    self.read(body).await?;
                    self.say("the stream has ended; waiting for execpool")?;
                }
                Err(error) if self.started.is_none() || matches!(error, CtlError::Refused(_)) => {
                    return Err(Ended::Asking(error));
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Prints a stream until it ends or falls silent.
    async fn read(&mut self, mut body: Incoming) -> Result<(), Ended> {
        let mut lines = Lines::default();
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
            let mut out = String::new();
            for line in lines.split(frame.into_data().unwrap_or_default()) {
                self.take(&line, &mut out);
            }
            if !out.is_empty() {
                print(&out)?;
            }
        }
        Ok(())
    }

    /// One line of a stream.
    fn take(&mut self, line: &str, out: &mut String) {
        if let Some(id) = line.strip_prefix("id: ") {
            self.last = id.parse().ok().or(self.last);
        } else if let Some(data) = line.strip_prefix("data: ") {
            if self.json {
                out.push_str(data);
                out.push('\n');
            } else if let Ok(event) = serde_json::from_str(data) {
                out.push_str(&shown(&event, self.colours));
            }
        }
    }

    /// Says something that is no event.
    fn say(&self, what: &str) -> io::Result<()> {
        writeln!(io::stderr().lock(), "execpool: {what}")
    }
}

/// The lines of a stream, whatever pieces it comes in.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn split(&mut self, bytes: Bytes) -> Vec<String> {
        self.begun.extend_from_slice(&bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else {
            // No line of ours is so long.
            if self.begun.len() > LONGEST {
                self.begun.clear();
            }
            return Vec::new();
        };
        let rest = self.begun.split_off(end + 1);
        let whole = std::mem::replace(&mut self.begun, rest);
        let text = String::from_utf8_lossy(&whole).into_owned();
        text.lines().map(str::to_owned).collect()
    }
}

/// An event on one line: when, what, whose, and its other fields but for those that say nothing.
fn shown(event: &Value, colours: bool) -> String {
    let name = text_of(event, "event");
    let mut page = Page::new(colours);
    page.words(&[
        (at(event), Colour::Faint),
        (name, colour(name)),
        (&rest(event), Colour::Plain),
    ]);
    page.finish()
}

/// The time of day of an event: its date is that of the day.
pub(super) fn at(event: &Value) -> &str {
    text_of(event, "time").get(11..23).unwrap_or_default()
}

/// Whose an event is, and its fields but for those that say nothing.
pub(super) fn rest(event: &Value) -> String {
    let whose = ["execution_id", "upstream"].map(|field| text_of(event, field));
    let whose = whose.iter().filter(|text| !text.is_empty());
    let mut rest: Vec<String> = whose.map(|text| (*text).to_owned()).collect();
    let told = ["event", "time", "id", "execution_id", "upstream"];
    let fields = event.as_object().into_iter().flatten();
    for (field, value) in fields.filter(|(field, _)| !told.contains(&field.as_str())) {
        rest.extend(said(field, value));
    }
    rest.join(" ")
}

/// A field and its value; nothing where that says nothing.
fn said(field: &str, value: &Value) -> Option<String> {
    let field = field.strip_suffix("_seconds").unwrap_or(field);
    match value {
        // The first of its name, as most are.
        Value::Number(number) if field == "generation" && number.as_u64() == Some(1) => None,
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(field.to_owned()),
        Value::Number(number) if number.is_f64() => {
            Some(format!("{field}={}", time(number.as_f64()?)))
        }
        Value::Number(number) if number.as_u64() == Some(0) => None,
        Value::Number(number) => Some(format!("{field}={number}")),
        Value::String(text) if text.contains(' ') => Some(format!("{field}={text:?}")),
        Value::String(text) => Some(format!("{field}={text}")),
        other => Some(format!("{field}={other}")),
    }
}

/// The colour of an event's name.
pub(super) fn colour(name: &str) -> Colour {
    match name {
        "checkout.refused"
        | "checkout.failed"
        | "configuration.refused"
        | "database.away"
        | "database.limited"
        | "monitor.no_answer" => Colour::Red,
        "drain"
        | "shutdown"
        | "pause"
        | "session.limit"
        | "session.leak_suspect"
        | "session.reclaimed"
        | "execution.resources_left"
        | "execution.deadline_near"
        | "execution.leftovers"
        | "events.lost" => Colour::Yellow,
        "session.leak_recovered" | "ready" | "resume" | "database.back" | "monitor.answer" => {
            Colour::Green
        }
        _ => Colour::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line_with_what_says_something() {
        let ended = json!({"id": 7, "time": "2026-01-15T10:30:00.250Z", "event": "execution.ended",
            "execution_id": "run-1", "generation": 1, "reason": "deadline", "reason_text": null,
            "duration_seconds": 61.0, "queries": 12, "leftovers": 0});
        let line = shown(&ended, false);
        assert_eq!(
            line,
            "10:30:00.250 execution.ended run-1 duration=1m01s queries=12 reason=deadline\n"
        );
        assert!(line.len() <= 80, "{line}");
        let coloured = shown(&json!({"event": "pause", "time": ""}), true);
        assert!(coloured.contains("\x1b[33mpause\x1b[0m"), "{coloured:?}");
        let tame = shown(&json!({"event": "x", "error": "a \x1b[2J\nb"}), false);
        assert_eq!(tame.matches('\n').count(), 1, "{tame:?}");
        assert!(!tame.contains('\x1b'), "{tame:?}");
    }

    #[test]
    fn a_stream_is_read_in_whatever_pieces_it_comes() {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for piece in ["id: 1", "\ndata: {\"a\":\"\u{e4}", "\"}\n\n:", "\n"] {
            all.extend(lines.split(Bytes::from_static(piece.as_bytes())));
        }
        assert_eq!(all, ["id: 1", "data: {\"a\":\"\u{e4}\"}", "", ":"]);
        lines.split(Bytes::from(vec![b'x'; LONGEST + 1]));
        assert!(lines.begun.is_empty());
    }
}
