//! What a statement does to the session it runs in.

use super::lex::{Kind, Lexeme, MAX_READ, lex};
use crate::protocol::startup::Setting;
use memchr::{memchr_iter, memchr2_iter, memmem};

/// Whether a text sets one of our own settings: `SET [SESSION | LOCAL] execpool.… {= | TO}`, or
/// `set_config` with a name in a literal. The server would accept and ignore it.
///
/// Text in comments and in other literals doesn't count, nor do `RESET`, `SHOW`, and `ALTER … SET`.
/// Without `execpool` in the text, as almost always, this is a search through memory that allocates
/// nothing; with it, the first 64 KiB are read, as `standard_conforming_strings = on` reads them.
pub fn names_execpool_setting(sql: &[u8]) -> bool {
    if !mentions_execpool(sql) {
        return false;
    }
    let text = String::from_utf8_lossy(&sql[..sql.len().min(MAX_READ)]);
    let lexed = lex(&text);
    statements(&lexed.lexemes).any(|statement| {
        set_target(&statement).is_some_and(|name| Setting::is_ours(&name))
            || set_config_names(&statement).any(|name| {
                name.iter()
                    .any(|part| part.value().is_some_and(Setting::is_ours))
            })
    })
}

/// Whether a text does something that `DISCARD ALL` cannot undo, or was not understood, so that the
/// server connection must not be lent to another execution.
///
/// `sql` must be the whole text: of a longer one, whose end is not here, the answer is always yes.
/// It says yes to:
/// - `SET` and `set_config` of a name with a dot, `LOCAL` or not: the setting exists from then on,
///   and reads as `''` and no longer as unset, which row-level security can depend on.
/// - `set_config` of a name that is not a literal: it could be such a one.
/// - `SET seed` and `setseed`: the state of the random numbers stays.
/// - `LOAD`, `CREATE` or `ALTER` of an extension, language, function or procedure: a library stays
///   loaded, with its hooks.
/// - `DO`, `CALL`: what they run is not seen.
/// - everything that mentions `dblink`: its connections stay open, as whoever they were opened.
/// - `pg_replication_origin_session_setup`: the origin stays.
/// - names in `U&"…"`, which may be any of these; a text that is cut off, unterminated, or reads
///   differently by the session's settings; one over 64 KiB that has any of these words.
///
/// It says no to what `DISCARD ALL` undoes: other settings, `SET ROLE`, `SET SESSION AUTHORIZATION`,
/// `LISTEN`, temporary tables, prepared statements, cursors, advisory locks, sequences. What
/// functions do inside that a `SELECT` calls is not seen.
///
/// Ordinary statements are told by a scan that allocates nothing.
pub fn carries_over(sql: &[u8]) -> bool {
    if !is_suspicious(sql) {
        return false;
    }
    if sql.len() > MAX_READ {
        return true;
    }
    let text = String::from_utf8_lossy(sql);
    let lexed = lex(&text);
    !lexed.is_certain() || statements(&lexed.lexemes).any(|statement| leaves_something(&statement))
}

/// Whether `execpool` stands anywhere, in any case.
fn mentions_execpool(sql: &[u8]) -> bool {
    memchr2_iter(b'x', b'X', sql).any(|at| {
        at.checked_sub(1)
            .and_then(|start| sql.get(start..start + 8))
            .is_some_and(|found| found.eq_ignore_ascii_case(b"execpool"))
    })
}

/// Words without which, and without `dblink`, a text leaves nothing behind: all that
/// [`leaves_something`] looks for.
const SUSPICIOUS: [&str; 9] = [
    "set",
    "set_config",
    "setseed",
    "load",
    "do",
    "call",
    "create",
    "alter",
    "pg_replication_origin_session_setup",
];

/// Whether `dblink` is part of a name, in any case.
fn mentions_dblink(name: &[u8]) -> bool {
    name.windows(6)
        .any(|part| part.eq_ignore_ascii_case(b"dblink"))
}

/// Whether the text must be read: it has a suspicious word anywhere, even in a literal, or its
/// quotes and comments don't seem to end.
fn is_suspicious(sql: &[u8]) -> bool {
    let odd = |quote| memchr_iter(quote, sql).count() % 2 == 1;
    let all = |pattern: &[u8]| memmem::find_iter(sql, pattern).count();
    let dollar = |at: usize| sql.get(at + 1).is_none_or(|next| !next.is_ascii_digit());
    odd(b'\'')
        || odd(b'"')
        || memchr_iter(b'$', sql).any(dollar)
        || memmem::find(sql, b"&\"").is_some()
        || all(b"/*") != all(b"*/")
        || sql
            .split(|&b| !(b.is_ascii_alphanumeric() || b == b'_' || !b.is_ascii()))
            .any(|word| {
                SUSPICIOUS
                    .iter()
                    .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
                    || mentions_dblink(word)
            })
}

/// The statements of a text, each as its lexemes without white space and comments.
fn statements<'l, 'a>(lexemes: &'l [Lexeme<'a>]) -> impl Iterator<Item = Vec<&'l Lexeme<'a>>> {
    lexemes
        .split(|lexeme| lexeme.is_symbol(";"))
        .map(|statement| {
            statement
                .iter()
                .filter(|lexeme| lexeme.kind != Kind::Space)
                .collect()
        })
}

