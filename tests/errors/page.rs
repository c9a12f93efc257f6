//! What `docs/errors.md` has: entries, which have messages in their headings, and what drivers print.

use std::fs;
use std::path::Path;

/// One entry: headings with messages in them, one below the other, and the text that follows.
pub(crate) struct Entry {
    pub(crate) messages: Vec<String>,
    pub(crate) text: String,
}

/// A heading without a message, and the indented blocks below it, in their order.
pub(crate) struct Printed {
    pub(crate) heading: String,
    pub(crate) blocks: Vec<String>,
}

/// The page as it is.
pub(crate) fn page() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    fs::read_to_string(file).unwrap()
}

/// The entries of the page.
pub(crate) fn entries(page: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut messages = Vec::new();
    for (heading, text) in sections(page) {
        messages.extend(quoted(heading));
        if !text.trim().is_empty() && !messages.is_empty() {
            entries.push(Entry {
                messages: std::mem::take(&mut messages),
                text: text.to_owned(),
            });
        }
    }
    entries
}

/// What the page says that drivers print.
pub(crate) fn printed(page: &str) -> Vec<Printed> {
    let all = sections(page).into_iter();
    let of_drivers = all.filter(|(heading, _)| quoted(heading).is_empty());
    let read = of_drivers.map(|(heading, text)| Printed {
        heading: heading.to_owned(),
        blocks: blocks(text),
    });
    read.filter(|printed| !printed.blocks.is_empty()).collect()
}

/// Whether a text is what a pattern says, where `…` stands for anything.
pub(crate) fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// What follows each heading of the third level, up to the next heading.
fn sections(page: &str) -> Vec<(&str, &str)> {
    let parts = page.split("\n### ").skip(1);
    let cut = parts.map(|part| part.split("\n## ").next().unwrap());
    cut.map(|part| part.split_once('\n').unwrap_or((part, "")))
        .collect()
}

/// What stands between backquotes.
fn quoted(line: &str) -> Vec<String> {
    let inside = line.split('`').skip(1).step_by(2);
    inside.map(str::to_owned).collect()
}

/// Paragraphs that are indented by four.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = Vec::new();
    for line in text.lines().chain([""]) {
        match line.strip_prefix("    ") {
            Some(line) => block.push(line),
            None if block.is_empty() => {}
            None => blocks.push(std::mem::take(&mut block).join("\n")),
        }
    }
    blocks
}
