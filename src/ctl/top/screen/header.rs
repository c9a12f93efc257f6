//! The budget, whether it is exhausted, and how fast everything comes and goes.

use std::time::Instant;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::super::super::page::time;
use super::super::act::many;
use super::super::look::{Budget, Look};
use super::super::model::{Link, Model};
use super::super::paint::{Painter, Tone, cut, tame, width};
use super::words;

/// Writes the lines above the panes.
pub(super) fn draw(model: &Model, now: Instant, painter: Painter, area: Rect, buffer: &mut Buffer) {
    let Some((look, at)) = &model.seen else {
        return;
    };
    let lines = [
        first(
            model,
            look,
            now.saturating_duration_since(*at).as_secs_f64(),
            painter,
            area.width,
        ),
        budget(&look.budget, tone(look), painter, area.width),
        labelled("state", state(look), painter, area.width),
        labelled("flow", flow(look), painter, area.width),
    ];
    for (y, line) in (area.y..area.bottom()).zip(&lines) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// Who is asked, and whether it answers.
fn first(model: &Model, look: &Look, age: f64, painter: Painter, columns: u16) -> Line<'static> {
    let memory = look.memory.resident_bytes;
    let memory = memory.map(|bytes| format!(" · {:.1} MiB", bytes / f64::from(1 << 20)));
    let name = format!(
        "execpool {} · up {}{}",
        look.version,
        time(look.uptime_seconds),
        memory.unwrap_or_default()
    );
    let fresh = Painter {
        is_old: false,
        ..painter
    };
    let (told, tone) = match (&model.link, model.paused) {
        (Link::Silent { .. }, _) => {
            let told = format!("NO ANSWER, this is {} old", time(age));
            (told, Tone::Bad)
        }
        (Link::Answers, true) => (format!("PICTURE PAUSED {} ago", time(age)), Tone::Warn),
        (Link::Answers, false) => {
            let every = time(model.interval.as_secs_f64());
            (format!("live, every {every}"), Tone::Good)
        }
    };
    let columns = usize::from(columns);
    let name = cut(&tame(&name), columns);
    let left = columns.saturating_sub(width(&name) + 2);
    let told = cut(&tame(&told), left);
    let gap = " ".repeat(columns.saturating_sub(width(&name) + width(&told)));
    Line::from(vec![
        painter.span(&name, Tone::Strong),
        painter.span(&gap, Tone::Plain),
        fresh.span(&told, tone),
    ])
}

/// How bad it is. Without a word from execpool, what the budget says.
fn tone(look: &Look) -> Tone {
    match &look.exhaustion {
        Some(exhaustion) => Tone::of_state(&exhaustion.state),
        None if look.budget.waiting > 0 => Tone::Warn,
        None => Tone::Good,
    }
}

/// `budget ████▒▒▒······××× 4 used, 7 open of 16 (30 configured)`
fn budget(budget: &Budget, tone: Tone, painter: Painter, columns: u16) -> Line<'static> {
    let told = match budget.limited_by_database {
        true => format!(
            "{} used, {} open of {}: the database allows {}",
            budget.used, budget.open, budget.limit, budget.effective
        ),
        false => format!(
            "{} used, {} open of {}",
            budget.used, budget.open, budget.limit
        ),
    };
    let room = usize::from(columns).saturating_sub(10 + width(&told));
    let bar = room.clamp(10, 60);
    let [used, open, free, denied] = parts(budget, bar);
    let told_tone = if budget.limited_by_database {
        Tone::Bad
    } else {
        Tone::Plain
    };
    Line::from(vec![
        painter.span("budget ", Tone::Faint),
        painter.span(&"█".repeat(used), tone),
        painter.span(&"▒".repeat(open), tone),
        painter.span(&"·".repeat(free), Tone::Faint),
        painter.span(&"×".repeat(denied), Tone::Bad),
        painter.span("  ", Tone::Plain),
        painter.span(&told, told_tone),
    ])
}

