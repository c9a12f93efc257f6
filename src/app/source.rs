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
            Err(error) => Look::Unreadable(format!("cannot read {}: {error}", self.file.display())),
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

fn sentences(errors: Vec<ConfigError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
