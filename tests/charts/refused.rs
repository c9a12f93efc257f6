//! What can't work is refused, with a sentence that says what to do about it.

use serde_json::{Value, json};

use super::knobs;
use super::support::helm::{Charts, Helm};
use super::written::CHARTS;

/// Both Helms complain, and say this.
fn refuses(chart: &str, kubernetes: &'static str, values: Value, sentence: &str) {
    let charts = Charts::new();
    let render = charts.chart(chart).kubernetes(kubernetes).values(values);
    for said in render.complaints() {
        assert!(said.contains(sentence), "{sentence:?} is not in:\n{said}");
    }
}

fn sidecar(values: Value, sentence: &str) {
    refuses("example", "1.37.0", json!({"execpool": values}), sentence);
}

fn platform(values: Value, sentence: &str) {
    refuses("execpool", "1.37.0", values, sentence);
}

/// Where it is, what was meant, and what else there is.
#[test]
fn a_slip_in_a_name_is_told_with_its_place_and_the_name_that_was_meant() {
    let slips = [
        (json!({"bugdet": {"size": 5}}), "bugdet", "execpool.budget"),
        (
            json!({"budget": {"sise": 5}}),
            "budget.sise",
            "execpool.budget.size",
        ),
        (
            json!({"socket": {"acess": "mode"}}),
            "socket.acess",
            "execpool.socket.access",
        ),
        (
            json!({"session": {"transaction": {"ned": "3m"}}}),
            "session.transaction.ned",
            "execpool.session.transaction.end",
        ),
        (
            json!({"upstreams": [{"ulr": "x"}]}),
            "upstreams[0].ulr",
            "execpool.upstreams[0].url",
        ),
        (
            json!({"upstreams": [{"url": "postgresql://a@b/c"}, {"pool": {"sise": 1}}]}),
            "upstreams[1].pool.sise",
            "execpool.upstreams[1].pool.size",
        ),
        // Written as others write it, or at the wrong place.
        (
            json!({"reactor": {"appProbe": ":80/"}}),
            "reactor.appProbe",
            "execpool.reactor.app_probe",
        ),
        (
            json!({"size": 3}),
            "size",
            "execpool.budget.size or execpool.pool.size or execpool.upstreams[].pool.size",
        ),
        (
            json!({"image": {"maxConnections": 3}}),
            "image.maxConnections",
            "execpool.capacity.maxConnections",
        ),
    ];
    for (values, slip, meant) in slips {
        let said = format!(
            "execpool.{slip}: there is no such value. Did you mean {meant}? The names in execpool"
        );
        sidecar(values, &said);
    }
    platform(
        json!({"podMonitr": {}}),
        "\npodMonitr: there is no such value. Did you mean podMonitor? The names here are: accept",
    );
    platform(
        json!({"networkPolicy": {"egress": {"database": []}}}),
        "\nnetworkPolicy.egress.database: there is no such value. Did you mean networkPolicy.egress.databases?",
    );
    let values = json!({"platform": {"reactor": {"owners": [{"knid": "Deployment"}]}}});
    // The schema would say that kind is missing.
    refuses("example", "1.37.0", values, "'/reactor/owners/0'");
    let values = json!({"platform": {"podMonitor": {"enabeld": true}}});
    refuses(
        "example",
        "1.37.0",
        values,
        "platform.podMonitor.enabeld: there is no such value. Did you mean platform.podMonitor.enabled?",
    );
    refuses(
        "example",
        "1.37.0",
        json!({"replicas": 2}),
        "Did you mean replicaCount?",
    );
    refuses(
        "example",
        "1.37.0",
        json!({"job": {"enable": true}}),
        "Did you mean job.enabled?",
    );
}

