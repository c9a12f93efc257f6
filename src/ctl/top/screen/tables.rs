//! The panes that are lists.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::Line;

use super::super::super::events;
use super::super::super::page::{Colour, time};
use super::super::look::{Execution, Session};
use super::super::model::{Model, Pane, View};
use super::super::order::Order;
use super::super::paint::{Painter, Tone, fit};
use super::{choose, share, time_or_none, title, words};

/// What is between two columns.
const GAP: usize = 2;

/// A column of a table.
struct Column<T> {
    head: &'static str,
    /// Its least width.
    width: usize,
    /// Its share in what is left.
    grow: usize,
    right: bool,
    /// The width of the terminal from which on it is shown.
    from: u16,
    /// The width of the terminal from which on it is not any more.
    until: u16,
    cell: fn(&T) -> (String, Tone),
}

/// Whatever the width is.
const ALWAYS: u16 = 0;
const EVER: u16 = u16::MAX;
/// Where there is room for more than what matters most.
const WIDE: u16 = 110;
const WIDEST: u16 = 140;

impl<T> Column<T> {
    const fn number(
        head: &'static str,
        width: usize,
        from: u16,
        cell: fn(&T) -> (String, Tone),
    ) -> Self {
        Self {
            head,
            width,
            grow: 0,
            right: true,
            from,
            until: EVER,
            cell,
        }
    }

    const fn text(
        head: &'static str,
        width: usize,
        grow: usize,
        from: u16,
        cell: fn(&T) -> (String, Tone),
    ) -> Self {
        Self {
            head,
            width,
            grow,
            right: false,
            from,
            until: EVER,
            cell,
        }
    }

    const fn until(self, until: u16) -> Self {
        Self { until, ..self }
    }
}

const EXECUTIONS: [Column<Execution>; 15] = [
    Column::text("EXECUTION", 12, 3, ALWAYS, |one| {
        (one.id.clone(), Tone::Plain)
    }),
    Column::text("STATE", 7, 0, WIDE, |one| {
        (one.state.clone(), Tone::of_state(&one.state))
    }),
    Column::text("KIND", 8, 0, WIDEST, |one| (one.kind.clone(), Tone::Plain)),
    Column::number("LENT/OPEN", 9, ALWAYS, |one| {
        (format!("{}/{}", one.lent(), one.open()), Tone::Plain)
    }),
    Column::number("WAIT", 4, ALWAYS, |one| marked(one.waiting())),
    Column::number("SESS", 5, ALWAYS, |one| {
        (one.sessions.to_string(), Tone::Plain)
    }),
    Column::number("OLDEST", 6, ALWAYS, |one| {
        (time_or_none(one.sum.oldest), Tone::Plain)
    }),
    Column::number("BUSY", 4, ALWAYS, |one| busy(one.hold_efficiency)),
    Column::number("LEFT", 6, ALWAYS, left),
    Column::number("SUSP", 4, ALWAYS, |one| marked(one.sum.suspects)),
    Column::number("HELD", 6, WIDE, |one| (time(one.held_seconds), Tone::Plain)),
    Column::number("AGE", 6, WIDE, |one| (time(one.age_seconds), Tone::Plain)),
    Column::number("QUERIES", 8, WIDEST, |one| {
        (one.queries.to_string(), Tone::Plain)
    }),
    Column::number("RES", 4, WIDEST, |one| {
        (none_if_zero(one.resources.values().sum()), Tone::Plain)
    }),
    Column::text("LABELS", 10, 2, WIDEST, |one| (one.labels(), Tone::Faint)),
];

const SESSIONS: [Column<Session>; 13] = [
    Column::number("ID", 6, ALWAYS, |one| (one.id.to_string(), Tone::Plain)),
    Column::text("EXECUTION", 12, 1, ALWAYS, |one| {
        (one.execution.clone(), Tone::Plain)
    }),
    Column::text("!", 1, 0, ALWAYS, |one| {
        let mark = if one.leak_suspect { "!" } else { "" };
        (mark.to_owned(), Tone::Bad)
    }),
    // "idle_in_transaction" takes a quarter of a narrow line.
    Column::text("STATE", 10, 0, ALWAYS, |one: &Session| {
        let state = one.state.replace("in_transaction", "in_tx");
        (state, state_tone(one))
    })
    .until(WIDE),
    Column::text("STATE", 19, 0, WIDE, |one| {
        (one.state.clone(), state_tone(one))
    }),
    Column::number("FOR", 6, ALWAYS, |one| {
        (time(one.state_age_seconds), Tone::Plain)
    }),
    Column::number("HELD", 6, ALWAYS, |one| {
        (time(one.held_seconds), Tone::Plain)
    }),
    Column::number("BUSY", 4, WIDE, |one| busy(one.hold_efficiency)),
    Column::number("AGE", 6, WIDEST, |one| (time(one.age_seconds), Tone::Plain)),
    Column::number("PID", 7, WIDE, |one| {
        let pid = one.server_pid.map(|pid| pid.to_string());
        (pid.unwrap_or_default(), Tone::Plain)
    }),
    Column::text("CALLER: STATEMENT", 10, 3, ALWAYS, |one: &Session| {
        let told = [one.who(), one.statement()];
        let told: Vec<&str> = told.into_iter().filter(|text| !text.is_empty()).collect();
        (told.join(": "), Tone::Plain)
    })
    .until(WIDEST),
    Column::text("CALLER", 10, 3, WIDEST, |one| {
        (one.who().to_owned(), Tone::Plain)
    }),
    Column::text("STATEMENT", 10, 4, WIDEST, |one| {
        (one.statement().to_owned(), Tone::Plain)
    }),
];

