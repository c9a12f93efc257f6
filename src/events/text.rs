//! Texts of others, bounded.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

/// How long a word may be, in bytes as JSON writes them.
const WORD: usize = 48;

/// How long a name may be, in bytes as JSON writes them: every execution's name fits.
const NAME: usize = 128;

/// How long a sentence may be, in bytes as JSON writes them.
const SENTENCE: usize = 400;

/// A text on one line, without control characters, cut where it would be too long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Text(Box<str>);

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": SENTENCE})
    }
}

impl Text {
    /// A word or two, of 48 bytes at most.
    #[must_use]
    pub fn word(text: &str) -> Self {
        Self::cut(text, WORD)
    }

    /// A name, of 128 bytes at most.
    #[must_use]
    pub fn name(text: &str) -> Self {
        Self::cut(text, NAME)
    }

    /// A sentence, of 400 bytes at most.
    #[must_use]
    pub fn sentence(text: &str) -> Self {
        Self::cut(text, SENTENCE)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn cut(text: &str, most: usize) -> Self {
        const MORE: &str = "…";
        let mut kept = String::with_capacity(text.len().min(most));
        let (mut length, mut fits) = (0, 0);
        for c in text.chars() {
            let c = if c.is_control() { ' ' } else { c };
            length += match c {
                '"' | '\\' => 2,
                c => c.len_utf8(),
            };
            if length > most {
                kept.truncate(fits);
                kept.push_str(MORE);
                break;
            }
            kept.push(c);
            if length + MORE.len() <= most {
                fits = kept.len();
            }
        }
        Self(kept.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_what_json_makes_of_it_and_stays_on_one_line() {
        assert_eq!(Text::name("a\n\"b\"\x00").as_str(), "a \"b\" ");
        let id = "i".repeat(NAME);
        assert_eq!(Text::name(&id).as_str(), id);
        for long in ["\"", "ä", "\x01", "x", "\\…"] {
            let text = Text::sentence(&long.repeat(10_000));
            let json = serde_json::to_string(&text).unwrap();
            // With its two quotes.
            assert!(json.len() <= SENTENCE + 2, "{}", json.len());
            assert!(json.len() > SENTENCE - 6, "{}", json.len());
            assert!(text.as_str().ends_with('…'));
        }
    }
}
