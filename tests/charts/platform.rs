//! The chart execpool: rights, the policy, monitoring, the network.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::support::helm::{Charts, NAMESPACE, Objects};
use super::support::tools;
use super::tools::examples;
use super::written::text;

fn platform(values: Value) -> Objects {
    let charts = Charts::new();
    charts.chart("execpool").values(values).objects()
}

fn platform_of(name: &str) -> Objects {
    let charts = Charts::new();
    let all = examples("execpool");
    let (_, values) = all.iter().find(|(one, _)| one == name).unwrap();
    charts.chart("execpool").values_text(values).objects()
}

/// What a Role allows: "verb resource", with the names that it is limited to.
fn rights(objects: &Objects) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let words = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    for rule in objects.one("Role")["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    let names = words(&rule["resourceNames"]).join(",");
                    let right = format!("{verb} {group}/{resource} {names}");
                    found.insert(right.trim().to_owned());
                }
            }
        }
    }
    found
}

fn expected(rights: &[&str]) -> BTreeSet<String> {
    rights.iter().map(|one| (*one).to_owned()).collect()
}

const LEAST: [&str; 4] = [
    "get /pods",
    "patch /pods",
    "create events.k8s.io/events",
    "patch events.k8s.io/events",
];

#[test]
fn the_role_has_the_rights_that_are_needed_and_no_other() {
    let mut usual = expected(&LEAST);
    usual.insert("patch /pods/status".into());
    assert_eq!(rights(&platform(json!({}))), usual);
    let liveness = platform(json!({"reactor": {"restart": "liveness"}}));
    assert_eq!(rights(&liveness), usual);
    let mut evict = expected(&LEAST);
    evict.insert("create /pods/eviction".into());
    assert_eq!(rights(&platform_of("evict")), evict);
    let mut rollout = usual;
    for (resource, name) in [("deployments", "agents"), ("statefulsets", "workers")] {
        for verb in ["get", "patch"] {
            rollout.insert(format!("{verb} apps/{resource} {name}"));
        }
    }
    assert_eq!(rights(&platform_of("rollout")), rollout);
}

#[test]
fn the_rights_are_the_named_service_accounts_in_its_own_namespace() {
    let objects = platform(json!({"serviceAccount": {"name": "agents"}}));
    let account = objects.one("ServiceAccount");
    assert_eq!(account["metadata"]["name"], "agents");
    // No other container gets a token of it.
    assert_eq!(account["automountServiceAccountToken"], false);
    let binding = objects.one("RoleBinding");
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": "agents", "namespace": NAMESPACE}])
    );
    assert_eq!(
        binding["roleRef"]["name"],
        objects.one("Role")["metadata"]["name"]
    );
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        assert!(objects.all(kind).is_empty());
    }
    let there = platform(json!({"serviceAccount": {"create": false}}));
    assert!(there.all("ServiceAccount").is_empty());
}

#[test]
fn while_the_reactor_is_off_there_is_nothing() {
    assert_eq!(platform_of("off").kinds(), Vec::<&str>::new());
}

#[test]
fn the_policy_is_wherever_the_role_is_unless_one_accepts_to_be_without() {
    for (name, _) in examples("execpool") {
        let objects = platform_of(&name);
        let roles = objects.all("Role").len();
        let policies = objects.all("ValidatingAdmissionPolicy").len();
        let wanted = if name == "wide" { 0 } else { roles };
        assert_eq!(policies, wanted, "{name}");
        let bindings = objects.all("ValidatingAdmissionPolicyBinding").len();
        assert_eq!(bindings, policies, "{name}");
    }
    let objects = platform(json!({}));
    let policy = objects.one("ValidatingAdmissionPolicy");
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let condition = &policy["spec"]["matchConditions"][0]["expression"];
    let account = format!("\"system:serviceaccount:{NAMESPACE}:execpool\"");
    assert!(
        condition.as_str().unwrap().ends_with(&account),
        "{condition}"
    );
    let binding = objects.one("ValidatingAdmissionPolicyBinding");
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    assert_eq!(
        binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"],
        json!({"kubernetes.io/metadata.name": NAMESPACE})
    );
    // It belongs to the cluster: another namespace's release has another name.
    let name = policy["metadata"]["name"].as_str().unwrap();
    assert_eq!(name, "demo-execpool.agents.execpool.dev");
}

