//! A data directory that is made once and copied for each server: initdb takes
//! seconds, a copy a fraction of one.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::guard;
use super::postgres::PASSWORD;
use super::tools::postgres_program;

/// Makes `target` a data directory, owned by whom PostgreSQL runs as.
pub(super) fn copy_template(target: &Path) {
    let template = template();
    guard::run(Command::new("cp").arg("-R").arg(&template).arg(target));
    if let Some((uid, gid)) = guard::unprivileged() {
        guard::run(
            Command::new("chown")
                .arg("-R")
                .arg(format!("{uid}:{gid}"))
                .arg(target),
        );
    }
    // PostgreSQL insists on this, whatever the umask made of it.
    fs::set_permissions(target, fs::Permissions::from_mode(0o700)).expect("it was just made");
}

/// One statement a line, as single-user mode wants it.
fn roles() -> String {
    format!(
        "CREATE ROLE app LOGIN\n\
         SET password_encryption = 'scram-sha-256'\n\
         CREATE ROLE scram_user LOGIN PASSWORD '{PASSWORD}'\n\
         CREATE ROLE clear_user LOGIN PASSWORD '{PASSWORD}'\n\
         SET password_encryption = 'md5'\n\
         CREATE ROLE md5_user LOGIN PASSWORD '{PASSWORD}'\n"
    )
}

/// The template, from the build directory if a former run left it there.
fn template() -> PathBuf {
    let postgres = postgres_program("postgres");
    let version = Command::new(&postgres)
        .arg("--version")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", postgres.display()));
    let mut hasher = DefaultHasher::new();
    (&postgres, version.stdout, roles()).hash(&mut hasher);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = cache.join(format!("postgres-{:016x}", hasher.finish()));
    if path.is_dir() {
        return path;
    }

    fs::create_dir_all(cache).unwrap_or_else(|error| panic!("{}: {error}", cache.display()));
    let building = tempfile::tempdir_in(cache).expect("the build directory can be written");
    let whole = building.path().join("data");
    make(&whole);
    // Another test program may have been quicker: then its result stands.
    let _ = fs::rename(&whole, &path);
    assert!(
        path.is_dir(),
        "{} could not be put in place",
        path.display()
    );
    path
}

/// initdb and the roles, as the unprivileged user, in a place which that user can
/// reach; then copied to `target`.
fn make(target: &Path) {
    let place = guard::short_directory();
    guard::give_away(place.path());
    let data = place.path().join("data");
    guard::run(
        guard::unprivileged_command(&postgres_program("initdb"))
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&data),
    );
    let mut single = guard::unprivileged_command(&postgres_program("postgres"))
        .args(["--single", "-F", "-D"])
        .arg(&data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("postgres can be run");
    let mut input = single.stdin.take().expect("it is piped");
    input
        .write_all(roles().as_bytes())
        .expect("postgres reads its input");
    drop(input);
    let output = single
        .wait_with_output()
        .expect("postgres ends with its input");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !messages.contains("ERROR"),
        "the roles could not be made:\n{messages}"
    );
    guard::run(Command::new("cp").arg("-R").arg(&data).arg(target));
}