/// Nothing is guessed where nothing is near, and all slips are told at once.
#[test]
fn names_that_are_like_no_other_are_told_with_those_that_there_are() {
    let charts = Charts::new();
    let values = json!({"execpool": {"budget": {"elephant": 1, "owerflow": 2}, "xyz": 1}});
    for said in charts.chart("example").values(values).complaints() {
        for line in [
            "\nexecpool.budget.elephant: there is no such value. The names in execpool.budget are: overflow, size, warm.",
            "\nexecpool.budget.owerflow: there is no such value. Did you mean execpool.budget.overflow?",
            "\nexecpool.xyz: there is no such value. The names in execpool are: app, budget,",
        ] {
            assert!(said.contains(line), "{line:?} is not in:\n{said}");
        }
    }
}

/// Helm's linter lets a `fail` pass, as values may be missing; a name that there is none of is no such case.
#[test]
fn the_linter_finds_a_slip_in_a_name_too() {
    let charts = Charts::new();
    for (chart, slip) in [
        ("example", "execpool.budget.sise=3"),
        ("example", "platform.podMonitr.enabled=true"),
        ("example", "replicas=3"),
        ("execpool", "podMonitr.enabled=true"),
    ] {
        for helm in Helm::BOTH {
            let words = ["lint", chart, "--kube-version", "1.37.0", "--set", slip];
            let said = helm.run(&charts.path(""), &words).unwrap_err();
            assert!(said.contains("1 chart(s) failed"), "{said}");
            assert!(said.contains("Did you mean"), "{said}");
        }
    }
}

/// What has names of its own, such as labels, a probe or a volume, is not looked into.
#[test]
fn names_that_are_the_users_own_are_taken_as_they_are() {
    let charts = Charts::new();
    let values = json!({
        "global": {"any": 1}, "podLabels": {"tier": "a"}, "readinessProbe": {"tcpSocket": {"port": 1}},
        "execpool": {
            "otel": {"resourceAttributes": {"service.name": "a"}}, "resources": {"requests": {"cpu": 1}},
            "podSecurityContext": {"runAsNonRoot": true}, "extraVolumes": [{"name": "a", "emptyDir": {}}],
        },
    });
    assert!(
        !charts
            .chart("example")
            .values(values)
            .objects()
            .0
            .is_empty()
    );
}

#[test]
fn a_library_that_was_switched_off_with_its_lines_left_in_is_told() {
    sidecar(
        json!({"enabled": true, "xyz": 1}),
        "execpool.xyz: there is no such value",
    );
    sidecar(json!({"enabled": false}), "condition: execpool.enabled");
}

#[test]
fn a_value_of_another_kind_is_told() {
    sidecar(
        json!({"budget": {"size": "many"}}),
        "got string, want integer",
    );
    sidecar(json!({"budget": {"size": 0}}), "minimum: got 0, want 1");
    sidecar(
        json!({"shutdown": {"mode": "simple"}}),
        "'sidecar', 'plain'",
    );
    sidecar(
        json!({"socket": {"access": "all"}}),
        "'fsGroup', 'group', 'mode'",
    );
    sidecar(json!({"runAsUser": 0}), "minimum: got 0, want 1");
    platform(
        json!({"reactor": {"restart": "rollout", "owners": [{"kind": "Job", "name": "a"}]}}),
        "'Deployment', 'StatefulSet', 'DaemonSet'",
    );
}

/// What execpool itself would only say in the pod is said before there is one.
#[test]
fn a_text_that_a_knob_does_not_take_is_told_with_what_it_takes() {
    let charts = Charts::new();
    for (number, (path, _, takes)) in knobs::shaped().enumerate() {
        // A schema that knows numbers has let it through.
        let value = match path.as_str() {
            "exhaustion.warning" => json!(0.12345),
            _ => json!("nonsense"),
        };
        let names: Vec<&str> = path.split('.').collect();
        let mut values = json!({});
        match path.strip_prefix("upstreams[].") {
            Some(own) => {
                values["upstreams"] = json!([{"url": "postgresql://a@b/c"}]);
                values["upstreams"][0][own] = value;
            }
            None => {
                let below = names[1..].iter().rev();
                let inner = below.fold(value, |value, name| json!({*name: value}));
                values[names[0]] = inner;
            }
        }
        if path == "listen.dir" {
            values["app"] = json!({"url": "postgresql://a@/b?host=/run/x"});
        }
        let render = charts.chart("example").values(json!({"execpool": values}));
        // The sentences are the chart's own: one Helm is enough for each.
        let said = render.text(Helm::BOTH[number % 2]).unwrap_err();
        let shown = path.replace("[]", "[0]");
        assert!(said.contains(&shown), "{shown} is not in:\n{said}");
        assert!(said.contains(&takes), "{takes:?} is not in:\n{said}");
    }
}

