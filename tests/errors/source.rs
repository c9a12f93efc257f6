//! Source files, as far as they make texts: their literals, and which item has which.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file without its tests.
pub(crate) struct Source {
    /// Its path within `src`.
    pub(crate) name: String,
    /// Its text, with blanks for comments and for what is in literals, byte for byte.
    pub(crate) code: String,
    /// Its literals, as they are meant, each with its place.
    literals: Vec<(usize, String)>,
}

/// Every source file but those of tests.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        Source::new(name, &fs::read_to_string(&path).unwrap())
    };
    let mut sources: Vec<Source> = found.into_iter().map(read).collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sources.len() > 100, "the sources were not found");
    sources
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name == "tests" || name == "tests.rs" {
            continue;
        }
        match path.is_dir() {
            true => collect(&path, found),
            false => found.push(path),
        }
    }
}

impl Source {
    pub(crate) fn new(name: String, text: &str) -> Self {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let (code, literals) = taken_apart(text);
        Self {
            name,
            code,
            literals,
        }
    }

    /// All its literals.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.within(0, self.code.len())
    }

    /// The literals of the block that follows on `item`; for one that ends with a bracket, those of
    /// each such call.
    pub(crate) fn texts_of(&self, item: &str) -> Vec<String> {
        if let Some(function) = item.strip_suffix('(') {
            return self.calls(function).concat();
        }
        let at = self.code.find(item);
        let at = at.unwrap_or_else(|| panic!("src/{} has no {item:?}", self.name));
        let from = at + self.code[at..].find('{').unwrap();
        self.within(from, self.end_of(from))
    }

    /// The literals of the arguments of each call of a function.
    pub(crate) fn calls(&self, function: &str) -> Vec<Vec<String>> {
        let calls = self.code.match_indices(function);
        let arguments = calls.map(|(at, _)| at + function.len());
        arguments
            .filter(|at| self.code[*at..].starts_with('('))
            .map(|at| self.within(at, self.end_of(at)))
            .collect()
    }

    fn within(&self, from: usize, to: usize) -> Vec<String> {
        let there = self.literals.iter();
        let there = there.filter(|(at, _)| (from..to).contains(at));
        there.map(|(_, text)| text.clone()).collect()
    }

    /// Where the bracket is closed that is opened here.
    fn end_of(&self, from: usize) -> usize {
        let mut depth = 0;
        for (at, byte) in self.code.bytes().enumerate().skip(from) {
            match byte {
                b'(' | b'{' | b'[' => depth += 1,
                b')' | b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        panic!("src/{} has a bracket without its end", self.name)
    }
}

/// The text with its comments and literals blanked, and the literals.
fn taken_apart(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::new();
    let mut literals = Vec::new();
    while let Some(rest) = text.get(code.len()..).filter(|rest| !rest.is_empty()) {
        let raw = rest.trim_start_matches('r').trim_start_matches('#');
        let hashes = rest[..rest.len() - raw.len()].matches('#').count();
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with('r') && raw.starts_with('"') && is_begun(&code) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = rest.len() - raw.len() + 1;
            let inside = raw[1..].find(&end).unwrap();
            literals.push((code.len(), rest[begin..begin + inside].to_owned()));
            begin + inside + end.len()
        } else if let Some(inside) = rest.strip_prefix('"') {
            let length = end_of_text(inside);
            literals.push((code.len(), meant(&inside[..length])));
            length + 2
        } else if let Some(length) = length_of_char(rest) {
            length
        } else {
            code.push(rest.chars().next().unwrap());
            continue;
        };
        code.extend(std::iter::repeat_n(' ', length));
    }
    (code, literals)
}

/// Whether a new word can begin behind this.
fn is_begun(code: &str) -> bool {
    let last = code.bytes().last().unwrap_or(b' ');
    !last.is_ascii_alphanumeric() && last != b'_'
}

/// Where a literal ends.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.unwrap()
}

/// The length of a character in quotes; none for a lifetime.
fn length_of_char(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if inside.starts_with('\\') {
        return Some(inside[2..].find('\'')? + 4);
    }
    let first = inside.chars().next()?.len_utf8();
    inside[first..].starts_with('\'').then_some(first + 2)
}

/// A literal without its escapes.
fn meant(literal: &str) -> String {
    let mut out = String::new();
    let mut rest = literal.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match rest.next() {
            Some('n') => out.push('\n'),
            Some('\n') => while rest.next_if(|blank| blank.is_whitespace()).is_some() {},
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}
