//! The charts, rendered by Helm 3 and Helm 4.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::tools;

/// The release's name and namespace, unless something else is said.
pub(crate) const RELEASE: &str = "demo";
pub(crate) const NAMESPACE: &str = "agents";

/// A version of Kubernetes that has all that the charts may use.
const NEWEST: &str = "1.37.0";

/// Which Helm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Helm {
    Three,
    Four,
}

impl Helm {
    pub(crate) const BOTH: [Self; 2] = [Self::Three, Self::Four];

    /// Helm, with nothing of who runs the tests: no plug-ins, no repositories.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(match self {
            Self::Three => tools::helm(3),
            Self::Four => tools::helm(4),
        });
        let nowhere = concat!(env!("CARGO_TARGET_TMPDIR"), "/helm");
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, nowhere);
        }
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    /// Runs it in a directory: what it says on standard output, or why it failed.
    pub(crate) fn run(self, directory: &Path, args: &[&str]) -> Result<String, String> {
        let mut command = self.command();
        let output = command.current_dir(directory).args(args).output();
        let output = output.unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            // What a linter finds is on standard output.
            false => Err(text(&output.stderr) + &text(&output.stdout)),
        }
    }
}

/// Where the charts are in the repository.
pub(crate) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts")
}

/// A copy of the charts, each with the charts that it depends on.
pub(crate) struct Charts {
    directory: tempfile::TempDir,
}

impl Charts {
    pub(crate) fn new() -> Self {
        let charts = Self {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
        };
        for name in ["execpool-sidecar", "execpool", "example"] {
            copy(&source().join(name), &charts.path(name));
        }
        charts.vendor("example");
        charts
    }

    /// Where a chart is.
    pub(crate) fn path(&self, chart: &str) -> PathBuf {
        self.directory.path().join(chart)
    }

    /// Puts the charts that this one depends on into it, as `helm dependency build` does.
    fn vendor(&self, chart: &str) {
        let own = self.path(chart).join("charts");
        let _ = fs::remove_dir_all(&own);
        for dependency in ["execpool-sidecar", "execpool"] {
            copy(&source().join(dependency), &own.join(dependency));
        }
    }

    /// A chart of somebody else's, which has the library under these aliases, and one template.
    pub(crate) fn consumer(&self, name: &str, aliases: &[&str], template: &str) {
        let chart = self.path(name);
        fs::create_dir_all(chart.join("templates")).unwrap();
        let dependencies: Vec<Value> = aliases
            .iter()
            .map(|alias| json!({"name": "execpool-sidecar", "alias": alias, "version": "0.1.0"}))
            .collect();
        let about = json!({
            "apiVersion": "v2", "name": name, "version": "0.1.0", "dependencies": dependencies,
        });
        fs::write(chart.join("Chart.yaml"), about.to_string()).unwrap();
        fs::write(chart.join("templates/all.yaml"), template).unwrap();
        copy(
            &source().join("execpool-sidecar"),
            &chart.join("charts/execpool-sidecar"),
        );
    }

