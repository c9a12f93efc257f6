//! A command that prints a password.

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::config::Secret;

use super::{PasswordError, line};

/// How long a command may take: those of the clouds take a second or two.
const PATIENCE: Duration = Duration::from_secs(10);

/// No password is longer; tokens have some thousand bytes.
const LONGEST: usize = 64 << 10;

/// How much of what it says is logged.
const SAID: usize = 500;

/// Why a command printed no password.
#[derive(Debug)]
pub enum Failure {
    /// It could not be started, or not be listened to.
    Io(io::Error),
    /// It said that it failed.
    Exit(ExitStatus),
    /// It did not end in time.
    Timeout(Duration),
    /// It printed nothing.
    Empty,
    /// It printed too much.
    TooLong,
    /// It printed what is not UTF-8.
    NotText,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "can't be run: {error}"),
            Self::Exit(status) => match status.code() {
                Some(code) => write!(f, "failed with exit status {code}"),
                None => write!(f, "failed: {status}"),
            },
            Self::Timeout(after) => write!(f, "did not end within {} s", after.as_secs()),
            Self::Empty => f.write_str("printed nothing"),
            Self::TooLong => write!(f, "printed over {LONGEST} bytes, which is no password"),
            Self::NotText => f.write_str("printed what is not UTF-8"),
        }
    }
}

/// Runs a command, without a shell and with the environment of this process, and answers what it
/// prints, less one newline at the end. All that it started is killed when its time is over.
///
/// Cancel safe: dropping the future kills it.
pub(super) async fn run(words: &[String]) -> Result<Secret, PasswordError> {
    within(words, PATIENCE).await
}

async fn within(words: &[String], patience: Duration) -> Result<Secret, PasswordError> {
    // A configured command has a program.
    let (program, arguments) = words
        .split_first()
        .map_or(("", words), |(first, rest)| (first.as_str(), rest));
    let mut said = Vec::new();
    let ran = tokio::time::timeout(patience, output(program, arguments, &mut said));
    let failure = match ran.await {
        Ok(Ok(secret)) => return Ok(secret),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Timeout(patience),
    };
    let said = String::from_utf8_lossy(&said);
    tracing::warn!(
        event = "password_command.failed",
        program,
        said = said.trim(),
        "the password_command {failure}"
    );
    Err(PasswordError::Command {
        program: program.to_owned(),
        failure,
    })
}

async fn output(
    program: &str,
    arguments: &[String],
    said: &mut Vec<u8>,
) -> Result<Secret, Failure> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut group = Group::of(child.map_err(Failure::Io)?);
    let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
    let mut printed = Vec::new();
    let (read, heard) = tokio::join!(
        collect(out, &mut printed, LONGEST + 1),
        collect(err, said, SAID)
    );
    read.and(heard).map_err(Failure::Io)?;
    if printed.len() > LONGEST {
        return Err(Failure::TooLong);
    }
    let status = group.child.wait().await.map_err(Failure::Io)?;
    group.pid = None;
    if !status.success() {
        return Err(Failure::Exit(status));
    }
    let text = std::str::from_utf8(&printed).map_err(|_| Failure::NotText)?;
    match line(text) {
        "" => Err(Failure::Empty),
        line => Ok(Secret::new(line)),
    }
}

/// Reads to the end, or to `most`; of what comes then nothing is kept, and its writer is not kept
/// waiting.
async fn collect(
    from: Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
    most: usize,
) -> io::Result<()> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut chunk = [0; 4096];
    loop {
        match from.read(&mut chunk).await? {
            0 => return Ok(()),
            read => {
                let kept = read.min(most - into.len());
                into.extend_from_slice(&chunk[..kept]);
            }
        }
    }
}

/// A command and all that it starts: killed together unless it has ended.
struct Group {
    child: Child,
    pid: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self {
            child,
            pid: pid.map(Pid::from_raw),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It may have ended by itself.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> Result<Secret, String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn one_line_end_is_not_part_of_the_password() {
        for (script, secret) in [
            ("printf 'a b'", "a b"),
            ("echo token", "token"),
            ("printf 'x\\r\\n'", "x"),
            ("printf ' y \\n\\n'", " y \n"),
        ] {
            assert_eq!(shell(script).await, Ok(Secret::new(secret)), "{script}");
        }
    }

    #[tokio::test]
    async fn what_is_no_password_is_said() {
        for (script, why) in [
            ("exit 7", "failed with exit status 7"),
            ("kill -9 $$", "failed: signal: 9"),
            ("true", "printed nothing"),
            ("printf '\\377'", "is not UTF-8"),
            ("head -c 70000 /dev/zero | tr '\\0' x", "printed over"),
        ] {
            let error = shell(script).await.unwrap_err();
            assert!(error.contains(why), "{script}: {error}");
        }
        let missing = run(&["/nowhere/at/all".to_owned(), "secret".to_owned()]).await;
        let error = missing.unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all\" can't be run"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let hangs = tokio::spawn(async move { shell(&script).await });
        let pid = loop {
            match std::fs::read_to_string(&file) {
                Ok(pid) if pid.ends_with('\n') => break pid,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        hangs.abort();
        let stat = format!("/proc/{}/stat", pid.trim());
        // Whoever adopts orphans here may be in no hurry to bury them.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let words = ["/bin/sleep", "1000"].map(str::to_owned);
        let error = within(&words, Duration::ZERO).await.unwrap_err();
        assert!(
            error.to_string().contains("did not end within 0 s"),
            "{error}"
        );
    }
}
