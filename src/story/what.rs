//! What can happen in an execution, as it is kept.

use std::time::Duration;

use super::Word;

/// The names of all that can happen.
pub const NAMES: [&str; 35] = [
    "checkout.failed",
    "checkout.lent",
    "checkout.notice",
    "checkout.ready",
    "checkout.refused",
    "checkout.returned",
    "checkout.waiting",
    "execution.adopted",
    "execution.began",
    "execution.deadline_near",
    "execution.ended",
    "execution.ending",
    "execution.forced",
    "execution.heartbeat",
    "execution.hold_closed",
    "execution.hold_opened",
    "execution.resources_left",
    "execution.sessions_gone",
    "resource.expired",
    "resource.registered",
    "resource.released",
    "session.cancelled",
    "session.dismissed",
    "session.errors",
    "session.idle",
    "session.idle_in_transaction",
    "session.joined",
    "session.leak_recovered",
    "session.leak_suspect",
    "session.left",
    "session.limit",
    "session.queries",
    "session.reclaimed",
    "session.transaction_began",
    "session.transaction_ended",
];

/// A length of time in four bytes, to a tenth of a millisecond; up to five days, and what is longer
/// counts as that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u32);

impl Span {
    /// The tenths of a millisecond that have passed.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        Self(u32::try_from(time.as_micros() / 100).unwrap_or(u32::MAX))
    }

    /// It as a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_micros(u64::from(self.0) * 100)
    }
}

/// What has happened. Names are those of `/v1/events` and of the log where the fact is the same: see
/// [`What::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The execution has begun.
    Began {
        /// How it came to be.
        kind: Word,
        /// Its deadline from then on.
        deadline: Option<Span>,
    },
    /// An implicit one is explicit from now on.
    Adopted {
        /// Its deadline from then on.
        deadline: Option<Span>,
    },
    /// Its deadline was moved.
    Heartbeat {
        /// How often, since this entry began.
        count: u32,
        /// When for the last time, from this entry's time on.
        last: Span,
    },
    /// A stream that holds it opened.
    HoldOpened {
        /// How many are open now.
        holds: u32,
    },
    /// One has closed.
    HoldClosed {
        /// How many are open now.
        holds: u32,
    },
    /// Four fifths of its time have passed.
    DeadlineNear {
        /// What is left.
        left: Span,
        /// How many sessions were told.
        sessions: u32,
    },
    /// Its end has begun.
    Ending {
        /// Why.
        reason: Word,
    },
    /// Sessions have gone, as it ended.
    SessionsGone {
        /// How many.
        count: u32,
        /// When the last one, from this entry's time on.
        last: Span,
    },
    /// Backends did not go by themselves, and were ended by force.
    Forced {
        /// How many.
        backends: u32,
    },
    /// It has ended.
    Ended {
        /// Why.
        reason: Word,
        /// Backends that were still there.
        leftovers: u32,
    },
    /// The app has registered resources.
    ResourceRegistered {
        /// Of this kind.
        kind: Word,
        /// So many, one after the other.
        count: u32,
    },
    /// It has released some.
    ResourceReleased {
        /// So many, one after the other.
        count: u32,
    },
    /// Some were not released within their time.
    ResourceExpired {
        /// Of this kind.
        kind: Word,
        /// So many, one after the other.
        count: u32,
    },
    /// Resources were still registered at the end.
    ResourcesLeft {
        /// How many.
        count: u32,
    },
    /// A session has joined.
    Joined,
    /// A session waits for a server connection.
    Waiting {
        /// What for.
        limit: Word,
    },
    /// Its client was told that it waits.
    Notice {
        /// What for.
        limit: Word,
        /// How long it had waited.
        waited: Span,
    },
    /// It has waited in vain.
    Refused {
        /// What for.
        limit: Word,
        /// The code of the error.
        sqlstate: [u8; 5],
        /// How long it waited.
        waited: Span,
    },
    /// The dial that was for it has failed.
    Failed {
        /// The code of the error.
        sqlstate: [u8; 5],
        /// How long it waited.
        waited: Span,
    },
    /// A server connection is at hand, which it has not used yet.
    Ready {
        /// The backend.
        pid: i32,
        /// How long it waited.
        waited: Span,
    },
    /// A server connection was lent to it.
    Lent {
        /// The backend.
        pid: i32,
        /// How long it waited.
        waited: Span,
    },
    /// It has queried, and nothing else has happened to it meanwhile.
    Queries {
        /// How often.
        count: u32,
        /// From the first to the last.
        span: Span,
        /// How long the server worked on that.
        active: Span,
        /// The class of its last error; blanks for none.
        class: [u8; 2],
    },
    /// The server has answered it with errors.
    Errors {
        /// The code of the last.
        sqlstate: [u8; 5],
        /// Where it came.
        phase: Word,
        /// How many.
        count: u32,
    },
    /// A transaction has begun that was worth an entry in the end.
    TransactionBegan,
    /// Such a transaction has ended.
    TransactionEnded {
        /// How long it was open.
        lasted: Span,
    },
    /// It held a server connection and asked nothing.
    Idle {
        /// Whether a transaction was open.
        in_transaction: bool,
        /// For how long.
        time: Span,
    },
    /// It was over a limit in time.
    Limit {
        /// The knob: its last word says whether the client was told, or the session was ended.
        limit: Word,
        /// How long it had been so.
        time: Span,
    },
    /// It is suspected of having been forgotten.
    Suspect {
        /// How long it had asked nothing.
        idle: Span,
    },
    /// It has asked something after all.
    Recovered {
        /// How long it had asked nothing.
        idle: Span,
    },
    /// A cleanup ends it to make room.
    Reclaimed,
    /// Somebody has asked for its end.
    Dismissed,
    /// What it did, or its wait, was cancelled.
    Cancelled {
        /// By whom.
        origin: Word,
    },
    /// Its server connection came back.
    Returned {
        /// How.
        how: Word,
        /// How long it was lent.
        held: Span,
    },
    /// It has gone.
    Left {
        /// What it has asked in all.
        queries: u32,
        /// How long it held server connections in all.
        held: Span,
    },
}

