//! The container image: it holds what `image/files` lists, and so does the Dockerfile's; it is
//! small and the same each time; and execpool runs in it with nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod certificates;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use certificates::{Authority, Files, params};
use nix::unistd::Uid;
use serde_json::{Value, json};
use support::image::{self, Image};
use support::{Postgres, PostgresOptions, SOON, eventually};

/// Of all files of the image, unpacked.
const MOST_BYTES: u64 = 15_000_000;
const NAME: &str = "db.example.test";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An entry of the image: its mode, its owner, and the last part of where it comes from.
type Entry = (String, String, String);

/// What `image/files` lists, by path.
fn listed() -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    for line in text("image/files").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let source = match words.get(3).copied() {
            Some("{binary}") => "execpool",
            Some("{sbom}") => "sbom.cdx.json",
            Some(path) => path.rsplit('/').next().unwrap(),
            None => "",
        };
        let entry = (words[1].into(), words[2].into(), source.into());
        found.insert(words[0].to_owned(), entry);
    }
    found
}

/// The instructions of the Dockerfile's last stage, with the lines that go on joined.
fn last_stage() -> Vec<(String, String)> {
    let whole = text("Dockerfile").replace("\\\n", " ");
    let (_, stage) = whole.rsplit_once("\nFROM scratch\n").expect("from scratch");
    let lines = stage
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect("an instruction and its words"))
        .map(|(instruction, rest)| (instruction.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// What the Dockerfile copies, by path.
fn copied() -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    for (_, words) in last_stage().iter().filter(|(name, _)| name == "COPY") {
        let mut mode = String::new();
        let mut owner = String::new();
        let mut paths = Vec::new();
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some(("--chmod", value)) => value.clone_into(&mut mode),
                Some(("--chown", value)) => value.clone_into(&mut owner),
                Some(("--from", value)) => assert_eq!(value, "build", "{words}"),
                _ => paths.push(word),
            }
        }
        let [source, path] = paths[..] else {
            panic!("COPY of one source: {words}")
        };
        let source = if path.ends_with('/') {
            assert!(source.ends_with('/'), "{words}");
            ""
        } else {
            source.rsplit('/').next().unwrap()
        };
        found.insert(path.to_owned(), (mode, owner, source.to_owned()));
    }
    found
}

/// A small image of a stand-in for the binary, which no build has to make.
fn stand_in(directory: &Path) -> Image {
    let binary = directory.join("binary");
    fs::write(&binary, "no program").unwrap();
    let target = directory.join("target");
    let output = image::command(repository())
        .args(["--binary", binary.to_str().unwrap()])
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Image::open(&target.join("image/execpool.tar"))
}

#[test]
fn the_dockerfile_copies_what_the_list_has() {
    assert!(listed().len() >= 6);
    assert_eq!(copied(), listed());
    for name in ["passwd", "group", "nsswitch.conf"] {
        assert!(
            text("Dockerfile").contains(&format!(" image/{name} ")),
            "{name}"
        );
    }
}

#[test]
fn the_dockerfile_sets_what_the_assembled_image_has() {
    let directory = support::guard::short_directory();
    let config = stand_in(directory.path()).config()["config"].take();
    let mut said = json!({"Labels": {}, "ExposedPorts": {}});
    for (instruction, words) in last_stage() {
        match instruction.as_str() {
            "USER" => said["User"] = json!(words),
            "ENTRYPOINT" => said["Entrypoint"] = serde_json::from_str(&words).unwrap(),
            "CMD" => said["Cmd"] = serde_json::from_str(&words).unwrap(),
            "EXPOSE" => said["ExposedPorts"][words] = json!({}),
            "LABEL" => {
                let (name, value) = words.split_once('=').unwrap();
                said["Labels"][name] = json!(value.trim_matches('"'));
            }
            "ARG" | "COPY" => {}
            other => panic!("{other}: scripts/image has to know it, and this test, too"),
        }
    }
    // These are the build's own.
    let version = env!("CARGO_PKG_VERSION");
    assert!(text("Dockerfile").contains(&format!("ARG VERSION={version}\n")));
    said["Labels"]["org.opencontainers.image.version"] = json!(version);
    let revision = "org.opencontainers.image.revision";
    said["Labels"][revision] = config["Labels"][revision].clone();
    assert_eq!(config, said);
    let user = config["User"].as_str().unwrap();
    let (uid, gid) = user.split_once(':').expect("a group as well");
    assert!(
        uid.parse::<u32>().is_ok_and(|uid| uid > 0) && gid.parse::<u32>().is_ok(),
        "Kubernetes can tell that it is not root only by a number: {user}"
    );
}

