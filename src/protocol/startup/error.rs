//! Why a first packet is refused.

use super::{InvalidExecutionId, Setting};
use crate::protocol::message::{Report, Severity, SqlState};

/// Why a first packet is refused. The text is the sentence that the client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is over the limit; so is what other protocols' first bytes look like.
    #[error("execpool: a startup packet of {length} bytes is over the limit of {max}", max = super::MAX_STARTUP)]
    TooLong {
        /// The length that was announced, in bytes.
        length: u32,
    },
    /// The length leaves no room for a version.
    #[error("execpool: a startup packet of {length} bytes is too short to be one")]
    TooShort {
        /// The length that was announced, in bytes.
        length: u32,
    },
    /// A major version other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0")]
    UnsupportedVersion {
        /// The major version asked for.
        major: u16,
        /// The minor version asked for.
        minor: u16,
    },
    /// The bytes are not laid out as the protocol says.
    #[error("execpool: invalid startup packet layout: {0}")]
    Malformed(&'static str),
    /// A name is not UTF-8.
    #[error("execpool: {0} in the startup packet is not valid UTF-8")]
    NotText(&'static str),
    /// No user is named.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A setting `execpool.…` that does not exist.
    #[error("execpool: unrecognized setting \"{}\"", shorten(name))]
    UnknownSetting {
        /// The name as the client wrote it.
        name: String,
    },
    /// A setting `execpool.…` in the options without a value.
    #[error("execpool: the setting {0} in the startup options has no value")]
    NoValue(Setting),
    /// The name of the execution cannot be one.
    #[error("execpool: {0}")]
    ExecutionId(#[from] InvalidExecutionId),
}

impl StartupError {
    /// A short word for counting, out of a closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::TooShort { .. } => "too_short",
            Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::Malformed(_) | Self::NotText(_) => "malformed",
            Self::NoUser => "no_user",
            Self::UnknownSetting { .. } | Self::NoValue(_) => "setting",
            Self::ExecutionId(_) => "execution_id",
        }
    }

    /// The code that programs look at.
    pub fn sqlstate(&self) -> SqlState {
        match self {
            Self::TooLong { .. } | Self::TooShort { .. } | Self::Malformed(_) => {
                SqlState::PROTOCOL_VIOLATION
            }
            Self::UnsupportedVersion { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::NotText(_) => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            Self::NoUser => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::UnknownSetting { .. } | Self::NoValue(_) | Self::ExecutionId(_) => {
                SqlState::INVALID_PARAMETER_VALUE
            }
        }
    }

    /// What the client can do about it.
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownSetting { name } => {
                let names = Setting::nearest_first(name).map(Setting::name);
                Some(format!(
                    "Did you mean {}? The others are {}.",
                    names[0],
                    names[1..].join(", ")
                ))
            }
            Self::NoValue(setting) => Some(format!("Write -c {setting}=value.")),
            Self::ExecutionId(_) => Some(InvalidExecutionId::ALLOWED.to_owned()),
            Self::TooLong { .. } | Self::TooShort { .. } | Self::Malformed(_) => {
                Some("Does the client speak the PostgreSQL protocol?".to_owned())
            }
            Self::NotText(_) => Some("Write it in UTF-8.".to_owned()),
            // PostgreSQL's own words have none.
            Self::UnsupportedVersion { .. } | Self::NoUser => None,
        }
    }

    /// What the client is told before the session closes.
    pub fn report(&self) -> Report {
        let mut report = Report::new(Severity::Fatal, self.sqlstate(), self.to_string());
        report.hint = self.hint();
        report
    }
}

/// At most 64 characters of something that a client wrote, without control characters.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        short.push('…');
    }
    short
}
