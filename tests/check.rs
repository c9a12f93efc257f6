//! `execpool check` as a person meets it: what it prints, where errors go, how it exits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

use std::process::{Command, Output};

const URL: &str = "postgresql://app:hunter2@db.internal/app";

/// Runs `execpool` with nothing in its environment but `env`.
fn execpool(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
    command.args(args).env_clear().envs(env.iter().copied());
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_database_url_alone_is_a_configuration_and_its_password_stays_secret() {
    let output = execpool(&["check"], &[("DATABASE_URL", URL)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("budget.size"), "{shown}");
    assert!(shown.contains("db.internal"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn later_layers_win_and_each_value_tells_its_origin() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yaml");
    let yaml = format!("budget: {{size: 5}}\nupstreams: [{{url: \"{URL}\"}}]\n");
    std::fs::write(&file, yaml).expect("written");
    let file = file.to_str().expect("UTF-8");
    let env = [
        ("EXECPOOL_BUDGET__SIZE", "6"),
        ("EXECPOOL_BUDGET__OVERFLOW", "1"),
    ];
    let args = [
        "check",
        "--json",
        "--config",
        file,
        "--set",
        "budget.size=7",
    ];
    let output = execpool(&args, &env);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        shown["knobs"]["budget.size"]["value"]
            .to_string()
            .trim_matches('"'),
        "7"
    );
    let overflow = &shown["knobs"]["budget.overflow"];
    assert!(
        overflow["origin"]
            .to_string()
            .contains("EXECPOOL_BUDGET__OVERFLOW"),
        "{overflow}"
    );
}

#[test]
fn every_mistake_is_told_at_once_on_standard_error_and_the_exit_status_is_1() {
    let args = [
        "check",
        "--set",
        "budget.sise=3",
        "--set",
        "pool.timeout=20",
    ];
    let output = execpool(&args, &[("DATABASE_URL", URL)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let told = text(&output.stderr);
    assert!(told.contains("budget.size"), "names the nearest: {told}");
    assert!(told.contains("pool.timeout"), "{told}");
}

#[test]
fn a_configuration_file_that_is_missing_is_named() {
    let output = execpool(
        &["check", "--config", "/no/such/file"],
        &[("DATABASE_URL", URL)],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/no/such/file"));
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    assert_eq!(execpool(&["chekc"], &[]).status.code(), Some(2));
    let help = execpool(&["check", "--help"], &[]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("Examples:"));
}

#[test]
fn a_password_in_the_wrong_place_is_not_repeated() {
    for url in [
        "postgresql://app@db/app?pasword=hunter2",
        "postgresql://app@db/app?pwd=hunter2&sslmode=disable",
        "app:hunter2@db/app",
    ] {
        let output = execpool(&["check"], &[("DATABASE_URL", url)]);
        assert_eq!(output.status.code(), Some(1), "{url}");
        assert!(
            !text(&output.stderr).contains("hunter2"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn slips_that_would_be_taken_at_their_word_are_refused() {
    for slip in [
        "pool.reset=off",
        "pool.reset=none",
        "log.level=info,inof",
        "upstreams[0].password_file=hunter2",
    ] {
        let output = execpool(&["check", "--set", slip], &[("DATABASE_URL", URL)]);
        assert_eq!(output.status.code(), Some(1), "{slip}");
        assert!(
            !text(&output.stderr).contains("hunter2"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn every_value_of_every_knob_has_its_origin() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "# a comment\npool:\n  size: 4\n").expect("written");
    let path = file.to_str().expect("UTF-8");
    let env = [
        ("DATABASE_URL", "postgresql://app@db/app?connect_timeout=9"),
        ("EXECPOOL_LISTEN__PORT", "6000"),
        ("DB_POOL_SIZE", "7"),
        ("PGPASSWORD", "hunter2"),
    ];
    let set = "log.level=debug";
    let output = execpool(&["check", "--json", "--config", path, "--set", set], &env);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["file"], path);
    let origin = |knob: &str| shown["knobs"][knob]["origin"].as_str().unwrap_or_default();
    for (knob, expected) in [
        ("pool.size", "file, line 3"),
        ("upstreams[0].pool.size", "file, line 3"),
        ("listen.port", "environment, EXECPOOL_LISTEN__PORT"),
        ("budget.size", "environment, DB_POOL_SIZE"),
        ("log.level", "flag, log.level"),
        ("upstreams[0].url", "environment, DATABASE_URL"),
        ("upstreams[0].name", "url"),
        ("upstreams[0].connect_timeout", "url"),
        ("upstreams[0].password", "environment, PGPASSWORD"),
        ("pool.timeout", "default"),
    ] {
        assert_eq!(origin(knob), expected, "{knob}");
    }
    let global = execpool::config::KNOBS
        .iter()
        .map(|knob| knob.path.to_owned());
    let own = execpool::config::UPSTREAM_KNOBS.iter();
    let own = own.map(|knob| format!("upstreams[0].{}", knob.path));
    for knob in global.chain(own) {
        assert!(!origin(&knob).is_empty(), "{knob}");
        let reload = &shown["knobs"][&knob]["reload"];
        assert!(reload.is_string(), "{knob}");
    }
}

#[test]
fn the_standard_variables_are_shown_without_secrets_and_checked() {
    let endpoint = "http://user:hunter2@collector:4317";
    let env = [
        ("DATABASE_URL", URL),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=t0k3n"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
    ];
    let output = execpool(&["check"], &env);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("http://collector:4317 (grpc)"), "{shown}");
    assert!(shown.contains("x-token=***"), "{shown}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("t0k3n"),
        "{shown}"
    );
    let warned = text(&output.stderr);
    assert!(warned.contains("OTEL_METRIC_EXPORT_INTERVAL"), "{warned}");
    let output = execpool(&["check", "--json"], &env);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["telemetry"]["otlp"], "http://collector:4317 (grpc)");

    assert_eq!(shown["telemetry"]["traces"], "off (telemetry.traces)");
    let sampled = [&env[..], &[("OTEL_TRACES_SAMPLER", "sometimes")]].concat();
    let traced = ["check", "--json", "--set", "telemetry.traces=on"];
    let output = execpool(&traced, &sampled);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["telemetry"]["traces"], "http://collector:4317 (grpc)");
    let sampler = &shown["telemetry"]["traces.sampler"];
    assert_eq!(sampler, "parentbased_always_on");
    // What is malformed of traces matters where they are wanted.
    let malformed = [env[0], ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "nonsense:")];
    assert!(execpool(&["check"], &malformed).status.success());
    let output = execpool(&traced, &malformed);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        "{told}"
    );

    let env = [env[0], ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let output = execpool(&["check", "--set", "budget.sise=3"], &env);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for part in ["budget.sise", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"] {
        assert!(told.contains(part), "{told}");
    }
}
