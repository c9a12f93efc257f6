//! A statement's text as PostgreSQL's lexer would split it, or nothing from where that is unsure.
//!
//! sqlparser reads many dialects and agrees with PostgreSQL nearly everywhere. Where it does not, a
//! literal's end would be misplaced and what is secret would look like a name. So the reading stops
//! before the first of these:
//! - Operators that swallow the beginning of a comment: `||--`, `-/*`. PostgreSQL ends an operator
//!   there, sqlparser's custom operators do not.
//! - `$1$…`: a parameter for PostgreSQL, a dollar quote for sqlparser; and `$€$…`, which is a dollar
//!   quote for PostgreSQL only. Generally every `$` that is neither a parameter nor a dollar quote
//!   with a proper tag.
//! - `X'…\'`: sqlparser takes the backslash for an escape.
//! - Operators that are longer in the text than as a token: sqlparser's `&>` takes whatever follows
//!   with it, be it the quote that begins a literal.
//!
//! And some texts mean different things to differently set sessions. They are read, but all behind
//! them is marked as doubtful:
//! - `'…\…'`: with `standard_conforming_strings` off the backslash escapes, and the literal may end
//!   elsewhere; so it does where the literal continues an `E'…'` on another line.
//! - `E'…\…'` with bytes that are not ASCII: in some client encodings (SJIS, BIG5, GBK) the byte of
//!   a backslash is the second half of a character.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// The most that is read of a statement, in bytes. A token takes a hundred times the space of the
/// byte that it may come from.
pub(super) const MAX_READ: usize = 64 * 1024;

/// What a lexeme is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// White space or a comment.
    Space,
    /// A keyword or name, quoted or not.
    Word,
    /// A literal in quotes of any form, or something unknown.
    Text,
    /// A number, or the part of one that could be read.
    Number,
    /// `$1`.
    Parameter,
    /// An operator or punctuation.
    Symbol,
}

/// One lexeme and where it stands in the text. Together they cover the text without gaps.
#[derive(Debug)]
pub(super) struct Lexeme<'a> {
    pub(super) kind: Kind,
    /// As it is written.
    pub(super) text: &'a str,
    token: Token,
}

impl Lexeme<'_> {
    /// Whether this is the keyword, which quotes would make a name.
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(&self.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
    }

    /// Whether this is the symbol.
    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// A keyword's or name's text without quotes.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.token {
            Token::Word(word) => Some(&word.value),
            _ => None,
        }
    }

    /// Whether this is a name in quotes.
    pub(super) fn is_quoted_name(&self) -> bool {
        matches!(&self.token, Token::Word(word) if word.quote_style.is_some())
    }

    /// What a literal in quotes stands for.
    pub(super) fn value(&self) -> Option<&str> {
        match &self.token {
            Token::SingleQuotedString(value)
            | Token::EscapedStringLiteral(value)
            | Token::UnicodeStringLiteral(value)
            | Token::NationalStringLiteral(value) => Some(value),
            Token::DollarQuotedString(quoted) => Some(&quoted.value),
            _ => None,
        }
    }
}

/// A text's lexemes.
#[derive(Debug)]
pub(super) struct Lexed<'a> {
    /// All that could be read.
    pub(super) lexemes: Vec<Lexeme<'a>>,
    /// How many of them, from the first, are read the same in every session.
    pub(super) sure: usize,
    /// Whether that is the whole text; false where it is cut off, unterminated or unclear.
    pub(super) whole: bool,
}

impl Lexed<'_> {
    /// Whether the whole text was read, and would be read like this in every session.
    pub(super) fn is_certain(&self) -> bool {
        self.whole && self.sure == self.lexemes.len()
    }
}

/// Splits a text into lexemes, as far as that is safe.
pub(super) fn lex(text: &str) -> Lexed<'_> {
    let mut tokens = Vec::new();
    let whole = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location_into_buf(&mut tokens)
        .is_ok();
    let mut cursor = Cursor {
        rest: text,
        line: 1,
        column: 1,
    };
    let mut lexed = Lexed {
        lexemes: Vec::with_capacity(tokens.len()),
        sure: usize::MAX,
        whole,
    };
    // Where the operators and punctuation began that stand together here.
    let mut symbols = 0;
    for TokenWithSpan { token, span } in tokens {
        let start = text.len() - cursor.rest.len();
        let lexeme = Lexeme {
            text: cursor.take_to(span.end),
            kind: Kind::Space,
            token,
        };
        let lexeme = Lexeme {
            kind: kind(&lexeme),
            ..lexeme
        };
        let end = start + lexeme.text.len();
        if lexeme.kind != Kind::Symbol {
            symbols = end;
        }
        if is_misread(&lexeme) {
            lexed.whole = false;
            break;
        }
        if begins_comment(&text[symbols.min(end)..end]) {
            // What began the comment may be in the symbol before.
            while lexed
                .lexemes
                .pop_if(|last| last.kind == Kind::Symbol)
                .is_some()
            {}
            lexed.whole = false;
            break;
        }
        let doubtful = is_doubtful(&lexeme);
        lexed.lexemes.push(lexeme);
        if doubtful {
            lexed.sure = lexed.sure.min(lexed.lexemes.len());
        }
    }
    lexed.sure = lexed.sure.min(lexed.lexemes.len());
    lexed
}