#[test]
fn the_archive_is_one_for_every_engine() {
    let directory = support::guard::short_directory();
    let image = stand_in(directory.path());
    let (index, manifest, docker) = (image.index(), image.manifest(), image.docker());
    let name = format!("localhost/execpool/execpool:{}", env!("CARGO_PKG_VERSION"));
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["io.containerd.image.name"], name);
    assert_eq!(docker[0]["RepoTags"], json!([name]));
    let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    let place = |descriptor: &Value| format!("blobs/{}", digest(descriptor).replace(':', "/"));
    assert_eq!(docker[0]["Config"], place(&manifest["config"]));
    assert_eq!(docker[0]["Layers"], json!([place(&manifest["layers"][0])]));
    let layer = fs::metadata(image.layer()).unwrap();
    assert_eq!(manifest["layers"][0]["size"], layer.len());
    // The digest of the layer is that of its bytes, the diff_id that of the unpacked ones.
    let sum = |words: &str| {
        let script = format!("{words} <\"$0\" | sha256sum | cut -d' ' -f1");
        let output = Command::new("sh")
            .args(["-c", &script])
            .arg(image.layer())
            .output()
            .unwrap();
        format!("sha256:{}", String::from_utf8_lossy(&output.stdout).trim())
    };
    assert_eq!(digest(&manifest["layers"][0]), sum("cat"));
    assert_eq!(
        image.config()["rootfs"]["diff_ids"],
        json!([sum("gzip -dc")])
    );
}

#[test]
fn the_same_commit_makes_the_same_bytes() {
    let archive = |directory: &Path| {
        stand_in(directory);
        fs::read(directory.join("target/image/execpool.tar")).unwrap()
    };
    let (one, other) = (
        support::guard::short_directory(),
        support::guard::short_directory(),
    );
    let first = archive(one.path());
    std::thread::sleep(Duration::from_millis(1100)); // another second, if times were in it
    assert!(first == archive(other.path()), "the archives differ");
}

#[test]
fn the_list_is_refused_where_it_is_wrong_with_a_sentence() {
    let directory = support::guard::short_directory();
    for (list, says) in [
        ("execpool 0755 0:0 x\n", "line 1 is no entry"),
        ("/a/../b 0755 0:0 x\n", "line 1 is no entry"),
        ("/execpool 0755 0:0\n", "a directory ends with a slash"),
        (
            "/execpool 0755 0:0 {other}\n",
            "say what {other} is with --source other=PATH",
        ),
        ("/execpool 0755 0:0 missing\n", "missing"),
    ] {
        let path = directory.path().join("files");
        fs::write(&path, list).unwrap();
        let output = Command::new("python3")
            .arg(repository().join("image/assemble.py"))
            .args(["--name", "localhost/a:1", "--output"])
            .arg(directory.path().join("a.tar"))
            .arg(&path)
            .output()
            .unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{list}");
        assert!(
            why.contains(says) && !why.contains("Traceback"),
            "{list}: {why}"
        );
    }
    assert!(!directory.path().join("a.tar").exists());
}

#[test]
fn the_image_is_small_and_names_what_is_linked_into_it() {
    let image = Image::open(image::execpool());
    let root = image.root();
    let found: BTreeSet<PathBuf> = walk(&root);
    let size: u64 = found
        .iter()
        .map(|path| fs::metadata(root.join(path.strip_prefix("/").unwrap())).unwrap())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len())
        .sum();
    assert!(size <= MOST_BYTES, "{size} bytes unpacked");
    let wanted: BTreeSet<PathBuf> = listed().into_keys().map(PathBuf::from).collect();
    assert_eq!(found, wanted);

    let bill: Value =
        serde_json::from_slice(&fs::read(root.join("sbom.cdx.json")).unwrap()).unwrap();
    let names: BTreeMap<&str, &str> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["name"].as_str().unwrap(),
                entry["version"].as_str().unwrap(),
            )
        })
        .collect();
    let lock = text("Cargo.lock");
    for name in ["tokio", "rustls", "webpki-roots", "kube", "ring"] {
        let line = format!("name = \"{name}\"\nversion = \"{}\"", names[name]);
        assert!(lock.contains(&line), "{name} {}", names[name]);
    }
    assert!(names.contains_key("glibc") && names.contains_key("rust-std"));
    for name in ["proptest", "serde_derive", "cc"] {
        assert!(!names.contains_key(name), "{name} is not in the binary");
    }
    // Cargo only warns of a name that it does not know, and the crate would be built for size.
    let fast = built_fast();
    assert!(fast.iter().any(|name| name == "execpool"), "{fast:?}");
    for name in fast.iter().filter(|name| *name != "execpool") {
        assert!(names.contains_key(name.as_str()), "{name} is not linked");
    }
}

/// The crates that `Cargo.toml` has built for speed, by their names.
fn built_fast() -> Vec<String> {
    let manifest = text("Cargo.toml");
    let (_, table) = manifest
        .split_once("\n[profile.release.package]\n")
        .expect("a table of packages");
    let lines = table.lines().take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The files below a directory and the directories that are empty, as paths in the image.
fn walk(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries: Vec<_> = fs::read_dir(&directory).unwrap().flatten().collect();
        if entries.is_empty() {
            found.insert(Path::new("/").join(directory.strip_prefix(root).unwrap()));
        }
        for entry in entries {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.insert(Path::new("/").join(entry.path().strip_prefix(root).unwrap()));
            }
        }
    }
    found
}

