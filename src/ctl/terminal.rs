//! Standard output and standard error: what kind of terminal is there, and writing to it.

use std::io::{self, IsTerminal, Write};

use super::error::CtlError;

/// Colours are for terminals whose owner has not declined them (<https://no-color.org>).
pub(super) fn colours(env: &[(String, String)]) -> bool {
    let declined = |(name, value): &(String, String)| {
        (name == "NO_COLOR" && !value.is_empty()) || (name == "TERM" && value == "dumb")
    };
    io::stdout().is_terminal() && !env.iter().any(declined)
}

/// How wide a line may be; none where it is not for a terminal.
pub(super) fn width() -> Option<usize> {
    room().map(|(width, _)| width)
}

/// How wide and how high the terminal is, where there is one.
pub(super) fn room() -> Option<(usize, usize)> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (width, height) = terminal_size::terminal_size()?;
    Some((width.0.into(), height.0.into()))
}

/// Writes an answer.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Says why it failed; a program gets the problem as the API says it.
pub(super) fn complain(error: &CtlError, json: bool) -> io::Result<()> {
    if let (true, CtlError::Refused(problem)) = (json, error) {
        print(&format!("{:#}\n", problem.json))?;
    }
    let mut err = io::stderr().lock();
    writeln!(err, "execpool: {error}")?;
    writeln!(err, "{}", error.hint())
}
