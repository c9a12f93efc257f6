//! A statement on one line, without what it is about.

use super::hide::Hider;
use super::lex::{Kind, MAX_READ, lex};

/// A statement as it may be shown and logged: on one line of at most `max_chars` characters, with
/// `?` for every literal, without comments. Names and parameters (`$1`) stay. `sql` may be the
/// beginning of a longer text, and in any encoding.
///
/// What cannot be read with certainty is not shown: from there on, there is `…`. That is the case
/// in an unterminated literal or comment, behind a plain literal with a backslash (whose end depends
/// on `standard_conforming_strings`), behind a literal that runs into a word, and behind 64 KiB.
/// Words that are values – behind `SET name =` and `PASSWORD` – are `?` too.
pub fn shown(sql: &[u8], max_chars: usize) -> String {
    let read = &sql[..sql.len().min(MAX_READ)];
    let text = String::from_utf8_lossy(read);
    let lexed = lex(&text);
    let mut cut = !lexed.is_certain() || read.len() < sql.len();
    let mut line = Line::new(max_chars);
    let mut hider = Hider::default();
    let mut before = Kind::Space;
    for lexeme in &lexed.lexemes[..lexed.sure] {
        match (before, lexeme.kind) {
            (_, Kind::Space) => line.space(),
            // Forms of numbers that the tokenizer doesn't know: 0b1, 0o7, 0XFF, 1e.
            (Kind::Number, Kind::Word | Kind::Number) => continue,
            // 'it's mine': by the rules a name, but hardly meant as one.
            (Kind::Text, Kind::Word) => {
                cut = true;
                break;
            }
            _ if hider.hides(lexeme) => line.push("?"),
            (_, Kind::Text | Kind::Number) => line.push("?"),
            (_, Kind::Word | Kind::Parameter | Kind::Symbol) => line.push(lexeme.text),
        }
        before = lexeme.kind;
        if line.is_full {
            break;
        }
    }
    line.finish(cut)
}

/// A line that is cut at a number of characters.
struct Line {
    text: String,
    left: usize,
    /// White space that is written once something follows.
    space: bool,
    /// Something found no room.
    is_full: bool,
}

impl Line {
    fn new(max_chars: usize) -> Self {
        Self {
            text: String::new(),
            left: max_chars,
            space: false,
            is_full: false,
        }
    }

    fn space(&mut self) {
        self.space = !self.text.is_empty();
    }

    fn push(&mut self, text: &str) {
        if std::mem::take(&mut self.space) {
            self.put(' ');
        }
        text.chars().for_each(|c| self.put(c));
    }

    fn put(&mut self, c: char) {
        if self.left == 0 {
            self.is_full = true;
        } else {
            self.left -= 1;
            let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            self.text.push(if breaks { ' ' } else { c });
        }
    }

    /// The line, with `…` at its end where it was `cut` or found no room.
    fn finish(mut self, cut: bool) -> String {
        if cut && !self.is_full {
            self.push("…");
        }
        if self.is_full && self.text.pop().is_some() {
            self.text.push('…');
        }
        self.text
    }
}

#[cfg(test)]
mod tests;
