//! What is written from something else, and must not be old: schemas, READMEs, copies, manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::knobs;
use super::support::helm::{Charts, Helm, source};

pub(crate) const CHARTS: [&str; 3] = ["execpool-sidecar", "execpool", "example"];
const RENEW: &str = "EXECPOOL_BLESS=1 cargo test --test charts";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn values(chart: &str) -> Value {
    let text = text(&format!("charts/{chart}/values.yaml"));
    serde_saphyr::from_str(&text).unwrap()
}

/// Compares a file with what it should be; writes it when EXECPOOL_BLESS is set.
fn hold(file: &Path, wanted: &str) {
    if std::env::var_os("EXECPOOL_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, wanted).unwrap();
        return;
    }
    let found = fs::read_to_string(file).unwrap_or_default();
    if found != wanted {
        let line = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
        panic!(
            "{} is old, from line {}; renew it: {RENEW}",
            file.display(),
            line.unwrap_or_default() + 1
        );
    }
}

// ---- values and what is said of them -----------------------------------------

/// A value that `values.yaml` explains.
#[derive(Debug)]
pub(crate) struct Documented {
    pub(crate) path: String,
    pub(crate) about: String,
}

/// All that `# --` stands over, in the file's order.
pub(crate) fn documented(text: &str) -> Vec<Documented> {
    let mut found = Vec::new();
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut about: Option<String> = None;
    for line in text.lines() {
        let words = line.trim_start();
        let indent = line.len() - words.len();
        if let Some(first) = words.strip_prefix("# -- ") {
            about = Some(first.to_owned());
        } else if let Some(next) = words.strip_prefix("# ") {
            if let Some(about) = &mut about {
                about.push(' ');
                about.push_str(next);
            }
        } else if let Some((key, _)) = words.split_once(':').filter(|_| !words.starts_with('-')) {
            parents.retain(|(other, _)| *other < indent);
            parents.push((indent, key.to_owned()));
            if let Some(about) = about.take() {
                let names: Vec<&str> = parents.iter().map(|(_, name)| name.as_str()).collect();
                let path = names.join(".");
                found.push(Documented { path, about });
            }
        }
    }
    found
}

/// The paths of all values that have none below them.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value.as_object().filter(|below| !below.is_empty()) {
        None => found.push(path.to_owned()),
        Some(below) => {
            for (name, value) in below {
                let path = format!("{path}.{name}");
                leaves(value, path.trim_start_matches('.'), found);
            }
        }
    }
}

pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| &value[name])
}

#[test]
fn every_value_of_every_chart_is_documented() {
    for chart in CHARTS {
        let documented = documented(&text(&format!("charts/{chart}/values.yaml")));
        let paths: BTreeSet<&str> = documented.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths.len(), documented.len(), "{chart}: documented twice");
        let mut all = Vec::new();
        leaves(&values(chart), "", &mut all);
        assert!(all.len() > 20, "{chart}: {all:?}");
        for leaf in all {
            let ends = leaf.match_indices('.').map(|(at, _)| at);
            let mut known = ends.chain([leaf.len()]).map(|end| &leaf[..end]);
            assert!(
                known.any(|path| paths.contains(path)),
                "{chart}: no `# --` over {leaf}"
            );
        }
        let values = values(chart);
        for one in &documented {
            assert!(!at(&values, &one.path).is_null(), "{chart}: {one:?}");
        }
    }
}

fn readme_table(chart: &str) -> String {
    let values = values(chart);
    let mut table = String::from("| value | default | meaning |\n|---|---|---|\n");
    for one in documented(&text(&format!("charts/{chart}/values.yaml"))) {
        let default = at(&values, &one.path);
        let (path, about) = (&one.path, one.about.replace('|', "\\|"));
        table += &format!("| `{path}` | `{default}` | {about} |\n");
    }
    table
}

/// A text with what is between two marks replaced.
fn with_part(text: &str, mark: &str, part: &str) -> String {
    let (begin, end) = (
        format!("<!-- {mark}: written from the values -->\n"),
        format!("<!-- end of {mark} -->\n"),
    );
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("there is no {begin}"));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("there is no {end}"));
    format!("{before}{begin}\n{part}\n{end}{after}")
}

#[test]
fn each_readme_has_all_values_as_they_are() {
    for chart in CHARTS {
        let file = source().join(chart).join("README.md");
        let mut wanted = with_part(
            &fs::read_to_string(&file).unwrap(),
            "values",
            &readme_table(chart),
        );
        if chart == "execpool-sidecar" {
            wanted = with_part(&wanted, "knobs", &knobs::table());
        }
        hold(&file, &wanted);
    }
}

