//! The values reach execpool: what the chart writes into the environment, its own configuration reads.

use std::path::Path;

use execpool::config::{Kind, Knob, Sources, load, show};
use serde_json::{Value, json};

use super::knobs;
use super::pod::example_of;
use super::support::helm::{Charts, Objects, environment};
use super::tools::examples;
use super::written::{root, text};

/// A value that is not the default, as one would write it in YAML, and as the knob shows it.
fn sample(knob: &Knob) -> (Value, String) {
    let text = |text: &str| (json!(text), text.to_owned());
    match knob.kind {
        Kind::Switch => match knob.default {
            "on" | "true" => (json!(false), "off".into()),
            _ => (json!(true), "on".into()),
        },
        Kind::Count(low, high) => {
            let value = (low + 7).min(high);
            (json!(value), value.to_string())
        }
        Kind::Share => (json!(0.5), "0.5".into()),
        Kind::Time(_) => text("90s"),
        Kind::TimeOrOff(_) if knob.default == "off" => text("2h"),
        Kind::TimeOrOff(_) => (json!(false), "off".into()),
        Kind::Word(words) => {
            let other = words.iter().find(|word| **word != knob.default);
            text(other.unwrap_or(&words[0]))
        }
        Kind::Statement => text("DISCARD TEMP"),
        Kind::Path => text("/tmp/it"),
        Kind::Mode => text("0666"),
        Kind::Uids => (json!([1000, 65532]), "1000,65532".into()),
        Kind::Loopback => text("127.0.0.1:6432"),
        Kind::Filter => text("debug"),
        Kind::Url => text("postgresql://me@db.example/it"),
        Kind::Command => (json!(["cat", "it's here"]), "'cat' 'it'\\''s here'".into()),
        Kind::AddressOrOff => text("0.0.0.0:9500"),
        _ => text("it"),
    }
}

/// A value at its path.
fn nested(path: &str, value: Value) -> Value {
    let names = path.rsplit('.');
    names.fold(value, |value, name| json!({name: value}))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// What execpool makes of the sidecar's variables; those from Secrets are given a value here.
fn loaded(objects: &Objects) -> execpool::config::Loaded {
    let sidecar = objects.container("execpool");
    let mut env = environment(sidecar);
    for one in sidecar["env"].as_array().unwrap() {
        if one["valueFrom"].get("secretKeyRef").is_some() {
            let name = one["name"].as_str().unwrap().to_owned();
            env.push((name, "postgresql://me@db.example/billing".to_owned()));
        }
    }
    let sources = Sources {
        file: None,
        env,
        flags: Vec::new(),
    };
    load(&sources).unwrap_or_else(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{errors:?}")
    })
}

/// What execpool warns of, but for what is no danger where one pod alone has the directory.
fn warnings(loaded: &execpool::config::Loaded) -> Vec<&String> {
    let all = loaded.warnings.iter();
    all.filter(|one| !one.starts_with("listen.mode 0666"))
        .collect()
}

/// Those that the chart decides from other values, or does not take as they are.
const DECIDED: [&str; 3] = ["listen.group", "reactor.kubernetes", "shutdown.mode"];

