//! What Helm itself says of the charts.

use std::fs;

use super::support::helm::{Charts, Helm, source};
use super::written::CHARTS;

/// The files of `ci/` of a chart: what may be set, in examples.
pub(crate) fn examples(chart: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(source().join(chart).join("ci")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix("-values.yaml").unwrap().to_owned();
        found.push((name, fs::read_to_string(&path).unwrap()));
    }
    found.sort();
    found
}

#[test]
fn helm_3_and_helm_4_make_the_same_of_every_example() {
    let charts = Charts::new();
    for chart in ["example", "execpool"] {
        assert!(charts.chart(chart).objects().0.len() >= 3);
        for (name, values) in examples(chart) {
            let objects = charts.chart(chart).values_text(&values).objects();
            let is_off = chart == "execpool" && name == "off";
            assert_eq!(objects.0.is_empty(), is_off, "{chart} {name}");
        }
    }
}

#[test]
fn the_linter_finds_nothing() {
    let charts = Charts::new();
    for helm in Helm::BOTH {
        for chart in CHARTS {
            let directory = charts.path("..");
            let path = charts.path(chart);
            let words = ["lint", "--strict", "--kube-version", "1.37.0"];
            let mut args = words.to_vec();
            args.push(path.to_str().unwrap());
            let said = helm.run(&directory, &args).unwrap();
            assert!(said.contains("0 chart(s) failed"), "{said}");
            for level in ["[WARNING]", "[ERROR]"] {
                assert!(!said.contains(level), "{helm:?}: {said}");
            }
        }
    }
}

#[test]
fn the_charts_are_packaged_and_the_examples_dependencies_are_found_beside_it() {
    for helm in Helm::BOTH {
        let charts = Charts::new();
        let example = charts.path("example");
        fs::remove_dir_all(example.join("charts")).unwrap();
        helm.run(&example, &["dependency", "build"]).unwrap();
        let rendered = helm.run(
            &example,
            &["template", "x", ".", "--kube-version", "1.37.0"],
        );
        assert!(rendered.unwrap().contains("restartPolicy: Always"));
        for chart in CHARTS {
            let parent = charts.path("example").parent().unwrap().to_owned();
            helm.run(&parent, &["package", chart]).unwrap();
            let name = match chart {
                "example" => "execpool-example",
                other => other,
            };
            let file = parent.join(format!("{name}-{}.tgz", env!("CARGO_PKG_VERSION")));
            assert!(file.metadata().unwrap().len() > 1000, "{}", file.display());
        }
    }
}

#[test]
fn the_notes_say_what_to_look_at_next() {
    let charts = Charts::new();
    let notes = charts.chart("example").notes();
    for part in [
        "port-forward service/demo-example 8080:80",
        "kubectl -n agents exec POD -c execpool -- /execpool status",
        "budget of 20 + 10",
        "kubectl -n agents events --for pod/POD",
        "reactor.restart",
    ] {
        assert!(notes.contains(part), "no {part:?} in:\n{notes}");
    }
    let off = charts
        .chart("example")
        .values_text(
            &examples("example")
                .into_iter()
                .find(|one| one.0 == "off")
                .unwrap()
                .1,
        )
        .notes();
    assert!(off.contains("no access to Kubernetes"), "{off}");
    let platform = charts.chart("execpool").notes();
    for part in [
        "serviceAccountName: execpool",
        "each on its own pod only",
        "helm dependency build",
        "podMonitor.enabled",
    ] {
        assert!(platform.contains(part), "no {part:?} in:\n{platform}");
    }
}