// ---- schemas -------------------------------------------------------------------

/// The file's own schema, with the knobs of the day, and with what the values' comments say. It takes
/// names that it does not know: the templates tell of these, with the one that was meant.
fn schema_of(chart: &str, own: &str) -> Value {
    let mut schema: Value = serde_json::from_str(own).unwrap();
    if chart == "execpool-sidecar" {
        for (name, section) in knobs::sections() {
            schema["properties"][name] = section;
        }
        let upstream = schema["properties"]["upstreams"]["items"]["properties"].take();
        let chosen = ["passwordSecret", "urlSecret", "ca"];
        let mut properties = knobs::upstream();
        properties.extend(chosen.map(|name| (name.to_owned(), upstream[name].clone())));
        schema["properties"]["upstreams"]["items"]["properties"] = properties.into();
    }
    for one in documented(&text(&format!("charts/{chart}/values.yaml"))) {
        let pointer: String = one
            .path
            .split('.')
            .map(|name| format!("/properties/{name}"))
            .collect();
        if let Some(Value::Object(place)) = schema.pointer_mut(&pointer) {
            place.insert("description".into(), one.about.into());
        }
    }
    schema
}

#[test]
fn each_schema_knows_the_knobs_and_the_names_that_there_are() {
    for chart in CHARTS {
        let file = source().join(chart).join("values.schema.json");
        let wanted = schema_of(chart, &fs::read_to_string(&file).unwrap());
        hold(
            &file,
            &(serde_json::to_string_pretty(&wanted).unwrap() + "\n"),
        );
    }
}

#[test]
fn each_schema_is_one_and_takes_the_defaults_and_names_no_value_that_is_not_there() {
    for chart in CHARTS {
        let schema: Value =
            serde_json::from_str(&text(&format!("charts/{chart}/values.schema.json"))).unwrap();
        let validator = jsonschema::draft7::new(&schema).unwrap();
        let values = values(chart);
        let errors: Vec<String> = validator
            .iter_errors(&values)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{chart}: {errors:?}");
        for name in schema["properties"].as_object().unwrap().keys() {
            // What Helm hands down to a chart that another depends on.
            let is_helms = ["global", "enabled"].contains(&name.as_str());
            assert!(
                is_helms || !values[name].is_null(),
                "{chart}: the schema has {name}, the values have not"
            );
        }
    }
}

#[test]
fn the_library_knows_the_sections_and_shapes_of_the_knobs() {
    hold(
        &source().join("execpool-sidecar/templates/_knobs.tpl"),
        &knobs::template(),
    );
}

/// The names of values by path, of everything that has names of its own, as `upstreams[].pool`.
fn names(schema: &Value, path: &str, found: &mut BTreeMap<String, Vec<String>>) {
    if let Some(items) = schema.get("items") {
        names(items, &format!("{path}[]"), found);
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    // What Helm hands down to a chart that another depends on is nobody's choice.
    let is_own = |name: &str| !path.is_empty() || !["global", "enabled"].contains(&name);
    let mut own: Vec<String> = properties
        .keys()
        .filter(|name| is_own(name))
        .cloned()
        .collect();
    own.sort();
    found.insert(path.to_owned(), own);
    for (name, below) in properties {
        names(
            below,
            format!("{path}.{name}").trim_start_matches('.'),
            found,
        );
    }
}

/// The template of a chart with its names.
fn known(chart: &str, prefix: &str) -> String {
    let schema = text(&format!("charts/{chart}/values.schema.json"));
    let mut found = BTreeMap::new();
    names(&serde_json::from_str(&schema).unwrap(), "", &mut found);
    let lines: Vec<String> = found
        .iter()
        .map(|(path, names)| format!("  {}: {}", json!(path), json!(names)))
        .collect();
    format!(
        "{{{{/* Written by tests/charts, from the schema: the names of values by path. */}}}}\n\
         {{{{- define \"{prefix}.known\" -}}}}\n{{\n{}\n}}\n{{{{- end -}}}}\n",
        lines.join(",\n")
    )
}

#[test]
fn each_chart_knows_the_names_of_its_values() {
    let prefixes = ["execpool", "execpoolPlatform", "example"];
    for (chart, prefix) in CHARTS.into_iter().zip(prefixes) {
        let file = source().join(chart).join("templates/_known.tpl");
        hold(&file, &known(chart, prefix));
    }
    // The chart that does not have the library has the search for what was meant under its own name.
    let search = text("charts/execpool-sidecar/templates/_unknown.tpl");
    hold(
        &source().join("execpool/templates/_unknown.tpl"),
        &search.replace("execpool.unknown", "execpoolPlatform.unknown"),
    );
}

// ---- copies --------------------------------------------------------------------

/// A chart can't read what is outside of it.
#[test]
fn the_charts_copies_of_rules_and_dashboards_are_what_deploy_has() {
    let files = source().join("execpool/files");
    hold(
        &files.join("execpool.rules.yaml"),
        &text("deploy/prometheus/execpool.rules.yaml"),
    );
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root().join("deploy/grafana/dashboards")).unwrap() {
        let entry = entry.unwrap();
        let content = fs::read_to_string(entry.path()).unwrap();
        hold(&files.join("dashboards").join(entry.file_name()), &content);
        names.insert(entry.file_name());
    }
    let copies = fs::read_dir(files.join("dashboards")).unwrap();
    let copies: BTreeSet<_> = copies.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, copies);
}

