//! The units of `deploy/systemd`, in a systemd of their own: a user's, in namespaces, with root's own processes untouched.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use execpool::config::{self, Restart, Sources};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tokio::time::sleep;

use crate::place::{Place, SOON};
use crate::support::eventually;
use crate::support::guard::Watchdog;

/// The variable that says that a systemd may be started.
const WANTED: &str = "EXECPOOL_SYSTEMD";

/// What is for a machine's own users and directories, and would keep the tests' own out.
const LEFT_OUT: [&str; 7] = [
    "User=",
    "Group=",
    "SupplementaryGroups=",
    "ProtectSystem=",
    "ProtectHome=",
    "PrivateTmp=",
    "Environment=DATABASE_URL=",
];

/// In its namespaces it finds a machine that was booted with systemd, and is not the first process, as that would be
/// the machine's own.
///
/// It takes the control group that it is in for its own, and would put all of the machine's processes into another one
/// where that is the machine's: so not without one that was made for it.
const INSIDE: &str = r#"
set -e
if grep -E '^(0:|[0-9]+:name=systemd):/$' /proc/self/cgroup; then exit 1; fi
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/systemd/system
mount --bind "$XDG_RUNTIME_DIR/systemd.log" /dev/console
/lib/systemd/systemd --user --log-target=console --unit="$1" &
wait
"#;

/// Removes a control group whose processes are about to be gone.
const REMOVE: &str = r#"
for _ in $(seq 200); do
    find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null
    [ -d "$1" ] || exit 0
    sleep 0.05
done
exit 1
"#;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd")
}

/// The units, by name.
fn units() -> Vec<(String, String)> {
    let entries = fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let units = names.filter(|name| !name.ends_with(".yaml"));
    let units: Vec<(String, String)> = units
        .map(|name| {
            let text = fs::read_to_string(folder().join(&name)).unwrap();
            (name, text)
        })
        .collect();
    assert_eq!(units.len(), 4);
    units
}

/// With the tests' programs in the place of what is installed.
fn placed(text: &str, place: &Place) -> String {
    let bin = place.path("bin");
    let text = text
        .replace(
            "/usr/local/bin/execpool",
            &bin.join("execpool").display().to_string(),
        )
        .replace(
            "/opt/agents/bin/agents",
            &bin.join("agents").display().to_string(),
        );
    assert!(!text.contains("/usr/local") && !text.contains("/opt"));
    text
}

/// Makes a control group of this name in each hierarchy that a systemd may use: its own, that of version 2 beside it,
/// or the only one.
fn groups(name: &OsStr) -> Vec<PathBuf> {
    let hierarchies = [
        "/sys/fs/cgroup/systemd",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
    ];
    let hierarchies = hierarchies.iter().map(Path::new);
    let there = hierarchies.filter(|path| path.join("cgroup.procs").exists());
    let groups: Vec<PathBuf> = there.map(|path| path.join(name)).collect();
    for group in &groups {
        fs::create_dir(group).unwrap();
    }
    groups
}

/// A systemd that runs these units alone.
struct Systemd {
    child: Child,
    /// Its control groups.
    groups: Vec<PathBuf>,
    runtime: PathBuf,
    _watchdog: Watchdog,
}

impl Systemd {
    /// `None`, with the reason printed, where this machine can't.
    fn start(place: &Place, unit: &str) -> Option<Self> {
        // It manages control groups, which belong to the machine: not unasked.
        if std::env::var(WANTED).as_deref() != Ok("on") {
            println!("skipped: {WANTED}=on has it start a systemd in control groups of its own");
            return None;
        }
        assert!(Uid::effective().is_root(), "{WANTED} takes root");
        let runtime = place.directory.path().to_owned();
        let folder = runtime.join("systemd/user");
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in units() {
            let text = placed(&text, place)
                .replace("systemctl ", "systemctl --user ")
                .replace("9464", &place.port.to_string());
            let lines = text.lines();
            let lines = lines.filter(|line| !LEFT_OUT.iter().any(|one| line.starts_with(one)));
            let text: String = lines.map(|line| line.to_owned() + "\n").collect();
            fs::write(folder.join(name), text).unwrap();
        }
        let groups = groups(runtime.file_name().unwrap());
        let enter: String = groups
            .iter()
            .map(|group| format!("echo $$ > {}/cgroup.procs; ", group.display()))
            .collect();
        let enter = enter + "exec \"$@\"";
        let log = fs::File::create(runtime.join("systemd.log")).unwrap();
        let child = Command::new("sh")
            .args([
                "-c", &enter, "enter", "unshare", "--mount", "--pid", "--fork",
            ])
            .args([
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                INSIDE,
                "inside",
                unit,
            ])
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("HOME", &runtime)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdin(Stdio::null())
            .stdout(log)
            .process_group(0)
            .spawn()
            .unwrap();
        Some(Self {
            _watchdog: Watchdog::over(child.id(), Signal::SIGKILL, &runtime),
            child,
            groups,
            runtime,
        })
    }

