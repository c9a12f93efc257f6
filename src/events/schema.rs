//! What an event looks like, for who reads it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{Event, Record};

/// One object for each name, with what all have beside their own: a flattened enum would leave it open
/// which fields may stand together.
impl JsonSchema for Record {
    fn schema_name() -> Cow<'static, str> {
        "Event".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut all = Event::json_schema(generator);
        let kinds = all.remove("oneOf");
        let kinds = kinds.as_ref().and_then(Value::as_array);
        let kinds = kinds.into_iter().flatten().filter_map(Value::as_object);
        let kinds: Vec<Value> = kinds.cloned().map(with_what_all_have).collect();
        json_schema!({
            "description": "Something that has happened: which, by `event`.",
            "oneOf": kinds,
        })
    }
}

fn with_what_all_have(mut kind: Map<String, Value>) -> Value {
    let own = kind.remove("properties").unwrap_or_default();
    let name = own["event"]["const"].clone();
    let mut properties = Map::new();
    properties.insert(
        "id".to_owned(),
        json!({"type": "integer", "format": "uint64", "minimum": 1,
        "description": "Its number in this process, from 1, without gaps."}),
    );
    properties.insert(
        "time".to_owned(),
        json!({"type": "string", "format": "date-time",
        "description": "When it was told: RFC 3339, UTC, to the millisecond."}),
    );
    properties.extend(own.as_object().cloned().unwrap_or_default());
    if let Some(event) = properties.get_mut("event") {
        event["description"] = "Its name.".into();
    }
    let required: Vec<&String> = properties.keys().collect();
    kind.insert("required".to_owned(), json!(required));
    kind.insert("properties".to_owned(), properties.into());
    kind.insert("title".to_owned(), name);
    kind.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::NAMES;

    #[test]
    fn each_event_has_one_object_that_names_all_of_its_fields() {
        let mut generator = SchemaGenerator::default();
        let schema = Record::json_schema(&mut generator);
        let kinds = schema.get("oneOf").and_then(Value::as_array).unwrap();
        let titles: Vec<&Value> = kinds.iter().map(|kind| &kind["title"]).collect();
        let mut told = NAMES.to_vec();
        let mut titles: Vec<&str> = titles.iter().map(|title| title.as_str().unwrap()).collect();
        told.sort_unstable();
        titles.sort_unstable();
        assert_eq!(titles, told);
        for sample in Event::samples() {
            let kind = kinds.iter().find(|kind| kind["title"] == sample.name());
            let properties = kind.unwrap()["properties"].as_object().unwrap();
            let json = serde_json::to_value(&sample).unwrap();
            for field in json.as_object().unwrap().keys() {
                assert!(properties.contains_key(field), "{}: {field}", sample.name());
            }
            assert_eq!(properties.len(), json.as_object().unwrap().len() + 2);
        }
    }
}
