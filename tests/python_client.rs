//! The Python package, `clients/python`: its own tests, by pytest, on the built execpool and a real
//! PostgreSQL. One test here is one file there.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use support::tools;

const TIMEOUT: Duration = Duration::from_secs(1800);

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python")
}

/// Runs `clients/python/tests/test_{name}.py`, and shows what it says.
async fn passes(name: &str) {
    let file = format!("tests/test_{name}.py");
    let output = tokio::process::Command::new(tools::client_python())
        .args(["-m", "pytest", "--quiet", "-rs", "--durations=3", &file])
        .current_dir(package())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("EXECPOOL_BIN", env!("CARGO_BIN_EXE_execpool"))
        .env(
            "EXECPOOL_PG_BIN",
            tools::postgres_program("postgres")
                .parent()
                .unwrap_or(Path::new("")),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIMEOUT, output)
        .await
        .unwrap_or_else(|_| panic!("{file} hangs"))
        .unwrap_or_else(|error| panic!("python3 can't be run: {error}"));
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{file}\n{told}");
    assert!(
        output.status.success(),
        "{file}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains(" passed"), "{file} has tried nothing");
}

/// A test for each file; and one that no file is forgotten.
macro_rules! files {
    ($($test:ident: $file:literal),+ $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            passes($file).await;
        })+

        #[test]
        fn every_file_of_tests_is_run() {
            let run: BTreeSet<String> = [$($file),+].map(|name| format!("test_{name}.py")).into();
            let files = std::fs::read_dir(package().join("tests")).into_iter().flatten();
            let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
            let there: BTreeSet<String> = names
                .filter(|name| name.starts_with("test_"))
                .collect();
            assert_eq!(there, run);
        }
    };
}

files! {
    cancellation_leaves_nothing_behind: "cancellation",
    the_caller_is_the_apps_own_line: "caller",
    the_cleanup_tests_can_be_run_by_hand: "cleanup_by_hand",
    executions_are_cleaned_up: "connection_cleanup",
    without_a_sidecar_the_app_connects_directly: "direct",
    connections_of_every_driver_belong_to_their_scope: "drivers",
    connection_strings_keep_their_form: "dsn",
    the_example_runs_and_leaves_nothing: "example",
    a_request_is_an_execution: "fastapi",
    a_hundred_runs_meet_no_error: "crowd",
    what_the_documentation_says_works: "documentation",
    an_execution_lives_while_its_process_does: "hold",
    a_sidecar_that_comes_late_is_used_from_then_on: "late",
    a_run_of_a_graph_is_an_execution: "langgraph",
    the_package_is_typed_and_installs_from_its_wheel: "package",
    tracked_resources_are_closed: "resources",
    a_scope_is_an_execution_however_it_ends: "scope",
    runs_in_servers_that_fork_leave_nothing: "servers",
}
