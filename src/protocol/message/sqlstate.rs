//! Five characters that tell a program what went wrong.

use std::fmt;

/// An SQLSTATE: five ASCII digits or upper-case letters. The constants carry PostgreSQL's own
/// condition names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// 08001: no connection to the server could be made.
    pub const UNABLE_TO_CONNECT: Self = Self(*b"08001");
    /// 08006: the connection to the server broke.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// 08P01: bytes that the protocol does not allow here.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// 0A000: understood, and not served.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// 22021: bytes that are no text in the expected encoding.
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self(*b"22021");
    /// 22023: a setting or argument has a value it must not have.
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// 25006: the server answers reads only.
    pub const READ_ONLY_SQL_TRANSACTION: Self = Self(*b"25006");
    /// 25P02: the transaction has failed and waits for its end.
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self(*b"25P02");
    /// 25P03: a session was idle in a transaction for too long.
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: Self = Self(*b"25P03");
    /// 25P04: a transaction took too long.
    pub const TRANSACTION_TIMEOUT: Self = Self(*b"25P04");
    /// 28000: this client may not connect like this.
    pub const INVALID_AUTHORIZATION_SPECIFICATION: Self = Self(*b"28000");
    /// 28P01: the password is wrong.
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// 3D000: there is no such database.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// 42501: permission denied.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// 53300: a limit of connections is reached.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// 55000: the object is not in a state that allows this.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// 55P02: this setting cannot be changed now.
    pub const CANT_CHANGE_RUNTIME_PARAM: Self = Self(*b"55P02");
    /// 57014: a cancel request ended the statement.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// 57P01: an administrator's command ended the session.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// 57P03: starting up or shutting down, try again later.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// F0000: the configuration does not allow this to work.
    pub const CONFIG_FILE_ERROR: Self = Self(*b"F0000");
    /// XX000: a fault of the program itself.
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");

    /// Reads an SQLSTATE; `None` unless it is five digits or upper-case letters.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let code: [u8; 5] = bytes.try_into().ok()?;
        code.iter()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
            .then_some(Self(code))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        // Every constructor admits ASCII alone, so this is never the empty string.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The five characters as bytes.
    pub fn as_bytes(&self) -> &[u8; 5] {
        &self.0
    }

    /// The first two characters: the class of the condition.
    pub fn class(&self) -> &str {
        &self.as_str()[..2]
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_five_digits_and_capitals_are_an_sqlstate() {
        assert_eq!(
            SqlState::from_bytes(b"53300"),
            Some(SqlState::TOO_MANY_CONNECTIONS)
        );
        assert_eq!(SqlState::from_bytes(b"57P01").unwrap().to_string(), "57P01");
        assert_eq!(SqlState::from_bytes(b"55P02").unwrap().class(), "55");
        for bad in [
            &b""[..],
            b"5330",
            b"533000",
            b"5330x",
            b"5330\0",
            "533é".as_bytes(),
        ] {
            assert_eq!(SqlState::from_bytes(bad), None);
        }
    }
}
