//! What a session leaves in its server connection that a reset does not undo.

use crate::protocol::frontend::{Event, Message};
use crate::protocol::statement::carries_over;

/// Whether a session has left something behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taint {
    /// It does not matter: no connection reaches another execution. Never left.
    Ignored,
    /// Nothing yet. Left by the first statement that may leave something.
    Sought,
    /// Something, or what was not understood. Never left.
    Found,
}

impl Taint {
    /// Sought where there is a reserve by which connections reach other executions.
    pub(super) fn new(has_reserve: bool) -> Self {
        if has_reserve {
            Self::Sought
        } else {
            Self::Ignored
        }
    }

    /// Looks at one message of the client's.
    pub(super) fn look_at(&mut self, event: &Event<'_>) {
        if *self != Self::Sought {
            return;
        }
        let leaves = match event.message {
            Message::Query { sql } | Message::Parse { sql, .. } => {
                event.truncated || carries_over(sql)
            }
            // Which function that is, is not seen.
            Message::FunctionCall => true,
            _ => false,
        };
        if leaves {
            *self = Self::Found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(mut taint: Taint, sql: &[u8], truncated: bool) -> Taint {
        taint.look_at(&Event {
            range: 0..sql.len(),
            truncated,
            message: Message::Query { sql },
        });
        taint
    }

    #[test]
    fn what_a_reset_undoes_leaves_nothing_and_what_is_not_seen_whole_does() {
        let sought = Taint::new(true);
        assert_eq!(after(sought, b"SET work_mem = '1MB'", false), Taint::Sought);
        assert_eq!(after(sought, b"SET my.tenant = '7'", false), Taint::Found);
        assert_eq!(after(sought, b"SELECT 1", true), Taint::Found);
        assert_eq!(after(Taint::Found, b"SELECT 1", false), Taint::Found);
        assert_eq!(after(Taint::new(false), b"LOAD 'x'", false), Taint::Ignored);
    }
}
