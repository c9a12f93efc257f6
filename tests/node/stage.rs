//! One node for the whole test program, with both images and a PostgreSQL in its network; and a
//! namespace and a release of the example's chart for each test.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::Cluster;
use crate::support::{Postgres, PostgresOptions, SOON, image, tools};

/// How long an app may take to accept on a machine that stands still; a pod that is gone takes no longer.
const CONNECT: Duration = Duration::from_secs(15);

/// How long a rollout may take on a busy machine.
const ROLLOUT: &str = "--timeout=300s";

/// The node, and a server for those who share one.
struct Place {
    cluster: Cluster,
    postgres: Postgres,
}

/// A namespace in which the example's chart is installed. When the test fails, it tells what is
/// in it.
pub(crate) struct Stage {
    place: &'static Place,
    /// The namespace, which is the database's name as well.
    pub(crate) name: &'static str,
    directory: TempDir,
}

/// A command of kubectl's that writes into a file for as long as it goes on.
pub(crate) struct Follow {
    child: Child,
    file: PathBuf,
}

fn place() -> Option<&'static Place> {
    // It is never dropped; the watchdogs of the cluster and of the server see to their ends.
    static PLACE: OnceLock<Option<Place>> = OnceLock::new();
    let made = PLACE.get_or_init(|| {
        // The reason comes before the minutes of a build.
        let cluster = Cluster::node(&[])?;
        for archive in [image::execpool(), image::example()] {
            cluster.ctr(&["images", "import", archive.to_str().expect("UTF-8")]);
        }
        let postgres = postgres_in(&cluster);
        Some(Place { cluster, postgres })
    });
    made.as_ref()
}

/// A server that pods reach at the node's address.
fn postgres_in(cluster: &Cluster) -> Postgres {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Postgres::start(PostgresOptions {
        network: Some(cluster.process()),
        settings: vec![setting("listen_addresses", "*")],
        hba: vec!["host all all 10.213.0.0/16 trust".to_owned()],
        ..PostgresOptions::default()
    })
}

