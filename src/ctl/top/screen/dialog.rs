//! What stands over the panes: a question, or the help.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, Clear, Widget};

use super::super::keys::{COLUMNS, HELP};
use super::super::model::{Mode, Model};
use super::super::paint::{Painter, Palette, Tone, fit, tame, width};
use super::wrapped;

/// The most columns of a line.
const WIDEST: u16 = 76;

/// Writes what stands over the panes, if something does.
pub(super) fn draw(model: &Model, palette: Palette, area: Rect, buffer: &mut Buffer) {
    let (name, lines) = match &model.mode {
        Mode::Confirm(action) => {
            let Some((look, _)) = &model.seen else {
                return;
            };
            let mut lines = action.asked(look);
            lines.push(String::new());
            lines.push("y does it; any other key leaves it as it is.".to_owned());
            (" Are you sure? ", lines)
        }
        Mode::Help => (" Help ", help()),
        Mode::Browse | Mode::Filter => return,
    };
    let painter = Painter {
        palette,
        is_old: false,
    };
    let columns = WIDEST.min(area.width.saturating_sub(4));
    let lines: Vec<String> = lines
        .iter()
        .flat_map(|line| wrapped(&tame(line), usize::from(columns) - 4))
        .collect();
    let longest = lines
        .iter()
        .map(|line| width(line))
        .max()
        .unwrap_or_default();
    // It is cut to what there is room for.
    let height = (lines.len() + 2).min(usize::from(area.height)) as u16;
    let columns = ((longest + 4).max(width(name) + 4) as u16).min(columns);
    let over = Rect::new(
        area.x + (area.width - columns) / 2,
        area.y + (area.height - height) / 2,
        columns,
        height,
    );
    Clear.render(over, buffer);
    let frame = Block::bordered()
        .title(name)
        .border_style(painter.style(Tone::Strong));
    frame.render(over, buffer);
    for (y, line) in (over.y + 1..over.bottom() - 1).zip(&lines) {
        let line = fit(line, usize::from(columns) - 4, false).replace("\u{a0}", " ");
        buffer.set_string(over.x + 2, y, line, Style::new());
    }
}

fn help() -> Vec<String> {
    let keys = HELP.iter().map(|(key, does)| line(key, does));
    let columns = COLUMNS.iter().map(|(head, means)| line(head, means));
    keys.chain(columns).collect()
}

/// A word and what it means.
fn line(word: &str, means: &str) -> String {
    // No two blanks, so that wrapping leaves them.
    format!(
        "{}\u{a0}{means}",
        fit(word, 22, false).replace(' ', "\u{a0}")
    )
}
