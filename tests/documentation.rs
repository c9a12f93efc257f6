//! What the pages say of knobs is what the code has: names, values, defaults, examples. Their links lead somewhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "documentation/links.rs"]
mod links;

use std::fs;
use std::path::{Path, PathBuf};

use execpool::config::{KNOBS, Knob, Sources, UPSTREAM_KNOBS, load};
use execpool::events;
use execpool::story;

/// What looks like a knob and is none.
const NO_KNOBS: [&str; 1] = ["control.sock"];

/// Defaults that are told in other words: the page, the words around the value, and the knob.
const IN_WORDS: [(&str, &str, &str); 6] = [
    (
        "docs/app-developers.md",
        "{} after its last one",
        "execution.idle_timeout",
    ),
    (
        "docs/app-developers.md",
        "wait for more than {}, a NOTICE",
        "pool.notice_after",
    ),
    (
        "docs/app-developers.md",
        "`pool.timeout` ({})",
        "pool.timeout",
    ),
    (
        "docs/operations.md",
        "every {}: exhaustion, budget",
        "telemetry.status_log",
    ),
    (
        "docs/configuration.md",
        "by default `{}/config.yaml`",
        "/etc/execpool",
    ),
    ("docs/control-api.md", "(`{}` by default)", "listen.dir"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README, SECURITY, CONTRIBUTING and all of `docs/`, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> = [
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ]
    .map(|name| root().join(name))
    .to_vec();
    for place in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(place)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        (file, text)
    };
    files.into_iter().map(read).collect()
}

fn sections() -> Vec<&'static str> {
    let sections = KNOBS
        .iter()
        .map(|knob| knob.path.split('.').next().unwrap());
    sections.chain(["upstreams"]).collect()
}

/// What stands between backquotes on a line, with what follows each.
fn quoted(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((_, from)) = rest.split_once('`') {
        let Some((inside, behind)) = from.split_once('`') else {
            break;
        };
        found.push((inside, behind));
        rest = behind;
    }
    found
}

/// `budget.size` of `budget.size: 5`, `budget.size=5` and `--set budget.size=5`, and the value.
fn name_and_value(text: &str) -> (&str, Option<&str>) {
    let text = text.strip_prefix("--set ").unwrap_or(text);
    let split = text.split_once(": ").or_else(|| text.split_once('='));
    split.map_or((text, None), |(name, value)| (name, Some(value)))
}

fn knob(name: &str) -> Option<&'static Knob> {
    match name.strip_prefix("upstreams[].") {
        Some(own) => {
            let pool = KNOBS.iter().filter(|knob| knob.path.starts_with("pool."));
            UPSTREAM_KNOBS
                .iter()
                .chain(pool)
                .find(|knob| knob.path == own)
        }
        None => KNOBS.iter().find(|knob| knob.path == name),
    }
}

/// Whether a text is written as the name of a knob: a known section, a dot, a word.
fn is_like_a_knob(name: &str) -> bool {
    let Some((section, rest)) = name.split_once('.') else {
        return false;
    };
    let section = section.split('[').next().unwrap();
    let is_word = rest
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.');
    let is_event = events::NAMES.contains(&name) || story::NAMES.contains(&name) || is_line(name);
    let is_other = is_event || NO_KNOBS.contains(&name);
    sections().contains(&section) && is_word && !rest.is_empty() && !is_other
}

/// Whether it is a line of the log: `tests/logs.rs` holds that page to the code.
fn is_line(name: &str) -> bool {
    let page = fs::read_to_string(root().join("docs/logs.md")).unwrap();
    page.contains(&format!("\n| `{name}` |"))
}

/// `20 s`, `20s` and `20 seconds` are the same.
fn plain(value: &str) -> String {
    let value = value.replace("minutes", "m").replace("seconds", "s");
    value.replace(' ', "")
}

