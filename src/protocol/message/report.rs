//! An error or notice that we tell a client ourselves.

use std::time::Duration;

use super::{SqlState, message, text};

/// How bad it is, and so which message carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed, the session lives on.
    Error,
    /// The session ends.
    Fatal,
    /// Something worth knowing.
    Notice,
    /// Something that is probably a mistake.
    Warning,
}

impl Severity {
    /// PostgreSQL's word for it, never translated.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
        }
    }

    /// `E` for an ErrorResponse, `N` for a NoticeResponse.
    pub(super) fn message_type(self) -> u8 {
        match self {
            Self::Error | Self::Fatal => b'E',
            Self::Notice | Self::Warning => b'N',
        }
    }
}

/// What a client is told in an ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How bad it is.
    pub severity: Severity,
    /// The code that programs look at.
    pub sqlstate: SqlState,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// More facts, in sentences.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Report {
    /// A report without detail and hint.
    pub fn new(severity: Severity, sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self {
            severity,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// The same report with this detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same report with this hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Appends the ErrorResponse or NoticeResponse, as the severity demands.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, self.severity.message_type(), |body| {
            field(b'S', self.severity.as_str(), body);
            field(b'V', self.severity.as_str(), body);
            field(b'C', self.sqlstate.as_str(), body);
            field(b'M', &self.message, body);
            for (code, value) in [(b'D', &self.detail), (b'H', &self.hint)] {
                if let Some(value) = value {
                    field(code, value, body);
                }
            }
            body.push(0);
        });
    }
}

/// Appends one field of an error or notice.
fn field(code: u8, value: &str, body: &mut Vec<u8>) {
    body.push(code);
    text(value.as_bytes(), body);
}

/// A time as people read it: tenths below ten seconds, whole seconds above.
#[must_use]
pub fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        tenths if tenths < 9.95 => format!("{tenths:.1} s"),
        whole => format!("{whole:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fields;
    use super::*;

    #[test]
    fn an_error_carries_severity_twice_code_message_detail_and_hint() {
        let mut out = Vec::new();
        Report::new(
            Severity::Fatal,
            SqlState::TOO_MANY_CONNECTIONS,
            "execpool: full",
        )
        .with_detail("who holds")
        .with_hint("raise the budget")
        .encode(&mut out);
        assert_eq!(out[0], b'E');
        assert_eq!(
            i32::from_be_bytes(out[1..5].try_into().unwrap()) as usize,
            out.len() - 1
        );
        let fields = Fields::parse(&out[5..]).unwrap();
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(
            all,
            [
                (b'S', &b"FATAL"[..]),
                (b'V', b"FATAL"),
                (b'C', b"53300"),
                (b'M', b"execpool: full"),
                (b'D', b"who holds"),
                (b'H', b"raise the budget"),
            ]
        );
    }

    #[test]
    fn notices_and_warnings_travel_as_notice_responses() {
        for severity in [Severity::Notice, Severity::Warning] {
            let mut out = Vec::new();
            Report::new(severity, SqlState::TOO_MANY_CONNECTIONS, "waiting").encode(&mut out);
            assert_eq!(out[0], b'N');
            assert_eq!(Fields::parse(&out[5..]).unwrap().get(b'D'), None);
        }
    }

    #[test]
    fn a_zero_byte_in_a_message_does_not_break_the_fields_behind_it() {
        let mut out = Vec::new();
        Report::new(Severity::Error, SqlState::INTERNAL_ERROR, "a\0Mb")
            .with_hint("h")
            .encode(&mut out);
        let fields = Fields::parse(&out[5..]).unwrap();
        assert_eq!(fields.get(b'M'), Some(&b"a?Mb"[..]));
        assert_eq!(fields.get(b'H'), Some(&b"h"[..]));
    }
}
