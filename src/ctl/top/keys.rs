//! Keys, and what each does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Ctrl(char),
    Enter,
    Esc,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

impl Key {
    /// The key of an event; none where it means nothing here.
    pub(super) fn of(event: KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        if event.modifiers.contains(KeyModifiers::ALT) {
            return None;
        }
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        Some(match event.code {
            KeyCode::Char(key) if ctrl => Self::Ctrl(key.to_ascii_lowercase()),
            KeyCode::Char(key) => Self::Char(key),
            KeyCode::Enter => Self::Enter,
            KeyCode::Esc => Self::Esc,
            KeyCode::Tab => Self::Tab,
            KeyCode::BackTab => Self::BackTab,
            KeyCode::Backspace => Self::Backspace,
            KeyCode::Up => Self::Up,
            KeyCode::Down => Self::Down,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown => Self::PageDown,
            KeyCode::Home => Self::Home,
            KeyCode::End => Self::End,
            _ => return None,
        })
    }
}

/// The keys and what they do, as the help shows them.
pub(super) const HELP: [(&str, &str); 14] = [
    (
        "↑ ↓ j k PgUp PgDn g G",
        "move; g G: to the first, to the last",
    ),
    ("Tab", "to the next pane"),
    ("Enter", "look closer: an execution, a session"),
    ("Esc", "back; clears the filter"),
    ("s S", "sort by the next column; turn the order"),
    ("/", "filter by words that are to be there, all of them"),
    ("e", "end the execution; asks before"),
    ("K", "end the session; asks before"),
    ("c", "cancel its query or its wait; asks before"),
    ("p", "pause the picture, and go on"),
    ("r", "look again at once"),
    ("?", "this help"),
    ("Ctrl-Z", "to the shell; fg comes back"),
    ("q Ctrl-C", "quit"),
];

/// What the columns mean, as the help shows it.
pub(super) const COLUMNS: [(&str, &str); 6] = [
    (
        "LENT/OPEN",
        "connections that sessions hold, and all open ones",
    ),
    ("OLDEST", "the longest that one of them has been held"),
    ("BUSY", "the share of the held time in which they worked"),
    ("LEFT", "until the deadline"),
    ("SUSP !", "leak suspects: they hold one and ask nothing"),
    ("FOR HELD", "time in its state; time it held a connection"),
];
