//! Which execution a session belongs to, and where it was opened.

use super::{ExecutionId, StartupError};
use std::fmt;

/// The longest caller that is kept, in bytes; a longer one is cut.
pub const MAX_CALLER: usize = 4096;

/// What a client says about itself to us, not to the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// The execution, if one is named.
    pub execution_id: Option<ExecutionId>,
    /// Where the connection was opened: `file:line function < file:line function …`, at most
    /// [`MAX_CALLER`] bytes.
    pub caller: Option<String>,
    /// Free text, such as the tool's name.
    pub label: Option<String>,
    /// The W3C trace context that the session belongs to, unchecked.
    pub traceparent: Option<String>,
}

impl Naming {
    /// Chooses, for each setting, the first place that has it: the startup parameters, then the
    /// options; for the execution's id also `application_name`, last.
    pub(super) fn choose(parameters: Named, options: Named) -> Result<Self, StartupError> {
        let id = parameters
            .execution_id
            .or(options.execution_id)
            .or(parameters.in_application_name)
            .or(options.in_application_name);
        Ok(Self {
            execution_id: id
                .map(|id| String::from_utf8_lossy(&id).parse())
                .transpose()?,
            caller: parameters
                .caller
                .or(options.caller)
                .and_then(|v| line(&v, MAX_CALLER)),
            label: parameters
                .label
                .or(options.label)
                .and_then(|v| line(&v, usize::MAX)),
            traceparent: parameters
                .traceparent
                .or(options.traceparent)
                .and_then(|v| line(&v, usize::MAX)),
        })
    }
}

/// What was found in one place, as bytes.
#[derive(Default)]
pub(super) struct Named {
    execution_id: Option<Vec<u8>>,
    caller: Option<Vec<u8>>,
    label: Option<Vec<u8>>,
    traceparent: Option<Vec<u8>>,
    /// The id that `application_name` holds in this place.
    pub(super) in_application_name: Option<Vec<u8>>,
}

impl Named {
    /// Remembers a setting; a later one in the same place replaces it, as in the server.
    pub(super) fn set(&mut self, setting: Setting, value: &[u8]) {
        let slot = match setting {
            Setting::ExecutionId => &mut self.execution_id,
            Setting::Caller => &mut self.caller,
            Setting::Label => &mut self.label,
            Setting::Traceparent => &mut self.traceparent,
        };
        *slot = Some(value.to_vec());
    }
}

/// The id in `execpool:ID` or `execpool:ID:rest`, and the rest for the server.
pub(super) fn from_application_name(value: Option<&[u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
    let named = value?.strip_prefix(b"execpool:")?;
    let end = named.iter().position(|&b| b == b':').unwrap_or(named.len());
    let rest = named.get(end + 1..).unwrap_or_default();
    Some((named[..end].to_vec(), rest.to_vec()))
}

/// A client's text on one line, cut to `max` bytes; `None` when nothing is in it.
fn line(value: &[u8], max: usize) -> Option<String> {
    let mut text: String = String::from_utf8_lossy(value)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.len() > max {
        // A character has at most four bytes, so that a boundary is near.
        let end = (0..=max)
            .rev()
            .find(|&end| text.is_char_boundary(end))
            .unwrap_or(0);
        text.truncate(end);
    }
    (!text.trim().is_empty()).then_some(text)
}

/// The settings that are ours: `execpool.…`. Names compare without case, as all settings' do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    /// `execpool.execution_id`
    ExecutionId,
    /// `execpool.caller`
    Caller,
    /// `execpool.label`
    Label,
    /// `execpool.traceparent`
    Traceparent,
}

impl Setting {
    /// All there are.
    pub const ALL: [Self; 4] = [
        Self::ExecutionId,
        Self::Caller,
        Self::Label,
        Self::Traceparent,
    ];
    /// What all names begin with.
    const PREFIX: &str = "execpool.";

    /// The whole name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExecutionId => "execpool.execution_id",
            Self::Caller => "execpool.caller",
            Self::Label => "execpool.label",
            Self::Traceparent => "execpool.traceparent",
        }
    }

    /// Whether a setting of this name is for us, known or not.
    pub fn is_ours(name: &str) -> bool {
        name.get(..Self::PREFIX.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(Self::PREFIX))
    }

    /// The setting of this name.
    pub(super) fn find(name: &str) -> Result<Self, StartupError> {
        Self::ALL
            .into_iter()
            .find(|setting| setting.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| StartupError::UnknownSetting {
                name: name.to_owned(),
            })
    }

    /// All settings, the one whose name is most like this one first.
    pub(super) fn nearest_first(name: &str) -> [Self; 4] {
        // What is compared is quadratic in length; no name is this long.
        let name: String = name.to_ascii_lowercase().chars().take(64).collect();
        let mut all = Self::ALL;
        all.sort_by_key(|setting| distance(&name, setting.name()));
        all
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many characters must be put in, left out or changed to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_setting_comes_first() {
        for (name, nearest) in [
            ("execpool.exec_id", Setting::ExecutionId),
            ("execpool.EXECUTIONID", Setting::ExecutionId),
            ("execpool.calller", Setting::Caller),
            ("execpool.lable", Setting::Label),
            ("execpool.trace_parent", Setting::Traceparent),
        ] {
            assert_eq!(Setting::nearest_first(name)[0], nearest, "{name}");
        }
    }

    #[test]
    fn distance_counts_single_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("äb", "b"), 1);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let caller = "a".repeat(MAX_CALLER - 1) + "äbc";
        assert_eq!(
            line(caller.as_bytes(), MAX_CALLER).unwrap(),
            "a".repeat(MAX_CALLER - 1)
        );
        assert_eq!(line(b"a\nb\xff", MAX_CALLER).unwrap(), "a b\u{fffd}");
        assert_eq!(line(b" \t", MAX_CALLER), None);
    }

    #[test]
    fn application_name_is_split_at_the_first_colon_behind_the_id() {
        let split = |name: &str| {
            from_application_name(Some(name.as_bytes())).map(|(id, rest)| {
                (
                    String::from_utf8(id).unwrap(),
                    String::from_utf8(rest).unwrap(),
                )
            })
        };
        assert_eq!(split("execpool:a"), Some(("a".into(), "".into())));
        assert_eq!(split("execpool:a:"), Some(("a".into(), "".into())));
        assert_eq!(split("execpool:a:b:c"), Some(("a".into(), "b:c".into())));
        assert_eq!(split("execpool"), None);
        assert_eq!(split("my execpool:a"), None);
    }
}
