//! What the library puts into a pod.

use serde_json::{Value, json};

use super::support::helm::{Charts, Objects, container, environment, variable};
use super::tools::examples;

const DIRECTORY: &str = "/run/execpool";

/// The example with values of the library's.
fn example(sidecar: Value) -> Objects {
    let charts = Charts::new();
    charts
        .chart("example")
        .values(json!({"execpool": sidecar}))
        .objects()
}

/// The example with the values of one of its files.
pub(crate) fn example_of(name: &str) -> Objects {
    let charts = Charts::new();
    let all = examples("example");
    let (_, values) = all.iter().find(|(one, _)| one == name).unwrap();
    charts.chart("example").values_text(values).objects()
}

fn mount<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    let mounts = container["volumeMounts"].as_array().unwrap();
    mounts.iter().find(|one| one["name"] == name)
}

fn volume<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let volumes = pod["volumes"].as_array().unwrap();
    volumes.iter().find(|one| one["name"] == name)
}

fn names(containers: &Value) -> Vec<&str> {
    let all = containers.as_array().into_iter().flatten();
    all.map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn the_sidecar_is_an_init_container_that_stays_and_the_app_waits_for_its_startup_probe() {
    let objects = example(json!({}));
    let pod = objects.pod();
    assert_eq!(names(&pod["initContainers"]), ["execpool"]);
    assert_eq!(names(&pod["containers"]), ["app"]);
    let sidecar = objects.container("execpool");
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["args"], json!(["run"]));
    let paths = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| {
        let get = &sidecar[probe]["httpGet"];
        assert_eq!(get["port"], 9464);
        get["path"].as_str().unwrap()
    });
    assert_eq!(paths, ["/startupz", "/readyz", "/healthz"]);
    assert_eq!(sidecar["startupProbe"]["periodSeconds"], 1);
    // There is no shell in the image: the program itself is asked.
    assert_eq!(
        sidecar["lifecycle"]["preStop"],
        json!({"exec": {"command": ["/execpool", "drain"]}})
    );
    assert_eq!(
        sidecar["ports"],
        json!([{"name": "execpool", "containerPort": 9464, "protocol": "TCP"}])
    );
    assert!(sidecar.get("restartPolicyRules").is_none());
    assert_eq!(sidecar["terminationMessagePolicy"], "FallbackToLogsOnError");
}

#[test]
fn where_it_was_chosen_it_is_a_plain_container_beside_the_app() {
    let objects = example_of("plain");
    let pod = objects.pod();
    assert_eq!(names(&pod["initContainers"]), Vec::<&str>::new());
    assert_eq!(names(&pod["containers"]), ["execpool", "app"]);
    let sidecar = objects.container("execpool");
    assert!(sidecar.get("restartPolicy").is_none());
    assert_eq!(
        variable(sidecar, "EXECPOOL_SHUTDOWN__MODE").unwrap(),
        "plain"
    );
    assert_eq!(
        sidecar["lifecycle"]["preStop"]["exec"]["command"][1],
        "drain"
    );
    let charts = Charts::new();
    let old = charts.chart("example").kubernetes("1.28.3").values(json!({
        "execpool": {"shutdown": {"mode": "plain"}, "serviceAccountName": ""},
        "platform": {"enabled": false},
    }));
    assert_eq!(
        names(&old.objects().pod()["containers"]),
        ["execpool", "app"]
    );
}

#[test]
fn the_sidecar_knows_who_it_is() {
    let objects = example(json!({}));
    let sidecar = objects.container("execpool");
    let field = |name: &str| {
        let variables = sidecar["env"].as_array().unwrap();
        let one = variables.iter().find(|one| one["name"] == name).unwrap();
        one["valueFrom"]["fieldRef"]["fieldPath"].clone()
    };
    assert_eq!(field("POD_NAME"), "metadata.name");
    assert_eq!(field("POD_NAMESPACE"), "metadata.namespace");
    assert_eq!(field("POD_UID"), "metadata.uid");
    assert_eq!(field("POD_IP"), "status.podIP");
    assert_eq!(field("NODE_NAME"), "spec.nodeName");
    assert_eq!(variable(sidecar, "CONTAINER_NAME").unwrap(), "execpool");
    let all = example_of("all");
    let sidecar = all.container("execpool");
    assert_eq!(
        variable(sidecar, "OTEL_RESOURCE_ATTRIBUTES").unwrap(),
        "k8s.deployment.name=demo-example"
    );
    assert_eq!(
        variable(sidecar, "OTEL_EXPORTER_OTLP_ENDPOINT").unwrap(),
        "http://collector.monitoring.svc:4317"
    );
}

