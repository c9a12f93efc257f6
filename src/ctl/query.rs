//! `execpool query`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::PATIENCE;
use super::client;
use super::command::{Ask, duration};
use super::page::{Cell, Colour, Page, text_of};
use super::plan::Question;

/// How long a query may take unless something else is said.
const USUAL: Duration = Duration::from_secs(30);

/// Run one statement in an execution, as a session like any other
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    execpool query --execution run-1 'SELECT count(*) FROM jobs'\n  \
    execpool query --execution run-1 'SELECT * FROM jobs WHERE id = $1' --param 7\n  \
    execpool query --execution run-1 --json 'SELECT now()' | jq '.rows[0][0]'\n\n\
    An unknown execution is begun, as by any session. The session ends with the statement: what it\n\
    has not committed is rolled back. Cells are cut where the table is wider than the terminal.\n\
    Exit status: 0 answered, 1 failed, 2 wrong usage.")]
pub struct Statement {
    /// The execution
    #[arg(long, value_name = "ID")]
    execution: String,
    /// One statement
    #[arg(value_name = "SQL")]
    sql: String,
    /// The value of $1, $2 and so on, as text; may be repeated
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    params: Vec<String>,
    /// The upstream; the first without
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// How long it may take, waits included, such as 2m; 30s without
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<(String, Duration)>,
    /// How many rows are shown at most; 1000 without
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_rows: Option<u32>,
    /// How to ask.
    #[command(flatten)]
    ask: Ask,
}

impl Statement {
    /// What is asked, and how.
    pub(super) fn question(self) -> (Question, Ask) {
        let (timeout, wait) = self.timeout.unzip();
        let path = format!("/v1/executions/{}/query", client::encoded(&self.execution));
        let body = json!({
            "sql": self.sql,
            "params": self.params,
            "upstream": self.upstream,
            "timeout": timeout,
            "max_rows": self.max_rows,
        });
        let question = Question::post(path, show).with(body);
        (question.within(wait.unwrap_or(USUAL) + PATIENCE), self.ask)
    }
}

/// What is between two columns, in characters.
const GAP: usize = 2;

/// How narrow a column is made at most.
const NARROWEST: usize = 4;

/// Writes the answer of `POST /v1/executions/{id}/query`.
pub(super) fn show(answer: &Value, page: &mut Page) -> bool {
    let list = |name: &str| {
        answer[name]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    let (columns, rows) = (list("columns"), list("rows"));
    if !columns.is_empty() {
        let heads = columns.iter().map(|column| text_of(column, "name"));
        table(&heads.collect::<Vec<_>>(), rows, page);
    }
    page.line(&last_line(answer, rows.len()));
    true
}

fn last_line(answer: &Value, rows: usize) -> String {
    if answer["truncated"] == true {
        return format!("The first {rows} rows; more were left out (--max-rows, 1 MiB in all).");
    }
    match answer["command"].as_str() {
        Some(command) => command.to_owned(),
        None => "Nothing to do.".to_owned(),
    }
}

fn table(heads: &[&str], rows: &[Value], page: &mut Page) {
    let texts: Vec<Vec<String>> = rows.iter().map(texts).collect();
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in &texts {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let most = page.width().map_or(usize::MAX, |width| cap(&widths, width));
    let heads: Vec<String> = heads.iter().map(|head| cut(head, most)).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let rows = rows.iter().zip(&texts).map(|(row, texts)| {
        let values = row.as_array().map(Vec::as_slice).unwrap_or_default();
        let cells = values.iter().zip(texts);
        cells.map(|(value, text)| cell(value, &cut(text, most)))
    });
    let rows = rows.map(Iterator::collect).collect();
    page.table(&heads, rows);
}

/// The texts of a row's values.
fn texts(row: &Value) -> Vec<String> {
    let values = row.as_array().into_iter().flatten();
    let text = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    values.map(text).collect()
}

fn cell(value: &Value, text: &str) -> Cell {
    match value {
        Value::Null => Cell::text(text).in_colour(Colour::Faint),
        Value::Number(_) => Cell::number(text),
        _ => Cell::text(text),
    }
}

/// How wide a column may be so that all are on one line of this width.
fn cap(widths: &[usize], line: usize) -> usize {
    let gaps = GAP * widths.len().saturating_sub(1);
    let widest = widths.iter().copied().max().unwrap_or(0);
    let fits = |most: usize| {
        let sum: usize = widths.iter().map(|width| *width.min(&most)).sum();
        sum + gaps <= line
    };
    // No wider than the line anyhow.
    let widest = widest.min(line);
    let most = (NARROWEST..=widest).rev().find(|most| fits(*most));
    most.unwrap_or(NARROWEST)
}

/// The beginning of a text, so long at most.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let begin = text.chars().take(most.saturating_sub(1));
    begin.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(answer: &Value, width: Option<usize>) -> String {
        let mut page = Page::new(false).within(width);
        assert!(show(answer, &mut page));
        page.finish()
    }

    #[test]
    fn rows_are_a_table_with_the_command_below() {
        let mut answer = json!({"columns": [{"name": "id", "type": "int4"},
            {"name": "a", "type": "jsonb"}], "rows": [[7, {"b": 1}], [12, null]],
            "command": "SELECT 2", "truncated": false});
        let expected = "id  a\n 7  {\"b\":1}\n12  NULL\nSELECT 2\n";
        assert_eq!(shown(&answer, None), expected);
        answer["truncated"] = json!(true);
        assert!(shown(&answer, None).contains("The first 2 rows; more"));
        let none = json!({"columns": [], "rows": [], "command": "SET", "truncated": false});
        assert_eq!(shown(&none, None), "SET\n");
    }

    #[test]
    fn the_widest_columns_are_cut_where_the_terminal_is_narrower() {
        let answer = json!({"columns": [{"name": "id", "type": "int4"},
            {"name": "text", "type": "text"}], "rows": [[7, "ä".repeat(100)]],
            "command": "SELECT 1", "truncated": false});
        let page = shown(&answer, Some(20));
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[1].chars().count(), 20, "{page}");
        assert!(lines[1].ends_with('…'), "{page}");
        assert!(shown(&answer, None).contains(&"ä".repeat(100)));
    }
}
