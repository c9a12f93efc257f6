//! The files of TLS: replaced as Kubernetes does with a Secret, broken, healed; and the system's
//! own authorities.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod certificates;
mod support;

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use certificates::{Authority, Files, Pair, params};
use execpool::config::{Identity, Roots, SslMode, Tls};
use execpool::protocol::startup::Parameters;
use execpool::server::{Address, Connection, Login};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rcgen::SerialNumber;
use support::sidecar::upstream;
use support::{Database, PostgresOptions, SOON, Sidecar, eventually};
use tempfile::TempDir;

/// Which certificate of ours the server has seen.
const SERIAL: &str =
    "SELECT client_serial::text FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
const SSL: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// A directory as Kubernetes mounts a Secret: each name leads by way of `..data` into one
/// directory, and `..data` is replaced in one step.
struct Secret {
    directory: TempDir,
    turn: Cell<u32>,
}

impl Secret {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            turn: Cell::new(0),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces all that it holds.
    fn put(&self, files: &[(&str, &str)]) {
        let turn = self.turn.replace(self.turn.get() + 1);
        let (young, old) = (format!("..{turn}"), fs::read_link(self.path("..data")).ok());
        fs::create_dir(self.path(&young)).unwrap();
        for (name, text) in files {
            let path = self.path(&young).join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if fs::symlink_metadata(self.path(name)).is_err() {
                symlink(Path::new("..data").join(name), self.path(name)).unwrap();
            }
        }
        symlink(&young, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.path(old.to_str().unwrap())).unwrap();
        }
    }

    /// What names its files in a URL.
    fn parameters(&self) -> String {
        let path = |name| self.path(name).display().to_string();
        let (ca, crt, key) = (path("ca.crt"), path("tls.crt"), path("tls.key"));
        format!("sslmode=verify-full&sslrootcert={ca}&sslcert={crt}&sslkey={key}")
    }
}

/// A client certificate for `app` with this number.
fn numbered(authority: &Authority, serial: u64) -> Pair {
    let mut params = params("app", &[]);
    params.serial_number = Some(SerialNumber::from(serial));
    authority.signed(&params)
}

/// A server that wants a client certificate of this authority.
fn demanding(files: &Files, authority: &Authority) -> PostgresOptions {
    let trusted = files.write("clients.crt", &authority.certificate);
    PostgresOptions {
        settings: vec![("ssl_ca_file".to_owned(), trusted)],
        hba: vec![
            "hostssl all app 127.0.0.1/32 cert".to_owned(),
            "hostnossl all app 127.0.0.1/32 reject".to_owned(),
        ],
        ..PostgresOptions::default()
    }
}