/// A network, mounts and a root of their own for what runs in the image's files alone.
struct Container {
    root: PathBuf,
    holder: Child,
    // Has the root.
    _image: Image,
}

impl Container {
    fn of(image: Image) -> Self {
        let root = image.root();
        fs::create_dir(root.join("proc")).unwrap();
        fs::create_dir(root.join("dev")).unwrap();
        // What every engine gives a container.
        fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let hosts = "127.0.0.1 localhost in-the-file.test\n";
        fs::write(root.join("etc/hosts"), hosts).unwrap();
        let script = "ip link set lo up; mount -t proc proc \"$0/proc\"; \
            mount --rbind /dev \"$0/dev\"; echo ready; exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-ec", script])
            .arg(&root)
            .stdin(Stdio::piped()) // it ends with this
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self {
            root,
            holder,
            _image: image,
        }
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string()]);
        command.args(["--net", "--mount", "--"]);
        command
    }

    /// execpool as the image's user, with no environment but this and a PATH.
    fn execpool(&self, argument: &str, database_url: &str) -> Command {
        let mut command = self.enter();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DATABASE_URL", database_url)
            .args(["chroot", "--userspec=65532:65532"])
            .arg(&self.root)
            .args(["/execpool", argument]);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A process of a test's, ended with it; what it says goes into a file.
struct Running {
    child: Child,
    said: tempfile::NamedTempFile,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let (out, err) = (said.reopen().unwrap(), said.reopen().unwrap());
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        Self { child, said }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.said.path()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a query through the image's execpool answers, or why it can't; and its log.
async fn query_through(container: &Container, url: &str) -> (Result<String, String>, String) {
    let running = Running::start(container.execpool("run", url));
    let sockets = container.root.join("run/execpool");
    let socket = sockets.join(".s.PGSQL.5432");
    eventually(SOON, "execpool serves", async || {
        socket.exists().then_some(()).ok_or_else(|| running.said())
    })
    .await;
    eventually(SOON, "it accepts", async || {
        tokio::net::UnixStream::connect(&socket).await.map(drop)
    })
    .await;
    let local = format!("postgresql://app@/app?host={}", sockets.display());
    let answer = match tokio_postgres::connect(&local, tokio_postgres::NoTls).await {
        Ok((client, connection)) => {
            tokio::spawn(connection);
            let row = client
                .query_one("SELECT current_database()::text", &[])
                .await;
            row.map(|row| row.get(0))
        }
        Err(error) => Err(error),
    };
    let log = running.said();
    drop(running);
    for entry in fs::read_dir(&sockets).unwrap().flatten() {
        fs::remove_file(entry.path()).unwrap();
    }
    (answer.map_err(|error| format!("{error:?}")), log)
}

#[tokio::test]
async fn execpool_runs_in_the_image_alone_with_names_and_roots() {
    if !Uid::effective().is_root() {
        support::cluster::skipped("another root directory takes root");
        return;
    }
    let container = Container::of(Image::open(image::execpool()));
    // The owner and the mode of the directory for the sockets came with the layer.
    let sockets = fs::metadata(container.root.join("run/execpool")).unwrap();
    assert_eq!((sockets.uid(), sockets.gid()), (65532, 65532));
    assert_eq!(sockets.permissions().mode() & 0o7777, 0o770);

    let mut names = container.enter();
    let server = repository().join("tests/image/names.py");
    names.arg("python3").arg(server).args([NAME, "127.0.0.1"]);
    let names = Running::start(names);
    eventually(SOON, "names are served", async || {
        let said = names.said();
        said.contains("listening").then_some(()).ok_or(said)
    })
    .await;
    let files = Files::new();
    let nobody = Authority::root("nobody knows it");
    let options = PostgresOptions {
        network: Some(container.holder.id()),
        ..PostgresOptions::default()
    };
    let pair = nobody.signed(&params("server", &[NAME]));
    let (postgres, _app): (Postgres, _) = files.server("app", &pair, options).await;
    let port = postgres.port();

    for (host, why) in [(NAME, "by DNS"), ("in-the-file.test", "by /etc/hosts")] {
        let url = format!("postgresql://app@{host}:{port}/app?sslmode=require");
        let (answer, log) = query_through(&container, &url).await;
        assert_eq!(answer.as_deref(), Ok("app"), "{why}: {log}");
    }
    let url = format!("postgresql://app@no.such.test:{port}/app");
    let (answer, log) = query_through(&container, &url).await;
    assert!(answer.is_err(), "{log}");

    // The roots are there, and they are Mozilla's: they don't know this authority.
    let url = format!("postgresql://app@{NAME}:{port}/app?sslrootcert=system");
    let (answer, log) = query_through(&container, &url).await;
    let why = answer.expect_err("an authority of our own is not Mozilla's");
    assert!(why.contains("no authority that is trusted"), "{why}\n{log}");
    assert!(log.contains("which are built in"), "{log}");

    let asked = names.said();
    assert!(asked.contains(&format!("{NAME} 1")), "{asked}");
}