    /// What `systemctl` answers.
    fn ctl(&self, arguments: &[&str]) -> String {
        // From within, as who asks is looked up by its process.
        let namespaces = format!("/proc/{}/ns", self.child.id());
        let output = Command::new("nsenter")
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .args(["systemctl", "--user"])
            .args(arguments)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.runtime.join("systemd.log"));
            println!("---- systemd ----\n{}", log.unwrap_or_default());
        }
        // All of its namespace ends with it. Failing means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for group in &self.groups {
            let removed = Command::new("sh")
                .args(["-c", REMOVE, "remove"])
                .arg(group)
                .status();
            assert!(
                std::thread::panicking() || removed.is_ok_and(|status| status.success()),
                "{} is left",
                group.display()
            );
        }
    }
}

#[tokio::test]
async fn with_exit_code_systemd_starts_execpool_again_and_restarts_the_app() {
    let place = Place::new("by_systemd", "exit-code").await;
    let Some(systemd) = Systemd::start(&place, "agents.service") else {
        return;
    };
    place.comes_to((2, 2)).await;
    // What the cool-down goes by has outlived it.
    place.has_restarted_once().await;
    assert_eq!(
        systemd.ctl(&["is-active", "execpool", "agents"]),
        "active\nactive"
    );

    // A crash is no decision.
    systemd.ctl(&["kill", "--kill-who=main", "--signal=KILL", "execpool"]);
    eventually(SOON, "execpool is back", async || match place.starts() {
        (3, _) => Ok(()),
        other => Err(other),
    })
    .await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(place.starts(), (3, 2), "the app was left alone");
}

#[tokio::test]
async fn with_liveness_a_timer_restarts_the_app_alone() {
    let place = Place::new("by_a_timer", "liveness").await;
    let Some(systemd) = Systemd::start(&place, "agents.service") else {
        return;
    };
    eventually(SOON, "systemd runs", async || match place.starts() {
        (1, 1) => Ok(()),
        other => Err(other),
    })
    .await;
    systemd.ctl(&["start", "agents-livez.timer"]);
    place.comes_to((1, 2)).await;
    place.has_restarted_once().await;
    // Two more looks.
    sleep(Duration::from_secs(23)).await;
    assert_eq!(place.starts(), (1, 2), "once");
}

#[tokio::test]
async fn systemd_takes_every_line_of_the_units() {
    let place = Place::new("units", "off").await;
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        println!("skipped: there is no systemd-analyze");
        return;
    }
    let folder = place.path("units");
    fs::create_dir(&folder).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display()));
    for (name, text) in units() {
        let path = folder.join(name);
        fs::write(&path, placed(&text, &place)).unwrap();
        verify.arg(path);
    }
    let output = verify.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_configuration_beside_the_units_is_what_they_go_by() {
    let text = fs::read_to_string(folder().join("config.yaml")).unwrap();
    let loaded = config::load(&Sources {
        file: Some((Path::new("/etc/execpool/config.yaml"), &text)),
        env: Vec::new(),
        flags: Vec::new(),
    });
    let loaded = loaded.unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let config = loaded.config;
    assert_eq!(config.reactor.restart, Some(Restart::ExitCode));
    assert_eq!(config.listen.dir, Path::new("/run/execpool"));
    let units = units();
    let unit = |name: &str| &units.iter().find(|unit| unit.0 == name).unwrap().1;
    let address = config.telemetry.listen.unwrap();
    assert!(unit("agents-livez.service").contains(&format!("http://{address}/livez/app")));
    let name = &config.upstreams[0].name;
    assert!(unit("agents.service").contains(&format!("@/{name}?host=/run/execpool")));
    let stop = unit("execpool.service");
    let seconds = stop.split("TimeoutStopSec=").nth(1).unwrap();
    let seconds: u64 = seconds.split('s').next().unwrap().parse().unwrap();
    assert!(Duration::from_secs(seconds) > config.shutdown.grace);
}
