//! A dashboard of Grafana's classic JSON.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// Units of Grafana that stand for those of execpool's metrics.
const UNITS: [&str; 5] = ["short", "percentunit", "s", "bytes", "cps"];

/// Something that is asked of Prometheus, and where.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub(crate) place: String,
    pub(crate) text: String,
    pub(crate) legend: String,
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

pub(crate) struct Dashboard {
    uid: String,
    json: Value,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The labels of `{{label}}` in a legend.
pub(crate) fn placeholders(legend: &str) -> Vec<String> {
    let parts = legend.split("{{").skip(1);
    parts
        .filter_map(|part| part.split("}}").next())
        .map(str::to_owned)
        .collect()
}

impl Dashboard {
    pub(crate) fn new(uid: &str, json: Value) -> Self {
        let uid = uid.to_owned();
        Self { uid, json }
    }

    /// Rows and panels as the JSON has them: those of a collapsed row are inside of it.
    fn groups(&self) -> Vec<Vec<&Value>> {
        let top = list(&self.json["panels"]);
        let nested = top.iter().map(|row| list(&row["panels"]).iter().collect());
        let outer = top.iter().collect();
        [outer].into_iter().chain(nested).collect()
    }

    fn panels(&self) -> Vec<&Value> {
        let all = self.groups().into_iter().flatten();
        all.filter(|panel| panel["type"] != "row").collect()
    }

    /// The titles of its rows.
    pub(crate) fn rows(&self) -> Vec<String> {
        let rows = list(&self.json["panels"])
            .iter()
            .filter(|panel| panel["type"] == "row");
        rows.map(|row| string(&row["title"]).to_owned()).collect()
    }

    /// All that it asks: panels, variables, annotations.
    pub(crate) fn expressions(&self) -> Vec<Expression> {
        let one = |what: &str, text: &str, legend: &str| Expression {
            place: format!("{}, {what}", self.uid),
            text: text.to_owned(),
            legend: legend.to_owned(),
        };
        let panels = self.panels().into_iter().flat_map(|panel| {
            let title = string(&panel["title"]);
            let targets = list(&panel["targets"]).iter();
            targets.map(move |asked| {
                one(
                    title,
                    string(&asked["expr"]),
                    string(&asked["legendFormat"]),
                )
            })
        });
        let annotations = list(&self.json["annotations"]["list"]).iter();
        let annotations = annotations.map(|asked| {
            let legend = format!("{} ", string(&asked["textFormat"]));
            one(string(&asked["name"]), string(&asked["expr"]), &legend)
        });
        let variables = list(&self.json["templating"]["list"]).iter();
        let variables = variables
            .filter(|variable| variable["type"] == "query")
            .map(|variable| {
                let query = string(&variable["query"]["query"]);
                let inner = query
                    .strip_prefix("label_values(")
                    .and_then(|rest| rest.strip_suffix(')'));
                let (series, label) = inner.unwrap().rsplit_once(", ").unwrap();
                one(
                    string(&variable["name"]),
                    &format!("count by ({label}) ({series})"),
                    "",
                )
            });
        panels.chain(annotations).chain(variables).collect()
    }

    /// Where its links lead.
    pub(crate) fn urls(&self) -> Vec<String> {
        let of_panels = self
            .panels()
            .into_iter()
            .flat_map(|panel| list(&panel["links"]));
        let all = list(&self.json["links"]).iter().chain(of_panels);
        all.map(|link| string(&link["url"]).to_owned()).collect()
    }

