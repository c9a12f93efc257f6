//! The closed sets of words that attributes take. Text that comes from clients or servers is none of
//! them: it becomes `other`.

/// An enum whose values are counted by, each with its word.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$its:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$its])* $value,)* }

        impl $name {
            /// Their words, in the order in which they are counted.
            pub const WORDS: &'static [&'static str] = &[$($word,)*];

            /// All of them, in the same order.
            pub const ALL: [Self; Self::WORDS.len()] = [$(Self::$value,)*];

            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                Self::WORDS[self as usize]
            }
        }
    };
}

words! {
    /// At which step a server connection failed.
    Phase {
        /// Reaching the server.
        Connect = "connect",
        /// Proving who we are.
        Auth = "auth",
        /// Cleaning the connection between two sessions.
        Reset = "reset",
        /// Asking a connection that was idle whether it is there.
        Ping = "ping",
        /// Working for a session.
        Relay = "relay",
    }
}

words! {
    /// By whom, or by what, something that ran or waited was cancelled.
    Origin {
        /// A cancel request of the client's.
        Client = "client",
        /// The client has gone, or has left more behind than it waited for.
        Disconnect = "disconnect",
        /// The end of its execution.
        Execution = "execution",
        /// An emergency cleanup.
        Cleanup = "cleanup",
        /// The control API, a limit in time, or a server connection that broke.
        Other = "other",
    }
}

words! {
    /// Why a session was closed.
    Close {
        /// The client said goodbye.
        Terminated = "terminated",
        /// The client went without a word.
        Vanished = "vanished",
        /// It was let in, and no server connection could be had for its startup.
        Refused = "refused",
        /// Its execution ended.
        Execution = "execution",
        /// An emergency cleanup ended it.
        Cleanup = "cleanup",
        /// A limit of `session.*` ended it.
        Limit = "limit",
        /// The control API ended it.
        Deleted = "deleted",
        /// Its server connection was lost.
        Server = "server",
        /// The client sent what is no message.
        Protocol = "protocol",
        /// Anything else, such as a fault of execpool's.
        Other = "other",
    }
}

words! {
    /// What a session does, as far as it is counted.
    SessionState {
        /// The server works for it.
        Active = "active",
        /// It holds a server connection with an open transaction that waits for it.
        IdleInTransaction = "idle_in_transaction",
        /// It holds a server connection that waits for it.
        Idle = "idle",
        /// It waits for a server connection.
        Waiting = "waiting",
        /// It has not queried and holds nothing.
        Unbound = "unbound",
        /// It is being let in, or is on its way out.
        Other = "other",
    }
}

words! {
    /// What goes on while a server connection is held.
    HeldState {
        /// The server works.
        Active = "active",
        /// It waits inside a transaction.
        IdleInTransaction = "idle_in_transaction",
        /// It waits outside of one.
        Idle = "idle",
    }
}

words! {
    /// What a server connection of a pool does.
    ConnectionState {
        /// It waits in the pool, or in the reserve.
        Idle = "idle",
        /// It is lent to a session.
        Used = "used",
    }
}

words! {
    /// Whose connections at the database.
    DatabaseConnections {
        /// As many as the database allows.
        Max = "max",
        /// This pod's, the monitor's own among them.
        Ours = "ours",
        /// All others'.
        Others = "others",
    }
}

words! {
    /// Whether sessions may join an execution.
    ExecutionState {
        /// They may.
        Active = "active",
        /// It is on its way out.
        Ending = "ending",
    }
}

words! {
    /// What the reactor does.
    Action {
        /// Writes the pod's annotations.
        Annotate = "annotate",
        /// Sets the pod's condition.
        Condition = "condition",
        /// Posts an event of Kubernetes.
        Event = "event",
        /// Cleans up.
        Cleanup = "cleanup",
        /// Has something restarted.
        Restart = "restart",
    }
}

words! {
    /// What became of it.
    Outcome {
        /// It was done.
        Ok = "ok",
        /// It was tried in vain.
        Error = "error",
        /// A guard was against it.
        Refused = "refused",
        /// It was only told.
        DryRun = "dry_run",
    }
}

words! {
    /// What keeps a session's server connection with it in transaction mode. That mode is still to
    /// come, and its reasons with it.
    Pin {
        /// Anything.
        Other = "other",
    }
}

/// A class of SQLSTATEs, from a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

impl Class {
    /// The classes that are counted by themselves, and `other`.
    pub const WORDS: &'static [&'static str] = &[
        "08", "0A", "21", "22", "23", "25", "26", "28", "34", "3D", "3F", "40", "42", "53", "54",
        "55", "57", "58", "F0", "P0", "XX", "other",
    ];

    /// Its place among them, where there is one.
    pub const OTHER: Self = Self(Self::WORDS.len() as u8 - 1);

    /// A connection that broke, or a server that did not answer.
    pub const CONNECTION: Self = Self(0);

    /// The class of a SQLSTATE.
    #[must_use]
    pub fn of(sqlstate: &str) -> Self {
        let class = sqlstate.get(..2).unwrap_or_default();
        let place = Self::WORDS.iter().position(|word| *word == class);
        place.map_or(Self::OTHER, |place| Self(place as u8))
    }

    /// Its place in [`Class::WORDS`].
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self.0)
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self.place()]
    }
}

/// A SQLSTATE, from a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u8);

impl Code {
    /// Those that are told apart, and `other`: what functions raise by `USING ERRCODE` is anybody's.
    pub const WORDS: &'static [&'static str] = &[
        "08001", "08006", "08P01", "0A000", "21000", "22001", "22003", "22007", "22012", "22023",
        "22P02", "23502", "23503", "23505", "23514", "23P01", "25006", "25P02", "25P03", "25P04",
        "26000", "28000", "28P01", "3D000", "40001", "40P01", "42501", "42601", "42703", "42883",
        "42P01", "42P05", "42P07", "53100", "53200", "53300", "55000", "55006", "55P02", "55P03",
        "57014", "57P01", "57P02", "57P03", "57P05", "58030", "P0001", "XX000", "other",
    ];

    /// None of the others.
    pub const OTHER: Self = Self(Self::WORDS.len() as u8 - 1);

    /// 08006: the connection broke.
    pub const LOST: Self = Self(1);

    /// The one of this SQLSTATE.
    #[must_use]
    pub fn of(sqlstate: &str) -> Self {
        match Self::WORDS.binary_search(&sqlstate) {
            Ok(place) => Self(place as u8),
            Err(_) => Self::OTHER,
        }
    }

    /// Its place in [`Code::WORDS`].
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self.0)
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self.place()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_by_their_values_and_the_unknown_are_other() {
        assert!(Code::WORDS.is_sorted(), "they are searched");
        for word in Code::WORDS {
            assert_eq!(Code::of(word).as_str(), *word);
        }
        for word in Class::WORDS {
            assert_eq!(Class::of(word).as_str(), *word);
        }
        assert_eq!(Class::of("57014").as_str(), "57");
        assert_eq!(Class::CONNECTION.as_str(), "08");
        for unknown in ["", "X", "ZZ999", "ä1234", "other", "99999"] {
            assert_eq!(Code::LOST.as_str(), "08006");
            assert_eq!(Code::of(unknown), Code::OTHER);
            assert_eq!(Class::of(unknown), Class::OTHER);
        }
        for (place, reason) in Close::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            assert_eq!(reason.as_str(), Close::WORDS[place]);
        }
    }
}