fn state_tone(one: &Session) -> Tone {
    match one.leak_suspect {
        true => Tone::Bad,
        false => Tone::of_state(&one.state),
    }
}

fn none_if_zero(count: u64) -> String {
    if count == 0 {
        String::new()
    } else {
        count.to_string()
    }
}

/// A count that is to be looked at unless it is 0.
fn marked(count: u64) -> (String, Tone) {
    (none_if_zero(count), Tone::Warn)
}

/// Who holds connections and hardly works is to be looked at.
fn busy(efficiency: Option<f64>) -> (String, Tone) {
    let is_low = efficiency.is_some_and(|efficiency| efficiency < 0.1);
    (
        share(efficiency),
        if is_low { Tone::Warn } else { Tone::Plain },
    )
}

/// The time left, unless it is ending already.
fn left(one: &Execution) -> (String, Tone) {
    if one.state == "ending" {
        return (one.state.clone(), Tone::Warn);
    }
    let is_near = one.deadline_seconds.is_some_and(|left| left < 10.0);
    let tone = if is_near { Tone::Warn } else { Tone::Plain };
    (time_or_none(one.deadline_seconds), tone)
}

/// Writes the executions.
pub(super) fn executions(model: &Model, painter: Painter, area: Rect, buffer: &mut Buffer) {
    let rows = model.shown_executions();
    let focused = model.focus == Pane::Executions;
    let count = model
        .seen
        .as_ref()
        .map(|(look, _)| look.executions.active + look.executions.ending);
    let list = &model.executions;
    let told = heading(
        "Executions",
        rows.len(),
        count,
        list.by.head(),
        list.reversed,
        model,
    );
    title(&told, focused, painter, area, buffer);
    let chosen = model.chosen_execution();
    let head = list.by.head();
    table(
        &EXECUTIONS,
        &rows,
        (chosen, focused),
        head,
        painter,
        below_title(area, 0),
        buffer,
    );
}

/// Writes the sessions, and below them more of the one that is chosen.
pub(super) fn sessions(model: &Model, painter: Painter, area: Rect, buffer: &mut Buffer) {
    if area.height == 0 {
        return;
    }
    let rows = model.shown_sessions();
    let focused = model.focus == Pane::Sessions;
    let count = match model.execution_in_view() {
        Some(_) => model.execution().map(|one| one.sessions),
        None => model.seen.as_ref().map(|(look, _)| look.sessions.total),
    };
    let list = &model.sessions;
    let name = match model.execution_in_view() {
        Some((id, _)) => format!("Sessions of {id}"),
        None => "Sessions".to_owned(),
    };
    let told = heading(
        &name,
        rows.len(),
        count,
        list.by.head(),
        list.reversed,
        model,
    );
    title(&told, focused, painter, area, buffer);
    let chosen = model.chosen_session();
    let head = list.by.head();
    table(
        &SESSIONS,
        &rows,
        (chosen, focused),
        head,
        painter,
        below_title(area, 1),
        buffer,
    );
    if let Some(one) = chosen.and_then(|at| rows.get(at)) {
        let line = more_of(one, painter, area.width);
        buffer.set_line(area.x, area.bottom() - 1, &line, area.width);
    }
}

/// What has no column of its own where it is narrow.
fn more_of(one: &Session, painter: Painter, columns: u16) -> Line<'static> {
    let named = |name: &str, text: &Option<String>| match text {
        Some(text) => format!("{name} {text}"),
        None => String::new(),
    };
    let pid = one.server_pid.map(|pid| pid.to_string());
    let told = [
        format!("session {}", one.id),
        named("pid", &pid),
        named("caller", &one.caller),
        named("label", &one.label),
        named("application", &one.application_name),
        one.statement().to_owned(),
    ];
    let told = told.map(|text| (text, Tone::Faint));
    words(&told, painter, columns)
}

