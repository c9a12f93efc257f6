//! What is printed for people: lines, aligned tables, times, and colours where they are wanted.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a word is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Colour {
    /// As everything else.
    #[default]
    Plain,
    /// Well.
    Green,
    /// To be looked at.
    Yellow,
    /// Not well.
    Red,
    /// Less important.
    Faint,
}

impl Colour {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Green => Some("32"),
            Self::Yellow => Some("33"),
            Self::Red => Some("31"),
            Self::Faint => Some("2"),
        }
    }

    /// The colour of a state's word.
    pub(super) fn of_state(word: &str) -> Self {
        match word {
            "active" => Self::Green,
            "waiting" | "idle_in_transaction" | "ending" => Self::Yellow,
            "ended" | "unbound" | "closing" | "startup" => Self::Faint,
            _ => Self::Plain,
        }
    }
}

/// A cell of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    colour: Colour,
    right: bool,
}

impl Cell {
    /// A text, on one line and without what a terminal would obey.
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self {
            text: tame(text.as_ref()),
            ..Self::default()
        }
    }

    /// A number or a time, aligned to the right.
    pub(super) fn number(text: impl AsRef<str>) -> Self {
        Self {
            right: true,
            ..Self::text(text)
        }
    }

    /// In a colour.
    pub(super) fn in_colour(self, colour: Colour) -> Self {
        Self { colour, ..self }
    }
}

/// Where a line below a row begins.
const BELOW: &str = "      ";

/// What is going to be printed.
#[derive(Debug)]
pub(super) struct Page {
    out: String,
    colours: bool,
    /// How wide a line may be; none: as wide as it is.
    width: Option<usize>,
}

impl Page {
    pub(super) fn new(colours: bool) -> Self {
        Self {
            out: String::new(),
            colours,
            width: None,
        }
    }

    /// For a terminal that is so wide.
    pub(super) fn within(self, width: Option<usize>) -> Self {
        Self { width, ..self }
    }

    /// How wide a line may be; none: as wide as it is.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// One line.
    pub(super) fn line(&mut self, text: &str) {
        self.out.push_str(&tame(text));
        self.out.push('\n');
    }

    /// A line of words, each in its colour; those that are empty are left out.
    pub(super) fn words(&mut self, words: &[(&str, Colour)]) {
        let words = words.iter().filter(|(text, _)| !text.is_empty());
        let words: Vec<String> = words
            .map(|(text, colour)| self.coloured(&tame(text), *colour))
            .collect();
        self.out.push_str(&words.join(" "));
        self.out.push('\n');
    }

    /// A table with these heads; without heads where they are all empty.
    pub(super) fn table(&mut self, heads: &[&str], rows: Vec<Vec<Cell>>) {
        let rows = rows.into_iter().map(|row| (row, String::new()));
        self.records(heads, rows.collect());
    }

    /// The same with a line below each row, if there is something to say; it is cut to the width.
    pub(super) fn records(&mut self, heads: &[&str], rows: Vec<(Vec<Cell>, String)>) {
        let first = rows.first().map(|(row, _)| row);
        let rights = (0..heads.len()).map(|at| {
            let cell = first.and_then(|row| row.get(at));
            cell.is_some_and(|cell| cell.right)
        });
        let head = heads.iter().zip(rights).map(|(head, right)| Cell {
            text: tame(head),
            colour: Colour::Faint,
            right,
        });
        let mut all: Vec<(Vec<Cell>, String)> = Vec::with_capacity(rows.len() + 1);
        if heads.iter().any(|head| !head.is_empty()) {
            all.push((head.collect(), String::new()));
        }
        all.extend(rows);
        let widths: Vec<usize> = (0..heads.len())
            .map(|at| all.iter().map(|(row, _)| width(row, at)).max().unwrap_or(0))
            .collect();
        for (row, below) in &all {
            self.row(row, &widths);
            if !below.is_empty() {
                let room = self.width.unwrap_or(usize::MAX).saturating_sub(BELOW.len());
                let below = self.coloured(&cut(&tame(below), room), Colour::Faint);
                self.out.push_str(BELOW);
                self.out.push_str(&below);
                self.out.push('\n');
            }
        }
    }

