//! Whose session it was.

/// How much of where the app opened a connection is kept, in bytes.
const CALLER: usize = 160;
/// How much of its other names, in bytes.
const NAME: usize = 64;

/// Whose session it was: a copy in a few bytes, which outlives the session for as long as an entry is
/// about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its number.
    pub session: u64,
    /// The process at its other end, where that is known.
    pub peer_pid: Option<i32>,
    /// The beginning of where the app opened it.
    pub caller: Option<Box<str>>,
    /// The beginning of its label.
    pub label: Option<Box<str>>,
    /// The beginning of its `application_name`.
    pub application_name: Option<Box<str>>,
}

impl Who {
    /// The session of this number, by what its client has said of itself.
    #[must_use]
    pub fn new(
        session: u64,
        peer_pid: Option<i32>,
        caller: Option<&str>,
        label: Option<&str>,
        application_name: Option<&str>,
    ) -> Self {
        let kept = |text: Option<&str>, most| text.map(|text| beginning(text, most).into());
        Self {
            session,
            peer_pid,
            caller: kept(caller, CALLER),
            label: kept(label, NAME),
            application_name: kept(application_name, NAME),
        }
    }

    /// How much room it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let texts = [&self.caller, &self.label, &self.application_name];
        let texts = texts.into_iter().flatten().map(|text| text.len());
        size_of::<Self>() + texts.sum::<usize>()
    }
}

/// As much of a text as fits into so many bytes.
fn beginning(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = "ä".repeat(5_000);
        let who = Who::new(7, None, Some(&long), Some("short"), None);
        assert_eq!(who.caller.as_deref().unwrap().len(), CALLER);
        assert_eq!(who.label.as_deref(), Some("short"));
        assert!(who.size() < 400, "{}", who.size());
        assert_eq!(beginning("aä", 2), "a");
    }
}
