//! A server connection that is lent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;

use crate::metrics::{Class, Phase};
use crate::server::connection::Unclean;
use crate::server::{Address, Connection};

use super::PoolId;
use super::WaiterId;
use super::barrier::Canceller;
use super::key::Key;
use super::lender::Lender;
use super::stock::Place;

/// How long cleaning a connection may take before it is closed instead.
const CLEANING: Duration = Duration::from_secs(5);

/// A lent server connection. Dropped without [`Checkout::give_back`], it is closed if it
/// was used, and is lent on if it was not: nothing is lost on the way to a waiter that
/// has gone.
#[derive(Debug)]
#[must_use = "a checkout that is dropped at once has waited for nothing"]
pub struct Checkout {
    lender: Arc<Lender>,
    pool: PoolId,
    key: Arc<Key>,
    held: Held,
    canceller: Option<Canceller>,
}

/// How a server connection came back: a closed set, fit for counting by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// It was reset, and can be lent again.
    Clean,
    /// The same, and a transaction that was open was rolled back.
    RolledBack,
    /// It could not be reset in time or at all, and was closed.
    ResetFailed,
    /// It was closed, as it was not fit to be lent again.
    Closed,
}

impl Returned {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Clean,
        Self::RolledBack,
        Self::ResetFailed,
        Self::Closed,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::RolledBack => "rolled_back",
            Self::ResetFailed => "reset_failed",
            Self::Closed => "closed",
        }
    }
}

#[derive(Debug)]
enum Held {
    /// As it came. Left by the first use, or by being returned.
    Clean(Place),
    /// A session has had it. Left by being cleaned or closed.
    Used(Place),
    /// It is on its way back.
    Gone,
}

impl Held {
    fn place(&self) -> Option<&Place> {
        match self {
            Self::Clean(place) | Self::Used(place) => Some(place),
            Self::Gone => None,
        }
    }

    fn connection(&self) -> Option<&Connection> {
        self.place()?.connection.as_ref()
    }
}

impl Checkout {
    pub(super) fn new(lender: Arc<Lender>, pool: PoolId, key: Arc<Key>, place: Place) -> Self {
        let canceller = place.connection.as_ref().map(Canceller::new);
        Self {
            lender,
            pool,
            key,
            held: Held::Clean(place),
            canceller,
        }
    }

    /// Cancels what this checkout runs, from anywhere, for as long as it is lent.
    #[must_use]
    pub fn canceller(&self) -> Option<Canceller> {
        self.canceller.clone()
    }

    /// The process id of the backend.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.held.connection().map(Connection::pid)
    }

    /// What the server reports, by name.
    pub fn reported(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let connection = self.held.connection().into_iter();
        connection.flat_map(Connection::all_reported)
    }

    /// Whether it need not be replaced: see [`Lender::reconnect`].
    #[must_use]
    pub fn is_current(&self) -> bool {
        let place = self.held.place();
        place.is_some_and(|place| place.epoch == self.lender.epoch())
    }

    /// Whether the server is still there, without a round trip.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.held.connection().is_some_and(Connection::is_alive)
    }

    /// Asks the server, if its connection was idle for so long that its silence proves
    /// nothing. False: it must be discarded. Dropped amid that, the checkout closes its
    /// connection: the answer is still to come.
    pub(super) async fn answers(&mut self) -> bool {
        let target = Arc::clone(self.key.target());
        let Some(idle_since) = self.held.place().map(|place| place.idle_since) else {
            return false;
        };
        let asked_from = target.upkeep.ping_after;
        if asked_from.is_none_or(|after| idle_since.elapsed() <= after) {
            return true;
        }
        // Used from here on, until it has answered.
        let Some(connection) = self.connection() else {
            return false;
        };
        let ping = tokio::time::timeout(target.connect_timeout, connection.ping());
        let answer = ping.await;
        self.counted(Phase::Ping, &answer);
        let answered = matches!(answer, Ok(Ok(())));
        if answered {
            self.cleaned();
        }
        answered
    }

    /// A session has left something in it that a reset does not undo.
    pub fn taint(&self) {
        self.lender.taint(self.pool);
    }

    /// The connection, for use: from here on it must be cleaned before anybody else gets it.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.held = match std::mem::replace(&mut self.held, Held::Gone) {
            Held::Clean(place) | Held::Used(place) => Held::Used(place),
            Held::Gone => Held::Gone,
        };
        match &mut self.held {
            Held::Used(place) => place.connection.as_mut(),
            Held::Clean(_) | Held::Gone => None,
        }
    }

    /// Puts a connection that was not used among the idle ones, kept for `session` until
    /// somebody needs it more: see [`Lender::checkout`].
    pub fn park(mut self, session: WaiterId) {
        if let Held::Clean(place) = std::mem::replace(&mut self.held, Held::Gone) {
            self.lender.parked(self.pool, &self.key, session, place);
        }
    }

    /// Sees cancel requests through, cleans the connection and returns it; one for which
    /// either takes over 5 s is closed, and so is a used one that nothing cleans. Dropping the future closes it as well.
    /// Answers what became of it.
    pub async fn give_back(mut self) -> Returned {
        if let Some(canceller) = &self.canceller
            && !canceller.settle(CLEANING).await
        {
            return self.discard();
        }
        let is_unfit = |connection: &Connection| !connection.is_what_it_was();
        if self.held.connection().is_some_and(is_unfit) {
            return self.discard();
        }
        let is_open = |connection: &Connection| connection.status() != b'I';
        let was_open = self.held.connection().is_some_and(is_open);
        if let Held::Used(place) = &mut self.held
            && let Some(connection) = place.connection.as_mut()
        {
            let Some(reset) = &self.key.target().reset else {
                return self.discard();
            };
            let cleaned = tokio::time::timeout(CLEANING, connection.clean(reset)).await;
            self.counted(Phase::Reset, &cleaned);
            if !matches!(cleaned, Ok(Ok(()))) {
                return Returned::ResetFailed;
            }
            self.cleaned();
        }
        match was_open {
            true => Returned::RolledBack,
            false => Returned::Clean,
        }
    }

    /// Counts what has failed.
    fn counted(&self, phase: Phase, answer: &Result<Result<(), Unclean>, Elapsed>) {
        let class = match answer {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.class(),
            Err(_) => Class::CONNECTION,
        };
        self.lender.counters.failed(phase, class);
    }

    /// Where its server listens.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        self.held.connection().map(Connection::address)
    }

    /// Its connection is as it came: anybody may have it.
    fn cleaned(&mut self) {
        self.held = match std::mem::replace(&mut self.held, Held::Gone) {
            Held::Used(place) => Held::Clean(place),
            other => other,
        };
    }

    /// Closes the connection instead of returning it.
    pub fn discard(mut self) -> Returned {
        // Counts as used, so the drop closes it.
        self.connection();
        Returned::Closed
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.held, Held::Gone) {
            Held::Clean(mut place) if self.lender.may_be_lent(&place) => {
                place.idle_since = Instant::now();
                self.lender.returned(self.pool, &self.key, place);
            }
            Held::Clean(place) | Held::Used(place) => {
                self.lender.discarded(self.pool, &self.key, place);
            }
            Held::Gone => {}
        }
    }
}