/// Writes the last events, the last one last.
pub(super) fn events(model: &Model, painter: Painter, area: Rect, buffer: &mut Buffer) {
    if area.height == 0 {
        return;
    }
    let of = match &model.view {
        View::All => None,
        _ => model.execution_in_view().map(|(id, _)| id),
    };
    let wanted = |execution: &str| of.is_none_or(|id| id == execution);
    let lines = model.events.iter().filter(|line| wanted(&line.execution));
    let lines: Vec<_> = lines.collect();
    let until = lines.len().saturating_sub(model.back);
    let room = usize::from(area.height) - 1;
    let from = until.saturating_sub(room);
    let told = match (of, model.back) {
        (Some(id), _) => format!("Events of {id}"),
        (None, 0) => "Events".to_owned(),
        (None, back) => format!("Events, but for the last {back}"),
    };
    title(&told, model.focus == Pane::Events, painter, area, buffer);
    let shown = lines.get(from..until).unwrap_or_default();
    for (y, event) in (area.y + 1..area.bottom()).zip(shown) {
        let tone = match events::colour(&event.name) {
            Colour::Red => Tone::Bad,
            Colour::Yellow => Tone::Warn,
            Colour::Green => Tone::Good,
            Colour::Plain | Colour::Faint => Tone::Plain,
        };
        let line = Line::from(vec![
            painter.span("  ", Tone::Plain),
            painter.span(&event.at, Tone::Faint),
            painter.span(&format!(" {} ", event.name), tone),
            painter.span(&event.rest, Tone::Plain),
        ]);
        buffer.set_line(area.x, y, &line, area.width);
    }
}

/// `Sessions 500 of 5000 by HELD ↓ matching "run"`
fn heading(
    name: &str,
    shown: usize,
    count: Option<u64>,
    by: &str,
    reversed: bool,
    model: &Model,
) -> String {
    let count = count.filter(|count| *count != shown as u64);
    let count = count.map(|count| format!(" of {count}"));
    let arrow = if reversed { "↑" } else { "↓" };
    let filter = match model.filter.as_str() {
        "" => String::new(),
        filter => format!(" matching {filter:?}"),
    };
    format!(
        "{name} {shown}{} by {by} {arrow}{filter}",
        count.unwrap_or_default()
    )
}

/// What is left of a pane below its title, and above so many lines.
fn below_title(area: Rect, lines: u16) -> Rect {
    let height = area.height.saturating_sub(1 + lines);
    Rect::new(area.x, area.y + area.height.min(1), area.width, height)
}

/// Writes heads and rows, so that the chosen one is seen.
fn table<T>(
    columns: &[Column<T>],
    rows: &[&T],
    (chosen, focused): (Option<usize>, bool),
    sorted: &str,
    painter: Painter,
    area: Rect,
    buffer: &mut Buffer,
) {
    if area.height == 0 {
        return;
    }
    let shown: Vec<&Column<T>> = columns
        .iter()
        .filter(|column| (column.from..column.until).contains(&area.width))
        .collect();
    let widths = widths(&shown, usize::from(area.width));
    let mut head = Line::from(painter.span("  ", Tone::Faint));
    for (column, width) in shown.iter().zip(&widths) {
        let text = fit(column.head, *width, column.right);
        let mut span = painter.span(&text, Tone::Faint);
        if column.head == sorted {
            span = span.style(
                painter
                    .style(Tone::Strong)
                    .add_modifier(Modifier::UNDERLINED),
            );
        }
        head.push_span(span);
        head.push_span(" ".repeat(GAP));
    }
    buffer.set_line(area.x, area.y, &head, area.width);
    let room = usize::from(area.height) - 1;
    let from = chosen.map_or(0, |at| (at + 1).saturating_sub(room));
    for (at, (y, row)) in (area.y + 1..area.bottom())
        .zip(rows.iter().skip(from))
        .enumerate()
    {
        let is_chosen = chosen == Some(from + at);
        let mark = if is_chosen { "> " } else { "  " };
        let mut line = Line::from(painter.span(mark, Tone::Strong));
        for (column, width) in shown.iter().zip(&widths) {
            let (text, tone) = (column.cell)(row);
            line.push_span(painter.span(&fit(&text, *width, column.right), tone));
            line.push_span(" ".repeat(GAP));
        }
        buffer.set_line(area.x, y, &line, area.width);
        if is_chosen && focused {
            choose(area, y, buffer);
        }
    }
}

/// The widths of the columns: what is left goes to those that grow.
fn widths<T>(shown: &[&Column<T>], columns: usize) -> Vec<usize> {
    let least: usize = shown.iter().map(|column| column.width + GAP).sum();
    let left = (columns + GAP).saturating_sub(least + 2);
    let shares: usize = shown.iter().map(|column| column.grow).sum();
    shown
        .iter()
        .map(|column| column.width + left * column.grow / shares.max(1))
        .collect()
}
