//! Where the configuration comes from: read at the start, and again as long as the process runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::config::{self, ConfigError, Loaded, Reloaded, Sources};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// File, environment and flags.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Whether there must be one.
    pub is_required: bool,
    /// The environment of the process.
    pub env: Vec<(String, String)>,
    /// Knobs and their values.
    pub flags: Vec<(String, String)>,
}

/// The file as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// There is none, and none is needed.
    Nothing,
    /// What it says.
    Text(String),
    /// Why it can't be read.
    Unreadable(String),
}

impl Source {
    /// Looks at the file. Blocks for as long as reading a small file takes.
    #[must_use]
    pub fn look(&self) -> Look {
        match self.read() {
            Ok(text) => Look::Text(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_required => {
                Look::Nothing
            }
            Err(error) => Look::Unreadable(format!(
                "cannot read {}: {error}{}",
                self.file.display(),
                advice(&error)
            )),
        }
    }

    fn read(&self) -> io::Result<String> {
        // Opening a pipe would wait for who writes to it.
        if !std::fs::metadata(&self.file)?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut text = String::new();
        let read = File::open(&self.file)?
            .take(LARGEST + 1)
            .read_to_string(&mut text)?;
        if read as u64 > LARGEST {
            return Err(io::Error::other("it is over 1 MiB"));
        }
        Ok(text)
    }

    /// The configuration that this look gives at the start.
    ///
    /// # Errors
    /// All that is wrong, a sentence each.
    pub fn load(&self, look: &Look) -> Result<Loaded, Vec<String>> {
        config::load(&self.sources(look)?).map_err(sentences)
    }

    /// The same beside one that runs.
    ///
    /// # Errors
    /// All that is wrong, a sentence each.
    pub fn reload(&self, look: &Look, running: &Loaded) -> Result<Reloaded, Vec<String>> {
        config::reload(&self.sources(look)?, running).map_err(sentences)
    }

    fn sources<'a>(&'a self, look: &'a Look) -> Result<Sources<'a>, Vec<String>> {
        let file = match look {
            Look::Nothing => None,
            Look::Text(text) => Some((self.file.as_path(), text.as_str())),
            Look::Unreadable(why) => return Err(vec![why.clone()]),
        };
        Ok(Sources {
            file,
            env: self.env.clone(),
            flags: self.flags.clone(),
        })
    }
}

/// What to do about a file that can't be read.
fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "; create it, or name another one with --config".to_owned(),
        io::ErrorKind::PermissionDenied => format!(
            "; the file, and the directories above it, must be readable for user {}",
            nix::unistd::Uid::effective()
        ),
        _ => String::new(),
    }
}

fn sentences(errors: Vec<ConfigError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str) -> Look {
        let source = Source {
            file: file.into(),
            is_required: true,
            env: Vec::new(),
            flags: Vec::new(),
        };
        source.look()
    }

    #[test]
    fn a_file_that_can_t_be_read_is_told_with_what_to_do() {
        let missing = "cannot read /nowhere/it.yaml: No such file or directory (os error 2); create it, or name another \
                       one with --config";
        assert_eq!(of("/nowhere/it.yaml"), Look::Unreadable(missing.into()));
        let folder = "cannot read /: it is not a file";
        assert_eq!(of("/"), Look::Unreadable(folder.into()));
        let denied = advice(&io::ErrorKind::PermissionDenied.into());
        assert!(denied.contains("must be readable for user "), "{denied}");
    }
}
