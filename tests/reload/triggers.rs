//! What makes the configuration be read: a file that changes, in all the ways that files change, and
//! SIGHUP; and what is not taken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::support::sidecar::upstream;
use super::support::{Postgres, Sidecar, eventually};
use super::{SOON, place, runs, told};

/// Longer than two looks at the file.
const LOOKS: Duration = Duration::from_secs(5);

fn sized(yaml: &str, size: u32) -> String {
    format!("{yaml}budget: {{size: {size}}}\n")
}

async fn refused(sidecar: &Sidecar, refused: bool) {
    eventually(SOON, "the file is looked at", async || {
        let config = sidecar.get("/v1/config").await;
        let empty = config["refused"].as_array().unwrap().is_empty();
        if empty != refused {
            Ok(())
        } else {
            Err(config["refused"].clone())
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_changed_in_any_way_is_read_by_itself() {
    let (_database, sidecar, yaml) = place("changed", "").await;
    // In place, as an editor's or a shell's redirection does.
    fs::write(sidecar.config_file(), sized(&yaml, 5)).unwrap();
    runs(&sidecar, "budget.size", "5").await;
    // Renamed into place.
    sidecar.configure(&sized(&yaml, 6));
    runs(&sidecar, "budget.size", "6").await;
    // Gone for a while.
    fs::remove_file(sidecar.config_file()).unwrap();
    refused(&sidecar, true).await;
    runs(&sidecar, "budget.size", "6").await;
    sidecar.configure(&sized(&yaml, 7));
    runs(&sidecar, "budget.size", "7").await;
    sidecar.logged(&["the configuration is refused"]).await;
    assert_eq!(told(&sidecar, "the configuration is refused"), 1);
}

#[tokio::test]
async fn a_hangup_has_it_read_at_once() {
    let (_database, sidecar, yaml) = place("hangup", "").await;
    for size in [5, 6, 7] {
        let mut touched = 0;
        let mut touch = || {
            touched += 1;
            sidecar.configure(&format!("{}# {touched}\n", sized(&yaml, size)));
        };
        touch();
        sidecar.signal(Signal::SIGHUP);
        let applied = eventually(SOON, "it is applied", async || {
            // No two looks find the same in it, so that it is not read by itself.
            touch();
            let config = sidecar.get("/v1/config").await;
            let value = config["knobs"]["budget.size"]["value"].clone();
            if value.as_str() == Some(&size.to_string()) {
                Ok(())
            } else {
                Err(value)
            }
        });
        applied.await;
    }
}

/// Puts a volume's content in place as the kubelet does: a directory of its own, and a link to it
/// that is exchanged in one step.
fn mount(volume: &Path, generation: u32, yaml: &str) {
    let name = format!("..2026_11_22_10_00_{generation:02}.123456789");
    fs::create_dir(volume.join(&name)).unwrap();
    fs::write(volume.join(&name).join("config.yaml"), yaml).unwrap();
    symlink(&name, volume.join("..data_tmp")).unwrap();
    let before = fs::read_link(volume.join("..data")).ok();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    match before {
        Some(before) => fs::remove_dir_all(volume.join(before)).unwrap(),
        None => symlink("..data/config.yaml", volume.join("config.yaml")).unwrap(),
    }
}

#[tokio::test]
async fn a_config_map_that_the_kubelet_exchanges_is_read() {
    let database = Postgres::shared().database("config_map").await;
    let yaml = upstream("app", &database.url());
    let volume = tempfile::tempdir().unwrap();
    mount(volume.path(), 0, &yaml);
    let file = volume.path().join("config.yaml");
    let sidecar = Sidecar::options()
        .flag(&format!("--config={}", file.display()))
        .start()
        .await;
    for generation in 1..=2 {
        mount(volume.path(), generation, &sized(&yaml, 10 + generation));
        runs(&sidecar, "budget.size", &(10 + generation).to_string()).await;
    }
    assert_eq!(told(&sidecar, "refused"), 0);
}

#[tokio::test]
async fn a_wrong_file_is_told_once_changes_nothing_and_a_good_one_is_taken_later() {
    let (_database, sidecar, yaml) = place("wrong", "").await;
    let wrong = format!("{yaml}budget: {{size: 5}}\npool: {{timeout: 20, sise: 3}}\n");
    sidecar.configure(&wrong);
    refused(&sidecar, true).await;
    sidecar.logged(&["the configuration is refused"]).await;
    tokio::time::sleep(LOOKS).await;
    assert_eq!(told(&sidecar, "the configuration is refused"), 1);
    // The same mistakes elsewhere are nothing new.
    sidecar.configure(&format!("{wrong}# a comment\n"));
    tokio::time::sleep(LOOKS + Duration::from_secs(1)).await;
    assert_eq!(told(&sidecar, "the configuration is refused"), 1);
    let config = sidecar.get("/v1/config").await;
    assert_eq!(config["knobs"]["budget.size"]["value"], "20");
    let (status, problem) = sidecar.control("POST", "/v1/reload", None).await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &"invalid_configuration".into())
    );
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{problem}");
    let status = sidecar.get("/v1/status").await;
    assert_eq!(
        status["configuration"]["refused"].as_array().unwrap().len(),
        2
    );
    sidecar.configure(&sized(&yaml, 5));
    runs(&sidecar, "budget.size", "5").await;
    refused(&sidecar, false).await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_taken_by_half() {
    let (_database, sidecar, yaml) = place("half", "").await;
    let reloads = async || {
        let config = sidecar.get("/v1/config").await;
        config["reloads"].as_u64().unwrap()
    };
    let mut attempts = 1..=10;
    let (before, last) = loop {
        let attempt = attempts.next().expect("no machine is so busy");
        let before = reloads().await;
        let (mut longest, mut size) = (Duration::ZERO, 0);
        // Each of these is valid, and none stays for two looks.
        for number in 1..=16 {
            let begun = Instant::now();
            size = 100 * attempt + number;
            fs::write(sidecar.config_file(), sized(&yaml, size)).unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            longest = longest.max(begun.elapsed());
        }
        let begun = Instant::now();
        let after = reloads().await;
        // Where one has stayed for so long, nothing is claimed.
        if longest + begun.elapsed() < Duration::from_secs(2) {
            assert_eq!(after, before);
            break (before, size);
        }
        runs(&sidecar, "budget.size", &size.to_string()).await;
    };
    runs(&sidecar, "budget.size", &last.to_string()).await;
    assert_eq!(reloads().await, before + 1);
}