    /// A chart that is to be rendered.
    pub(crate) fn chart<'a>(&'a self, name: &'a str) -> Render<'a> {
        Render {
            charts: self,
            chart: name,
            release: RELEASE,
            namespace: NAMESPACE,
            kubernetes: NEWEST,
            values: Vec::new(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "charts" {
                copy(&entry.path(), &to.join(entry.file_name()));
            }
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A chart with its values.
#[must_use]
#[derive(Clone)]
pub(crate) struct Render<'a> {
    charts: &'a Charts,
    chart: &'a str,
    release: &'a str,
    namespace: &'a str,
    kubernetes: &'a str,
    values: Vec<String>,
}

impl<'a> Render<'a> {
    /// These values, over those before.
    pub(crate) fn values(mut self, values: Value) -> Self {
        self.values.push(values.to_string());
        self
    }

    /// The same of a file's text.
    pub(crate) fn values_text(mut self, text: &str) -> Self {
        self.values.push(text.to_owned());
        self
    }

    pub(crate) fn release(mut self, name: &'a str) -> Self {
        self.release = name;
        self
    }

    pub(crate) fn namespace(mut self, name: &'a str) -> Self {
        self.namespace = name;
        self
    }

    /// For a cluster of this version.
    pub(crate) fn kubernetes(mut self, version: &'a str) -> Self {
        self.kubernetes = version;
        self
    }

    /// What one Helm makes of it, or its complaint.
    pub(crate) fn text(&self, helm: Helm) -> Result<String, String> {
        self.run(helm, &["template", self.release, self.chart])
    }

    /// The notes that an installation would print. Helm 3 asks a cluster before it renders any.
    pub(crate) fn notes(&self) -> String {
        let words = ["install", self.release, self.chart, "--dry-run=client"];
        let text = self.run(Helm::Four, &words);
        let text = text.unwrap_or_else(|why| panic!("{why}"));
        let (_, notes) = text.split_once("\nNOTES:\n").expect("it has notes");
        notes.to_owned()
    }

    fn run(&self, helm: Helm, words: &[&str]) -> Result<String, String> {
        let values: Vec<tempfile::NamedTempFile> = self
            .values
            .iter()
            .map(|text| {
                let file = tempfile::NamedTempFile::new_in(self.charts.directory.path()).unwrap();
                fs::write(file.path(), text).unwrap();
                file
            })
            .collect();
        let mut args = words.to_vec();
        args.extend(["--namespace", self.namespace]);
        if words[0] == "template" {
            args.extend(["--kube-version", self.kubernetes]);
        }
        for file in &values {
            args.extend(["--values", file.path().to_str().unwrap()]);
        }
        helm.run(self.charts.directory.path(), &args)
    }

    /// What both Helms make of it, which is the same.
    pub(crate) fn objects(&self) -> Objects {
        let [three, four] = Helm::BOTH.map(|helm| match self.text(helm) {
            Ok(text) => Objects::parse(&text),
            Err(why) => panic!("{helm:?}: {why}"),
        });
        assert_eq!(three, four, "Helm 3 and Helm 4 differ");
        four
    }

    /// Both Helms' complaint.
    pub(crate) fn complaints(&self) -> [String; 2] {
        Helm::BOTH.map(|helm| match self.text(helm) {
            Err(why) => why,
            Ok(text) => panic!("{helm:?} complains of nothing:\n{text}"),
        })
    }
}

/// What a chart comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objects(pub(crate) Vec<Value>);

impl Objects {
    /// The documents of a file, sorted by kind and name; empty ones are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut objects: Vec<Value> = documents.into_iter().filter(Value::is_object).collect();
        objects.sort_by_key(|one| format!("{} {}", one["kind"], one["metadata"]["name"]));
        Self(objects)
    }

    /// The only one of a kind.
    pub(crate) fn one(&self, kind: &str) -> &Value {
        match self.all(kind).as_slice() {
            [one] => one,
            other => panic!("{} of the kind {kind}: {other:?}", other.len()),
        }
    }

    /// All of a kind.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|one| one["kind"] == kind).collect()
    }

    /// Their kinds, sorted.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.0
            .iter()
            .map(|one| one["kind"].as_str().unwrap())
            .collect()
    }

    /// The spec of the only Deployment's pods.
    pub(crate) fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }

    /// A container of that pod, be it an init container.
    pub(crate) fn container(&self, name: &str) -> &Value {
        container(self.pod(), name)
    }
}

/// A container of a pod's spec, be it an init container.
pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let places = ["initContainers", "containers"];
    let all = places
        .iter()
        .filter_map(|place| pod[place].as_array())
        .flatten();
    let found: Vec<&Value> = all.filter(|one| one["name"] == name).collect();
    match found.as_slice() {
        [one] => one,
        other => panic!("{} containers of the name {name} in {pod}", other.len()),
    }
}

/// A container's variables that have a value of their own.
pub(crate) fn environment(container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().into_iter().flatten();
    variables
        .filter_map(|one| {
            let value = one["value"].as_str()?;
            Some((one["name"].as_str()?.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The value of one of them.
pub(crate) fn variable(container: &Value, name: &str) -> Option<String> {
    let all = environment(container);
    all.into_iter()
        .find(|(one, _)| one == name)
        .map(|(_, value)| value)
}
