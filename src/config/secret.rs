//! What must not be seen.

use std::fmt;
use std::path::PathBuf;

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

/// Where a password comes from. Here it is only said; whoever logs in looks there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// There is none.
    None,
    /// From the URL or from `PGPASSWORD`.
    Given(Secret),
    /// The content of this file, which may change while the process runs.
    File(PathBuf),
    /// What this command prints: a program and its arguments. It may print another one each time.
    Command(Vec<String>),
}
