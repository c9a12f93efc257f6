//! Where the demo writes: a panel that is drawn again on a terminal, lines elsewhere.

use std::io::{IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use super::tools::Environment;

const PANEL_EVERY: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How a line is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As text.
    Plain,
    /// As a heading.
    Heading,
    /// Less than the rest.
    Faint,
    /// As something that went well.
    Good,
    /// As something to look at.
    Warning,
    /// As something that went wrong.
    Bad,
}

/// A line of the panel.
pub(super) type Line = (Tone, String);

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    out: Stdout,
    is_terminal: bool,
    has_colours: bool,
    /// How many lines of the panel stand above the cursor.
    drawn: usize,
    shown: Option<Instant>,
}

impl Screen {
    /// Finds out whether somebody looks.
    pub(super) fn open(environment: Environment<'_>) -> Self {
        let out = std::io::stdout();
        let is_terminal = out.is_terminal() && environment.get("TERM") != Some("dumb");
        Self {
            has_colours: is_terminal && environment.get("NO_COLOR").is_none(),
            is_terminal,
            out,
            drawn: 0,
            shown: None,
        }
    }

    /// Writes a line that stays.
    pub(super) fn say(&mut self, tone: Tone, text: &str) -> std::io::Result<()> {
        let written = format!("{}{}", self.erasure(), self.styled(tone, text));
        self.write(&written)
    }

    /// Shows how things are now, if it is time: the panel, or one line.
    pub(super) fn show(
        &mut self,
        panel: impl FnOnce() -> Vec<Line>,
        line: impl FnOnce() -> String,
    ) -> std::io::Result<()> {
        let every = if self.is_terminal {
            PANEL_EVERY
        } else {
            LINE_EVERY
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return Ok(());
        }
        self.shown = Some(Instant::now());
        if !self.is_terminal {
            return self.say(Tone::Plain, &line());
        }
        // One write, so that nothing flickers.
        let mut written = self.erasure();
        let (width, height) = terminal_size::terminal_size().map_or((80, 24), |(width, height)| {
            (width.0.into(), height.0.into())
        });
        // One line is left for the cursor; what does not fit could not be erased again.
        for (tone, text) in panel().iter().take(usize::saturating_sub(height, 1)) {
            let cut: String = text.chars().take(width).collect();
            written += &self.styled(*tone, &cut);
            self.drawn += 1;
        }
        self.write(&written)
    }

    /// Takes the panel away.
    pub(super) fn erase(&mut self) -> std::io::Result<()> {
        let erasure = self.erasure();
        self.write(&erasure)
    }

    /// What takes the panel away: up to its first line, and all below.
    fn erasure(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn styled(&self, tone: Tone, text: &str) -> String {
        match tone.code() {
            Some(code) if self.has_colours => format!("\x1b[{code}m{text}\x1b[0m\n"),
            _ => format!("{text}\n"),
        }
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl Tone {
    fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Heading => Some(1),
            Self::Faint => Some(2),
            Self::Good => Some(32),
            Self::Warning => Some(33),
            Self::Bad => Some(31),
        }
    }
}