#[test]
fn every_knob_that_there_is_can_be_set_as_a_value_and_reaches_execpool() {
    let mut values = json!({"upstreams": [{}]});
    let mut wanted = Vec::new();
    for (path, knob) in knobs::all() {
        // Two ways to one password.
        if DECIDED.contains(&path.as_str()) || path == "upstreams[].password_file" {
            continue;
        }
        let (value, shown) = match path.as_str() {
            // One that fits to the pod's grace period, and one that is for a restart by the sidecar.
            "shutdown.grace" => (json!("9s"), "9s".to_owned()),
            "reactor.restart" => (json!("liveness"), "liveness".to_owned()),
            "reactor.app_probe" => {
                let url = "http://127.0.0.1:8080/healthz";
                (json!(url), url.to_owned())
            }
            _ => sample(knob),
        };
        match path.strip_prefix("upstreams[].") {
            Some(own) => merge(&mut values["upstreams"][0], nested(own, value)),
            None => merge(&mut values, nested(&path, value)),
        }
        wanted.push((path.replace("[]", "[0]"), shown));
    }
    merge(&mut values["upstreams"][0], json!({"pool": {"size": 9}}));
    wanted.push(("upstreams[0].pool.size".into(), "9".into()));
    assert!(wanted.len() > 50);
    let charts = Charts::new();
    let objects = charts
        .chart("example")
        .values(json!({"execpool": values}))
        .objects();
    let env = environment(objects.container("execpool"));
    for (path, shown) in &wanted {
        let name = path.replace("[0].", ".0.").replace('.', "__");
        let name = format!("EXECPOOL_{}", name.to_uppercase());
        let value = env.iter().find(|(one, _)| *one == name).map(|one| &one.1);
        assert_eq!(value, Some(shown), "{path}");
    }
    let shown = show(&loaded(&objects));
    for (path, _) in &wanted {
        let knob = shown.knobs.get(path);
        let origin = knob.map(|knob| knob.origin.as_str()).unwrap_or_default();
        assert!(origin.contains("EXECPOOL_"), "{path}: {origin}");
    }
}

#[test]
fn what_a_chart_writes_from_any_example_is_a_valid_configuration() {
    for (name, _) in examples("example") {
        let loaded = loaded(&example_of(&name));
        assert!(!loaded.config.upstreams.is_empty(), "{name}");
        assert_eq!(warnings(&loaded), Vec::<&String>::new(), "{name}");
    }
}

#[test]
fn what_kubernetes_would_replace_in_a_value_stays_as_it_is() {
    let charts = Charts::new();
    let values = json!({"execpool": {"upstreams": [{"url": "postgresql://a@h/b?application_name=$(HOME)"}]}});
    let objects = charts.chart("example").values(values).objects();
    let env = environment(objects.container("execpool"));
    let url = env.iter().find(|one| one.0.ends_with("__URL")).unwrap();
    assert!(url.1.ends_with("=$$(HOME)"), "{}", url.1);
}

// ---- without Kubernetes ----------------------------------------------------------

#[test]
fn the_compose_example_configures_execpool_as_it_says_and_all_it_mounts_is_there() {
    let file = "deploy/compose/compose.yaml";
    let compose: Value = serde_saphyr::from_str(&text(file)).unwrap();
    let services = &compose["services"];
    let sidecar = &services["execpool"];
    let env = sidecar["environment"].as_object().unwrap();
    let env = env
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
    let sources = Sources {
        file: None,
        env: env.collect(),
        flags: Vec::new(),
    };
    let loaded = load(&sources).unwrap();
    assert_eq!(warnings(&loaded), Vec::<&String>::new());
    let upstream = &loaded.config.upstreams[0];
    assert_eq!(upstream.name, "app");
    // The database that it names is the one beside it.
    let url = sidecar["environment"]["DATABASE_URL"].as_str().unwrap();
    assert!(url.contains("@db:5432/app"), "{url}");
    assert!(services.get("db").is_some());
    let socket = |service: &Value| {
        let mounts = service["volumes"].as_array().unwrap();
        mounts
            .iter()
            .any(|one| one.as_str().unwrap().starts_with("socket:/run/execpool"))
    };
    assert!(socket(sidecar) && socket(&services["app"]));
    assert!(compose["volumes"].get("socket").is_some());
    let app = services["app"]["environment"]["DATABASE_URL"]
        .as_str()
        .unwrap();
    assert_eq!(app, "postgresql://app@/app?host=/run/execpool");
    let depends = &services["app"]["depends_on"]["execpool"]["condition"];
    assert_eq!(depends, "service_healthy");
    for (name, service) in services.as_object().unwrap() {
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let from = mount.as_str().unwrap().split(':').next().unwrap();
            if from.starts_with('.') {
                let path = root().join(Path::new(file).parent().unwrap()).join(from);
                assert!(path.exists(), "{name}: {}", path.display());
            }
        }
    }
}