/// YAML has octal numbers.
#[test]
fn permissions_that_yaml_has_read_as_a_number_are_told() {
    let charts = Charts::new();
    let render = charts
        .chart("example")
        .values_text("execpool: {listen: {mode: 0660}}");
    for said in render.complaints() {
        assert!(
            said.contains("reads a bare 0660 as the number 432: quote it"),
            "{said}"
        );
    }
}

#[test]
fn databases_are_named_and_their_passwords_are_not() {
    sidecar(json!({"upstreams": []}), "which database is the pool for?");
    sidecar(
        json!({"upstreams": [{"name": "a"}]}),
        "upstreams[0] needs a url",
    );
    let secret = "Put it into a Secret";
    sidecar(
        json!({"upstreams": [{"url": "postgresql://me:pw@h/b"}]}),
        secret,
    );
    sidecar(
        json!({"upstreams": [{"url": "postgresql://me@h/b?password=pw"}]}),
        secret,
    );
    let url = "postgresql://me@h/b";
    let both = json!({"upstreams": [{"url": url, "urlSecret": {"name": "x"}}]});
    sidecar(both, "both url and urlSecret");
    let twice = json!({"upstreams": [{
        "url": url, "password_file": "/x", "passwordSecret": {"name": "x"},
    }]});
    sidecar(twice, "keep one");
    sidecar(
        json!({"upstreams": [{"urlSecret": {"name": "x"}}]}),
        "give it a name",
    );
    sidecar(
        json!({"upstreams": [{"url": url, "ca": {"key": "x"}}]}),
        "either secret or configMap",
    );
    sidecar(
        json!({"upstreams": [{"url": format!("{url}?sslrootcert=/x"), "ca": {"secret": "x"}}]}),
        "sslrootcert: keep one",
    );
    sidecar(
        json!({"upstreams": [{"name": "a", "urlSecret": {"name": "x"}, "ca": {"secret": "x"}}]}),
        "extraVolumes",
    );
    sidecar(
        json!({"upstreams": [{"name": "*", "url": url}]}),
        "app.url is empty",
    );
    sidecar(
        json!({"upstreams": [], "configMap": "x"}),
        "app.url is empty",
    );
    sidecar(
        json!({"upstreams": [{"url": "postgresql://h/b"}]}),
        "names no user",
    );
}

/// The password is nowhere in what is said about it.
#[test]
fn a_password_in_a_url_is_not_repeated() {
    let charts = Charts::new();
    let values = json!({"execpool": {"upstreams": [{"url": "postgresql://me:geheim@h/b"}]}});
    for said in charts.chart("example").values(values).complaints() {
        assert!(!said.contains("geheim"), "{said}");
    }
}

