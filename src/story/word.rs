//! The words that entries are told by.

/// A word out of a closed set, in one byte. What is not in the set is `other`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(u8);

/// All of them. The first stands for what is none of the others.
const WORDS: [&str; 37] = [
    "other",
    // What a wait is for.
    "pool",
    "budget",
    "database",
    "paused",
    "away",
    "dialling",
    // How an execution came to be.
    "explicit",
    "implicit",
    "shared",
    "session",
    // Why it ended.
    "deleted",
    "hold_lost",
    "deadline",
    "cleanup",
    "shutdown",
    "idle",
    "session_ended",
    // Who has cancelled something, or ended a session.
    "client",
    "disconnect",
    "execution",
    "request",
    "ended",
    // How a server connection came back.
    "clean",
    "rolled_back",
    "reset_failed",
    "closed",
    // Where the server's error came.
    "relay",
    "connect",
    // Kinds of resources.
    "connection",
    "browser",
    "http",
    "file",
    // Limits in time.
    "session.idle_in_transaction.notice",
    "session.idle_in_transaction.end",
    "session.transaction.notice",
    "session.transaction.end",
];

impl Word {
    /// What is none of the others.
    pub const OTHER: Self = Self(0);

    /// The word, if it is one of the set; `other` if not.
    #[must_use]
    pub fn of(word: &str) -> Self {
        let place = WORDS.iter().position(|known| *known == word);
        // There are fewer than 256.
        place.map_or(Self::OTHER, |at| Self(at as u8))
    }

    /// It, as it is told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        WORDS.get(self.0 as usize).copied().unwrap_or(WORDS[0])
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_itself_and_a_stranger_is_other() {
        for word in WORDS {
            assert_eq!(Word::of(word).as_str(), word);
        }
        assert_eq!(Word::of("'; DROP TABLE secrets"), Word::OTHER);
    }
}