/// What a `SET … {= | TO}` at the beginning of a statement sets. Parts of a name are joined by dots.
fn set_target(statement: &[&Lexeme<'_>]) -> Option<String> {
    let (first, mut rest) = statement.split_first()?;
    if !first.is_keyword("SET") {
        return None;
    }
    if let [scope, after @ ..] = rest
        && (scope.is_keyword("SESSION") || scope.is_keyword("LOCAL"))
    {
        rest = after;
    }
    let mut name = String::new();
    loop {
        if let [unicode, and, quoted, ..] = rest
            && is_unicode_name(unicode, and, quoted)
        {
            rest = &rest[2..];
        }
        let (part, after) = rest.split_first()?;
        name.push_str(part.name()?);
        match after.split_first()? {
            (dot, after) if dot.is_symbol(".") => {
                name.push('.');
                rest = after;
            }
            (next, _) => return (next.is_symbol("=") || next.is_keyword("TO")).then_some(name),
        }
    }
}

/// Whether these three are the beginning of `U&"…"`.
fn is_unicode_name(unicode: &Lexeme<'_>, and: &Lexeme<'_>, quoted: &Lexeme<'_>) -> bool {
    unicode.is_keyword("U") && and.is_symbol("&") && quoted.is_quoted_name()
}

/// For each call of `set_config`, the argument that names the setting.
fn set_config_names<'s, 'l, 'a>(
    statement: &'s [&'l Lexeme<'a>],
) -> impl Iterator<Item = &'s [&'l Lexeme<'a>]> {
    let is_call = |pair: &[&Lexeme<'a>]| is_name(pair[0], "set_config") && pair[1].is_symbol("(");
    let calls = statement
        .windows(2)
        .enumerate()
        .filter(move |(_, pair)| is_call(pair));
    calls.map(|(at, _)| first_argument(&statement[at + 2..]))
}

/// Whether this is the name, which PostgreSQL would write in lower case.
fn is_name(lexeme: &Lexeme<'_>, name: &str) -> bool {
    match lexeme.is_quoted_name() {
        true => lexeme.name() == Some(name),
        false => lexeme.is_keyword(name),
    }
}

/// What stands, behind a call's opening parenthesis, before its first comma or its end.
fn first_argument<'s, 'l, 'a>(rest: &'s [&'l Lexeme<'a>]) -> &'s [&'l Lexeme<'a>] {
    let mut depth = 0usize;
    let end = rest.iter().position(|lexeme| match lexeme.text {
        "(" | "[" => {
            depth += 1;
            false
        }
        ")" | "]" | "," if depth == 0 => true,
        ")" | "]" => {
            depth -= 1;
            false
        }
        _ => false,
    });
    &rest[..end.unwrap_or(rest.len())]
}

/// Whether one statement does what `DISCARD ALL` can't undo.
fn leaves_something(statement: &[&Lexeme<'_>]) -> bool {
    let is = |at: usize, keywords: &[&str]| {
        statement
            .get(at)
            .is_some_and(|l| keywords.iter().any(|keyword| l.is_keyword(keyword)))
    };
    let has = |name: &str| statement.iter().any(|lexeme| is_name(lexeme, name));
    // CREATE [OR REPLACE] [TRUSTED] [PROCEDURAL] kind name: deeper in, a trigger's function is meant.
    let kinds = ["EXTENSION", "LANGUAGE", "FUNCTION", "PROCEDURE", "ROUTINE"];
    let makes_code = || is(0, &["CREATE", "ALTER"]) && (1..6).any(|at| is(at, &kinds));
    let unsure_name = || {
        statement
            .windows(3)
            .any(|window| is_unicode_name(window[0], window[1], window[2]))
    };
    is(0, &["LOAD", "DO", "CALL"])
        || makes_code()
        || set_target(statement).is_some_and(|name| stays(&name))
        || set_config_names(statement).any(|name| literal(name).is_none_or(|name| stays(&name)))
        || has("setseed")
        || has("pg_replication_origin_session_setup")
        || statement
            .iter()
            .filter_map(|l| l.name())
            .any(|name| mentions_dblink(name.as_bytes()))
        || unsure_name()
}

/// Whether a setting of this name is still there after `RESET ALL`.
fn stays(name: &str) -> bool {
    name.contains('.') || name.eq_ignore_ascii_case("seed")
}

/// The text of an argument that is a literal and nothing else but perhaps a cast. A literal may go on
/// in further ones.
fn literal(argument: &[&Lexeme<'_>]) -> Option<String> {
    let parts: String = argument.iter().map_while(|lexeme| lexeme.value()).collect();
    let count = argument
        .iter()
        .take_while(|lexeme| lexeme.value().is_some())
        .count();
    let ends = argument.get(count).is_none_or(|next| next.is_symbol("::"));
    (count > 0 && ends).then_some(parts)
}

#[cfg(test)]
mod tests;
