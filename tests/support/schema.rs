//! The control API's own description, against which every answer is held that a test gets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

/// One validator for each answer that is described: by method, path and status.
type Validators = Mutex<HashMap<(String, String, u16), Arc<Validator>>>;

fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(execpool::control::openapi::document)
}

/// What is wrong with an answer; nothing: it is as described.
pub(crate) fn complaint(method: &str, path: &str, status: u16, body: &Value) -> Option<String> {
    let path = path.split('?').next().unwrap_or(path);
    let (template, schema) = match described(method, path, status) {
        Ok(found) => found,
        Err(why) => return Some(why),
    };
    let validator = validator((method.to_owned(), template, status), schema);
    let mut errors = validator.iter_errors(body);
    errors.next().map(|error| {
        format!(
            "{method} {path}: {status}: {error} at {}",
            error.instance_path()
        )
    })
}

/// What is wrong with an event as `GET /v1/events` tells it; nothing: it is as described.
pub(crate) fn complaint_of_event(data: &Value) -> Option<String> {
    static EVENT: OnceLock<Validator> = OnceLock::new();
    let validator = EVENT.get_or_init(|| {
        let place = "/paths/~1v1~1events/get/responses/200/content/text~1event-stream\
                     /x-itemSchema/properties/data/contentSchema";
        let mut root = document().pointer(place).expect("it is there").clone();
        root["components"] = document()["components"].clone();
        jsonschema::draft202012::new(&root).expect("it is a schema")
    });
    let mut errors = validator.iter_errors(data);
    errors.next().map(|error| error.to_string())
}

/// Everything that could be wrong with a document in one place: a property more, one less, another
/// type. With what was done.
pub(crate) fn mutants(at: &str, value: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    match value {
        Value::Object(map) => {
            let mut more = map.clone();
            more.insert("unexpected".to_owned(), json!({"x": [{}]}));
            all.push((format!("{at} + unexpected"), Value::Object(more)));
            for (key, below) in map {
                let mut less = map.clone();
                less.remove(key);
                all.push((format!("{at} - {key}"), Value::Object(less)));
                for (what, mutant) in mutants(&format!("{at}/{key}"), below) {
                    let mut other = map.clone();
                    other.insert(key.clone(), mutant);
                    all.push((what, Value::Object(other)));
                }
            }
        }
        Value::Array(list) => {
            all.push((format!("{at} is a text"), json!("text")));
            for (number, below) in list.iter().enumerate() {
                for (what, mutant) in mutants(&format!("{at}/{number}"), below) {
                    let mut other = list.clone();
                    other[number] = mutant;
                    all.push((what, Value::Array(other)));
                }
            }
        }
        _ => all.push((format!("{at} is a list"), json!([[]]))),
    }
    all
}

/// Fails the test if an answer is not as described. What is no JSON is not looked into.
#[track_caller]
pub(crate) fn assert_described(method: &str, path: &str, status: u16, body: &Value) {
    if matches!(body, Value::Null | Value::String(_)) {
        return;
    }
    if let Some(complaint) = complaint(method, path, status, body) {
        panic!("not as GET /openapi.json describes it: {complaint}\n{body:#}");
    }
}

/// The path's template and the schema of its answer.
fn described(method: &str, path: &str, status: u16) -> Result<(String, Value), String> {
    let paths = document()["paths"].as_object().expect("it has paths");
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    let Some((template, operations)) = paths.iter().find(|(of, _)| matches(of, path)) else {
        // Nothing is there: that is told in the usual form.
        return Ok(("nowhere".to_owned(), problem));
    };
    let Some(operation) = operations.get(method.to_lowercase()) else {
        return Ok((template.clone(), problem));
    };
    let answers = &operation["responses"];
    let answer = answers.get(status.to_string()).ok_or_else(|| {
        format!("{method} {template} answers {status}, which is not described: {answers:#}")
    })?;
    let content = answer["content"].as_object().expect("it has a content");
    let kinds: Vec<&Value> = content.values().map(|kind| &kind["schema"]).collect();
    Ok((template.clone(), json!({"anyOf": kinds})))
}

fn matches(template: &str, path: &str) -> bool {
    let (left, right): (Vec<&str>, Vec<&str>) =
        (template.split('/').collect(), path.split('/').collect());
    let fits = |(a, b): (&&str, &&str)| a == b || (a.starts_with('{') && !b.is_empty());
    left.len() == right.len() && left.iter().zip(&right).all(fits)
}

fn validator(key: (String, String, u16), schema: Value) -> Arc<Validator> {
    static VALIDATORS: OnceLock<Validators> = OnceLock::new();
    let mut known = VALIDATORS
        .get_or_init(Validators::default)
        .lock()
        .expect("no panic under it");
    let made = known.entry(key).or_insert_with(|| {
        let mut root = schema;
        root["components"] = document()["components"].clone();
        Arc::new(jsonschema::draft202012::new(&root).expect("it is a schema"))
    });
    Arc::clone(made)
}