#[test]
fn a_cluster_that_lacks_what_was_chosen_is_told_of() {
    let off = json!({"enabled": false});
    refuses(
        "example",
        "1.28.9",
        json!({"platform": off, "execpool": {"serviceAccountName": ""}}),
        "Kubernetes v1.28.9 has no native sidecars (1.29 and newer do). Set shutdown.mode: plain",
    );
    for (chart, kubernetes, restart) in [
        ("example", "1.28.9", "off"),
        ("example", "1.35.2", "exit-code"),
        ("execpool", "1.29.0", "off"),
    ] {
        let values = match chart {
            "example" => json!({"platform": off, "execpool": {"reactor": {"restart": restart}}}),
            _ => json!({}),
        };
        refuses(
            chart,
            kubernetes,
            values,
            "helm template asks none, and is told by  --kube-version 1.36",
        );
    }
    for chosen in [json!("auto"), json!("never")] {
        let values = json!({"execpool": {
            "reactor": {"restart": "exit-code"}, "restartPolicyRules": chosen,
        }});
        refuses(
            "example",
            "1.35.2",
            values,
            "Choose reactor.restart: liveness",
        );
    }
    let never = json!({"reactor": {"restart": "exit-code"}, "restartPolicyRules": "never"});
    sidecar(never, "restartPolicyRules: always");
    refuses(
        "execpool",
        "1.29.0",
        json!({}),
        "has no ValidatingAdmissionPolicy (1.30 and newer do)",
    );
    for chart in ["example", "execpool"] {
        refuses(chart, "1.24.0", json!({}), "1.25.0-0");
    }
}

#[test]
fn what_needs_the_reactor_is_refused_without_it() {
    let none = "";
    let sidecar = |values: Value, sentence: &str| {
        let values = json!({"platform": {"enabled": false}, "execpool": values});
        refuses("example", "1.37.0", values, sentence);
    };
    for restart in ["evict", "rollout"] {
        sidecar(
            json!({"serviceAccountName": none, "reactor": {"restart": restart}}),
            "set serviceAccountName",
        );
    }
    let gate = json!({"enabled": true});
    sidecar(
        json!({"serviceAccountName": none, "readinessGate": gate}),
        "no pod would become ready",
    );
    sidecar(
        json!({"readinessGate": gate, "reactor": {"kubernetes": false}}),
        "no pod would become ready",
    );
    sidecar(
        json!({"readinessGate": gate, "reactor": {"condition": false}}),
        "reactor.condition is off",
    );
    for dry_run in [json!(true), json!("on"), json!("true")] {
        sidecar(
            json!({"readinessGate": gate, "reactor": {"dry_run": dry_run}}),
            "with reactor.dry_run nothing is written to the pod",
        );
    }
    sidecar(
        json!({"serviceAccountName": none, "reactor": {"kubernetes": "on"}}),
        "serviceAccountName is not set",
    );
}

#[test]
fn an_app_that_has_a_liveness_probe_keeps_it_only_if_the_sidecar_asks_it() {
    let charts = Charts::new();
    let http = json!({"httpGet": {"path": "/healthz", "port": 8080}});
    let tcp = json!({"tcpSocket": {"port": 8080}});
    let command = json!({"exec": {"command": ["true"]}});
    let named = json!({"httpGet": {"path": "/healthz", "port": "http"}});
    let named_tcp = json!({"tcpSocket": {"port": "http"}});
    let tls = json!({"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTPS"}});
    let headers = json!({"httpGet": {
        "path": "/healthz", "port": 8080, "httpHeaders": [{"name": "Host", "value": "a"}],
    }});
    let slow = json!({"httpGet": {"path": "/healthz", "port": 8080}, "timeoutSeconds": 5});
    let with = |own: &Value, asked: Option<&str>| {
        let mut reactor = json!({"restart": "liveness"});
        if let Some(asked) = asked {
            reactor["app_probe"] = json!(asked);
        }
        let values = json!({"livenessProbe": own, "execpool": {"reactor": reactor}});
        charts.chart("example").values(values)
    };
    let refused = [
        (&http, None, "reactor.app_probe: \\\":8080/healthz\\\""),
        (&tcp, None, "tcp://127.0.0.1:8080"),
        (&command, None, "choose reactor.restart: exit-code"),
        (
            &http,
            Some("http://127.0.0.1:8081/healthz"),
            "should be the same",
        ),
        (&tcp, Some("tcp://127.0.0.1:81"), "should be the same"),
        (&tls, None, "tcp://127.0.0.1:8080"),
        (
            &named,
            None,
            "reactor.app_probe: \\\":PORT/healthz\\\". PORT is the number of the port that is called \\\"http\\\".",
        ),
        (&named_tcp, None, "tcp://127.0.0.1:PORT"),
        (&tls, Some(":8080/healthz"), "without TLS"),
        (&headers, Some(":8080/healthz"), "without headers of yours"),
        (&slow, Some(":8080/healthz"), "restarted for nothing"),
    ];
    for (own, asked, sentence) in refused {
        for said in with(own, asked).complaints() {
            let plain = sentence.replace("\\\"", "\"");
            let is_said = said.contains(sentence) || said.contains(&plain);
            assert!(is_said, "{sentence:?} is not in:\n{said}");
        }
    }
    let accepted = [
        (&http, "http://127.0.0.1:8080/healthz"),
        (&http, ":8080/healthz"),
        (&tcp, "tcp://127.0.0.1:8080"),
        (&command, "http://127.0.0.1:8080/healthz"),
        (&named, "http://127.0.0.1:8080/healthz"),
        (&named_tcp, "tcp://127.0.0.1:8080"),
        (&tls, "tcp://127.0.0.1:8080"),
        (&headers, "tcp://127.0.0.1:8080"),
    ];
    for (own, asked) in accepted {
        assert!(!with(own, Some(asked)).objects().0.is_empty());
    }
}