#[test]
fn every_container_passes_the_restricted_pod_security_standard() {
    for name in ["plain", "socket-mode", "job"] {
        let objects = example_of(name);
        let pods = ["Deployment", "Job"].map(|kind| objects.all(kind));
        for one in pods.into_iter().flatten() {
            let pod = &one["spec"]["template"]["spec"];
            for place in ["initContainers", "containers"] {
                for container in pod[place].as_array().into_iter().flatten() {
                    let context = &container["securityContext"];
                    assert_eq!(context["runAsNonRoot"], true);
                    assert_eq!(context["allowPrivilegeEscalation"], false);
                    assert_eq!(context["readOnlyRootFilesystem"], true);
                    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
                    assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}));
                    assert!(context["runAsUser"].as_u64().unwrap() > 0);
                    assert!(container["resources"]["limits"]["memory"].is_string());
                    assert!(container["resources"]["requests"]["cpu"].is_string());
                }
            }
            // A volume of the host, or its network, would be against it.
            for volume in pod["volumes"].as_array().unwrap() {
                assert!(volume.get("hostPath").is_none());
            }
            for part in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod.get(part).is_none());
            }
        }
    }
}

#[test]
fn the_sockets_directory_is_in_memory_has_a_limit_and_is_read_only_for_the_app() {
    let objects = example(json!({"socket": {"sizeLimit": "2Mi"}}));
    let socket = volume(objects.pod(), "execpool-socket").unwrap();
    assert_eq!(
        socket["emptyDir"],
        json!({"medium": "Memory", "sizeLimit": "2Mi"})
    );
    let app = mount(objects.container("app"), "execpool-socket").unwrap();
    assert_eq!(
        app,
        &json!({"name": "execpool-socket", "mountPath": DIRECTORY, "readOnly": true})
    );
    let sidecar = mount(objects.container("execpool"), "execpool-socket").unwrap();
    assert_eq!(
        sidecar,
        &json!({"name": "execpool-socket", "mountPath": DIRECTORY})
    );
}

#[test]
fn an_app_of_another_user_reaches_the_socket_in_each_of_three_ways() {
    let by_volume = example(json!({"socket": {"group": 3000}}));
    assert_eq!(by_volume.pod()["securityContext"]["fsGroup"], 3000);
    let sidecar = by_volume.container("execpool");
    assert!(variable(sidecar, "EXECPOOL_LISTEN__MODE").is_none());
    assert!(variable(sidecar, "EXECPOOL_LISTEN__GROUP").is_none());

    let by_group = example_of("socket-group");
    assert_eq!(
        by_group.pod()["securityContext"],
        json!({"supplementalGroups": [2000]})
    );
    let sidecar = by_group.container("execpool");
    assert_eq!(variable(sidecar, "EXECPOOL_LISTEN__GROUP").unwrap(), "2000");

    let by_mode = example_of("socket-mode");
    assert!(by_mode.pod().get("securityContext").is_none());
    let sidecar = by_mode.container("execpool");
    assert_eq!(variable(sidecar, "EXECPOOL_LISTEN__MODE").unwrap(), "0666");
}

/// A chart's own settings of its pods are kept beside what the socket needs.
#[test]
fn what_else_a_chart_wants_of_the_pods_security_context_is_kept() {
    let context = |values: Value| example(values).pod()["securityContext"].clone();
    let own = json!({"fsGroup": 7, "fsGroupChangePolicy": "Always", "runAsNonRoot": true});
    assert_eq!(
        context(json!({"socket": {"group": 7}, "podSecurityContext": own})),
        own
    );
    let groups = |own: Value| {
        let values = json!({"socket": {"access": "group"}, "podSecurityContext": own});
        context(values)
    };
    assert_eq!(
        groups(json!({"supplementalGroups": [5, 6], "fsGroup": 7})),
        json!({"supplementalGroups": [5, 6, 65532], "fsGroup": 7})
    );
    assert_eq!(groups(json!({})), json!({"supplementalGroups": [65532]}));
    let values = json!({"socket": {"access": "mode"}, "podSecurityContext": {"fsGroup": 7}});
    assert_eq!(context(values), json!({"fsGroup": 7}));
}

