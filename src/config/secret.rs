//! What must not be seen.

use std::fmt;
use std::path::{Path, PathBuf};

/// A text that shows as `***` however it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// There is none.
    None,
    /// From the URL or from `PGPASSWORD`.
    Given(Secret),
    /// The content of this file, which may change while the process runs.
    File(PathBuf),
}

/// The file of a password gives none.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It can't be read, or is not UTF-8.
    #[error("cannot read the password file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is empty.
    #[error("the password file {} is empty", .0.display())]
    Empty(PathBuf),
}

impl PasswordSource {
    /// The password as it is now; a file is read anew, less one newline at its end.
    ///
    /// # Errors
    /// When the file can't be read, is not UTF-8, or is empty.
    pub fn read(&self) -> Result<Option<Secret>, PasswordError> {
        match self {
            Self::None => Ok(None),
            Self::Given(secret) => Ok(Some(secret.clone())),
            Self::File(path) => read_file(path).map(Some),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, PasswordError> {
    let text = std::fs::read_to_string(path).map_err(|source| PasswordError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(PasswordError::Empty(path.to_owned()));
    }
    Ok(Secret::new(line))
}