#[test]
fn a_chart_says_where_else_its_own_probe_is() {
    let charts = Charts::new();
    let values = json!({"readinessProbe": {"exec": {"command": ["true"]}}, "execpool": {
        "reactor": {"restart": "liveness"}, "app": {"livenessProbe": "readinessProbe"},
    }});
    for said in charts.chart("example").values(values).complaints() {
        assert!(said.contains("readinessProbe has one already"), "{said}");
    }
    let nowhere = json!({"execpool": {
        "reactor": {"restart": "liveness"}, "app": {"livenessProbe": "not.there.at.all"},
    }});
    let objects = charts.chart("example").values(nowhere).objects();
    assert!(objects.container("app")["livenessProbe"].is_object());
}

#[test]
fn a_budget_that_the_pods_together_can_not_have_is_told_with_one_that_they_can() {
    let with = |more: Value| {
        let mut values = json!({"replicaCount": 4, "execpool": {
            "budget": {"size": 20, "overflow": 5}, "capacity": {"maxConnections": 100},
        }});
        if let Some(more) = more.as_object() {
            for (name, value) in more {
                values[name] = value.clone();
            }
        }
        values
    };
    // (4 + 1) × 26 = 130; 97 / 5 = 19, less 5 and 1.
    let said = "4 pods, and 1 more while they are replaced, may each open 20 + 5 + 1 connections";
    refuses("example", "1.37.0", with(json!({})), said);
    refuses(
        "example",
        "1.37.0",
        with(json!({})),
        "130, but the database takes 97",
    );
    refuses(
        "example",
        "1.37.0",
        with(json!({})),
        "Lower budget.size to 13",
    );
    let scaled = with(json!({"autoscaling": {"enabled": true, "maxReplicas": 9}}));
    refuses("example", "1.37.0", scaled, "9 pods, and 3 more");
    sidecar(
        json!({"capacity": {"maxConnections": 100, "replicas": 50, "maxSurge": 0}}),
        "Lower budget.size and budget.overflow",
    );
    refuses(
        "example",
        "1.37.0",
        json!({"replicaCount": 0, "execpool": {"capacity": {"maxConnections": 100}}}),
        "set capacity.replicas",
    );
}

#[test]
fn numbers_for_the_database_that_leave_nothing_are_told() {
    sidecar(
        json!({"capacity": {"maxConnections": 100, "reserved": 100}}),
        "capacity.reserved 100 leaves nothing of capacity.maxConnections 100",
    );
    sidecar(
        json!({"capacity": {"maxConnections": 100, "maxSurge": "some"}}),
        "at '/capacity/maxSurge': 'some' does not match",
    );
}