#[test]
fn the_token_is_mounted_into_the_sidecar_alone() {
    let objects = example(json!({}));
    let pod = objects.pod();
    assert_eq!(pod["serviceAccountName"], "execpool-example");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = mount(objects.container("execpool"), "execpool-token").unwrap();
    assert_eq!(
        (token["mountPath"].as_str(), token["readOnly"].as_bool()),
        (Some(place), Some(true))
    );
    assert!(mount(objects.container("app"), "execpool-token").is_none());
    let sources = &volume(pod, "execpool-token").unwrap()["projected"]["sources"];
    assert_eq!(
        sources[0],
        json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}})
    );
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    assert_eq!(sources[2]["downwardAPI"]["items"][0]["path"], "namespace");
    let sidecar = objects.container("execpool");
    assert_eq!(
        variable(sidecar, "EXECPOOL_REACTOR__KUBERNETES").unwrap(),
        "on"
    );
}

#[test]
fn without_access_to_kubernetes_there_is_no_token_and_no_call() {
    let explicit = example(json!({"reactor": {"kubernetes": false}}));
    for objects in [example_of("off"), explicit] {
        assert!(volume(objects.pod(), "execpool-token").is_none());
        let sidecar = objects.container("execpool");
        assert!(mount(sidecar, "execpool-token").is_none());
        assert_eq!(
            variable(sidecar, "EXECPOOL_REACTOR__KUBERNETES").unwrap(),
            "off"
        );
        // Nor is the account's own mounted, whoever made the account, and whatever it says.
        assert_eq!(objects.pod()["automountServiceAccountToken"], false);
    }
    assert!(example_of("off").pod().get("serviceAccountName").is_none());
}

#[test]
fn passwords_and_certificates_are_files_from_what_is_there_already() {
    let objects = example_of("all");
    let sidecar = objects.container("execpool");
    assert_eq!(
        variable(sidecar, "EXECPOOL_UPSTREAMS__0__PASSWORD_FILE").unwrap(),
        "/var/run/secrets/execpool/0/password"
    );
    assert_eq!(
        variable(sidecar, "EXECPOOL_UPSTREAMS__0__URL").unwrap(),
        "postgresql://app@db.example:5432/orders?sslmode=verify-full&sslrootcert=/var/run/secrets/execpool/0/ca.crt"
    );
    let secrets = volume(objects.pod(), "execpool-secrets").unwrap();
    assert_eq!(
        secrets["projected"]["sources"],
        json!([
            {"secret": {"name": "orders", "items": [{"key": "password", "path": "0/password"}]}},
            {"configMap": {"name": "database-ca", "items": [{"key": "ca.crt", "path": "0/ca.crt"}]}},
        ])
    );
    assert!(mount(sidecar, "execpool-secrets").is_some());
    assert!(mount(objects.container("app"), "execpool-secrets").is_none());
    let variables = sidecar["env"].as_array().unwrap();
    let url = variables
        .iter()
        .find(|one| one["name"] == "EXECPOOL_UPSTREAMS__1__URL")
        .unwrap();
    assert_eq!(
        url["valueFrom"]["secretKeyRef"],
        json!({"name": "billing", "key": "uri"})
    );
    assert_eq!(
        variable(sidecar, "EXECPOOL_UPSTREAMS__1__ANY_USER").unwrap(),
        "on"
    );
    let config = mount(sidecar, "execpool-config").unwrap();
    assert_eq!(config["mountPath"], "/etc/execpool");
    assert_eq!(
        volume(objects.pod(), "execpool-config").unwrap()["configMap"]["name"],
        "execpool"
    );
}

#[test]
fn the_app_finds_the_pool_in_its_environment() {
    let app = |sidecar: Value| {
        let objects = example(sidecar);
        environment(objects.container("app"))
    };
    let pairs = |url: &str, dir: &str| {
        vec![
            ("EXECPOOL_DIR".to_owned(), dir.to_owned()),
            ("EXECPOOL".to_owned(), "required".to_owned()),
            ("DATABASE_URL".to_owned(), url.to_owned()),
        ]
    };
    assert_eq!(
        app(json!({})),
        pairs("postgresql://app@/app?host=/run/execpool", DIRECTORY)
    );
    assert_eq!(
        environment(example_of("all").container("app")),
        pairs(
            "postgresql://app@/orders?host=/run/pool&port=6432",
            "/run/pool"
        )
    );
    let user = json!({
        "upstreams": [{"url": "postgres://it%40me@h1:5432,h2:5433?sslmode=require"}],
        "app": {"scheme": "postgresql+psycopg"},
    });
    assert_eq!(
        app(user),
        pairs(
            "postgresql+psycopg://it%40me@/it%40me?host=/run/execpool",
            DIRECTORY
        )
    );
    let named = json!({
        "upstreams": [{"name": "billing", "urlSecret": {"name": "billing"}}],
        "app": {"urlVariable": "PG_URL"},
    });
    let found = app(named);
    assert_eq!(found[2].0, "PG_URL");
    assert_eq!(found[2].1, "postgresql://app@/billing?host=/run/execpool");
    let past = app(json!({"app": {"urlVariable": "", "client": "optional"}}));
    assert_eq!(past.len(), 2);
    assert_eq!(past[1], ("EXECPOOL".to_owned(), "optional".to_owned()));
    let odd = json!({"upstreams": [{"name": "my db?", "url": "postgresql://me@h/b"}]});
    assert_eq!(
        app(odd)[2].1,
        "postgresql://me@/my%20db%3F?host=/run/execpool"
    );
}

