//! From the model to what is painted.

mod details;
mod dialog;
mod header;
mod tables;

use std::time::Instant;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::super::page::time;
use super::model::{Link, Mode, Model, Pane, View};
use super::paint::{Painter, Palette, Tone, fit, width};

/// The least that a picture takes.
const LEAST: (u16, u16) = (60, 10);

/// The lines above the panes.
const HEADER: u16 = 4;

/// From so many lines on, all panes are shown; below, the one that has the keys.
const ALL: u16 = 12;

/// What the details of an execution take, title and all.
const DETAILS: u16 = 7;

/// Where everything is; what is not shown has no lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Areas {
    header: Rect,
    /// The executions, or what is looked at closer.
    first: Rect,
    sessions: Rect,
    events: Rect,
    footer: Rect,
}

impl Areas {
    fn of(model: &Model) -> Self {
        let (columns, rows) = model.size;
        let body = rows.saturating_sub(HEADER + 1);
        let heights = match (&model.view, model.focus) {
            (View::All, focus) if body < ALL => alone(focus, body),
            (View::Execution { .. }, focus) if body < ALL => alone(focus, body),
            (View::Session { .. }, _) if body < ALL => [body, 0, 0],
            (View::All, _) => {
                let (first, events) = ((body + 1) / 3, body / 5 + 1);
                [first, body - first - events, events]
            }
            (View::Execution { .. }, _) => {
                let events = body / 5 + 1;
                [DETAILS, body.saturating_sub(DETAILS + events), events]
            }
            (View::Session { .. }, _) => {
                let events = body / 4 + 1;
                [body - events, 0, events]
            }
        };
        let mut y = HEADER;
        let mut next = |height: u16| {
            let area = Rect::new(0, y, columns, height);
            y += height;
            area
        };
        let [first, sessions, events] = heights.map(&mut next);
        Self {
            header: Rect::new(0, 0, columns, HEADER),
            first,
            sessions,
            events,
            footer: Rect::new(0, rows.saturating_sub(1), columns, 1),
        }
    }
}

/// One pane has all the lines.
fn alone(focus: Pane, lines: u16) -> [u16; 3] {
    match focus {
        Pane::Executions => [lines, 0, 0],
        Pane::Sessions => [0, lines, 0],
        Pane::Events => [0, 0, lines],
    }
}

/// How many rows of a pane can be seen.
pub(super) fn rows(model: &Model, pane: Pane) -> u16 {
    let areas = Areas::of(model);
    match pane {
        // A title and heads; below the sessions, a line about the chosen one.
        Pane::Executions => areas.first.height.saturating_sub(2),
        Pane::Sessions => areas.sessions.height.saturating_sub(3),
        Pane::Events => areas.events.height.saturating_sub(1),
    }
}

/// Paints the model as it is now.
pub(super) fn draw(model: &Model, now: Instant, palette: Palette, frame: &mut Frame) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let (columns, lines) = LEAST;
    if area.width < columns || area.height < lines {
        return too_small(area, buffer);
    }
    let painter = Painter {
        palette,
        is_old: model.link != Link::Answers,
    };
    let areas = Areas::of(model);
    header::draw(model, now, painter, areas.header, buffer);
    match &model.view {
        View::All => tables::executions(model, painter, areas.first, buffer),
        View::Execution { .. } => details::execution(model, painter, areas.first, buffer),
        View::Session { id, .. } => details::session(model, *id, painter, areas.first, buffer),
    }
    tables::sessions(model, painter, areas.sessions, buffer);
    tables::events(model, painter, areas.events, buffer);
    footer(model, now, palette, areas.footer, buffer);
    dialog::draw(model, palette, area, buffer);
}

fn too_small(area: Rect, buffer: &mut Buffer) {
    let told = format!(
        "execpool top needs {}×{}; this is {}×{}. q quits.",
        LEAST.0, LEAST.1, area.width, area.height
    );
    for (y, line) in (area.y..area.bottom()).zip(wrapped(&told, area.width.into())) {
        buffer.set_string(area.x, y, line, ratatui::style::Style::new());
    }
}

/// A text in lines of so many columns at most, broken between words where that can be.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word = word.to_owned();
        loop {
            let line = match lines.last_mut() {
                Some(line) => line,
                None => return lines,
            };
            let gap = usize::from(!line.is_empty());
            if width(line) + gap + width(&word) <= columns {
                if gap > 0 {
                    line.push(' ');
                }
                line.push_str(&word);
                break;
            }
            if gap > 0 {
                lines.push(String::new());
                continue;
            }
            // A word that is longer than a line.
            let part: String = word.chars().take(columns.max(2) / 2).collect();
            word = word.split_off(part.len());
            line.push_str(&part);
            if word.is_empty() {
                break;
            }
            lines.push(String::new());
        }
    }
    lines
}

