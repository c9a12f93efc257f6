//! execpool's own table of knobs, as the library chart has it.

use execpool::config::{KNOBS, Kind, Knob, UPSTREAM_KNOBS};
use serde_json::{Map, Value, json};

/// The texts that a knob takes, where a schema's answer would not say what is wrong.
fn shape(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Time(_) => Some("^([0-9]+(ms|s|m|h|d))+$"),
        Kind::TimeOrOff(_) => Some("^(off|([0-9]+(ms|s|m|h|d))+)$"),
        Kind::Path => Some("^/"),
        Kind::Mode => Some("^(0o)?0?[67][0-7]{2}$"),
        Kind::Uids => Some("^(any|[0-9]+( *, *[0-9]+)*)$"),
        Kind::Loopback => Some("^(off|(127[.][0-9.]+|localhost|\\[::1\\]):[0-9]+)$"),
        Kind::AddressOrOff => Some("^(off|([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]+)$"),
        Kind::Probe => Some("^(http://|tcp://|:[0-9])"),
        Kind::Share => Some("^(0[.][0-9]{1,3}|1([.]0{1,3})?)$"),
        Kind::Url => Some("^postgres(ql)?://"),
        // Any word is a filter, of what is called so: it would leave nothing of the log.
        Kind::Filter => Some("(?i)(off|error|warn|info|debug|trace)"),
        _ => None,
    }
}

/// What the values' schema says of one.
fn schema(knob: &Knob) -> Value {
    let mut schema = match knob.kind {
        Kind::Switch => json!({"enum": [true, false, "on", "off", "true", "false"]}),
        Kind::Count(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Kind::Share => json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        Kind::Word(words) => {
            // YAML reads on and off as these.
            let also = [("on", true), ("off", false)];
            let also = also.into_iter().filter(|(word, _)| words.contains(word));
            let words = words.iter().map(|word| json!(word));
            json!({"enum": words.chain(also.map(|(_, it)| json!(it))).collect::<Vec<_>>()})
        }
        Kind::Command | Kind::Uids => json!({
            "type": ["array", "string", "integer"],
            "items": {"type": ["string", "number", "boolean"]},
        }),
        _ => json!({"type": ["string", "number", "boolean"]}),
    };
    schema["description"] = match knob.default {
        "" => json!(knob.meaning),
        default => json!(format!("{} (default {default})", knob.meaning)),
    };
    schema
}

/// Puts one where its path says.
fn put(properties: &mut Map<String, Value>, path: &str, schema: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        properties.insert(path.to_owned(), schema);
        return;
    };
    let below = properties
        .entry(first)
        .or_insert_with(|| json!({"type": "object", "properties": {}}));
    put(below["properties"].as_object_mut().unwrap(), rest, schema);
}

/// The sections, each with its knobs, as properties of the values' schema.
pub(crate) fn sections() -> Map<String, Value> {
    let mut properties = Map::new();
    for knob in KNOBS {
        put(&mut properties, knob.path, schema(knob));
    }
    properties
}

/// The properties of an upstream.
pub(crate) fn upstream() -> Map<String, Value> {
    let mut properties = Map::new();
    let pool = KNOBS.iter().filter(|knob| knob.path.starts_with("pool."));
    for knob in UPSTREAM_KNOBS.iter().chain(pool) {
        put(&mut properties, knob.path, schema(knob));
    }
    properties
}

/// All of them, with their paths in the values.
pub(crate) fn all() -> impl Iterator<Item = (String, &'static Knob)> {
    let global = KNOBS.iter().map(|knob| (knob.path.to_owned(), knob));
    let own = UPSTREAM_KNOBS
        .iter()
        .map(|knob| (format!("upstreams[].{}", knob.path), knob));
    global.chain(own)
}

/// Those that have a shape: their paths, and why a text is none.
pub(crate) fn shaped() -> impl Iterator<Item = (String, &'static str, String)> {
    all().filter_map(|(path, knob)| Some((path, shape(&knob.kind)?, knob.kind.allowed())))
}

/// The template with the shapes.
pub(crate) fn template() -> String {
    let mut text = String::from(
        "{{/* Written by tests/charts, from execpool's table of knobs. */}}\n\
         {{- define \"execpool.sections\" -}}\n",
    );
    let names: Vec<String> = sections().keys().cloned().collect();
    text += &names.join(" ");
    text += "\n{{- end -}}\n\n{{- define \"execpool.shapes\" -}}\n{\n";
    let lines: Vec<String> = shaped()
        .map(|(path, pattern, takes)| {
            let shape = json!({"pattern": pattern, "takes": takes});
            format!("  {}: {shape}", json!(path))
        })
        .collect();
    text += &lines.join(",\n");
    text += "\n}\n{{- end -}}\n";
    text
}

/// The table of a README.
pub(crate) fn table() -> String {
    let mut text = String::from("| value | default | meaning |\n|---|---|---|\n");
    for (path, knob) in all() {
        let default = match knob.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        text += &format!("| `{path}` | {default} | {} |\n", knob.meaning);
    }
    text
}