impl What {
    /// The name of the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Began { .. } => "execution.began",
            Self::Adopted { .. } => "execution.adopted",
            Self::Heartbeat { .. } => "execution.heartbeat",
            Self::HoldOpened { .. } => "execution.hold_opened",
            Self::HoldClosed { .. } => "execution.hold_closed",
            Self::DeadlineNear { .. } => "execution.deadline_near",
            Self::Ending { .. } => "execution.ending",
            Self::SessionsGone { .. } => "execution.sessions_gone",
            Self::Forced { .. } => "execution.forced",
            Self::Ended { .. } => "execution.ended",
            Self::ResourceRegistered { .. } => "resource.registered",
            Self::ResourceReleased { .. } => "resource.released",
            Self::ResourceExpired { .. } => "resource.expired",
            Self::ResourcesLeft { .. } => "execution.resources_left",
            Self::Joined => "session.joined",
            Self::Waiting { .. } => "checkout.waiting",
            Self::Notice { .. } => "checkout.notice",
            Self::Refused { .. } => "checkout.refused",
            Self::Failed { .. } => "checkout.failed",
            Self::Ready { .. } => "checkout.ready",
            Self::Lent { .. } => "checkout.lent",
            Self::Queries { .. } => "session.queries",
            Self::Errors { .. } => "session.errors",
            Self::TransactionBegan => "session.transaction_began",
            Self::TransactionEnded { .. } => "session.transaction_ended",
            Self::Idle {
                in_transaction: true,
                ..
            } => "session.idle_in_transaction",
            Self::Idle { .. } => "session.idle",
            Self::Limit { .. } => "session.limit",
            Self::Suspect { .. } => "session.leak_suspect",
            Self::Recovered { .. } => "session.leak_recovered",
            Self::Reclaimed => "session.reclaimed",
            Self::Dismissed => "session.dismissed",
            Self::Cancelled { .. } => "session.cancelled",
            Self::Returned { .. } => "checkout.returned",
            Self::Left { .. } => "session.left",
        }
    }

    /// Whether an execution has ended badly to which this happened, whatever it ended by.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Failed { .. }
            | Self::Forced { .. }
            | Self::Reclaimed
            | Self::Dismissed => true,
            Self::Limit { limit, .. } => limit.as_str().ends_with(".end"),
            Self::Cancelled { origin } => origin.as_str() == "request",
            _ => false,
        }
    }
}
