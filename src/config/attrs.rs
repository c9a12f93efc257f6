//! Which of several servers is taken: libpq's `target_session_attrs`.

/// What a server must be to be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SessionAttrs {
    /// The first that answers.
    #[default]
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that takes none: a standby, or one whose sessions are read-only by default.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby; where there is none, any.
    PreferStandby,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Whether it is a standby.
    pub is_standby: bool,
    /// Whether its sessions are read-only by default.
    pub is_read_only: bool,
}

impl SessionAttrs {
    /// Reads the parameter's value.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "any" => Self::Any,
            "read-write" => Self::ReadWrite,
            "read-only" => Self::ReadOnly,
            "primary" => Self::Primary,
            "standby" => Self::Standby,
            "prefer-standby" => Self::PreferStandby,
            _ => return None,
        })
    }

    /// The parameter's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }

    /// What is to be asked in turn: the first round, and the second if nobody suited.
    #[must_use]
    pub fn rounds(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Any],
            Self::ReadWrite => &[Self::ReadWrite],
            Self::ReadOnly => &[Self::ReadOnly],
            Self::Primary => &[Self::Primary],
            Self::Standby => &[Self::Standby],
            Self::PreferStandby => &[Self::Standby, Self::Any],
        }
    }

    /// What speaks against a server of this role; nothing, if it suits.
    #[must_use]
    pub fn objection(self, role: Role) -> Option<&'static str> {
        let takes_writes = !role.is_standby && !role.is_read_only;
        match self {
            Self::ReadWrite if !takes_writes => Some("its sessions are read-only"),
            Self::ReadOnly if takes_writes => Some("its sessions are not read-only"),
            Self::Primary if role.is_standby => Some("it is a standby"),
            Self::Standby if !role.is_standby => Some("it is no standby"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_takes_the_servers_that_libpq_takes() {
        let roles = [(false, false), (false, true), (true, false), (true, true)];
        let suits = |word: &str| {
            let attrs = SessionAttrs::of_word(word).unwrap();
            assert_eq!(attrs.as_str(), word);
            roles.map(|(is_standby, is_read_only)| {
                let role = Role {
                    is_standby,
                    is_read_only,
                };
                attrs.objection(role).is_none()
            })
        };
        assert_eq!(suits("any"), [true, true, true, true]);
        assert_eq!(suits("read-write"), [true, false, false, false]);
        assert_eq!(suits("read-only"), [false, true, true, true]);
        assert_eq!(suits("primary"), [true, true, false, false]);
        assert_eq!(suits("standby"), [false, false, true, true]);
        assert_eq!(SessionAttrs::of_word("slave"), None);
    }

    #[test]
    fn a_preferred_standby_is_asked_for_first_and_anything_is_taken_then() {
        let rounds = SessionAttrs::PreferStandby.rounds();
        assert_eq!(rounds, [SessionAttrs::Standby, SessionAttrs::Any]);
    }
}
