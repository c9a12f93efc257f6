//! `docs/errors.md` has each message that execpool can give to a client, and none besides; each
//! entry says the SQLSTATE, the cause and the cure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "errors/page.rs"]
#[allow(dead_code, reason = "tests/driver_errors.rs uses the rest")]
mod page;
#[path = "errors/source.rs"]
mod source;

use std::collections::BTreeSet;

use page::{entries, page};
use source::{Source, sources};

/// Who says something on standard error, which also begins with `execpool: `.
const ON_STANDARD_ERROR: [&str; 4] = ["cli.rs", "ctl/", "demo/", "main.rs"];

/// How many calls of `Report::new` have their words from elsewhere: from [`WORDS`], or from a
/// literal nearby that begins with `execpool: `.
const WORDS_FROM_ELSEWHERE: [(&str, usize); 8] = [
    ("client/words.rs", 3),
    ("control/session.rs", 1),
    ("execution/error.rs", 1),
    ("execution/tidying.rs", 1),
    ("protocol/sasl.rs", 1),
    ("protocol/startup/error.rs", 1),
    ("server/error.rs", 1),
    ("session/limits.rs", 1),
];

/// Errors that clients are told behind `execpool: `, if they do not begin so themselves.
const WORDS: [(&str, &str); 6] = [
    ("server/error.rs", "pub enum ConnectError"),
    ("server/password.rs", "pub enum PasswordError"),
    ("protocol/sasl.rs", "pub enum SaslError"),
    ("protocol/sasl.rs", "SaslError::NotServed("),
    ("protocol/frame.rs", "pub enum Violation"),
    (
        "protocol/startup/execution_id.rs",
        "thiserror::Error)]\n#[error(",
    ),
];

/// Errors that clients are told as they are: some are PostgreSQL's own words.
const AS_THEY_ARE: (&str, &str) = ("protocol/startup/error.rs", "pub enum StartupError");

/// What stands in place of what in a message: there is one for each.
const PARTS: [(&str, &str, &str); 7] = [
    ("{reached}", "client/words.rs", "fn reached"),
    ("{reason}", "execution/reason.rs", "fn sentence"),
    ("{problem}", "server/tls/error.rs", "pub enum TlsProblem"),
    ("{problem}", "server/tls/error.rs", "fn sentence"),
    (
        "{failure}",
        "server/password/command.rs",
        "fmt::Display for Failure",
    ),
    ("{fault}", "protocol/startup/execution_id.rs", "enum Fault"),
    (
        "{what}",
        "session/limits.rs",
        "let (sqlstate, what) = match",
    ),
];

/// The server's words of a refusal go to the client as they are, or in place of `{reached}`.
const REFUSED: &str = "PostgreSQL refused the connection: {}";

const OURS: &str = "execpool: ";

fn file<'a>(sources: &'a [Source], name: &str) -> &'a Source {
    let found = sources.iter().find(|source| source.name == name);
    found.unwrap_or_else(|| panic!("there is no src/{name}"))
}

/// With `…` for what varies.
fn shown(format: &str) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        match behind.strip_prefix('{') {
            Some(behind) => {
                out.push('{');
                rest = behind;
            }
            None => {
                out.push('…');
                rest = behind.split_once('}').unwrap().1;
            }
        }
    }
    out + &rest.replace("}}", "}")
}

/// Whether a format has any words of its own, beyond who says it.
fn has_words(format: &str) -> bool {
    let own = shown(format.trim_start_matches(OURS));
    own.contains(|character: char| character.is_alphabetic())
}

/// What can stand in place of a format's parts, each in its turn.
fn composed(sources: &[Source], format: &str) -> Vec<String> {
    let places = PARTS.iter().filter(|(part, ..)| format.contains(part));
    let with = |part: &str, words: &str| format.replace(part, words);
    let mut all: Vec<String> = places
        .flat_map(|(part, name, item)| {
            let texts = file(sources, name).texts_of(item);
            let words = texts.into_iter().filter(|text| has_words(text));
            words.map(|words| with(part, &words)).collect::<Vec<_>>()
        })
        .collect();
    if format.contains("{reached}") {
        all.push(with("{reached}", REFUSED));
    }
    if all.is_empty() {
        all.push(format.to_owned());
    }
    all
}

/// Every message that the code can give to a client.
fn messages(sources: &[Source]) -> BTreeSet<String> {
    let mut formats = Vec::new();
    let is_told = |source: &&Source| {
        let mut elsewhere = ON_STANDARD_ERROR.iter();
        !elsewhere.any(|begin| source.name.starts_with(begin))
    };
    for source in sources.iter().filter(is_told) {
        let is_ours = |text: &String| text.starts_with(OURS);
        formats.extend(source.texts().into_iter().filter(is_ours));
        // The first literal is the message, the others are what is put into it.
        let reports = source.calls("Report::new").into_iter();
        formats.extend(reports.filter_map(|texts| texts.into_iter().next()));
    }
    for (name, item) in WORDS {
        let words = file(sources, name).texts_of(item).into_iter();
        let told = words.filter(|text| has_words(text) && text != REFUSED);
        formats.extend(told.map(|text| format!("{OURS}{text}")));
    }
    let (name, item) = AS_THEY_ARE;
    formats.extend(file(sources, name).texts_of(item));
    formats.retain(|format| has_words(format));
    let all = formats.iter().flat_map(|format| composed(sources, format));
    all.map(|format| shown(&format)).collect()
}

#[test]
fn every_message_has_an_entry_and_every_entry_a_message() {
    let told = messages(&sources());
    assert!(told.len() > 80, "{}", told.len());
    let entries = entries(&page());
    let listed: Vec<&String> = entries.iter().flat_map(|entry| &entry.messages).collect();
    let documented: BTreeSet<String> = listed.iter().map(|text| (*text).clone()).collect();
    assert_eq!(documented.len(), listed.len(), "one stands there twice");
    let missing: Vec<&String> = told.difference(&documented).collect();
    let gone: Vec<&String> = documented.difference(&told).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/errors.md has no entry for {missing:#?}\nand the code does not say {gone:#?}"
    );
}

#[test]
fn where_the_words_of_every_report_come_from_is_known() {
    let elsewhere = |source: &Source| {
        let calls = source.calls("Report::new").into_iter();
        let without = calls.filter(|texts| !texts.iter().any(|text| has_words(text)));
        (source.name.clone(), without.count())
    };
    let found = sources().iter().map(elsewhere).collect::<Vec<_>>();
    let found = found.iter().filter(|(_, count)| *count > 0);
    let found: Vec<(&str, usize)> = found.map(|(name, count)| (&**name, *count)).collect();
    assert_eq!(
        found, WORDS_FROM_ELSEWHERE,
        "say in this file where the words of the new report come from"
    );
}

#[test]
fn every_entry_tells_the_code_the_cause_and_the_cure() {
    for entry in entries(&page()) {
        for part in ["**", "\n- Cause: ", "\n- Cure: "] {
            assert!(
                entry.text.contains(part),
                "{:?}: no {part:?}",
                entry.messages
            );
        }
    }
}
