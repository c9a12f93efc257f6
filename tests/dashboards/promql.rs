//! Which metrics and labels an expression names. What Prometheus itself thinks of it is asked elsewhere.

/// What follows has labels between its brackets.
const LISTS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
/// Words of the language that are neither.
const WORDS: [&str; 15] = [
    "and", "or", "unless", "offset", "bool", "sum", "min", "max", "avg", "count", "topk",
    "bottomk", "quantile", "stddev", "group",
];

#[derive(Debug, Default)]
pub(crate) struct Used {
    pub(crate) metrics: Vec<String>,
    pub(crate) labels: Vec<String>,
    /// Each metric with its conditions, without a range.
    pub(crate) selectors: Vec<String>,
}

/// The braces that stand at the beginning of a text.
fn braces(text: &str) -> &str {
    let mut in_string = false;
    let ends = |c: char| {
        in_string ^= c == '"';
        c == '}' && !in_string
    };
    match text.starts_with('{') {
        true => &text[..=text.find(ends).expect("braces have an end")],
        false => "",
    }
}

/// Reads an expression once, from left to right.
pub(crate) fn used(expression: &str) -> Used {
    let mut used = Used::default();
    let (mut in_braces, mut in_list, mut list_follows) = (false, false, false);
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if first == '"' {
            let end = rest[1..].find('"').expect("a string has an end");
            rest = &rest[end + 2..];
            continue;
        }
        if length == 0 {
            match first {
                '{' => in_braces = true,
                '}' => in_braces = false,
                '(' => in_list = std::mem::take(&mut list_follows),
                ')' => in_list = false,
                _ => {}
            }
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(length);
        rest = behind;
        let is_function = behind.trim_start().starts_with('(');
        if first.is_ascii_digit() {
            continue;
        }
        if in_braces || in_list {
            used.labels.push(word.to_owned());
        } else if LISTS.contains(&word) {
            list_follows = is_function;
        } else if !is_function && !WORDS.contains(&word) {
            used.metrics.push(word.to_owned());
            used.selectors.push(format!("{word}{}", braces(behind)));
        }
    }
    used
}

#[test]
fn metrics_and_labels_are_found_whatever_stands_around_them() {
    let expression = r#"sum by (a, b) (rate(x_total{c="{d} by", e!~"f"}[5m] offset 1m)) / on (g) group_left () (y:z{} > 0.5) or topk(10, w)"#;
    let used = used(expression);
    assert_eq!(used.metrics, ["x_total", "y:z", "w"]);
    assert_eq!(used.labels, ["a", "b", "c", "e", "g"]);
    let selectors = [r#"x_total{c="{d} by", e!~"f"}"#, "y:z{}", "w"];
    assert_eq!(used.selectors, selectors);
}
