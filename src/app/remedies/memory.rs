//! The memory of restarts that outlives this process: `restarts.json` in the socket directory.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::clock;
use crate::reactor::Restarts;

/// Its name.
const NAME: &str = "restarts.json";

/// How much of it is read, in bytes; it is far shorter.
const LARGEST: u64 = 64 << 10;

/// Where restarts are remembered: a directory that outlives a container, though not the pod.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    path: PathBuf,
}

impl Memory {
    /// The one in this directory.
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self {
            path: directory.join(NAME),
        }
    }

    /// What is remembered; none where nothing is. Blocks for as long as reading a small file takes.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub(super) fn read(&self) -> Result<Option<Restarts>, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("{}: {why}", self.path.display());
        let text = match self.text() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(&error)),
        };
        let restarts = Restarts::read(&text, &clock::moment()).map_err(|error| cannot(&error))?;
        Ok(Some(restarts))
    }

    /// The app may write to the directory: nothing of its is followed, waited for, or read without an end.
    fn text(&self) -> io::Result<String> {
        let file = File::options()
            .read(true)
            .custom_flags(O_NOFOLLOW | O_NONBLOCK)
            .open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut text = String::new();
        let read = file.take(LARGEST + 1).read_to_string(&mut text)?;
        match read as u64 > LARGEST {
            true => Err(io::Error::other("it is too long")),
            false => Ok(text),
        }
    }

    /// Remembers this instead, in one step: whoever reads it finds the one or the other.
    ///
    /// # Errors
    /// What is in the way, as a sentence; what was remembered stays.
    pub(super) fn write(&self, restarts: &Restarts) -> Result<(), String> {
        let young = self.path.with_extension("json.new");
        let written = self.write_by(&young, &restarts.written(&clock::moment()));
        written.map_err(|error| {
            let _ = fs::remove_file(&young);
            format!("{}: {error}", self.path.display())
        })
    }

    fn write_by(&self, young: &Path, text: &str) -> io::Result<()> {
        // Of a process that was killed in the middle; what is not ours to remove is in the way below.
        let _ = fs::remove_file(young);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(young)?;
        file.write_all(text.as_bytes())?;
        fs::rename(young, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn place() -> (tempfile::TempDir, Memory) {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::in_directory(directory.path());
        (directory, memory)
    }

    #[test]
    fn what_is_written_is_read_and_only_the_owner_may() {
        let (directory, memory) = place();
        assert_eq!(memory.read().unwrap(), None);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut restarts = Restarts::default();
        for count in 1..=2 {
            restarts.add(now + Duration::from_secs(count));
            memory.write(&restarts).unwrap();
            assert_eq!(memory.read().unwrap(), Some(restarts.clone()));
        }
        let path = directory.path().join(NAME);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_is_no_memory_is_an_error_that_names_the_file_and_never_hangs() {
        let (directory, memory) = place();
        let path = directory.path().join(NAME);
        let long = "x".repeat(100_000);
        for garbage in ["", "{", "[]", "{\"version\": 77}", "\u{0}", &long] {
            fs::write(&path, garbage).unwrap();
            let told = memory.read().unwrap_err();
            assert!(told.contains(NAME), "{garbage:.20}: {told}");
        }
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(memory.read().unwrap_err().contains("not a file"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        memory.read().unwrap_err();
        // And it is replaced when something is to be remembered.
        memory.write(&Restarts::default()).unwrap();
        assert_eq!(memory.read().unwrap(), Some(Restarts::default()));
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_what_there_was() {
        let (directory, memory) = place();
        memory.write(&Restarts::default()).unwrap();
        fs::create_dir(directory.path().join("restarts.json.new")).unwrap();
        let told = memory.write(&Restarts::default()).unwrap_err();
        assert!(told.contains(NAME), "{told}");
        assert!(memory.read().unwrap().is_some());
    }
}
