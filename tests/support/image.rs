//! The container images that `scripts/image` assembles, and what is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::{guard, tools};

/// An image's archive, unpacked.
pub(crate) struct Image {
    directory: TempDir,
}

/// The archive of execpool's image, as it is released; built when it is first asked for.
/// `EXECPOOL_IMAGE` names one that is there already.
pub(crate) fn execpool() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os("EXECPOOL_IMAGE") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => assembled(&[]),
    })
}

/// The archive of the image of `charts/example`'s app.
pub(crate) fn example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| assembled(&["--example"]))
}

/// What `scripts/image` makes; it prints where.
pub(crate) fn assembled(arguments: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = command(root)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("bash starts");
    assert!(output.status.success(), "scripts/image {arguments:?} fails");
    let path = String::from_utf8(output.stdout).expect("a path in UTF-8");
    root.join(path.trim())
}

/// `scripts/image` of a checkout.
pub(crate) fn command(checkout: &Path) -> Command {
    let mut command = Command::new("bash");
    command
        .arg(checkout.join("scripts/image"))
        .env("EXECPOOL_PYTHON", tools::python());
    command
}

impl Image {
    /// Unpacks an archive.
    pub(crate) fn open(archive: &Path) -> Self {
        let directory = guard::short_directory();
        let image = Self { directory };
        unpack(archive, image.directory.path());
        image
    }

    /// A file of the archive.
    fn file(&self, name: &str) -> Vec<u8> {
        let path = self.directory.path().join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.file(name)).expect("JSON")
    }

    fn blob(&self, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().expect("a digest");
        format!("blobs/{}", digest.replace(':', "/"))
    }

    /// The index, by which an engine begins.
    pub(crate) fn index(&self) -> Value {
        self.json("index.json")
    }

    /// What Docker's archives begin with.
    pub(crate) fn docker(&self) -> Value {
        self.json("manifest.json")
    }

    /// The manifest of the one image.
    pub(crate) fn manifest(&self) -> Value {
        self.json(&self.blob(&self.index()["manifests"][0]))
    }

    /// The image's configuration.
    pub(crate) fn config(&self) -> Value {
        self.json(&self.blob(&self.manifest()["config"]))
    }

    /// The archive of its one layer.
    pub(crate) fn layer(&self) -> PathBuf {
        let layer = self.blob(&self.manifest()["layers"][0]);
        self.directory.path().join(layer)
    }

    /// The files of the layer, in a directory of their own, with owners and modes where the
    /// tests are root's.
    pub(crate) fn root(&self) -> PathBuf {
        let root = self.directory.path().join("root");
        fs::create_dir(&root).expect("it is asked for once");
        unpack(&self.layer(), &root);
        root
    }
}

fn unpack(archive: &Path, directory: &Path) {
    guard::run(
        Command::new("tar")
            .arg("--extract")
            .arg("--preserve-permissions")
            .args(["--file".as_ref(), archive.as_os_str()])
            .args(["--directory".as_ref(), directory.as_os_str()]),
    );
}