/// What a new connection of an execution of its own finds, or why it is refused.
async fn fresh(sidecar: &Sidecar, database: &Database, name: &str, sql: &str) -> String {
    match sidecar.client(&database.name, name).await {
        Ok(client) => client.query_one(sql, &[]).await.unwrap().get(0),
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn replaced_files_count_for_the_next_connection_without_a_reload() {
    let (files, secret) = (Files::new(), Secret::new());
    let (old, new) = (Authority::root("old"), Authority::root("new"));
    let server = old.signed(&params("server", &["localhost"]));
    let options = demanding(&files, &old);
    let (postgres, database) = files.server("replaced", &server, options).await;
    let (first, second) = (numbered(&old, 1001), numbered(&old, 1002));
    let both = old.certificate.clone() + &new.certificate;
    let put = |ca: &str, own: &Pair| {
        secret.put(&[("ca.crt", ca), ("tls.crt", &own.0), ("tls.key", &own.1)]);
    };
    put(&old.certificate, &first);
    let (port, parameters) = (postgres.port(), secret.parameters());
    let url = format!("postgresql://app@localhost:{port}/replaced?{parameters}");
    let sidecar = Sidecar::start(upstream("replaced", &url) + "    connect_timeout: 60s\n").await;
    let stays = sidecar.client("replaced", "a").await.unwrap();
    let serial: String = stays.query_one(SERIAL, &[]).await.unwrap().get(0);
    assert_eq!(serial, "1001");

    put(&old.certificate, &second);
    assert_eq!(fresh(&sidecar, &database, "b", SERIAL).await, "1002");

    // The server's own is signed by another authority from here on, and we are not told first.
    let moved = new.signed(&params("server", &["localhost"]));
    files.write("replaced.crt", &moved.0);
    files.write("replaced.key", &moved.1);
    support::guard::give_away(&files.at("replaced.key"));
    let admin = postgres.admin().await;
    admin.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
    let why = eventually(SOON, "the server has another certificate", {
        let turn = Cell::new(0);
        let (sidecar, database) = (&sidecar, &database);
        async move || {
            turn.set(turn.get() + 1);
            let name = format!("c{}", turn.get());
            match fresh(sidecar, database, &name, SERIAL).await {
                serial if serial == "1002" => Err(serial),
                why => Ok(why),
            }
        }
    })
    .await;
    assert!(
        why.contains("signed by no authority that is trusted"),
        "{why}"
    );
    put(&both, &second);
    assert_eq!(fresh(&sidecar, &database, "d", SERIAL).await, "1002");

    let serial: String = stays.query_one(SERIAL, &[]).await.unwrap().get(0);
    assert_eq!(serial, "1001", "what is connected stays");
}

#[tokio::test]
async fn a_broken_file_is_named_and_the_next_good_one_heals_it() {
    let (files, secret) = (Files::new(), Secret::new());
    let authority = Authority::root("an authority");
    let server = authority.signed(&params("server", &["localhost"]));
    let options = demanding(&files, &authority);
    let (postgres, database) = files.server("broken", &server, options).await;
    let ca = &authority.certificate;
    let ((crt, key), other) = (numbered(&authority, 1), numbered(&authority, 2));
    let good = || secret.put(&[("ca.crt", ca), ("tls.crt", &crt), ("tls.key", &key)]);
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let garbled = crt.replace("-----\nMII", "-----\nAAA");
    assert_ne!(garbled, crt);
    good();
    let (port, parameters) = (postgres.port(), secret.parameters());
    let url = format!("postgresql://app@localhost:{port}/broken?{parameters}");
    let sidecar = Sidecar::start(upstream("broken", &url) + "    connect_timeout: 60s\n").await;
    let stays = sidecar.client("broken", "stays").await.unwrap();
    for (turn, (parameter, named, [broken_ca, broken_crt, broken_key])) in [
        ("sslrootcert", "ca.crt", [Some(half(ca)), None, None]),
        ("sslrootcert", "ca.crt", [Some(String::new()), None, None]),
        ("sslrootcert", "ca.crt", [Some("?".to_owned()), None, None]),
        ("sslcert", "tls.crt", [None, Some(half(&crt)), None]),
        ("sslcert", "tls.crt", [None, Some(String::new()), None]),
        ("sslcert", "tls.crt", [None, Some(garbled), None]),
        ("sslkey", "tls.key", [None, None, Some(half(&key))]),
        ("sslkey", "tls.key", [None, None, Some(String::new())]),
        ("sslkey", "tls.key", [None, None, Some(other.1)]),
        ("sslkey", "tls.crt", [None, Some(other.0), None]),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{turn}: {parameter}");
        let put = |name, broken: &Option<String>, whole: &str| {
            (name, broken.clone().unwrap_or(whole.to_owned()))
        };
        let all = [
            put("ca.crt", &broken_ca, ca),
            put("tls.crt", &broken_crt, &crt),
            put("tls.key", &broken_key, &key),
        ];
        secret.put(&all.each_ref().map(|(name, text)| (*name, text.as_str())));
        let why = fresh(&sidecar, &database, &format!("bad{turn}"), SERIAL).await;
        let path = secret.path(named).display().to_string();
        assert!(why.contains(&path), "{what}: {why}");
        assert!(why.contains(parameter), "{what}: {why}");
        assert!(!why.contains("PRIVATE"), "{what}: {why}");
        stays.query_one("SELECT 1", &[]).await.unwrap();
        good();
        let found = fresh(&sidecar, &database, &format!("good{turn}"), SERIAL).await;
        assert_eq!(found, "1", "{what}");
    }
    fs::remove_file(secret.path("..data")).unwrap();
    let why = fresh(&sidecar, &database, "missing", SERIAL).await;
    assert!(
        why.contains("ca.crt") && why.contains("can't be read"),
        "{why}"
    );
}

#[tokio::test]
async fn a_certificate_and_a_key_that_are_replaced_between_the_reading_of_both_are_read_again() {
    let (files, secret) = (Files::new(), Secret::new());
    let authority = Authority::root("an authority");
    let server = authority.signed(&params("server", &["localhost"]));
    let options = demanding(&files, &authority);
    let (postgres, database) = files.server("between", &server, options).await;
    let (old, new) = (numbered(&authority, 1), numbered(&authority, 2));
    let ca = authority.certificate.clone();
    secret.put(&[("ca.crt", &ca), ("tls.crt", ""), ("tls.key", &old.1)]);
    // Who reads a pipe waits for its end: so what is read next is replaced before it is.
    let pipe = secret.path("..data/tls.crt");
    fs::remove_file(&pipe).unwrap();
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let tls = Arc::new(Tls {
        mode: SslMode::VerifyFull,
        roots: Roots::File(secret.path("ca.crt")),
        identity: Some(Identity {
            certificate: secret.path("tls.crt"),
            key: secret.path("tls.key"),
        }),
        ..Tls::default()
    });
    let replacing = std::thread::spawn(move || {
        let mut pipe = fs::File::options().write(true).open(pipe).unwrap();
        pipe.write_all(old.0.as_bytes()).unwrap();
        secret.put(&[("ca.crt", &ca), ("tls.crt", &new.0), ("tls.key", &new.1)]);
        secret
    });
    let connection = Connection::connect(&Login {
        address: &Address::Tcp {
            host: "localhost".to_owned(),
            port: postgres.port(),
        },
        machine: None,
        user: "app",
        database: &database.name,
        password: None,
        tls: &tls,
        parameters: &Parameters::new(Vec::new()),
        checks_client: false,
        timeout: SOON,
        keepalive: SOON,
    })
    .await
    .unwrap();
    replacing.join().unwrap();
    let serial = SERIAL.replace("pg_backend_pid()", &connection.pid().to_string());
    let admin = postgres.admin().await;
    let serial = admin.query_one(&serial, &[]).await.unwrap();
    assert_eq!(serial.get::<_, String>(0), "2");
}

#[tokio::test]
async fn the_systems_authorities_are_those_of_ssl_cert_file_and_the_name_counts() {
    let files = Files::new();
    let (ours, other) = (Authority::root("ours"), Authority::root("another"));
    let server = ours.signed(&params("server", &["localhost"]));
    let (postgres, database) = files
        .server("system", &server, PostgresOptions::default())
        .await;
    let ours = files.write("ours.pem", &ours.certificate);
    let other = files.write("other.pem", &other.certificate);
    let missing = files.at("missing.pem").display().to_string();
    for (host, parameters, bundle, problem) in [
        ("localhost", "", &ours, None),
        ("localhost", "&sslmode=verify-full", &ours, None),
        (
            "localhost",
            "",
            &other,
            Some("no authority that is trusted"),
        ),
        ("127.0.0.1", "", &ours, Some("is not for 127.0.0.1")),
        ("localhost", "", &missing, Some(missing.as_str())),
    ] {
        let port = postgres.port();
        let url = format!("postgresql://app@{host}:{port}/system?sslrootcert=system{parameters}");
        let options =
            Sidecar::options().config(upstream("system", &url) + "    connect_timeout: 60s\n");
        let sidecar = options.env("SSL_CERT_FILE", bundle).start().await;
        // The authorities are told.
        sidecar.logged(&[bundle.as_str()]).await;
        match (sidecar.client("system", "a").await, problem) {
            (Ok(client), None) => {
                assert!(client.query_one(SSL, &[]).await.unwrap().get::<_, bool>(0));
            }
            (Err(error), Some(problem)) => {
                let why = format!("{error:?}");
                assert!(why.contains(problem), "{host} {bundle}: {why}");
            }
            (found, _) => panic!("{host} {bundle}: {found:?}"),
        }
    }
    // One that is replaced counts at once, as a file that is named.
    let url = format!("{}?sslrootcert=system", database.tcp_url_as("app"));
    let url = url.replace("127.0.0.1", "localhost");
    let options =
        Sidecar::options().config(upstream("system", &url) + "    connect_timeout: 60s\n");
    let sidecar = options.env("SSL_CERT_FILE", &other).start().await;
    assert!(sidecar.client("system", "a").await.is_err());
    fs::copy(&ours, &other).unwrap();
    sidecar.client("system", "b").await.unwrap();
}

#[test]
fn check_refuses_a_weaker_sslmode_with_the_systems_authorities() {
    let check = |parameters: &str| {
        let url = format!("postgresql://app@db.internal/app?sslrootcert=system{parameters}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
        command.arg("check").env_clear().env("DATABASE_URL", url);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), told)
    };
    for fine in ["", "&sslmode=verify-full"] {
        assert!(check(fine).0, "{fine}: {}", check(fine).1);
    }
    for weak in ["disable", "allow", "prefer", "require", "verify-ca"] {
        let (is_fine, told) = check(&format!("&sslmode={weak}"));
        assert!(!is_fine, "{weak}: {told}");
        let says = told.contains("sslmode") && told.contains("verify-full with sslrootcert=system");
        assert!(says, "{weak}: {told}");
    }
}
