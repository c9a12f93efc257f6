//! The file: a tree of YAML, flattened to paths.

use super::layers::Layer;
use super::url::redact;
use super::{ConfigError, Origin};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;
use std::path::Path;

/// Any YAML.
enum Tree {
    Nothing,
    Scalar(String),
    List(Vec<Spanned<Tree>>),
    Mapping(Vec<(String, Spanned<Tree>)>),
}

/// Puts what the file says into the layer.
pub(super) fn read(file: &Path, text: &str, layer: &mut Layer) {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    };
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return;
    }
    let tree: Spanned<Tree> = match serde_saphyr::from_str_with_options(text, options) {
        Ok(tree) => tree,
        Err(error) => {
            let (line, column) = error
                .location()
                .map_or((1, 1), |at| (at.line(), at.column()));
            let reason = redact(&in_our_words(&error.to_string()));
            layer.errors.push(ConfigError::Yaml {
                file: file.to_owned(),
                line,
                column,
                reason,
            });
            return;
        }
    };
    match &tree.value {
        Tree::Nothing => {}
        Tree::Mapping(entries) => {
            for (key, value) in entries {
                flatten(key, value, layer);
            }
        }
        Tree::Scalar(_) | Tree::List(_) => layer.errors.push(ConfigError::Yaml {
            file: file.to_owned(),
            line: tree.referenced.line(),
            column: tree.referenced.column(),
            reason: "expected a mapping of sections, such as `budget: {size: 20}`".into(),
        }),
    }
}

/// Without the library's advice, and the place, which is told before it.
fn in_our_words(error: &str) -> String {
    let reason = error
        .rsplit_once(" at line ")
        .map_or(error, |(reason, _)| reason);
    match reason.strip_prefix("duplicate mapping key: ") {
        Some(rest) => {
            let key = rest.split(", set ").next().unwrap_or(rest);
            format!("the key {key} is given twice in one mapping; keep one of them")
        }
        None => reason.to_owned(),
    }
}

fn flatten(path: &str, tree: &Spanned<Tree>, layer: &mut Layer) {
    let origin = Origin::File(tree.referenced.line());
    match &tree.value {
        Tree::Nothing => {
            if !layer.is_known_prefix(path) {
                layer.unknown(path, origin);
            }
        }
        Tree::Scalar(text) => layer.set(path, text, origin),
        Tree::Mapping(entries) => {
            if !layer.is_section(path) {
                layer.not_a_section(path, origin);
                return;
            }
            for (key, value) in entries {
                flatten(&format!("{path}.{key}"), value, layer);
            }
        }
        Tree::List(items) if path == "upstreams" => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("upstreams[{index}]");
                match item.value {
                    Tree::Mapping(_) => flatten(&path, item, layer),
                    _ => layer.shape(
                        &path,
                        "a mapping with a url",
                        Origin::File(item.referenced.line()),
                    ),
                }
            }
        }
        Tree::List(items) => {
            let mut texts = Vec::new();
            for item in items {
                match &item.value {
                    Tree::Scalar(text) => texts.push(text.as_str()),
                    _ => return layer.shape(path, "a list of plain values", origin),
                }
            }
            layer.set_list(path, &texts, origin);
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Mapping(entries))
    }
}