/// As execpool reads it, which would say so in the log of a pod that fails again and again.
#[test]
fn a_url_that_leads_nowhere_is_told() {
    let told = |url: &str, sentence: &str| {
        sidecar(json!({"upstreams": [{"url": url}]}), sentence);
    };
    for mine in [
        "/c?host=/run/execpool",
        "/c?host=%2Frun%2Fexecpool/",
        "%2Frun%2Fexecpool/c",
    ] {
        told(
            &format!("postgresql://a@{mine}"),
            "upstreams[0].url leads to execpool's own socket",
        );
    }
    for nowhere in ["postgresql:///c", "postgresql://a@/c?port=5433"] {
        told(nowhere, "upstreams[0].url names no host");
    }
    told(
        "postgresql://a@b:port/c",
        "a port that is no number: \"b:port\"",
    );
    told("postgresql://a@b:1,c:x2/d", "a port that is no number");
    told(
        "postgresql://a@b/c?application_name=x&sslmode=verify",
        "sslmode=verify, but there are: disable, allow, prefer, require, verify-ca, verify-full",
    );
    let charts = Charts::new();
    for url in [
        "postgresql://a@b",
        "postgresql://a@b:1,c,d:3/e?sslmode=verify-full",
        "postgres://a@[fe80::a]:5432/c",
        "postgresql://a@[::1]/c",
        "postgresql://u%40x@db.internal:6432/c?host_x=1",
        "postgresql://a@/c?host=db.internal",
        "postgresql://a@/c?host=/run/cloudsql/it",
    ] {
        let upstreams = json!([{"url": url, "name": "c"}]);
        let values = json!({"execpool": {"upstreams": upstreams}});
        let said = charts.chart("example").values(values).text(Helm::Four);
        assert!(said.is_ok(), "{url}: {said:?}");
    }
    for from in [
        json!({"extraEnv": [{"name": "PGHOST", "value": "h"}]}),
        json!({"extraEnvFrom": [{"secretRef": {"name": "h"}}]}),
    ] {
        let render = charts.chart("example").values(json!({"execpool": from}));
        let nowhere = json!({"execpool": {"upstreams": [{"url": "postgresql://a@/c"}]}});
        let said = render.values(nowhere).text(Helm::Three);
        assert!(said.is_ok(), "{said:?}");
    }
}

#[test]
fn a_group_of_the_pods_own_and_the_sockets_group_are_one() {
    sidecar(
        json!({"podSecurityContext": {"fsGroup": 5}}),
        "set socket.group to yours, or choose socket.access: group",
    );
}

/// What execpool would say in the pod's log, while the pod fails again and again.
#[test]
fn what_would_end_the_sidecar_at_its_start_is_told_before_there_is_a_pod() {
    sidecar(
        json!({"image": {"tag": ""}}),
        "image.tag is empty, and so is image.digest",
    );
    sidecar(
        json!({"budget": {"warm": 21}}),
        "budget.warm 21 is more than budget.size 20",
    );
    let url = |host: &str| json!({"url": format!("postgresql://app@{host}/orders")});
    sidecar(
        json!({"upstreams": [url("a"), url("b")]}),
        "upstreams[0] and upstreams[1] are both called \"orders\"",
    );
    for probe in ["http://127.0.0.1:9464/x", ":9464/x", "tcp://127.0.0.1:9464"] {
        sidecar(
            json!({"reactor": {"app_probe": probe}}),
            "port 9464 is the sidecar's own",
        );
    }
    for address in ["127.0.0.1:9464", "[::1]:9464"] {
        sidecar(
            json!({"telemetry": {"listen": address}}),
            "only the pod's own containers reach it",
        );
    }
    sidecar(
        json!({"otel": {"endpoint": "collector:4317"}}),
        "such as http://collector.monitoring.svc:4317",
    );
    for name in ["POD_IP", "EXECPOOL_REACTOR__KUBERNETES"] {
        sidecar(
            json!({"extraEnv": [{"name": name, "value": "x"}]}),
            &format!("extraEnv has {name}, which the sidecar has by the values already"),
        );
    }
    refuses(
        "example",
        "1.37.0",
        json!({"execpool": {
            "listen": {"mode": 660}, "socket": {"access": "mode"},
        }}),
        "listen.mode \"660\" does not",
    );
}

