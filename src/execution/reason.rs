//! Why an execution ends.

use std::fmt;

/// Why an execution ends: a closed set, fit for counting by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Somebody asked for it.
    Deleted,
    /// The last stream that held it closed and none came back.
    HoldLost,
    /// Its time is up.
    Deadline,
    /// It was cleaned up to make room.
    Cleanup,
    /// execpool itself ends.
    Shutdown,
    /// It was implicit and had no session for a while.
    Idle,
    /// It belonged to one session, which is gone.
    SessionEnded,
}

impl Reason {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 7] = [
        Self::Deleted,
        Self::HoldLost,
        Self::Deadline,
        Self::Cleanup,
        Self::Shutdown,
        Self::Idle,
        Self::SessionEnded,
    ];

    /// A short word for counting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::HoldLost => "hold_lost",
            Self::Deadline => "deadline",
            Self::Cleanup => "cleanup",
            Self::Shutdown => "shutdown",
            Self::Idle => "idle",
            Self::SessionEnded => "session_ended",
        }
    }

    /// The sentence for people, lower case, no full stop.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Deleted => "it was deleted through the control API",
            Self::HoldLost => "the application that held it went away",
            Self::Deadline => "its deadline passed",
            Self::Cleanup => "it was cleaned up to free connections",
            Self::Shutdown => "execpool is shutting down",
            Self::Idle => "it had no session for the idle timeout",
            Self::SessionEnded => "the session it belonged to ended",
        }
    }

    /// Whether later sessions with the same name are refused for a while.
    pub fn leaves_tombstone(self) -> bool {
        !matches!(self, Self::Idle | Self::SessionEnded)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// What a client gave as its reason: for people only, never for counting. At most 256 characters,
/// none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonText(String);

impl ReasonText {
    /// Takes the text, cut to the limit, with a blank for each control character.
    pub fn new(text: &str) -> Self {
        let blank = |c: char| if c.is_control() { ' ' } else { c };
        Self(text.chars().take(256).map(blank).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_in_the_order_in_which_they_are_listed() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }

    #[test]
    fn what_a_client_says_is_cut_and_put_on_one_line() {
        assert_eq!(ReasonText::new("a\nb").as_str(), "a b");
        assert_eq!(ReasonText::new(&"ä".repeat(300)).as_str().len(), 512);
    }
}
