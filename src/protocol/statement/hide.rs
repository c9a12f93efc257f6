//! Values that are written as bare words: in `SET name = value` and behind `PASSWORD`.

use super::lex::{Kind, Lexeme};

/// Follows a text lexeme by lexeme and tells which words are values. Literals are hidden anyway.
#[derive(Default)]
pub(super) struct Hider {
    statement: Statement,
    words: usize,
    expect: Expect,
}

/// What the current statement is, by its first words.
#[derive(Default, Clone, Copy, PartialEq)]
enum Statement {
    /// `SET …`: all behind `=` or `TO` is the value.
    Set,
    /// `ALTER` or `CREATE`: lists of values, such as functions have (`SET a TO b SET c TO d`).
    Change,
    /// The same of a role, which can have a password.
    Role,
    /// Another, where `SET` begins no setting (`UPDATE t SET a = b`).
    #[default]
    Other,
}

#[derive(Default, Clone, Copy)]
enum Expect {
    #[default]
    Nothing,
    /// The name of a setting, then `=`, `TO` or (of `TIME ZONE`) nothing.
    Name,
    /// Values up to the end of the statement.
    Values,
    /// One value, and more as long as commas stand between them.
    List { taken: bool },
    /// The next word is a value.
    One,
}

impl Hider {
    /// Whether this lexeme, which must not be white space, is a value in the form of a word.
    pub(super) fn hides(&mut self, lexeme: &Lexeme<'_>) -> bool {
        match (lexeme.kind, self.expect) {
            (Kind::Symbol, _) if lexeme.text == ";" => *self = Self::default(),
            (Kind::Symbol, Expect::Name) if lexeme.text == "=" => self.begin_value(),
            (Kind::Symbol, Expect::List { .. }) if lexeme.text == "," => {
                self.expect = Expect::List { taken: false };
            }
            (Kind::Word, _) => return self.hides_word(lexeme),
            (Kind::Text | Kind::Number, Expect::List { .. }) => {
                self.expect = Expect::List { taken: true };
            }
            (Kind::Text | Kind::Number, Expect::One) => self.expect = Expect::Nothing,
            _ => {}
        }
        false
    }

    fn hides_word(&mut self, word: &Lexeme<'_>) -> bool {
        match self.expect {
            Expect::Values => return true,
            Expect::One => {
                self.expect = Expect::Nothing;
                return true;
            }
            Expect::List { taken: false } => {
                self.expect = Expect::List { taken: true };
                return true;
            }
            Expect::Name => {
                if word.is_keyword("TO") || word.is_keyword("ZONE") {
                    self.begin_value();
                }
                return false;
            }
            Expect::List { taken: true } | Expect::Nothing => self.expect = Expect::Nothing,
        }
        self.recognise(word);
        false
    }

    /// Learns from a word what statement this is and what follows.
    fn recognise(&mut self, word: &Lexeme<'_>) {
        let is = |keywords: &[&str]| keywords.iter().any(|keyword| word.is_keyword(keyword));
        self.words += 1;
        if self.words == 1 {
            if is(&["SET"]) {
                (self.statement, self.expect) = (Statement::Set, Expect::Name);
            } else if is(&["ALTER", "CREATE"]) {
                self.statement = Statement::Change;
            }
        } else if self.statement != Statement::Other {
            if self.words == 2 && is(&["ROLE", "USER", "GROUP"]) {
                self.statement = Statement::Role;
            } else if is(&["SET"]) {
                self.expect = Expect::Name;
            } else if self.statement == Statement::Role && is(&["PASSWORD"]) {
                self.expect = Expect::One;
            }
        }
    }

    fn begin_value(&mut self) {
        self.expect = match self.statement {
            Statement::Set => Expect::Values,
            _ => Expect::List { taken: false },
        };
    }
}
