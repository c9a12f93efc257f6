//! Parameters as PostgreSQL's text, and rows as JSON.

use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::Oid;
use postgres_protocol::message::backend::DataRowBody;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

/// How long all rows may be together, as JSON, in bytes.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// The text of a parameter of this type; none is NULL.
pub(super) fn parameter(value: &Value, of: Oid) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if !is_json(of) => Some(array(items)),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(value.to_string())
        }
    }
}

/// The literal of an array.
fn array(items: &[Value]) -> String {
    let items = items.iter().map(|item| match item {
        Value::Null => "NULL".to_owned(),
        Value::Bool(_) | Value::Number(_) => item.to_string(),
        Value::Array(items) => array(items),
        Value::String(text) => quoted(text),
        Value::Object(_) => quoted(&item.to_string()),
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

fn is_json(of: Oid) -> bool {
    of == Type::JSON.oid() || of == Type::JSONB.oid()
}

/// Rows that are put together, within their bounds.
#[derive(Debug)]
pub(super) struct Rows {
    /// The array, without its end.
    json: String,
    count: u32,
    most: u32,
    truncated: bool,
}

impl Rows {
    /// None yet, and never more than `most`.
    pub(super) fn new(most: u32) -> Self {
        Self {
            json: "[".to_owned(),
            count: 0,
            most,
            truncated: false,
        }
    }

    /// Takes a row whose columns have these types, unless one was left out before or it is too much.
    ///
    /// # Errors
    /// It is no row.
    pub(super) fn push(&mut self, row: &DataRowBody, types: &[Oid]) -> io::Result<()> {
        if self.truncated || self.count == self.most {
            self.leave_out();
            return Ok(());
        }
        let before = self.json.len();
        if self.count > 0 {
            self.json.push(',');
        }
        self.json.push('[');
        let (mut ranges, mut types) = (row.ranges(), types.iter());
        let mut is_first = true;
        while let Some(range) = ranges.next()? {
            if !std::mem::take(&mut is_first) {
                self.json.push(',');
            }
            let of = types.next().copied().unwrap_or_default();
            match range {
                None => self.json.push_str("null"),
                Some(range) => value(&row.buffer()[range], of, &mut self.json),
            }
        }
        self.json.push(']');
        if self.json.len() > MOST_BYTES {
            self.json.truncate(before);
            self.leave_out();
        } else {
            self.count += 1;
        }
        Ok(())
    }

    /// There is a row that is not taken; none that comes later is.
    pub(super) fn leave_out(&mut self) {
        self.truncated = true;
    }

    /// Whether rows were left out.
    pub(super) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// All of them.
    ///
    /// # Errors
    /// They are no JSON, which can't be.
    pub(super) fn finish(mut self) -> io::Result<Box<RawValue>> {
        self.json.push(']');
        Ok(RawValue::from_string(self.json)?)
    }
}

/// Appends the JSON of a value of this type.
fn value(bytes: &[u8], of: Oid, out: &mut String) {
    let text = String::from_utf8_lossy(bytes);
    let is_of = |types: &[Type]| types.iter().any(|one| one.oid() == of);
    if is_of(&[Type::BOOL]) {
        out.push_str(if text == "t" { "true" } else { "false" });
        return;
    }
    let is_number = is_of(&[
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
    ]);
    // NaN and the infinities are no numbers in JSON.
    let is_plain = is_number || is_json(of);
    if is_plain && serde_json::from_str::<&RawValue>(&text).is_ok() {
        out.push_str(text.trim());
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_texts_that_the_server_reads_by_its_own_types() {
        for (value, of, text) in [
            (json!(null), Type::TEXT, None),
            (json!("it's"), Type::TEXT, Some("it's")),
            (json!(-7), Type::INT4, Some("-7")),
            (json!(0.1), Type::NUMERIC, Some("0.1")),
            (json!(true), Type::BOOL, Some("true")),
            (json!([1, null]), Type::INT4_ARRAY, Some("{1,NULL}")),
            (json!([[1], [2]]), Type::INT4_ARRAY, Some("{{1},{2}}")),
            (
                json!(["a\"b", "c\\", ""]),
                Type::TEXT_ARRAY,
                Some(r#"{"a\"b","c\\",""}"#),
            ),
            (
                json!([{"a": 1}]),
                Type::JSONB_ARRAY,
                Some(r#"{"{\"a\":1}"}"#),
            ),
            (json!([1, null]), Type::JSONB, Some("[1,null]")),
            (json!({"a": "b"}), Type::JSON, Some(r#"{"a":"b"}"#)),
        ] {
            assert_eq!(parameter(&value, of.oid()).as_deref(), text, "{value}");
        }
    }

    #[test]
    fn values_are_json_without_loss_or_their_text() {
        for (text, of, told) in [
            ("t", Type::BOOL, "true"),
            ("9223372036854775807", Type::INT8, "9223372036854775807"),
            ("1e+20", Type::FLOAT8, "1e+20"),
            ("-0", Type::FLOAT4, "-0"),
            ("NaN", Type::FLOAT8, "\"NaN\""),
            ("-Infinity", Type::FLOAT4, "\"-Infinity\""),
            ("1.50", Type::NUMERIC, "\"1.50\""),
            (
                "{\"b\": 12345678901234567890.5}",
                Type::JSONB,
                "{\"b\": 12345678901234567890.5}",
            ),
            ("a\"\n", Type::TEXT, "\"a\\\"\\n\""),
            ("{1,2}", Type::INT4_ARRAY, "\"{1,2}\""),
        ] {
            let mut out = String::new();
            value(text.as_bytes(), of.oid(), &mut out);
            assert_eq!(out, told);
        }
    }
}