impl Stage {
    /// A namespace that is new, in which Pod Security forbids all that it can, and a database.
    /// `None` where the machine can't.
    pub(crate) async fn new(name: &'static str) -> Option<Self> {
        let place = place()?;
        place.postgres.database(name).await;
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}});
        place.cluster.apply(&namespace.to_string());
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let charts = concat!(env!("CARGO_MANIFEST_DIR"), "/charts");
        let mut copy = Command::new("cp");
        copy.args(["-R", charts]).arg(directory.path());
        crate::support::guard::run(&mut copy);
        let stage = Self {
            place,
            name,
            directory,
        };
        stage.helm(&[
            "dependency",
            "build",
            stage.chart().to_str().expect("UTF-8"),
        ]);
        Some(stage)
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        &self.place.cluster
    }

    pub(crate) fn postgres(&self) -> &'static Postgres {
        &self.place.postgres
    }

    /// A server of one's own, for who stops it.
    pub(crate) fn own_postgres(&self) -> Postgres {
        postgres_in(self.cluster())
    }

    /// The database of this namespace on a server.
    pub(crate) fn url(&self, postgres: &Postgres) -> String {
        let (host, port) = (self.cluster().node_address(), postgres.port());
        format!("postgresql://app@{host}:{port}/{}", self.name)
    }

    /// The same as an upstream, which may take its time on a machine that stands still.
    pub(crate) fn upstream(&self, postgres: &Postgres) -> Value {
        json!({"url": self.url(postgres), "connect_timeout": "20s"})
    }

    fn chart(&self) -> PathBuf {
        self.directory.path().join("charts/example")
    }

    fn helm(&self, arguments: &[&str]) -> String {
        let output = Command::new(tools::helm(4))
            .args(arguments)
            .env("KUBECONFIG", self.cluster().kubeconfig())
            .env("HELM_CACHE_HOME", self.directory.path())
            .env("HELM_CONFIG_HOME", self.directory.path())
            .env("HELM_DATA_HOME", self.directory.path())
            .stdin(Stdio::null())
            .output()
            .expect("helm runs");
        let (said, why) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "helm {arguments:?}: {why}{said}");
        said
    }

    /// The Events of a reason that regard a pod.
    #[track_caller]
    pub(crate) fn told(&self, pod: &Value, reason: &str) -> Vec<Value> {
        let about = format!(
            "--field-selector=regarding.name={},reason={reason}",
            name(pod)
        );
        let found = self.get(&["events.v1.events.k8s.io", &about]);
        found["items"].as_array().expect("a list").clone()
    }

    /// Installs the example's chart, or upgrades it to these values; answers the notes. The
    /// reactor is off unless the values say otherwise.
    pub(crate) fn install(&self, values: &Value) -> String {
        let base = json!({
            "platform": {"enabled": false},
            "execpool": {
                "image": {"repository": "localhost/execpool/execpool",
                    "tag": env!("CARGO_PKG_VERSION"), "pullPolicy": "Never"},
                "serviceAccountName": "",
                "upstreams": [self.upstream(self.postgres())],
            },
        });
        let files = [("base.json", &base), ("more.json", values)].map(|(name, values)| {
            let path = self.directory.path().join(name);
            fs::write(&path, values.to_string()).expect("the directory is the test's");
            path.to_str().expect("UTF-8").to_owned()
        });
        let chart = self.chart();
        let words = ["upgrade", "--install", "example"];
        let mut arguments = words.to_vec();
        arguments.extend([chart.to_str().expect("UTF-8"), "--namespace", self.name]);
        for file in &files {
            arguments.extend(["--values", file]);
        }
        self.helm(&arguments)
    }

    /// The same, and waits until all its pods are ready.
    pub(crate) fn run(&self, values: &Value) {
        self.install(values);
        self.rolled_out();
    }

    /// Waits until the Deployment is what it was told to be.
    pub(crate) fn rolled_out(&self) {
        self.kubectl(&["rollout", "status", "deployment/example", ROLLOUT]);
    }

    /// kubectl in this namespace.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let mut whole = vec!["--namespace", self.name];
        whole.extend(arguments);
        self.cluster().kubectl(&whole)
    }

    /// An object or a list of this namespace.
    #[track_caller]
    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let mut whole = vec!["--namespace", self.name];
        whole.extend(arguments);
        self.cluster().get(&whole)
    }

    /// The app's pods that are not on their way out.
    #[track_caller]
    pub(crate) fn pods(&self) -> Vec<Value> {
        let found = self.get(&["pods", "--selector=app.kubernetes.io/component=app"]);
        let items = found["items"].as_array().expect("a list").iter();
        items
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .cloned()
            .collect()
    }

    /// The only one of them.
    #[track_caller]
    pub(crate) fn pod(&self) -> Value {
        match <[Value; 1]>::try_from(self.pods()) {
            Ok([pod]) => pod,
            Err(pods) => panic!("{} pods: {pods:#?}", pods.len()),
        }
    }

    /// The first JSON line of an event that a container of a pod writes. What it has written is in its log a moment
    /// later.
    #[track_caller]
    pub(crate) fn says(&self, pod: &str, container: &str, event: &str) -> Value {
        let claim = format!("{container} says {event}");
        self.cluster().eventually(SOON, &claim, |_| {
            let log = self.log(pod, container);
            events(&log, event).first().cloned().ok_or(log)
        })
    }

    /// What a container of a pod has written so far.
    pub(crate) fn log(&self, pod: &str, container: &str) -> String {
        self.kubectl(&["logs", pod, "--container", container])
    }

    /// Keeps what kubectl prints for a person, for the documentation, if somebody wants it:
    /// `EXECPOOL_SCREENS` is a directory.
    pub(crate) fn screens(&self, when: &str, pod: &Value) {
        self.screen(&format!("{when}-get"), &["get", "pod", "-o", "wide"]);
        self.screen(&format!("{when}-describe"), &["describe", "pod", name(pod)]);
        let about = format!("pod/{}", name(pod));
        self.screen(&format!("{when}-events"), &["events", "--for", &about]);
    }

    fn screen(&self, title: &str, arguments: &[&str]) {
        if let Some(directory) = std::env::var_os("EXECPOOL_SCREENS") {
            let path = Path::new(&directory).join(format!("{}-{title}.txt", self.name));
            let command = format!("$ kubectl -n {} {}\n", self.name, arguments.join(" "));
            let text = command + &self.kubectl(arguments);
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// Follows what kubectl goes on printing; it has begun to.
    pub(crate) fn follow(&self, arguments: &[&str]) -> Follow {
        let file = self.directory.path().join(format!(
            "followed-{}",
            fs::read_dir(self.directory.path()).expect("ours").count()
        ));
        let mut whole = vec!["--namespace", self.name];
        whole.extend(arguments);
        let child = self
            .cluster()
            .kubectl_command(&whole)
            .stdout(File::create(&file).expect("the directory is the test's"))
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl runs");
        let followed = Follow { child, file };
        self.cluster()
            .eventually(SOON, "something is followed", |_| match followed.so_far() {
                nothing if nothing.is_empty() => Err(nothing),
                _ => Ok(()),
            });
        followed
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arguments in [
                &["get", "pods", "--output=wide"][..],
                &["describe", "pods"],
                &[
                    "logs",
                    "--selector=app.kubernetes.io/instance=example",
                    "--all-containers",
                    "--prefix",
                    "--tail=40",
                ],
            ] {
                let mut whole = vec!["--namespace", self.name];
                whole.extend(arguments);
                let said = self.cluster().try_kubectl(&whole);
                eprintln!("$ kubectl {}", whole.join(" "));
                eprintln!("{}", String::from_utf8_lossy(&said.stdout));
                eprintln!("{}", String::from_utf8_lossy(&said.stderr));
            }
        }
        let name = ["delete", "namespace", self.name, "--wait=false"];
        let _ = self.cluster().try_kubectl(&name);
    }
}

