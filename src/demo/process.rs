//! A process of the demo: out of reach of a terminal's Ctrl-C, never left running.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::interrupt::Interrupt;
use super::place::Place;

/// Between asking a process to end and killing it, when the demo clears up.
const PATIENCE: Duration = Duration::from_secs(5);

const TICK: Duration = Duration::from_millis(5);

/// What is told of a process that failed.
const TAIL: usize = 30;

/// A process, ended when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    polite: Signal,
    place: Place,
    /// What it writes, other than what the demo reads.
    log: PathBuf,
}

impl Process {
    /// Starts it with its messages in a file `NAME.log` of the place. It is asked to end
    /// by the signal `polite`.
    pub(super) fn start(
        name: &str,
        command: &mut Command,
        polite: Signal,
        place: &Place,
    ) -> anyhow::Result<Self> {
        let log = place.path().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        place.watch(child.id(), polite.as_str().trim_start_matches("SIG"));
        Ok(Self {
            name: name.to_owned(),
            child,
            polite,
            place: place.clone(),
            log,
        })
    }

    /// Runs a command to its end; an error unless it succeeds.
    pub(super) fn complete(
        name: &str,
        command: &mut Command,
        place: &Place,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Self::start(name, command, Signal::SIGTERM, place)?;
        loop {
            match process.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{name} failed: {status}\n{}", process.last_words()),
                None => interrupt.pause(TICK)?,
            }
        }
    }

    /// Its input, once, if the command said piped.
    pub(super) fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its output, once, if the command said piped.
    pub(super) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        if ended.is_some() {
            self.place.forget(self.child.id());
        }
        Ok(ended)
    }

    /// What it wrote so far.
    pub(super) fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of it, with the process's name.
    pub(super) fn last_words(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!("---- {} ----\n{}", self.name, tail.join("\n"))
    }

    /// Kills it, as the kernel kills what takes too much memory.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.place.forget(self.child.id());
        Ok(())
    }

    /// Asks it to end and waits; after some patience it is killed. Answers how it ended.
    pub(super) fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        // Not waited for yet, so the number is its own.
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, self.polite).with_context(|| format!("cannot end {}", self.name))?;
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(TICK);
        }
        self.kill()?;
        bail!("{} did not end within {PATIENCE:?}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where even SIGKILL fails, nothing is left to do.
        let _ = self.end();
    }
}
