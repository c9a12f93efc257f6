//! Colours by meaning, and texts that fit and obey no one.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

/// What a text means. None is told by its colour alone: there is a word or a mark as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// Well.
    Good,
    /// To be looked at.
    Warn,
    /// Not well.
    Bad,
    /// Less important, or old.
    Faint,
    /// A title.
    Strong,
}

impl Tone {
    /// The tone of a state's word.
    pub(super) fn of_state(word: &str) -> Self {
        match word {
            "active" | "healthy" => Self::Good,
            "waiting" | "idle_in_transaction" | "ending" | "warning" => Self::Warn,
            "exhausted" | "sustained" => Self::Bad,
            "unbound" | "closing" | "startup" => Self::Faint,
            _ => Self::Plain,
        }
    }
}

/// Which colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Palette {
    /// None, or none that are wanted.
    Mono,
    /// The eight of every terminal, as its owner has set them.
    Eight,
    /// 256: tones in the middle, that can be read on black and on white.
    Many,
}

impl Palette {
    /// What the environment says (<https://no-color.org>).
    pub(super) fn of(env: &[(String, String)]) -> Self {
        let value = |name: &str| {
            let found = env.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        if !value("NO_COLOR").is_empty() {
            return Self::Mono;
        }
        match value("TERM").contains("256color") || !value("COLORTERM").is_empty() {
            true => Self::Many,
            false => Self::Eight,
        }
    }

    /// How a tone looks.
    pub(super) fn style(self, tone: Tone) -> Style {
        let plain = Style::new();
        let colour = |many: u8, eight: Color| match self {
            Self::Mono => plain,
            Self::Eight => plain.fg(eight),
            Self::Many => plain.fg(Color::Indexed(many)),
        };
        match tone {
            Tone::Plain => plain,
            Tone::Good => colour(28, Color::Green),
            // Yellow can't be read on white.
            Tone::Warn => colour(130, Color::Magenta),
            Tone::Bad => colour(160, Color::Red).add_modifier(Modifier::BOLD),
            Tone::Faint => match self {
                Self::Many => plain.fg(Color::Indexed(244)),
                _ => plain.add_modifier(Modifier::DIM),
            },
            Tone::Strong => plain.add_modifier(Modifier::BOLD),
        }
    }
}

/// Paints tones; all of them alike where the picture is old.
#[derive(Debug, Clone, Copy)]
pub(super) struct Painter {
    pub(super) palette: Palette,
    pub(super) is_old: bool,
}

impl Painter {
    /// How a tone looks now.
    pub(super) fn style(self, tone: Tone) -> Style {
        match self.is_old {
            true => self.palette.style(Tone::Faint),
            false => self.palette.style(tone),
        }
    }

    /// A text in a tone.
    pub(super) fn span(self, text: &str, tone: Tone) -> Span<'static> {
        Span::styled(tame(text), self.style(tone))
    }
}

/// A text on one line, without what a terminal would obey or what turns the direction of writing: much
/// of what is shown is a client's own.
pub(super) fn tame(text: &str) -> String {
    let tame = |c: char| {
        let is_hidden = matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}');
        if c.is_control() || is_hidden { '?' } else { c }
    };
    text.chars().map(tame).collect()
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The beginning of a text, in as many columns at most; with a mark where something is missing.
pub(super) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut left = most.saturating_sub(1);
    for grapheme in Span::raw(text).styled_graphemes(Style::new()) {
        let wide = width(grapheme.symbol);
        if wide > left {
            break;
        }
        left -= wide;
        kept.push_str(grapheme.symbol);
    }
    if most > 0 {
        kept.push('…');
    }
    kept
}

/// A tame text in exactly so many columns.
pub(super) fn fit(text: &str, columns: usize, right: bool) -> String {
    let text = cut(&tame(text), columns);
    let blanks = " ".repeat(columns.saturating_sub(width(&text)));
    match right {
        true => blanks + &text,
        false => text + &blanks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_by_the_columns_that_they_take() {
        assert_eq!(fit("ab", 4, false), "ab  ");
        assert_eq!(fit("ab", 4, true), "  ab");
        assert_eq!(fit("abcdef", 4, false), "abc…");
        // Each takes two columns.
        assert_eq!(fit("日本語", 4, false), "日… ");
        assert_eq!(fit("日本語", 6, false), "日本語");
        assert_eq!(fit("x", 0, false), "");
        assert_eq!(width(&fit("e\u{301}e\u{301}👩‍💻👩‍💻", 5, true)), 5);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_in_a_text() {
        for evil in [
            "\x1b[2J",
            "a\nb",
            "\u{9b}2J",
            "\u{202e}abc",
            "\u{200b}",
            "\x07\x08\x7f",
        ] {
            let tame = tame(evil);
            assert_eq!(tame.chars().count(), evil.chars().count());
            let is_evil = |c: char| c.is_control() || ('\u{2000}'..'\u{2070}').contains(&c);
            assert!(!tame.contains(is_evil), "{tame:?}");
        }
    }

    #[test]
    fn colours_are_those_that_the_environment_allows() {
        let of = |env: &[(&str, &str)]| {
            let env = env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Palette::of(&env.collect::<Vec<_>>())
        };
        assert_eq!(of(&[("TERM", "xterm-256color")]), Palette::Many);
        assert_eq!(of(&[("TERM", "linux")]), Palette::Eight);
        assert_eq!(
            of(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]),
            Palette::Mono
        );
        assert_eq!(
            of(&[("TERM", "xterm-256color"), ("NO_COLOR", "")]),
            Palette::Many
        );
    }
}