impl Follow {
    /// What was printed, when kubectl has ended by itself, or that `is_all`, or long enough was waited for it.
    pub(crate) fn end(mut self, is_all: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            // In this order: what it printed last is there when it has ended.
            let is_over = start.elapsed() > SOON || !matches!(self.child.try_wait(), Ok(None));
            let so_far = self.so_far();
            if is_over || is_all(&so_far) {
                return so_far;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn so_far(&self) -> String {
        fs::read_to_string(&self.file).expect("it was made")
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a pod over HTTP: the status and the body, or why there is none.
pub(crate) fn ask(pod: &Value, port: u16, path: &str) -> Result<(u16, Value), String> {
    let address = pod["status"]["podIP"].as_str().ok_or("it has no address")?;
    let address = format!("{address}:{port}").parse().expect("an address");
    let wait = Duration::from_secs(60);
    let why = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, CONNECT).map_err(why)?;
    stream.set_read_timeout(Some(wait)).map_err(why)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").map_err(why)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(why)?;
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("it says nothing")?;
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Ok((status.ok_or("it has no status")?, body))
}

/// The status of a container of a pod, be it an init container.
pub(crate) fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let places = ["initContainerStatuses", "containerStatuses"];
    let mut all = places
        .iter()
        .filter_map(|place| pod["status"][place].as_array())
        .flatten();
    all.find(|status| status["name"] == container)
        .unwrap_or(&Value::Null)
}

/// What a pod says of itself under `execpool.dev/`; nothing where it doesn't.
pub(crate) fn annotation<'a>(pod: &'a Value, name: &str) -> &'a str {
    let annotations = &pod["metadata"]["annotations"];
    annotations[format!("execpool.dev/{name}")]
        .as_str()
        .unwrap_or_default()
}

/// The status and the reason of a pod's condition `execpool.dev/PoolAvailable`.
pub(crate) fn available(pod: &Value) -> (&str, &str) {
    let conditions = pod["status"]["conditions"].as_array();
    let ours = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "execpool.dev/PoolAvailable");
    let word = |name: &str| {
        ours.and_then(|ours| ours[name].as_str())
            .unwrap_or_default()
    };
    (word("status"), word("reason"))
}

/// The JSON lines of a log that are of one event.
pub(crate) fn events(log: &str, event: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["event"] == event)
        .collect()
}

/// A path's name as text.
pub(crate) fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().expect("every pod has one")
}

/// Seconds of a time as Kubernetes writes it.
pub(crate) fn seconds(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    let output = Command::new("date")
        .args(["--date", text, "+%s"])
        .output()
        .expect("date runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("date knows that format")
}
