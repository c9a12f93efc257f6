//! Nothing outlives the test program: no process, no directory.
//!
//! `Drop` is not enough, as what lives in a static is never dropped and a killed
//! program drops nothing. So each process has a watchdog beside it: a shell that
//! reads from a pipe whose other end only the test program holds. When the program
//! ends, however it ends, the pipe closes, and the shell ends the process and
//! removes its directory.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};

/// Waits for the end of input; then ends `$1` with signal `$2`, for five seconds
/// politely, and removes directory `$3`. A process that has ended may stay a zombie
/// until whoever inherited it looks.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
kill -s "$2" "$1"
i=0
while kill -0 "$1" && [ $i -lt 100 ]; do
    case $(cat "/proc/$1/stat") in *') Z '*) break ;; esac
    i=$((i + 1))
    sleep 0.05
done
kill -s KILL "$1"
rm -rf "$3"
"#;

/// Ends a process and removes a directory when the test program has ended.
#[must_use]
pub(crate) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// Watches over process `pid`, which is ended with `signal`, and over `directory`.
    pub(crate) fn over(pid: u32, signal: Signal, directory: &Path) -> Self {
        let shell = Command::new("sh")
            .args(["-c", &format!("{{ {SCRIPT} }} 2>/dev/null"), "watchdog"])
            .arg(pid.to_string())
            .arg(signal.as_str().trim_start_matches("SIG"))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Who reads the test program's messages to their end waits for this, too.
            .stderr(Stdio::inherit())
            .process_group(0) // out of reach of a terminal's Ctrl-C
            .spawn()
            .expect("sh starts");
        Self { shell }
    }

    /// Stops watching: the owner ends the process and removes the directory itself.
    pub(crate) fn disarm(mut self) {
        // Failing means that it is gone already.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A directory with a short path, as a socket's path has at most 107 bytes.
pub(crate) fn short_directory() -> tempfile::TempDir {
    let parent = std::env::temp_dir();
    let parent = if parent.as_os_str().len() > 40 {
        Path::new("/tmp").to_owned()
    } else {
        parent
    };
    tempfile::Builder::new()
        .prefix("ep-")
        .tempdir_in(parent)
        .expect("a temporary directory can be made")
}

/// Whom PostgreSQL runs as: it refuses root. `None`: as who runs the tests.
pub(crate) fn unprivileged() -> Option<(Uid, Gid)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .expect("there is a user postgres or nobody");
    Some((user.uid, user.gid))
}

/// A command that runs as an unprivileged user where the tests run as root.
pub(crate) fn unprivileged_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = unprivileged() {
        // The standard library drops the supplementary groups along with root.
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

/// The same in the network of a process, for which the tests have to be root's. It becomes
/// that program, and keeps its process id.
pub(crate) fn unprivileged_command_in(process: u32, program: &Path) -> Command {
    let (uid, gid) = unprivileged().expect("only root can enter another network");
    let mut command = Command::new("nsenter");
    command
        .current_dir("/")
        .args(["--target", &process.to_string(), "--net"])
        .args(["--setuid", &uid.to_string(), "--setgid", &gid.to_string()])
        .arg("--")
        .arg(program);
    command
}

/// Gives a file or directory, without what is in it, to the unprivileged user.
pub(crate) fn give_away(path: &Path) {
    if let Some((uid, gid)) = unprivileged() {
        nix::unistd::chown(path, Some(uid), Some(gid)).expect("root can give files away");
    }
}

/// Runs a command to its end; panics with its output if it fails.
pub(crate) fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// A backend that is stopped; it goes on when this is dropped.
pub(crate) struct Stopped(Pid);

impl Stopped {
    pub(crate) fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).expect("a backend can be stopped");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
