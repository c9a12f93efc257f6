//! A real Kubernetes that lives as long as its guard: `tests/node/up` starts it, see there.
//!
//! Where the machine can't, a test says so and passes; on a build machine (`CI=true`) it
//! fails instead, so that nothing goes untested there unnoticed (see [`skipped`]):
//!
//! ```ignore
//! let Some(cluster) = Cluster::node() else { return };
//! ```

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{guard, tools};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");

/// Waits for the end of input, that is, of the test program; then ends the cluster in `$2`.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
"$1/down" "$2" 2>/dev/null
rm -rf "$3"
"#;

/// A running Kubernetes. Dropping it ends it and removes all of it; so does the end of the
/// test program.
pub(crate) struct Cluster {
    state: PathBuf,
    settings: HashMap<String, String>,
    watchdog: Child,
    // Goes last.
    _directory: TempDir,
}

/// What a cluster consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Api,
    Node,
}

/// A part of a cluster that a test may take away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    ApiServer,
    Controllers,
    Kubelet,
}

impl Part {
    fn program(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::Controllers => "kube-controller-manager",
            Self::Kubelet => "kubelet",
        }
    }
}

impl Cluster {
    /// An API server and its controllers on the loopback, without a node: pods are objects
    /// that nobody runs. `None`, with the reason printed, where the machine can't.
    pub(crate) fn api() -> Option<Self> {
        Self::start(Kind::Api, &[])
    }

    /// A cluster of one node that has these images, in namespaces of its own. `None`, with
    /// the reason printed, where the machine can't.
    pub(crate) fn node(images: &[&Path]) -> Option<Self> {
        Self::start(Kind::Node, images)
    }

    fn start(kind: Kind, images: &[&Path]) -> Option<Self> {
        if let Err(reason) = possible(kind) {
            skipped(&reason);
            return None;
        }
        let directory = guard::short_directory();
        let state = directory.path().join("it");
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", SCRIPTS])
            .args([&state, directory.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0) // out of reach of a terminal's Ctrl-C
            .spawn()
            .expect("sh starts");
        let mut up = script("up");
        up.arg(&state).arg(match kind {
            Kind::Api => "api",
            Kind::Node => "node",
        });
        let images: Vec<_> = images.iter().map(|path| path.to_string_lossy()).collect();
        up.env("NODE_IMAGES", images.join(" "));
        let output = up.stdin(Stdio::null()).output().expect("bash starts");
        assert!(
            output.status.success(),
            "the cluster does not start:\n{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            logs(&state)
        );
        Some(Self {
            settings: settings(&state),
            state,
            watchdog,
            _directory: directory,
        })
    }

    /// Where its files are, such as `pki/ca.crt`.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// A kubeconfig of its administrator, for who is outside.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// Where the API server listens, for who is outside: a host and a port.
    pub(crate) fn api_address(&self) -> (&str, u16) {
        let port = self.setting("API_PORT").parse().expect("a port");
        (self.setting("API_ADDRESS"), port)
    }

    /// The address of the node, where what runs [`Cluster::inside`] may listen for pods.
    pub(crate) fn node_address(&self) -> &str {
        self.setting("NODE_ADDRESS")
    }

    /// The address under which pods reach what listens on this machine, outside.
    pub(crate) fn host_address(&self) -> &str {
        self.setting("HOST_ADDRESS")
    }

    /// The first process of a node, in whose network others may run.
    pub(crate) fn process(&self) -> u32 {
        let path = self.state.join("init.pid");
        let text = fs::read_to_string(&path).expect("tests/node/up writes it");
        text.trim().parse().expect("a process id")
    }

    fn setting(&self, name: &str) -> &str {
        &self.settings[name]
    }

    /// A command that runs in the cluster's network: the machine's own for an API alone.
    pub(crate) fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(self.state.join("inside"));
        command.arg(program);
        command
    }

