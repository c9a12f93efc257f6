//! One execution or one session, in full.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::super::super::page::time;
use super::super::look::{Execution, Pool, Session};
use super::super::model::Model;
use super::super::paint::{Painter, Tone, tame};
use super::{share, time_or_none, title, wrapped};

/// Where a value begins.
const MARGIN: usize = 14;

/// Writes the execution that is looked at.
pub(super) fn execution(model: &Model, painter: Painter, area: Rect, buffer: &mut Buffer) {
    let Some((id, generation)) = model.execution_in_view() else {
        return;
    };
    title(
        &format!("Execution {id}, generation {generation}"),
        false,
        painter,
        area,
        buffer,
    );
    let lines = match model.execution() {
        Some(one) => facts(one),
        None => vec![("", "It has ended. Esc goes back.".to_owned(), Tone::Warn)],
    };
    paint(&lines, painter, area, buffer);
}

type Fact = (&'static str, String, Tone);

fn facts(one: &Execution) -> Vec<Fact> {
    let left = match one.deadline_seconds {
        Some(_) => format!(", {} left", time_or_none(one.deadline_seconds)),
        None => ", no deadline".to_owned(),
    };
    let reason = one.reason.as_ref().map(|reason| format!(" ({reason})"));
    let state = format!(
        "{}{}, {}, for {}{left}, {} holds",
        one.state,
        reason.unwrap_or_default(),
        one.kind,
        time(one.age_seconds),
        one.holds
    );
    let work = format!(
        "{} sessions, {} running, {} suspects; {} queries; held {}, {} busy",
        one.sessions,
        one.sum.running,
        one.sum.suspects,
        one.queries,
        time(one.held_seconds),
        one.hold_efficiency
            .map_or_else(|| "never".to_owned(), |it| share(Some(it))),
    );
    let suspects = if one.sum.suspects > 0 {
        Tone::Warn
    } else {
        Tone::Plain
    };
    let mut facts = vec![
        ("state", state, Tone::of_state(&one.state)),
        ("work", work, suspects),
    ];
    for pool in &one.pools {
        let tone = if pool.waiting > 0 {
            Tone::Warn
        } else {
            Tone::Plain
        };
        facts.push(("pool", pool_told(pool), tone));
    }
    let resources = one.resources.iter().filter(|(_, count)| **count > 0);
    let resources: Vec<String> = resources
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if !resources.is_empty() {
        facts.push(("resources", resources.join(", "), Tone::Plain));
    }
    if !one.labels.is_empty() {
        facts.push(("labels", one.labels(), Tone::Plain));
    }
    facts
}

fn pool_told(pool: &Pool) -> String {
    let most = match (pool.size, pool.overflow) {
        (Some(size), Some(overflow)) => format!(" of {size} + {overflow}"),
        _ => String::new(),
    };
    let waiting = match pool.waiting {
        0 => String::new(),
        many => format!(
            ", {many} waiting, the first for {}",
            time(pool.oldest_wait_seconds)
        ),
    };
    format!(
        "{}: {} lent, {} open{most}, at most {} at once{waiting}",
        pool.upstream, pool.lent, pool.open, pool.peak
    )
}

/// Writes the session that is looked at.
pub(super) fn session(model: &Model, id: u64, painter: Painter, area: Rect, buffer: &mut Buffer) {
    title(&format!("Session {id}"), false, painter, area, buffer);
    let lines = match model.session(id) {
        Some(one) => session_facts(one),
        None => {
            let told = "It has closed, or others are listed before it. Esc goes back.";
            vec![("", told.to_owned(), Tone::Warn)]
        }
    };
    paint(&lines, painter, area, buffer);
}

fn session_facts(one: &Session) -> Vec<Fact> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let suspect = if one.leak_suspect {
        ", LEAK SUSPECT"
    } else {
        ""
    };
    let tone = match one.leak_suspect {
        true => Tone::Bad,
        false => Tone::of_state(&one.state),
    };
    let pid = one.server_pid.map(|pid| pid.to_string());
    let transaction = one
        .transaction_seconds
        .map(|it| format!("open for {}", time(it)));
    vec![
        ("execution", one.execution.clone(), Tone::Strong),
        (
            "state",
            format!("{} for {}{suspect}", one.state, time(one.state_age_seconds)),
            tone,
        ),
        ("age", time(one.age_seconds), Tone::Plain),
        ("transaction", transaction.unwrap_or_default(), Tone::Plain),
        (
            "held",
            format!(
                "{}, {} busy",
                time(one.held_seconds),
                share(one.hold_efficiency)
            ),
            Tone::Plain,
        ),
        ("queries", one.queries.to_string(), Tone::Plain),
        ("backend", pid.unwrap_or_default(), Tone::Plain),
        (
            "database",
            format!("{} by upstream {}", one.database, one.upstream),
            Tone::Plain,
        ),
        ("caller", text(&one.caller), Tone::Plain),
        ("label", text(&one.label), Tone::Plain),
        ("application", text(&one.application_name), Tone::Plain),
        ("traceparent", text(&one.traceparent), Tone::Faint),
        ("statement", one.statement().to_owned(), Tone::Plain),
    ]
}

/// Writes facts below a title, what is empty left out, what is long on several lines.
fn paint(facts: &[Fact], painter: Painter, area: Rect, buffer: &mut Buffer) {
    let mut y = area.y + 1;
    let room = usize::from(area.width).saturating_sub(MARGIN + 1);
    for (name, text, tone) in facts.iter().filter(|(_, text, _)| !text.is_empty()) {
        let name = std::iter::once(*name).chain(std::iter::repeat(""));
        for (part, name) in wrapped(&tame(text), room).iter().zip(name) {
            if y >= area.bottom() {
                return;
            }
            let line = Line::from(vec![
                painter.span(&format!("  {name:<12}"), Tone::Faint),
                painter.span(part, *tone),
            ]);
            buffer.set_line(area.x, y, &line, area.width);
            y += 1;
        }
    }
}
