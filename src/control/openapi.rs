//! `GET /openapi.json`: what is served, from the types that are sent.

mod operations;

use http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Control;
use super::problem::{Kind, MEDIA_TYPE, Sent};
use super::query::Query;
use super::router::{Answer, Asked, json as answer};

use operations::{Content, OPERATIONS, Operation, Parameter};

/// Where schemas are in the document.
const SCHEMAS: &str = "/components/schemas";

/// What any operation may be refused with.
const ALWAYS: [Kind; 7] = [
    Kind::InvalidBody,
    Kind::InvalidParameter,
    Kind::UserNotAllowed,
    Kind::BodyTimeout,
    Kind::BodyTooLarge,
    Kind::ShuttingDown,
    Kind::Internal,
];

pub(super) async fn get(_: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    answer(StatusCode::OK, &document())
}

/// The document, in OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    // Answers have all of their properties; requests those that are said.
    let mut sent = settings.clone().for_serialize().into_generator();
    let mut taken = settings.for_deserialize().into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        let method = operation.method.to_ascii_lowercase();
        path[method] = described(operation, &mut sent, &mut taken);
    }
    let mut schemas = sent.take_definitions(true);
    schemas.append(&mut taken.take_definitions(true));
    for schema in schemas.values_mut() {
        if let Ok(schema) = schema.try_into() {
            closed(schema);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "execpool control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP/1.1 with JSON over the Unix socket control.sock. Durations are strings with units in requests and numbers of seconds in answers.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn described(
    operation: &Operation,
    sent: &mut SchemaGenerator,
    taken: &mut SchemaGenerator,
) -> Value {
    let mut responses: Map<String, Value> = Map::new();
    for (status, description, content) in operation.answers {
        let mut response = json!({"description": description});
        if let Some((kind, media)) = content.described(sent) {
            response["content"] = json!({kind: media});
        }
        responses.insert(status.to_string(), response);
    }
    for kind in ALWAYS.iter().chain(operation.problems) {
        refused(*kind, &mut responses, sent);
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": responses,
    });
    let parameters = operation.parameters.iter().map(Parameter::described);
    let id = operation.path.contains("{id}").then(|| {
        json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"},
            "description": "the name of an execution"})
    });
    let rid = operation.path.contains("{rid}").then(|| {
        json!({"name": "rid", "in": "path", "required": true, "schema": {"type": "integer"},
            "description": "the number of a resource"})
    });
    let all: Vec<Value> = id.into_iter().chain(rid).chain(parameters).collect();
    if !all.is_empty() {
        described["parameters"] = all.into();
    }
    if let Some(body) = operation.body {
        let mut schema = body(taken);
        closed(&mut schema);
        described["requestBody"] =
            json!({"required": false, "content": {"application/json": {"schema": schema}}});
    }
    described
}

/// Notes that an operation may be refused for a reason; several reasons may have one status.
fn refused(kind: Kind, responses: &mut Map<String, Value>, sent: &mut SchemaGenerator) {
    let schema = sent.subschema_for::<Sent<'static>>();
    let status = kind.status().as_str().to_owned();
    let told = format!("`{}`: {}", kind.code(), kind.title());
    match responses.get_mut(&status) {
        Some(known) if known["content"].get(MEDIA_TYPE).is_some() => {
            let before = known["description"].as_str().unwrap_or_default();
            if !before.contains(&told) {
                known["description"] = format!("{before}; {told}").into();
            }
        }
        Some(known) => {
            known["content"][MEDIA_TYPE] = json!({"schema": schema});
            let before = known["description"].as_str().unwrap_or_default();
            known["description"] = format!("{before}; or {told}").into();
        }
        None => {
            let content = json!({MEDIA_TYPE: {"schema": schema}});
            responses.insert(status, json!({"description": told, "content": content}));
        }
    }
}

/// Objects have the properties that are described and no others.
#[derive(Debug, Clone)]
struct Closed;

impl Transform for Closed {
    fn transform(&mut self, schema: &mut Schema) {
        let is_object = schema.get("properties").is_some();
        if is_object && schema.get("additionalProperties").is_none() {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
        transform_subschemas(self, schema);
    }
}

fn closed(schema: &mut Schema) {
    Closed.transform(schema);
}

impl Content {
    /// The media type and what is in it. What one piece of a stream looks like is said as OpenAPI 3.2
    /// says it, where `itemSchema` is known.
    fn described(&self, generator: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
        match self {
            Self::Nothing => None,
            Self::Json(schema) => {
                let mut schema = schema(generator);
                closed(&mut schema);
                Some(("application/json", json!({"schema": schema})))
            }
            Self::Stream(kind, item) => {
                let mut item = item(generator);
                closed(&mut item);
                let media = json!({"schema": {"type": "string"}, "x-itemSchema": item});
                Some((kind, media))
            }
        }
    }
}

impl Parameter {
    fn described(&self) -> Value {
        json!({"name": self.name, "in": "query", "required": false, "description": self.meaning,
            "schema": {"type": self.kind}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema in a document, with where it is.
    fn objects<'a>(at: &str, value: &'a Value, found: &mut Vec<(String, &'a Map<String, Value>)>) {
        match value {
            Value::Object(map) => {
                if map.get("properties").is_some_and(Value::is_object) {
                    found.push((at.to_owned(), map));
                }
                for (key, below) in map {
                    objects(&format!("{at}/{key}"), below, found);
                }
            }
            Value::Array(list) => {
                for (number, below) in list.iter().enumerate() {
                    objects(&format!("{at}/{number}"), below, found);
                }
            }
            _ => {}
        }
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|below| references(below, found));
            }
            Value::Array(list) => list.iter().for_each(|below| references(below, found)),
            _ => {}
        }
    }

    #[test]
    fn every_object_is_closed_and_every_property_is_described_and_there_or_said_why_not() {
        let document = document();
        let mut found = Vec::new();
        objects("", &document, &mut found);
        assert!(found.len() > 20, "{}", found.len());
        for (at, object) in found {
            assert_eq!(object["additionalProperties"], false, "{at}");
            let required = object.get("required").cloned().unwrap_or(json!([]));
            for (name, property) in object["properties"].as_object().unwrap() {
                let told = property["description"].as_str();
                let told = told.unwrap_or_else(|| panic!("{at}: {name} is not described"));
                let is_required = required.as_array().unwrap().contains(&json!(name));
                let is_request =
                    at.contains("requestBody") || told.to_lowercase().contains("without it");
                assert!(
                    is_required || is_request || told.contains("not there"),
                    "{at}: {name} may be missing and does not say when: {told}"
                );
            }
        }
        let mut all = Vec::new();
        references(&document, &mut all);
        for reference in all {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_route_is_described_once_by_each_of_its_methods() {
        let document = document();
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                described.push((path.clone(), method.to_uppercase()));
            }
        }
        let mut served: Vec<(String, String)> = super::super::router::served()
            .filter(|(_, method)| *method != "HEAD")
            .map(|(path, method)| (path.to_owned(), method.to_owned()))
            .collect();
        served.sort();
        described.sort();
        assert_eq!(described, served);
    }
}