    /// kubectl as the administrator, which is not started yet.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.state.join("kubectl"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// kubectl as the administrator, with what it answers.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments)
            .output()
            .expect("kubectl runs")
    }

    /// What kubectl prints. Panics with its message when it fails.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The object or list that `kubectl get` answers with.
    #[track_caller]
    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let mut whole = vec!["get", "--output=json"];
        whole.extend(arguments);
        serde_json::from_str(&self.kubectl(&whole)).expect("kubectl prints JSON")
    }

    /// Creates or changes the objects of a text in YAML or JSON; panics when one is refused.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &str) -> String {
        match self.try_apply(manifests) {
            Ok(said) => said,
            Err(why) => panic!("{why}\n{manifests}"),
        }
    }

    /// The same where it may be refused; answers what kubectl says.
    pub(crate) fn try_apply(&self, manifests: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new_in(&self.state).expect("it can be written");
        fs::write(file.path(), manifests).expect("it was just made");
        let path = file.path().to_string_lossy();
        let output = self.try_kubectl(&["apply", "--server-side", "--filename", &path]);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// containerd's client, for a node.
    #[track_caller]
    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.state.join("ctr"))
            .args(arguments)
            .output();
        let output = output.expect("ctr runs");
        assert!(
            output.status.success(),
            "ctr {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Kills a part.
    pub(crate) fn stop(&self, part: Part) {
        self.part(part, "stop");
    }

    /// Starts a part that was killed, and waits until the API server is ready.
    pub(crate) fn start_again(&self, part: Part) {
        self.part(part, "start");
    }

    /// Stops a part in its tracks: it accepts connections and never answers.
    pub(crate) fn freeze(&self, part: Part) {
        self.part(part, "freeze");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, part: Part) {
        self.part(part, "thaw");
    }

    fn part(&self, part: Part, action: &str) {
        guard::run(script("part").args([
            self.state.as_os_str(),
            part.program().as_ref(),
            action.as_ref(),
        ]));
    }

    /// Asks every tenth of a second until `probe` answers `Ok`, and returns that; panics with
    /// the last `Err` when it has not within `within`.
    #[track_caller]
    pub(crate) fn eventually<T, E: std::fmt::Debug>(
        &self,
        within: Duration,
        claim: &str,
        mut probe: impl FnMut(&Self) -> Result<T, E>,
    ) -> T {
        let start = Instant::now();
        loop {
            match probe(self) {
                Ok(value) => return value,
                Err(_) if start.elapsed() < within => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(last) => panic!("not within {within:?}: {claim}; last seen: {last:#?}"),
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", logs(&self.state));
        }
        let down = script("down").arg(&self.state).output();
        // The watchdog has nothing left to do; failing means that it is gone already.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let left = match down {
            Ok(output) if output.status.success() => return,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(
            std::thread::panicking(),
            "something of the cluster is left: {left}"
        );
        eprintln!("something of the cluster is left: {left}");
    }
}

/// Says why a test is not run. On a build machine (`CI=true`) that is a failure, unless
/// `EXECPOOL_NODE=off` says that another one runs what takes root.
pub(crate) fn skipped(reason: &str) {
    let is = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|value| value == wanted);
    assert!(
        !is("CI", "true") || is("EXECPOOL_NODE", "off"),
        "this build machine must run these tests: {reason}"
    );
    println!("skipped: {reason}");
}

/// A script of `tests/node` with the tools that it needs.
fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(SCRIPTS).join(name));
    command.env("EXECPOOL_KUBERNETES", tools::kubernetes());
    if let Some(containerd) = tools::containerd() {
        command.env("EXECPOOL_CONTAINERD", containerd);
    }
    command
}

/// Why this machine can't run such a cluster.
fn possible(kind: Kind) -> Result<(), String> {
    let has = |program: &str| {
        std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
        })
    };
    let mut programs = vec!["bash", "openssl", "curl", "setsid"];
    if kind == Kind::Node {
        programs.extend(["unshare", "nsenter", "ip", "mount", "python3"]);
    }
    if let Some(missing) = programs.into_iter().find(|program| !has(program)) {
        return Err(format!("there is no {missing} on this machine"));
    }
    if kind == Kind::Api {
        return Ok(());
    }
    if std::env::var("EXECPOOL_NODE").is_ok_and(|value| value == "off") {
        return Err("EXECPOOL_NODE is off".to_owned());
    }
    if tools::containerd().is_none() {
        return Err("there is no containerd: scripts/setup takes it by apt-get".to_owned());
    }
    let unshared = Command::new("unshare")
        .args("--mount --net --pid --uts --ipc --fork true".split(' '))
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    if unshared.status.success() {
        return Ok(());
    }
    Err(format!(
        "a node takes namespaces of its own, which takes root with CAP_SYS_ADMIN: {}",
        String::from_utf8_lossy(&unshared.stderr).trim()
    ))
}

/// What `up` has written, `NAME=VALUE` a line; no value here needs quotes.
fn settings(state: &Path) -> HashMap<String, String> {
    let path = state.join("settings");
    let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The end of what each part says.
fn logs(state: &Path) -> String {
    let Ok(entries) = fs::read_dir(state.join("log")) else {
        return String::new();
    };
    let mut text = String::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let log = fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(8)..];
        text += &format!("==== {}\n{}\n", path.display(), last.join("\n"));
    }
    text
}
