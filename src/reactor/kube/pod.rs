//! What the API says of the own pod.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::time;

/// The condition's type.
pub(super) const CONDITION: &str = "execpool.dev/PoolAvailable";

/// The exit code for which the chart's rule restarts all containers.
pub(super) const EXIT_CODE: i64 = 88;

/// The parts of the pod that matter, as they were read once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pod {
    pub(super) uid: String,
    /// Restarts that its annotations tell of.
    pub(super) restarts: u64,
    /// The last of them.
    pub(super) last_restart: Option<SystemTime>,
    /// The condition as it stands: whether it is True, and since when.
    pub(super) condition: Option<(bool, Timestamp)>,
    /// Whether exit code 88 has all containers restarted.
    pub(super) has_rule: bool,
    /// Who has made it: kind and name.
    pub(super) owner: Option<(String, String)>,
    pub(super) labels: Vec<(String, String)>,
}

impl Pod {
    /// From the API's answer; `container` is this process's, where it is known.
    pub(super) fn of(answer: &Value, container: Option<&str>) -> Self {
        let metadata = &answer["metadata"];
        let annotation = |key: &str| metadata["annotations"][key].as_str();
        let labels = metadata["labels"].as_object().into_iter().flatten();
        Self {
            uid: text(&metadata["uid"]),
            restarts: annotation("execpool.dev/restarts")
                .and_then(|count| count.parse().ok())
                .unwrap_or(0),
            last_restart: annotation("execpool.dev/last-restart").and_then(time::parsed),
            condition: condition(&answer["status"]["conditions"]),
            has_rule: has_rule(&answer["spec"], container),
            owner: owner(&metadata["ownerReferences"]),
            labels: labels
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
        }
    }

    /// The value of a label.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn condition(all: &Value) -> Option<(bool, Timestamp)> {
    let mut all = all.as_array()?.iter();
    let own = all.find(|one| one["type"] == CONDITION)?;
    let since = own["lastTransitionTime"].as_str()?.parse().ok()?;
    Some((own["status"] == "True", since))
}

/// The reference that says who controls it.
fn owner(references: &Value) -> Option<(String, String)> {
    let mut references = references.as_array()?.iter();
    let own = references.find(|one| one["controller"] == true)?;
    Some((text(&own["kind"]), text(&own["name"])))
}

/// Whether 88 restarts all containers, by the rules of the container of this name; of any, where
/// it is not known. A native sidecar is among the init containers.
fn has_rule(spec: &Value, container: Option<&str>) -> bool {
    let lists = [&spec["initContainers"], &spec["containers"]];
    let all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.filter(|one| container.is_none_or(|name| one["name"] == name))
        .any(|one| restarts_all(&one["restartPolicyRules"]))
}

/// The first rule that fits counts.
fn restarts_all(rules: &Value) -> bool {
    let rules = rules.as_array().into_iter().flatten();
    let first = rules.into_iter().find(|rule| {
        let codes = &rule["exitCodes"];
        let values = codes["values"].as_array().into_iter().flatten();
        let is_in = values
            .into_iter()
            .any(|value| value.as_i64() == Some(EXIT_CODE));
        match codes["operator"].as_str() {
            Some("In") => is_in,
            Some("NotIn") => !is_in,
            _ => false,
        }
    });
    first.is_some_and(|rule| rule["action"] == "RestartAllContainers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(action: &str, operator: &str, values: &[i64]) -> Value {
        json!({"action": action, "exitCodes": {"operator": operator, "values": values}})
    }

    fn spec(rules: &[Value]) -> Value {
        json!({
            "initContainers": [{"name": "execpool", "restartPolicyRules": rules}],
            "containers": [{"name": "app"}],
        })
    }

    #[test]
    fn the_first_rule_for_88_has_to_restart_all_containers() {
        let all = "RestartAllContainers";
        for (rules, expected) in [
            (vec![], false),
            (vec![rule(all, "In", &[88])], true),
            (vec![rule(all, "In", &[7, 88])], true),
            (vec![rule(all, "In", &[7])], false),
            (vec![rule("Restart", "In", &[88])], false),
            (vec![rule(all, "NotIn", &[0])], true),
            (vec![rule(all, "NotIn", &[88])], false),
            (
                vec![rule("Restart", "In", &[88]), rule(all, "In", &[88])],
                false,
            ),
            (
                vec![rule("Restart", "In", &[1]), rule(all, "In", &[88])],
                true,
            ),
            (vec![rule(all, "Near", &[88])], false),
        ] {
            let spec = spec(&rules);
            assert_eq!(has_rule(&spec, Some("execpool")), expected, "{spec}");
            assert_eq!(has_rule(&spec, None), expected, "{spec}");
        }
    }

    #[test]
    fn the_rule_of_another_container_is_none_of_ours() {
        let spec = spec(&[rule("RestartAllContainers", "In", &[88])]);
        assert!(!has_rule(&spec, Some("app")));
        assert!(!has_rule(&spec, Some("other")));
        assert!(!has_rule(&Value::Null, None));
    }

    #[test]
    fn what_matters_of_a_pod_is_read() {
        let answer = json!({
            "metadata": {
                "uid": "u-1",
                "labels": {"pod-template-hash": "abc"},
                "annotations": {
                    "execpool.dev/restarts": "3",
                    "execpool.dev/last-restart": "2026-01-02T03:05:05Z",
                },
                "ownerReferences": [
                    {"kind": "Thing", "name": "x"},
                    {"kind": "ReplicaSet", "name": "agent-abc", "controller": true},
                ],
            },
            "spec": {},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": CONDITION, "status": "False", "lastTransitionTime": "2026-01-02T00:00:00Z"},
            ]},
        });
        let pod = Pod::of(&answer, None);
        assert_eq!((pod.uid.as_str(), pod.restarts), ("u-1", 3));
        assert_eq!(pod.last_restart, time::parsed("2026-01-02T03:05:05Z"));
        assert_eq!(pod.condition.map(|(status, _)| status), Some(false));
        assert_eq!(pod.owner, Some(("ReplicaSet".into(), "agent-abc".into())));
        assert_eq!(pod.label("pod-template-hash"), Some("abc"));
    }

    #[test]
    fn a_pod_of_which_nothing_is_known_is_no_reason_to_panic() {
        for odd in [
            Value::Null,
            json!([]),
            json!({"metadata": 7, "status": {"conditions": {}}}),
        ] {
            let pod = Pod::of(&odd, Some("execpool"));
            assert_eq!((pod.restarts, pod.has_rule), (0, false));
        }
        let odd = json!({"metadata": {"annotations": {"execpool.dev/restarts": "many"}}});
        assert_eq!(Pod::of(&odd, None).restarts, 0);
    }
}