#[test]
fn the_liveness_probe_of_the_app_is_the_sidecars_only_where_that_restarts_it() {
    let charts = Charts::new();
    let own = json!({"httpGet": {"path": "/healthz", "port": 8080}});
    let probe = |restart: &str, own: &Value| {
        let values = json!({"execpool": {"reactor": {
            "restart": restart, "app_probe": "http://127.0.0.1:8080/healthz",
        }}, "livenessProbe": own});
        let objects = charts.chart("example").values(values).objects();
        objects.container("app").get("livenessProbe").cloned()
    };
    assert_eq!(probe("off", &json!({})), None);
    assert_eq!(probe("exit-code", &own).as_ref(), Some(&own));
    let ours = json!({
        "httpGet": {"path": "/livez/app", "port": 9464},
        "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 6,
    });
    assert_eq!(probe("liveness", &own).as_ref(), Some(&ours));
    assert_eq!(probe("liveness", &json!({})).as_ref(), Some(&ours));
    // An app that is slow to start is not restarted before it has.
    let mut slow = own.clone();
    slow["initialDelaySeconds"] = json!(120);
    slow["terminationGracePeriodSeconds"] = json!(5);
    let mut later = ours;
    later["initialDelaySeconds"] = json!(120);
    later["terminationGracePeriodSeconds"] = json!(5);
    assert_eq!(probe("liveness", &slow), Some(later));
}

#[test]
fn the_rule_for_exit_code_88_is_there_where_it_was_chosen_and_the_cluster_has_it() {
    let rules = json!([{
        "action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]},
    }]);
    let objects = example_of("exit-code");
    assert_eq!(objects.container("execpool")["restartPolicyRules"], rules);
    let charts = Charts::new();
    let said = charts.chart("example").kubernetes("1.35.0").values(json!({
        "execpool": {"reactor": {"restart": "exit-code"}, "restartPolicyRules": "always"},
    }));
    assert_eq!(
        said.objects().container("execpool")["restartPolicyRules"],
        rules
    );
    // Rules need a policy of the container's own.
    let plain = example(json!({
        "reactor": {"restart": "exit-code"}, "shutdown": {"mode": "plain"},
    }));
    let sidecar = plain.container("execpool");
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["restartPolicyRules"], rules);
}

#[test]
fn the_readiness_gate_is_off_unless_it_was_chosen() {
    assert!(example(json!({})).pod().get("readinessGates").is_none());
    assert_eq!(
        example_of("scaling").pod()["readinessGates"],
        json!([{"conditionType": "execpool.dev/PoolAvailable"}])
    );
}

#[test]
fn the_sidecars_grace_follows_the_pods() {
    for (pod, sidecar) in [
        (30, "25s"),
        (600, "595s"),
        (11, "6s"),
        (10, "5s"),
        (3, "1s"),
    ] {
        let objects = example(json!({"terminationGracePeriodSeconds": pod}));
        assert_eq!(objects.pod()["terminationGracePeriodSeconds"], pod);
        let grace = variable(objects.container("execpool"), "EXECPOOL_SHUTDOWN__GRACE");
        assert_eq!(grace.unwrap(), sidecar);
    }
    let own = example(json!({"shutdown": {"grace": "10s"}}));
    let grace = variable(own.container("execpool"), "EXECPOOL_SHUTDOWN__GRACE");
    assert_eq!(grace.unwrap(), "10s");
}