    pub(crate) fn assert_whole(&self) {
        let (uid, json) = (&self.uid, &self.json);
        assert_eq!(string(&json["uid"]), uid);
        assert_eq!(json["title"], uid.replace('-', " / "));
        let schema = json["schemaVersion"].as_u64().unwrap();
        assert!((39..=42).contains(&schema), "{schema}");
        assert_eq!(json["graphTooltip"], 1);
        assert!(list(&json["tags"]).contains(&"execpool".into()));
        let variables = list(&json["templating"]["list"]);
        let names: Vec<&str> = variables.iter().map(|one| string(&one["name"])).collect();
        assert_eq!(names, ["datasource", "namespace", "workload", "pod"]);
        for variable in &variables[1..] {
            assert_eq!(
                (&variable["multi"], &variable["includeAll"]),
                (&true.into(), &true.into())
            );
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
        }
        let other = if uid == "execpool-pod" {
            "/d/execpool-fleet"
        } else {
            "/d/execpool-pod"
        };
        assert!(
            self.urls().iter().any(|url| url == other),
            "{uid} does not lead to {other}"
        );
        assert!(
            self.urls().iter().any(|url| url.ends_with("/docs/sre.md")),
            "{uid}"
        );
        let rows = list(&json["panels"])
            .iter()
            .filter(|panel| panel["type"] == "row");
        let collapsed: Vec<bool> = rows.map(|row| row["collapsed"] == true).collect();
        assert!(
            !collapsed[0] && collapsed[1..].iter().all(|row| *row),
            "{collapsed:?}"
        );
        assert_eq!(self.rows()[0], "Is anything wrong?");
    }

    pub(crate) fn assert_panels(&self) {
        let panels = self.panels();
        let ids: BTreeSet<u64> = panels
            .iter()
            .map(|panel| panel["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), panels.len(), "ids are unique");
        for panel in panels {
            assert_panel(&self.uid, panel);
        }
        for group in self.groups() {
            assert_no_overlap(&group);
        }
    }
}

fn assert_panel(uid: &str, panel: &Value) {
    let title = string(&panel["title"]);
    let place = format!("{uid}, {title}");
    let is_quantity = title.ends_with(')') || title == "Exhaustion state";
    assert!(
        title.ends_with('?') || title.contains("? (") || is_quantity,
        "{place}"
    );
    let description = string(&panel["description"]);
    assert!(
        description.len() > 40 && description.ends_with('.'),
        "{place}: {description}"
    );
    let defaults = &panel["fieldConfig"]["defaults"];
    assert!(
        UNITS.contains(&string(&defaults["unit"])),
        "{place}: {}",
        defaults["unit"]
    );
    assert!(
        !list(&defaults["thresholds"]["steps"]).is_empty(),
        "{place}"
    );
    assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
    assert_unit(title, string(&defaults["unit"]), &place);
    if ["timeseries", "state-timeline"].contains(&string(&panel["type"])) {
        assert_eq!(panel["options"]["legend"]["showLegend"], true, "{place}");
    }
    let targets = list(&panel["targets"]);
    assert!(!targets.is_empty(), "{place}");
    let ids: BTreeSet<&str> = targets
        .iter()
        .map(|asked| string(&asked["refId"]))
        .collect();
    assert_eq!(ids.len(), targets.len(), "{place}");
    for asked in targets {
        let expression = string(&asked["expr"]);
        assert!(
            !expression.contains("{@") && !expression.contains("}}"),
            "{place}: {expression}"
        );
        assert!(
            !string(&asked["legendFormat"]).is_empty(),
            "{place}: {expression}"
        );
        // A rate over less than four scrapes shows gaps: Grafana knows the scrape interval.
        let is_rate = expression.contains("rate(") || expression.contains("increase(");
        let is_right =
            expression.contains("[$__rate_interval]") || expression.contains("[$__range]");
        assert!(!is_rate || is_right, "{place}: {expression}");
        let is_chosen = expression.contains("$namespace");
        assert!(
            is_chosen,
            "{place}: not what the variables choose: {expression}"
        );
    }
}

/// The unit that a title tells is the one that Grafana shows.
fn assert_unit(title: &str, unit: &str, place: &str) {
    let told = title.rsplit_once('(').map_or("", |(_, told)| told);
    let expected = match told {
        told if told.starts_with('%') => "percentunit",
        told if told.starts_with("s)") => "s",
        told if told.starts_with("bytes") => "bytes",
        told if told.starts_with("per second") => "cps",
        _ => "short",
    };
    let is_spread = title.contains("spread"); // the cells of a heatmap are counts
    assert!(unit == expected || is_spread, "{place}: {unit}");
}

fn assert_no_overlap(panels: &[&Value]) {
    let mut taken = BTreeSet::new();
    for panel in panels {
        let grid = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (x, y, w, h) = (grid("x"), grid("y"), grid("w"), grid("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
        for column in x..x + w {
            for line in y..y + h {
                let is_free = taken.insert((column, line));
                assert!(is_free, "{} lies over another panel", panel["title"]);
            }
        }
    }
}