#[test]
fn every_object_is_labelled_as_kubernetes_recommends() {
    for name in ["monitoring", "network", "rollout"] {
        for object in platform_of(name).0 {
            let labels = &object["metadata"]["labels"];
            for label in [
                "name",
                "instance",
                "version",
                "component",
                "part-of",
                "managed-by",
            ] {
                let label = format!("app.kubernetes.io/{label}");
                assert!(labels[&label].is_string(), "{label}: {object}");
            }
            assert!(labels["helm.sh/chart"].is_string());
        }
    }
}

// ---- monitoring --------------------------------------------------------------

/// The schema that an API server with the Prometheus Operator holds an object against.
fn definition(plural: &str) -> jsonschema::Validator {
    let file = tools::prometheus_crds().join(format!("monitoring.coreos.com_{plural}.yaml"));
    let text = fs::read_to_string(&file).unwrap();
    let mut definition: Value = serde_saphyr::from_str(&text).unwrap();
    let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    adapt(&mut schema);
    jsonschema::draft7::new(&schema).unwrap()
}

/// As an API server reads it, with strict validation: what is not named is an error.
fn adapt(schema: &mut Value) {
    if let Value::Object(fields) = schema {
        let is_open = [
            "additionalProperties",
            "x-kubernetes-preserve-unknown-fields",
        ]
        .iter()
        .any(|name| fields.contains_key(*name));
        if fields.contains_key("properties") && !is_open {
            fields.insert("additionalProperties".into(), json!(false));
        }
        // Go's own way to say that case does not matter, of a field that is not used here.
        if matches!(&fields.get("pattern"), Some(Value::String(it)) if it.contains("(?i)")) {
            fields.remove("pattern");
        }
        if fields.contains_key("x-kubernetes-int-or-string") {
            fields.insert("type".into(), json!(["integer", "string"]));
            fields.remove("anyOf");
        }
        fields.values_mut().for_each(adapt);
    } else if let Value::Array(all) = schema {
        all.iter_mut().for_each(adapt);
    }
}