/// A plain container stays as long as its pod, and the pod as long as it.
#[test]
fn a_job_that_would_never_complete_is_refused() {
    let values = json!({"job": {"enabled": true}, "execpool": {"shutdown": {"mode": "plain"}}});
    refuses("example", "1.37.0", values, "a Job would never complete");
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    sidecar(
        json!({"shutdown": {"grace": "30s"}}),
        "shutdown.grace 30s is not shorter than terminationGracePeriodSeconds 30",
    );
    sidecar(json!({"shutdown": {"grace": "1m"}}), "Leave it out");
    sidecar(
        json!({"telemetry": {"listen": false}}),
        "the sidecar's probes need that port",
    );
    sidecar(json!({"listen": {"group": "me"}}), "socket.access: group");
    sidecar(
        json!({"socket": {"access": "mode"}, "listen": {"mode": "0660"}}),
        "choose socket.access: fsGroup",
    );
    refuses(
        "example",
        "1.37.0",
        json!({"execpool": {"serviceAccountName": "other"}}),
        "the rights would be another's",
    );
    refuses(
        "example",
        "1.37.0",
        json!({"execpool": {"reactor": {"restart": "evict"}}}),
        "the rights would not fit",
    );
    let off = json!({"platform": {"reactor": {"kubernetes": "off"}}});
    refuses("example", "1.37.0", off, "nobody makes that account");
    let theirs = json!({"platform": {
        "reactor": {"kubernetes": false}, "serviceAccount": {"create": false},
    }});
    refuses("example", "1.37.0", theirs, "sidecars have no rights");
    refuses(
        "example",
        "1.37.0",
        json!({
            "execpool": {"readinessGate": {"enabled": true}},
            "platform": {"reactor": {"condition": false}},
        }),
        "no right to set the condition",
    );
}

#[test]
fn rights_for_every_pod_of_the_namespace_are_given_only_to_who_says_so() {
    platform(
        json!({"admissionPolicy": {"enabled": false}}),
        "or say acceptNamespaceWidePatch: true",
    );
    platform(
        json!({"serviceAccount": {"name": "default"}}),
        "one of their own",
    );
    platform(
        json!({"serviceAccount": {"name": ""}}),
        "serviceAccount.name is empty",
    );
    platform(
        json!({"reactor": {"restart": "rollout"}}),
        "which owners may be stamped?",
    );
    let owners = json!([{"kind": "Deployment", "name": "a"}]);
    platform(
        json!({"reactor": {"owners": owners}}),
        "a right that is not needed is not given. Take them out (where values are reused, with  --set-json 'reactor.owners=[]')",
    );
    platform(
        json!({"reactor": {"kubernetes": "off", "restart": "evict"}}),
        "choose liveness or exit-code",
    );
    platform(
        json!({"networkPolicy": {"enabled": true}}),
        "cut off every pod",
    );
    platform(
        json!({"networkPolicy": {
            "enabled": true, "podSelector": {"matchLabels": {"a": "b"}}, "egress": {"enabled": true},
        }}),
        "no sidecar could reach its database",
    );
}

#[test]
fn a_library_that_is_not_there_under_its_alias_is_told() {
    let charts = Charts::new();
    let template =
        "kind: A\nx:\n  {{- include \"execpool.volumes\" (list . \"pool\") | nindent 2 }}\n";
    charts.consumer("wrong", &["execpool"], template);
    for said in charts.chart("wrong").complaints() {
        assert!(said.contains("alias: pool"), "{said}");
    }
    let values = json!({"pool": {"budget": {"size": 3}}});
    for said in charts.chart("wrong").values(values).complaints() {
        assert!(said.contains("helm dependency build"), "{said}");
    }
    assert_eq!(CHARTS.len(), 3);
}