/// What is to be seen without Helm: the file, the chart, and the values.
pub(crate) const MANIFESTS: [(&str, &str, &str); 3] = [
    ("rights.yaml", "execpool", "{fullnameOverride: execpool}"),
    (
        "monitoring.yaml",
        "execpool",
        "{fullnameOverride: execpool, reactor: {kubernetes: 'off'}, podMonitor: {enabled: true}, prometheusRule: {enabled: true}}",
    ),
    (
        "example.yaml",
        "example",
        "{platform: {enabled: false}, job: {enabled: true}, execpool: {serviceAccountName: execpool}}",
    ),
];

fn manifest(chart: &str, values: &str) -> String {
    let charts = Charts::new();
    let rendered = charts
        .chart(chart)
        .release("example")
        .values_text(values)
        .text(Helm::Four)
        .unwrap();
    // Helm puts kinds that it does not know last. A right is not to be there before its limits are.
    let (limits, others): (Vec<&str>, Vec<&str>) = rendered
        .split_inclusive("---\n")
        .map(|part| part.trim_end_matches("---\n"))
        .filter(|part| !part.trim().is_empty())
        .partition(|part| part.contains("\nkind: ValidatingAdmissionPolicy"));
    let order = match limits.is_empty() {
        true => "",
        false => ", with the policy before the rights that it limits",
    };
    let rendered = limits.into_iter().chain(others);
    let rendered: String = rendered.map(|part| format!("---\n{part}")).collect();
    let lines = rendered.lines().map(str::trim_end);
    // Neither Helm's remarks nor empty lines, in which Helm 3 and Helm 4 differ.
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("# Source: "));
    let lines = lines.map(|line| line.replace("managed-by: Helm", "managed-by: kubectl"));
    let mut text = format!(
        "# Rendered from charts/{chart}{order}, and not to be edited: {RENEW}\n#\n\
         #   helm template example charts/{chart} --namespace agents --values - <<< \"{values}\"\n"
    );
    for line in lines {
        text += &line;
        text.push('\n');
    }
    text
}

#[test]
fn the_manifests_are_what_the_charts_come_to() {
    for (name, chart, values) in MANIFESTS {
        let file: PathBuf = root().join("deploy/manifests").join(name);
        hold(&file, &manifest(chart, values));
    }
}

/// `kubectl apply` goes by the order in the file.
#[test]
fn the_manifests_limit_a_right_before_they_give_it() {
    let text = text("deploy/manifests/rights.yaml");
    let place = |kind: &str| {
        let line = format!("\nkind: {kind}\n");
        text.find(&line)
            .unwrap_or_else(|| panic!("there is no {kind}"))
    };
    assert!(place("ValidatingAdmissionPolicy") < place("ValidatingAdmissionPolicyBinding"));
    assert!(place("ValidatingAdmissionPolicyBinding") < place("Role"));
    assert!(place("Role") < place("RoleBinding"));
}

// ---- versions ------------------------------------------------------------------

#[test]
fn charts_and_execpool_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    for chart in CHARTS {
        let about: Value =
            serde_saphyr::from_str(&text(&format!("charts/{chart}/Chart.yaml"))).unwrap();
        assert_eq!(about["version"], version, "{chart}");
        assert_eq!(about["appVersion"], version, "{chart}");
        for dependency in about["dependencies"].as_array().into_iter().flatten() {
            assert_eq!(dependency["version"], version, "{chart}: {dependency}");
        }
    }
    let image = &values("execpool-sidecar")["image"];
    assert_eq!(image["tag"], version);
    let compose: Value = serde_saphyr::from_str(&text("deploy/compose/compose.yaml")).unwrap();
    let repository = image["repository"].as_str().unwrap();
    assert_eq!(
        compose["services"]["execpool"]["image"],
        format!("{repository}:{version}")
    );
}