fn errors(validator: &jsonschema::Validator, object: &Value) -> Vec<String> {
    let errors = validator.iter_errors(object);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_prometheus_operator_takes_what_the_chart_gives_it() {
    let objects = platform_of("monitoring");
    for (kind, plural) in [
        ("PodMonitor", "podmonitors"),
        ("PrometheusRule", "prometheusrules"),
    ] {
        let validator = definition(plural);
        let object = objects.one(kind);
        assert_eq!(errors(&validator, object), Vec::<String>::new());
        assert_eq!(object["metadata"]["labels"]["release"], "prometheus");
        // It does find what is wrong.
        let mut wrong = object.clone();
        wrong["spec"]["nothing_of_this_name"] = json!(1);
        assert_eq!(errors(&validator, &wrong).len(), 1);
    }
    let rule = objects.one("PrometheusRule");
    assert_eq!(rule["metadata"]["namespace"], "monitoring");
    let own: Value =
        serde_saphyr::from_str(&text("deploy/prometheus/execpool.rules.yaml")).unwrap();
    assert_eq!(rule["spec"], own);
}

/// The rules and dashboards go by labels, which both ways of scraping must give.
#[test]
fn the_pod_monitor_gives_series_the_labels_that_the_example_for_prometheus_gives() {
    let objects = platform_of("monitoring");
    let endpoint = &objects.one("PodMonitor")["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], "execpool");
    let scrape: Value =
        serde_saphyr::from_str(&text("deploy/prometheus/scrape.example.yaml")).unwrap();
    let by_hand = scrape["scrape_configs"][0]["relabel_configs"]
        .as_array()
        .unwrap();
    let ours: Vec<Value> = endpoint["relabelings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = one.to_string();
            let text = text.replace("sourceLabels", "source_labels");
            serde_json::from_str(&text.replace("targetLabel", "target_label")).unwrap()
        })
        .collect();
    // The first one there finds the port, which the operator does by its name.
    for rule in &by_hand[1..] {
        assert!(ours.contains(rule), "{rule} is not in {ours:?}");
    }
}

#[test]
fn the_dashboards_are_where_grafana_looks_for_them() {
    let objects = platform_of("monitoring");
    let maps = objects.all("ConfigMap");
    assert_eq!(maps.len(), 2);
    for map in maps {
        assert_eq!(map["metadata"]["namespace"], "monitoring");
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        assert_eq!(map["metadata"]["annotations"]["grafana_folder"], "execpool");
        let (name, content) = map["data"].as_object().unwrap().iter().next().unwrap();
        let content: Value = serde_json::from_str(content.as_str().unwrap()).unwrap();
        let original: Value =
            serde_json::from_str(&text(&format!("deploy/grafana/dashboards/{name}"))).unwrap();
        assert_eq!(content, original);
        // What `kubectl apply` can remember of an object.
        assert!(map.to_string().len() < 262_144, "{name}");
    }
    let other = platform(json!({"dashboards": {
        "enabled": true, "label": "look_here", "labelValue": "yes",
    }}));
    for map in other.all("ConfigMap") {
        assert_eq!(map["metadata"]["labels"]["look_here"], "yes");
        assert_eq!(map["metadata"]["namespace"], NAMESPACE);
    }
}

// ---- network -------------------------------------------------------------------

#[test]
fn the_network_policy_lets_in_who_scrapes_and_out_to_the_database_names_and_api() {
    let objects = platform_of("network");
    let policy = &objects.one("NetworkPolicy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        policy["podSelector"],
        json!({"matchLabels": {"app.kubernetes.io/name": "agents"}})
    );
    let ports = |rule: &Value| -> Vec<u64> {
        let all = rule["ports"].as_array().unwrap();
        all.iter()
            .map(|one| one["port"].as_u64().unwrap())
            .collect()
    };
    let ingress: Vec<_> = policy["ingress"]
        .as_array()
        .unwrap()
        .iter()
        .map(ports)
        .collect();
    assert_eq!(ingress, [vec![9464], vec![8080]]);
    let egress: Vec<_> = policy["egress"]
        .as_array()
        .unwrap()
        .iter()
        .map(ports)
        .collect();
    assert_eq!(egress, [vec![5432], vec![53, 53], vec![443, 6443]]);
    assert_eq!(
        policy["egress"][0]["to"],
        json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}])
    );
    let off = platform(json!({
        "reactor": {"kubernetes": "off"},
        "networkPolicy": {
            "enabled": true, "podSelector": {"matchLabels": {"a": "b"}},
            "egress": {"enabled": true, "databases": [{"podSelector": {}}], "dns": []},
        },
    }));
    let egress = off.one("NetworkPolicy")["spec"]["egress"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(egress, 1, "who makes no call needs no way to the API");
    // A rule of Kubernetes' that names nobody lets in everybody.
    let nobody = platform(json!({"networkPolicy": {
        "enabled": true, "podSelector": {"matchLabels": {"a": "b"}}, "metricsFrom": [],
    }}));
    let ingress = &nobody.one("NetworkPolicy")["spec"]["ingress"];
    assert_eq!(*ingress, json!([]), "nobody may scrape");
    let ingress_only = platform(json!({"networkPolicy": {
        "enabled": true, "podSelector": {"matchLabels": {"a": "b"}},
    }}));
    let policy = &ingress_only.one("NetworkPolicy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress"]));
    assert!(policy.get("egress").is_none());
}