#[test]
fn a_budget_that_all_pods_can_have_together_is_accepted_to_the_last_connection() {
    let charts = Charts::new();
    let with = |capacity: Value| {
        charts.chart("example").values(json!({
            "replicaCount": 2,
            "execpool": {"budget": {"size": 20, "overflow": 10}, "capacity": capacity},
        }))
    };
    // (2 + 1) × (20 + 10 + 1) = 93, and 3 are reserved.
    assert!(!with(json!({"maxConnections": 96})).objects().0.is_empty());
    let _ = with(json!({"maxConnections": 95})).complaints();
    // Nothing is said of a database that is not named.
    assert!(!with(json!({})).objects().0.is_empty());
}

#[test]
fn the_image_is_named_by_its_tag_or_by_its_digest() {
    let image = |objects: &Objects| objects.container("execpool")["image"].clone();
    let tagged = example(json!({"image": {"repository": "registry.example/it", "tag": "7"}}));
    assert_eq!(image(&tagged), "registry.example/it:7");
    let digest = format!("registry.example/execpool@sha256:{}", "0".repeat(64));
    assert_eq!(image(&example_of("all")), digest.as_str());
}

#[test]
fn what_is_set_besides_is_there_besides() {
    let objects = example_of("all");
    let sidecar = objects.container("execpool");
    assert_eq!(variable(sidecar, "OTEL_METRICS_EXPORTER").unwrap(), "otlp");
    assert_eq!(sidecar["envFrom"], json!([{"secretRef": {"name": "more"}}]));
    assert!(mount(sidecar, "more").is_some());
    assert!(volume(objects.pod(), "more").is_some());
    assert_eq!(objects.pod()["securityContext"]["runAsNonRoot"], true);
    assert_eq!(objects.pod()["securityContext"]["fsGroup"], 65532);
    assert_eq!(sidecar["startupProbe"]["httpGet"]["port"], 9500);
    assert_eq!(sidecar["ports"][0]["containerPort"], 9500);
}

#[test]
fn a_job_has_the_sidecar_as_its_deployment_has() {
    let objects = example_of("job");
    let job = &objects.one("Job")["spec"]["template"]["spec"];
    assert_eq!(job["restartPolicy"], "Never");
    let sidecar = container(job, "execpool");
    assert_eq!(sidecar, objects.container("execpool"));
    assert_eq!(job["volumes"], objects.pod()["volumes"]);
}

/// Helm takes names of 53 letters, and labels, such as a Job's name on its pods, have 63 at most.
#[test]
fn the_longest_release_has_names_that_kubernetes_takes() {
    let charts = Charts::new();
    let release = "a".repeat(53);
    let values = json!({
        "job": {"enabled": true}, "podDisruptionBudget": {"enabled": true},
        "autoscaling": {"enabled": true}, "platform": {"podMonitor": {"enabled": true}},
    });
    let render = charts.chart("example").release(&release).values(values);
    let objects = render.objects();
    for one in &objects.0 {
        let kind = one["kind"].as_str().unwrap();
        let name = one["metadata"]["name"].as_str().unwrap();
        let most = if kind.starts_with("Validating") {
            253
        } else {
            63
        };
        assert!(name.len() <= most, "{kind} {name}");
        assert!(!name.ends_with(['-', '.']), "{kind} {name}");
    }
    let dotted = json!({"fullnameOverride": format!("{}.{}", "a".repeat(62), "b".repeat(9))});
    let objects = charts.chart("execpool").values(dotted).objects();
    assert_eq!(objects.one("Role")["metadata"]["name"], "a".repeat(62));
}

#[test]
fn a_chart_may_have_the_library_twice_or_without_an_alias() {
    let charts = Charts::new();
    let deployment = |argument: &str| {
        format!(
            "kind: Deployment\nmetadata: {{name: it}}\nspec:\n  template:\n    spec:\n      \
             initContainers:\n        {{{{- include \"execpool.sidecar\" {argument} | nindent 8 }}}}\n"
        )
    };
    let values =
        |size: u32| json!({"budget": {"size": size}, "upstreams": [{"url": "postgresql://a@h/b"}]});
    let size = |objects: &Objects| {
        variable(objects.container("execpool"), "EXECPOOL_BUDGET__SIZE").unwrap()
    };
    let both = json!({"execpool": values(3), "worker": values(5)});
    for (argument, wanted) in [(".", "3"), ("(list . \"worker\")", "5")] {
        charts.consumer("twice", &["execpool", "worker"], &deployment(argument));
        let objects = charts.chart("twice").values(both.clone()).objects();
        assert_eq!(size(&objects), wanted);
    }
    charts.consumer("bare", &["execpool-sidecar"], &deployment("."));
    let bare = json!({"execpool-sidecar": values(7)});
    assert_eq!(size(&charts.chart("bare").values(bare).objects()), "7");
}