/// What a lexeme is. What is not known for harmless counts as a literal.
fn kind(lexeme: &Lexeme<'_>) -> Kind {
    match &lexeme.token {
        Token::Whitespace(_) => Kind::Space,
        Token::Word(_) => Kind::Word,
        Token::Placeholder(_) => Kind::Parameter,
        Token::Number(..) => Kind::Number,
        // Hexadecimal numbers come as the same token as X'…'.
        Token::HexStringLiteral(_) if !lexeme.text.ends_with('\'') => Kind::Number,
        _ if is_literal(&lexeme.token)
            || !lexeme.text.bytes().all(|b| b.is_ascii_punctuation()) =>
        {
            Kind::Text
        }
        _ => Kind::Symbol,
    }
}

/// Whether this is a literal in quotes. `b"…"` is a name and a quoted one for PostgreSQL, which
/// begins and ends where this does.
fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::DollarQuotedString(_)
    )
}

/// Whether PostgreSQL may read something else from here on.
fn is_misread(lexeme: &Lexeme<'_>) -> bool {
    match &lexeme.token {
        Token::Placeholder(name) => {
            let digits = name.trim_start_matches('$');
            digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())
        }
        Token::DollarQuotedString(quoted) => quoted
            .tag
            .as_ref()
            .is_some_and(|tag| tag.starts_with(|c: char| c.is_ascii_digit())),
        Token::HexStringLiteral(_) => lexeme.text.contains('\\'),
        Token::Whitespace(_) | Token::Word(_) | Token::Number(..) => false,
        token => !is_literal(token) && token.to_string() != lexeme.text,
    }
}

/// Whether a comment begins in a run of operators and punctuation.
fn begins_comment(symbols: &str) -> bool {
    symbols.contains("--") || symbols.contains("/*")
}

/// Whether a session's settings decide where this literal ends.
fn is_doubtful(lexeme: &Lexeme<'_>) -> bool {
    match &lexeme.token {
        Token::SingleQuotedString(_) | Token::NationalStringLiteral(_) => {
            lexeme.text.contains('\\')
        }
        Token::EscapedStringLiteral(_) => lexeme.text.contains('\\') && !lexeme.text.is_ascii(),
        _ => false,
    }
}

/// Walks over the text in the tokenizer's lines and columns, both counted from 1 in characters.
struct Cursor<'a> {
    rest: &'a str,
    line: u64,
    column: u64,
}

impl<'a> Cursor<'a> {
    /// Takes what stands before this place.
    fn take_to(&mut self, end: Location) -> &'a str {
        let mut bytes = 0;
        for c in self.rest.chars() {
            if (self.line, self.column) >= (end.line, end.column) {
                break;
            }
            bytes += c.len_utf8();
            (self.line, self.column) = match c {
                '\n' => (self.line + 1, 1),
                _ => (self.line, self.column + 1),
            };
        }
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let lexed = lex(text);
        lexed
            .lexemes
            .into_iter()
            .map(|l| (l.kind, l.text))
            .filter(|(kind, _)| *kind != Kind::Space)
            .collect()
    }

    #[test]
    fn lexemes_keep_their_place_across_lines_and_wide_characters() {
        use Kind::*;
        assert_eq!(
            kinds("é\r\n=\n'ü\n' || /*\n*/ $1--x\n,0xFf X'0f' 1e5"),
            [
                (Word, "é"),
                (Symbol, "="),
                (Text, "'ü\n'"),
                (Symbol, "||"),
                (Parameter, "$1"),
                (Symbol, ","),
                (Number, "0xFf"),
                (Text, "X'0f'"),
                (Number, "1e5"),
            ]
        );
    }

    #[test]
    fn reading_stops_where_postgresql_reads_something_else() {
        for text in [
            "a||--b",
            "a ~/*b*/ c",
            "a ?--b",
            "a @-/* b */",
            "a &>'b'",
            "a &>$$b$$",
            "$1$x$1$",
            "$€$x$€$",
            "$a",
            "$",
            "X'\\' x 'y'",
        ] {
            let lexed = lex(text);
            assert!(!lexed.whole, "{text}: {lexed:?}");
        }
        for text in [
            "a - -b",
            "a*/* b */c",
            "a +/* b */ c",
            "a - /* b */ c",
            "a = -- b",
            "$1 $22",
            "$a$x$a$",
            "$é1$x$é1$",
        ] {
            assert!(lex(text).is_certain(), "{text}");
        }
    }

    #[test]
    fn all_behind_a_backslash_in_a_plain_literal_is_doubtful() {
        for (text, certain) in [
            ("'a\\b' c", false),
            ("N'a\\b' c", false),
            ("E'a\\b' c", true),
            ("E'a' \n 'b\\' c", false),
            ("E'é\\n' c", false),
            ("E'é' c", true),
            ("$$a\\b$$ c", true),
            ("U&'\\0061' c", true),
        ] {
            let lexed = lex(text);
            assert!(lexed.whole);
            assert_eq!(lexed.is_certain(), certain, "{text}");
        }
    }

    proptest! {
        #[test]
        fn lexemes_cover_the_text_up_to_where_reading_stops(text in "[ -~é\n\r\t]{0,60}|\\PC{0,60}") {
            let lexed = lex(&text);
            let covered: String = lexed.lexemes.iter().map(|l| l.text).collect();
            prop_assert!(text.starts_with(&covered));
            prop_assert!(!lexed.whole || covered == text);
            prop_assert!(lexed.sure <= lexed.lexemes.len());
        }
    }
}
