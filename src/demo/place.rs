//! The demo's directory, and the certainty that nothing outlives the demo.
//!
//! `Drop` ends what runs and removes the directory, but a killed program drops nothing.
//! So a shell watches: it reads from a pipe whose other end only the demo holds, hears
//! there which processes run, and when the pipe closes it ends them and removes the
//! directory.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

/// Reads `+ PID SIGNAL` and `- PID`; at the end of its input it ends those that are left,
/// for five seconds politely, then removes the directory `$1`.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
left=
while read -r sign pid signal; do
    case $sign in
    +) left="$left $pid:$signal" ;;
    -)
        kept=
        for one in $left; do
            [ "${one%%:*}" = "$pid" ] || kept="$kept $one"
        done
        left=$kept
        ;;
    esac
done
for one in $left; do
    kill -s "${one##*:}" "${one%%:*}"
done
for one in $left; do
    i=0
    while kill -0 "${one%%:*}" && [ $i -lt 100 ]; do
        case $(cat "/proc/${one%%:*}/stat") in *') Z '*) break ;; esac
        i=$((i + 1))
        sleep 0.05
    done
    kill -s KILL "${one%%:*}"
done
rm -rf "$1"
"#;

/// The path of a socket has at most 107 bytes, so its directory must not be deep.
const LONGEST_PARENT: usize = 40;

/// The directory; a handle can be cloned, and the last one removes it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    watchdog: Child,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Place {
    /// Makes the directory below `parent`, which others can pass through if `open`, but
    /// not list.
    pub(super) fn make(parent: Option<&str>, open: bool) -> anyhow::Result<Self> {
        let parent = parent
            .filter(|parent| !parent.is_empty() && parent.len() <= LONGEST_PARENT)
            .map_or(Path::new("/tmp"), Path::new);
        let path = fresh_directory(parent)?;
        let watchdog = watchdog(&path).inspect_err(|_| {
            // Empty yet; the error that is told is the watchdog's.
            let _ = std::fs::remove_dir(&path);
        })?;
        let (watchdog, pipe) = watchdog;
        let place = Self {
            inner: Arc::new(Inner {
                path,
                watchdog,
                pipe: Mutex::new(Some(pipe)),
            }),
        };
        if open {
            std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o711))?;
        }
        Ok(place)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Tells the watchdog of a process that shall not outlive the demo.
    pub(super) fn watch(&self, pid: u32, signal: &str) {
        self.tell(&format!("+ {pid} {signal}\n"));
    }

    /// Tells it that a process has ended, before its number can be another's.
    pub(super) fn forget(&self, pid: u32) {
        self.tell(&format!("- {pid}\n"));
    }

    fn tell(&self, line: &str) {
        let mut pipe = self
            .inner
            .pipe
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut() {
            // A watchdog that was killed can't be helped; the demo itself still clears up.
            let _ = pipe.write_all(line.as_bytes());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let pipe = self.pipe.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(pipe.take());
        // It knows of no process any more, and removes the directory.
        let _ = self.watchdog.wait();
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn fresh_directory(parent: &Path) -> anyhow::Result<PathBuf> {
    let number = getrandom::u64().context("the system has no random numbers")?;
    let path = parent.join(format!("execpool-demo-{:08x}", number >> 32));
    // Refuses what is there already, so nobody can have prepared it.
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("cannot make the directory {}", path.display()))?;
    Ok(path)
}

fn watchdog(path: &Path) -> anyhow::Result<(Child, ChildStdin)> {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", &format!("{{ {WATCHDOG} }} 2>/dev/null"), "watchdog"])
        .arg(path)
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // out of reach of a terminal's Ctrl-C
        .spawn()
        .context("cannot run /bin/sh, which clears up after a demo that was killed")?;
    let pipe = shell.stdin.take().context("the watchdog has no input")?;
    Ok((shell, pipe))
}