/// The parts of the bar: used, open besides, free, and what the database denies. What is there has at
/// least one cell.
fn parts(budget: &Budget, bar: usize) -> [usize; 4] {
    let limit = budget.limit.max(1);
    let cells = |count: u64| {
        let cells = count.min(limit) as f64 * bar as f64 / limit as f64;
        if count == 0 {
            0
        } else {
            (cells.round() as usize).clamp(1, bar)
        }
    };
    let used = cells(budget.used);
    let open = cells(budget.open.max(budget.used)).max(used) - used;
    let allowed = match budget.limited_by_database {
        true => cells(budget.effective.min(limit)).max(used + open),
        false => bar,
    };
    [used, open, allowed - used - open, bar - allowed]
}

/// The exhaustion's state in words, who waits, and what an operator has done.
fn state(look: &Look) -> Vec<(String, Tone)> {
    let mut told = Vec::new();
    if let Some(exhaustion) = &look.exhaustion {
        let (word, age) = (&exhaustion.state, time(exhaustion.age_seconds));
        let tone = Tone::of_state(word);
        let word = match tone {
            Tone::Bad => word.to_uppercase(),
            _ => word.clone(),
        };
        told.push((format!("{word} for {age}"), tone));
    }
    let budget = &look.budget;
    told.push(match budget.waiting {
        0 => ("nobody waits".to_owned(), Tone::Plain),
        waiting => {
            let oldest = time(budget.oldest_wait_seconds);
            (
                format!("{waiting} waiting, the first for {oldest}"),
                Tone::Warn,
            )
        }
    });
    if look.paused {
        let age = look.paused_seconds.map(time).unwrap_or_default();
        told.push((format!("PAUSED for {age}"), Tone::Bad));
    }
    if look.draining {
        told.push(("DRAINING".to_owned(), Tone::Warn));
    }
    if let Some(why) = &look.not_ready {
        told.push((format!("NOT READY: {why}"), Tone::Warn));
    }
    for upstream in &look.upstreams {
        let name = &upstream.name;
        told.push(match upstream.reachable {
            Some(true) => {
                let latency = upstream.latency_seconds.map(time).unwrap_or_default();
                (format!("{name} answers in {latency}"), Tone::Plain)
            }
            Some(false) => (format!("{name} DOES NOT ANSWER"), Tone::Bad),
            None => (format!("{name} not asked yet"), Tone::Faint),
        });
    }
    // What is worst is seen on a narrow line, too.
    told.sort_by_key(|(_, tone)| match tone {
        Tone::Bad => 0,
        Tone::Warn => 1,
        _ => 2,
    });
    told
}

/// How many there are, and how fast they come and go.
fn flow(look: &Look) -> Vec<(String, Tone)> {
    let (sessions, executions) = (&look.sessions, &look.executions);
    let rates = &look.rates;
    let mut told = vec![
        (
            format!(
                "{} +{:.1} −{:.1}/s",
                many(sessions.total, "session"),
                rates.sessions_opened_per_second,
                rates.sessions_closed_per_second
            ),
            Tone::Plain,
        ),
        (
            format!(
                "{} +{:.1} −{:.1}/s",
                many(executions.active, "execution"),
                rates.executions_begun_per_second,
                rates.executions_ended_per_second
            ),
            Tone::Plain,
        ),
    ];
    if executions.ending > 0 {
        told.push((format!("{} ending", executions.ending), Tone::Warn));
    }
    if sessions.leak_suspects > 0 {
        told.push((many(sessions.leak_suspects, "leak suspect"), Tone::Warn));
    }
    told
}

fn labelled(
    name: &str,
    told: Vec<(String, Tone)>,
    painter: Painter,
    columns: u16,
) -> Line<'static> {
    let mut line = Line::from(painter.span(&format!("{name:<7}"), Tone::Faint));
    for span in words(&told, painter, columns.saturating_sub(7)) {
        line.push_span(span);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_all_its_cells_whatever_the_numbers_are() {
        for (limit, effective, used, open) in [
            (30, 30, 20, 25),
            (30, 12, 12, 12),
            (30, 4, 12, 14),
            (0, 0, 0, 0),
            (1000, 1000, 1, 1),
            (5, 5, 9, 9),
        ] {
            let budget = Budget {
                limit,
                effective,
                used,
                open,
                limited_by_database: effective < limit,
                ..Budget::default()
            };
            for bar in [10, 33, 60] {
                let parts = parts(&budget, bar);
                assert_eq!(parts.iter().sum::<usize>(), bar, "{budget:?}");
                assert_eq!(parts[0] == 0, used == 0);
            }
        }
    }
}