#[test]
fn every_knob_that_a_page_names_is_there_and_takes_the_value_that_it_is_shown_with() {
    let mut seen = 0;
    for (file, text) in pages() {
        for (inside, _) in text.lines().flat_map(quoted) {
            for part in inside.split(" + ") {
                let (name, value) = name_and_value(part);
                if !is_like_a_knob(name) {
                    continue;
                }
                seen += 1;
                let place = format!("{}: `{inside}`", file.display());
                assert!(knob(name).is_some(), "{place}: there is no such knob");
                if let Some(value) = value {
                    let flags = vec![(name.to_owned(), value.to_owned())];
                    let loaded = load(&sources(None, vec![], flags));
                    assert!(loaded.is_ok(), "{place}: {:?}", loaded.err());
                }
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn a_value_in_brackets_behind_a_knob_is_its_default() {
    let mut seen = 0;
    for (file, text) in pages() {
        for (inside, behind) in text.lines().flat_map(quoted) {
            let parts: Vec<&str> = inside.split(" + ").collect();
            let knobs: Option<Vec<&Knob>> = parts.iter().map(|part| knob(part)).collect();
            let value = behind.strip_prefix(" (");
            let value = value.and_then(|rest| rest.split([')', ';', ',']).next());
            let (Some(knobs), Some(value)) = (knobs, value) else {
                continue;
            };
            if !value.starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            seen += 1;
            let defaults: Vec<&str> = knobs.iter().map(|knob| knob.default).collect();
            assert_eq!(
                plain(value),
                plain(&defaults.join(" + ")),
                "{}: `{inside}`",
                file.display()
            );
        }
    }
    assert!(seen > 1, "{seen}");
}

#[test]
fn sums_of_two_numbers_are_the_pools_or_the_budgets() {
    let default = |name: &str| knob(name).unwrap().default;
    let pair = |section: &str| {
        let (size, overflow) = (format!("{section}.size"), format!("{section}.overflow"));
        format!("{} + {}", default(&size), default(&overflow))
    };
    let (pool, budget) = (pair("pool"), pair("budget"));
    let mut seen = 0;
    for (file, text) in pages() {
        for (at, _) in text.match_indices(" + ") {
            let digit = |c: char| c.is_ascii_digit();
            let before = text[..at].rsplit(|c| !digit(c)).next().unwrap();
            let behind = text[at + 3..].split(|c| !digit(c)).next().unwrap();
            if before.is_empty() || behind.is_empty() {
                continue;
            }
            seen += 1;
            let sum = format!("{before} + {behind}");
            assert!(sum == pool || sum == budget, "{}: {sum}", file.display());
        }
    }
    assert!(seen > 3, "{seen}");
}

#[test]
fn defaults_that_are_told_in_words_are_those_of_the_code() {
    for (page, words, name) in IN_WORDS {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let default = knob(name).map_or(name, |knob| knob.default);
        let unit = default.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = &default[..default.len() - unit.len()];
        let told = match unit {
            "s" => format!("{number} s"),
            "m" => format!("{number} minutes"),
            _ => default.to_owned(),
        };
        let sentence = words.replace("{}", &told);
        assert!(text.contains(&sentence), "{page} does not say {sentence:?}");
    }
}

fn sources(
    file: Option<&str>,
    more: Vec<(String, String)>,
    flags: Vec<(String, String)>,
) -> Sources<'_> {
    let url = "postgresql://app@db/app";
    let mut env = vec![("DATABASE_URL".to_owned(), url.to_owned())];
    env.extend(more);
    Sources {
        file: file.map(|text| (Path::new("/snippet.yaml"), text)),
        env,
        flags,
    }
}

/// Blocks of lines that are indented by four, or fenced, and begin with a section of YAML.
fn snippets(text: &str) -> Vec<String> {
    let mut snippets = Vec::new();
    let mut block = String::new();
    for line in text.lines().chain([""]) {
        match line.strip_prefix("    ") {
            Some(code) => block = block + code + "\n",
            None => snippets.push(std::mem::take(&mut block)),
        }
    }
    let is_yaml = |snippet: &String| {
        let first = snippet.split(':').next().unwrap_or("");
        sections().contains(&first) && snippet.contains(": ") || snippet.starts_with("upstreams:")
    };
    snippets.into_iter().filter(is_yaml).collect()
}

#[test]
fn every_example_of_a_configuration_is_valid() {
    let mut seen = 0;
    for (file, text) in pages() {
        for snippet in snippets(&text) {
            seen += 1;
            let loaded = load(&sources(Some(&snippet), vec![], vec![]));
            let errors = loaded.err().unwrap_or_default();
            assert!(
                errors.is_empty(),
                "{}: {errors:?}\n{snippet}",
                file.display()
            );
        }
    }
    assert!(seen > 0);
}

#[test]
fn every_variable_that_a_page_names_is_a_knobs() {
    let mut seen = 0;
    for (file, text) in pages() {
        for (inside, _) in text.lines().flat_map(quoted) {
            let (name, value) = inside.split_once('=').unwrap_or((inside, ""));
            if !name.starts_with("EXECPOOL_") || !name.contains("__") || value.contains('…') {
                continue;
            }
            seen += 1;
            let env = vec![(name.to_owned(), value.to_owned())];
            let loaded = load(&sources(None, env, vec![]));
            assert!(
                loaded.is_ok(),
                "{}: `{inside}`: {:?}",
                file.display(),
                loaded.err()
            );
        }
    }
    assert!(seen > 0);
}