    fn row(&mut self, row: &[Cell], widths: &[usize]) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let blanks = " ".repeat(width.saturating_sub(cell.text.width()));
            if at > 0 {
                line.push_str("  ");
            }
            let text = self.coloured(&cell.text, cell.colour);
            if cell.right {
                line.push_str(&blanks);
                line.push_str(&text);
            } else {
                line.push_str(&text);
                line.push_str(&blanks);
            }
        }
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn coloured(&self, text: &str, colour: Colour) -> String {
        match colour.code() {
            Some(code) if self.colours && !text.is_empty() => {
                format!("\x1b[{code}m{text}\x1b[0m")
            }
            _ => text.to_owned(),
        }
    }
}

/// The beginning of a text that has not room for all of it, in columns of a terminal.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.width() <= most {
        return text.to_owned();
    }
    let mut room = most.saturating_sub(1);
    let fits = |c: &char| {
        let left = room.checked_sub(c.width().unwrap_or(0));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let begin: String = text.chars().take_while(fits).collect();
    format!("{begin}…")
}

fn width(row: &[Cell], at: usize) -> usize {
    row.get(at).map_or(0, |cell| cell.text.width())
}

/// Without control characters and what turns the direction of writing: much of what is shown is a
/// client's own text.
fn tame(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let tame = |c: char| if c.is_control() || turns(c) { '?' } else { c };
    text.chars().map(tame).collect()
}

/// A duration of so many seconds: `340ms`, `42s`, `2m03s`, `3h05m`, `2d07h`.
pub(super) fn time(seconds: f64) -> String {
    if seconds < 1e-6 {
        return "0s".to_owned();
    }
    if seconds < 0.001 {
        return format!("{}µs", (seconds * 1e6) as u64);
    }
    if seconds < 1.0 {
        return format!("{}ms", (seconds * 1000.0) as u64);
    }
    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m{:02}s", whole % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A field that is a time; nothing where it is null.
pub(super) fn time_of(value: &Value, name: &str) -> String {
    value[name].as_f64().map(time).unwrap_or_default()
}

/// A field that is a number; nothing where it is null.
pub(super) fn count_of(value: &Value, name: &str) -> String {
    value[name]
        .as_i64()
        .map(|count| count.to_string())
        .unwrap_or_default()
}

/// The sum of a field that holds counts by kind; none where it is null.
pub(super) fn sum_of(value: &Value, name: &str) -> Option<u64> {
    let counts = value[name].as_object()?.values();
    Some(counts.filter_map(Value::as_u64).sum())
}

/// A field that is a text; nothing where it is null.
pub(super) fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A field that is a share; nothing where it is null.
pub(super) fn share_of(value: &Value, name: &str) -> String {
    let share = value[name].as_f64();
    share
        .map(|share| format!("{:.0}%", share * 100.0))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, told) in [
            (0.0, "0s"),
            (0.000_41, "410µs"),
            (0.34, "340ms"),
            (1.9, "1s"),
            (59.99, "59s"),
            (123.4, "2m03s"),
            (3600.0, "1h00m"),
            (11_100.0, "3h05m"),
            (200_000.0, "2d07h"),
        ] {
            assert_eq!(time(seconds), told);
        }
    }

    fn table(colours: bool) -> String {
        let mut page = Page::new(colours);
        let rows = vec![
            vec![Cell::text("ä").in_colour(Colour::Red), Cell::number("7")],
            vec![Cell::text("long"), Cell::number("12345")],
        ];
        page.table(&["ID", "N"], rows);
        page.finish()
    }

    #[test]
    fn tables_are_aligned_and_coloured_only_where_it_is_wanted() {
        assert_eq!(table(false), "ID        N\nä         7\nlong  12345\n");
        let coloured = table(true);
        assert!(coloured.contains("\x1b[31mä\x1b[0m   "), "{coloured:?}");
    }

    #[test]
    fn wide_characters_take_two_columns_and_are_cut_by_them() {
        assert_eq!(cut("東京東京", 5), "東京…");
        assert_eq!(cut("東京", 4), "東京");
        let mut page = Page::new(false);
        let rows = [["東京", "1"], ["ab", "2"]];
        page.table(&["", ""], rows.map(|row| row.map(Cell::text).into()).into());
        assert_eq!(page.finish(), "東京  1\nab    2\n");
    }

    #[test]
    fn a_terminal_obeys_no_clients_text() {
        let mut page = Page::new(true);
        page.table(&[""], vec![vec![Cell::text("a\x1b[2J\nb")]]);
        page.line("c\x07\u{9b}31m\u{202e}d");
        assert_eq!(page.finish(), "a?[2J?b\nc??31m?d\n");
    }
}