/// The line above a pane; the pane that has the keys is marked.
fn title(text: &str, focused: bool, painter: Painter, area: Rect, buffer: &mut Buffer) {
    if area.height == 0 {
        return;
    }
    let mark = if focused { "▶ " } else { "  " };
    let tone = if focused { Tone::Strong } else { Tone::Faint };
    let text = format!("{mark}{text} ");
    let rule = "─".repeat(usize::from(area.width).saturating_sub(width(&text)));
    let line = Line::from(vec![
        painter.span(&text, tone),
        painter.span(&rule, Tone::Faint),
    ]);
    buffer.set_line(area.x, area.y, &line, area.width);
}

/// The last line: a question, what was said last, or the keys.
fn footer(model: &Model, now: Instant, palette: Palette, area: Rect, buffer: &mut Buffer) {
    let painter = Painter {
        palette,
        is_old: false,
    };
    let columns = usize::from(area.width);
    let (text, tone) = if model.mode == Mode::Filter {
        (
            format!("/{}█  Enter keeps it, Esc clears it", model.filter),
            Tone::Strong,
        )
    } else if let Some(note) = model.note(now) {
        let tone = if note.well { Tone::Good } else { Tone::Bad };
        (note.text.clone(), tone)
    } else if let Link::Silent { why } = &model.link {
        (why.clone(), Tone::Bad)
    } else {
        (hints(model, columns), Tone::Faint)
    };
    let line = Line::from(Span::styled(
        fit(&text, columns, false),
        painter.style(tone),
    ));
    buffer.set_line(area.x, area.y, &line, area.width);
}

/// The keys that mean something here, those first that are to be seen on a narrow line, too.
fn hints(model: &Model, columns: usize) -> String {
    let pause = if model.paused { "p go on" } else { "p pause" };
    let keys: &[&str] = match (&model.view, model.focus) {
        (View::All, Pane::Executions) => &[
            "Tab pane",
            "Enter look closer",
            "e end",
            "s sort",
            "/ filter",
        ],
        (View::All, Pane::Sessions) => &[
            "Tab pane",
            "Enter look closer",
            "K end",
            "c cancel",
            "s sort",
            "/ filter",
        ],
        (View::All, Pane::Events) => &["Tab pane", "↑ ↓ scroll"],
        (View::Execution { .. }, Pane::Events) => &["Esc back", "e end", "Tab pane", "↑ ↓ scroll"],
        (View::Execution { .. }, _) => &[
            "Esc back",
            "e end",
            "K end session",
            "c cancel",
            "s sort",
            "/ filter",
            "Tab pane",
        ],
        (View::Session { .. }, _) => &["Esc back", "K end", "c cancel", "e end its execution"],
    };
    let mut hints = String::from("q quit  ? help");
    for hint in keys.iter().chain([&pause]) {
        if width(&hints) + 2 + width(hint) > columns {
            break;
        }
        hints.push_str("  ");
        hints.push_str(hint);
    }
    hints
}

/// Words with something between them, as many as fit.
fn words(words: &[(String, Tone)], painter: Painter, columns: u16) -> Line<'static> {
    let mut line = Line::default();
    let words = words.iter().filter(|(text, _)| !text.is_empty());
    for (number, (text, tone)) in words.enumerate() {
        let gap = if number == 0 { "" } else { " · " };
        let left = usize::from(columns).saturating_sub(line.width() + width(gap));
        if left == 0 {
            break;
        }
        line.push_span(painter.span(gap, Tone::Faint));
        let text = super::paint::cut(&super::paint::tame(text), left);
        line.push_span(painter.span(&text, *tone));
    }
    line
}

/// Makes the row of an area stand out.
fn choose(area: Rect, y: u16, buffer: &mut Buffer) {
    let row = Rect::new(area.x, y, area.width, 1);
    buffer.set_style(row, Modifier::REVERSED);
}

/// A time that may not be known.
fn time_or_none(seconds: Option<f64>) -> String {
    seconds.map(time).unwrap_or_default()
}

/// A share, in percent.
fn share(share: Option<f64>) -> String {
    share
        .map(|share| format!("{:.0}%", share * 100.0))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