/// `helm install 1e5 --namespace 123` is a legal name and a legal namespace.
#[test]
fn names_that_yaml_takes_for_numbers_or_switches_are_names() {
    let charts = Charts::new();
    let values = json!({
        "job": {"enabled": true}, "podDisruptionBudget": {"enabled": true},
        "autoscaling": {"enabled": true}, "image": {"tag": "1"},
        "execpool": {
            "serviceAccountName": "007", "configMap": "12", "listen": {"dir": "/run/a, b: c"},
            "upstreams": [
                {"url": "postgresql://app@h/app", "passwordSecret": {"name": "12", "key": "1e3"}},
                {"name": "5", "urlSecret": {"name": "12", "key": "1e3"}},
            ],
            "reactor": {"restart": "rollout"},
        },
        "platform": {
            "serviceAccount": {"name": "007"},
            "reactor": {"restart": "rollout", "owners": [{"kind": "StatefulSet", "name": "12"}]},
            "podMonitor": {"enabled": true}, "prometheusRule": {"enabled": true},
            "dashboards": {"enabled": true, "label": "12"},
            "networkPolicy": {"enabled": true, "podSelector": {"matchLabels": {"a": "b"}}},
        },
    });
    let rendered = charts.chart("example").release("1e5").namespace("123");
    let objects = rendered.values(values).objects();
    for object in &objects.0 {
        let about = &object["metadata"];
        let labels = about["labels"].as_object().unwrap().values();
        let namespace = about.get("namespace").into_iter();
        for text in labels.chain(namespace).chain([&about["name"]]) {
            assert!(text.is_string(), "{text} in {object}");
        }
    }
    let owner = &objects.one("Deployment")["spec"]["selector"]["matchLabels"];
    assert_eq!(owner["app.kubernetes.io/instance"], "1e5");
    let pod = objects.pod();
    assert_eq!(pod["serviceAccountName"], "007");
    assert_eq!(objects.one("RoleBinding")["subjects"][0]["name"], "007");
    let stamped = objects.one("Role")["rules"].as_array().unwrap().last();
    assert_eq!(stamped.unwrap()["resourceNames"], json!(["12"]));
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|one| one["configMap"]["name"] == "12"));
    for name in ["app", "execpool"] {
        let mounts = objects.container(name)["volumeMounts"].as_array().unwrap();
        assert_eq!(mounts[0]["mountPath"], "/run/a, b: c");
    }
    let env = objects.container("execpool")["env"].as_array().unwrap();
    let secret = json!({"secretKeyRef": {"name": "12", "key": "1e3"}});
    assert!(env.iter().any(|one| one["valueFrom"] == secret), "{env:?}");
    let binding = objects.one("ValidatingAdmissionPolicyBinding");
    assert_eq!(
        binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"],
        json!({"kubernetes.io/metadata.name": "123"})
    );
}

#[test]
fn large_numbers_words_that_yaml_takes_for_switches_and_empty_sections_are_as_they_were_meant() {
    let charts = Charts::new();
    let text = "execpool: {budget: {size: 1000000}, reactor: {restart: off, cleanup: on}, \
                runAsUser: 1000000000, socket: {group: 2000000000}, telemetry: {status_log: off}}";
    let objects = charts.chart("example").values_text(text).objects();
    let sidecar = objects.container("execpool");
    let value = |name: &str| variable(sidecar, &format!("EXECPOOL_{name}")).unwrap();
    assert_eq!(value("BUDGET__SIZE"), "1000000");
    assert_eq!(value("REACTOR__RESTART"), "off");
    assert_eq!(value("REACTOR__CLEANUP"), "on");
    assert_eq!(value("TELEMETRY__STATUS_LOG"), "off");
    assert_eq!(sidecar["securityContext"]["runAsUser"], 1_000_000_000);
    assert_eq!(objects.pod()["securityContext"]["fsGroup"], 2_000_000_000);

    let empty = "global: {a: b}\njob: {enabled: true}\n\
                 execpool: {shutdown: null, reactor: null, telemetry: null, listen: null, budget: null}";
    let objects = charts.chart("example").values_text(empty).objects();
    assert_eq!(
        objects.container("execpool"),
        example(json!({})).container("execpool")
    );
}
