//! A server connection that is lent.

use std::sync::Arc;
use std::time::Duration;

use bb8::PooledConnection;

use crate::server::Connection;

use super::barrier::Canceller;
use super::dialer::{Dialer, Slot};
use super::lender::Lender;
use super::{KeyId, PoolId};

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
    key: KeyId,
    held: Held,
    canceller: Option<Canceller>,
}

#[derive(Debug)]
enum Held {
    /// As it came. Left by the first use, or by being returned.
    Clean(PooledConnection<'static, Dialer>),
    /// A session has had it. Left by being cleaned or closed.
    Used(PooledConnection<'static, Dialer>),
    /// It is on its way back.
    Gone,
}

impl Held {
    fn connection(&self) -> Option<&Connection> {
        match self {
            Self::Clean(place) | Self::Used(place) => place.0.as_ref(),
            Self::Gone => None,
        }
    }
}

impl Checkout {
    pub(super) fn new(
        lender: Arc<Lender>,
        pool: PoolId,
        key: KeyId,
        connection: PooledConnection<'static, Dialer>,
    ) -> Self {
        let canceller = connection.0.as_ref().map(|connection| {
            let address = connection.address().clone();
            Canceller::new(address, connection.pid(), connection.key())
        });
        Self {
            lender,
            pool,
            key,
            held: Held::Clean(connection),
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

    /// Whether the server is still there, without a round trip.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.held.connection().is_some_and(Connection::is_alive)
    }

    /// The connection, for use: from here on it must be cleaned before anybody else gets it.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.held = match std::mem::replace(&mut self.held, Held::Gone) {
            Held::Clean(place) | Held::Used(place) => Held::Used(place),
            Held::Gone => Held::Gone,
        };
        match &mut self.held {
            Held::Used(place) => place.0.as_mut(),
            Held::Clean(_) | Held::Gone => None,
        }
    }

    /// Sees cancel requests through, cleans the connection and returns it; one for which
    /// either takes over 5 s is closed. Dropping the future closes it as well.
    pub async fn give_back(mut self) {
        if let Some(canceller) = &self.canceller
            && !canceller.settle(CLEANING).await
        {
            return self.discard();
        }
        let target = self.lender.target_of(self.key);
        if let (Held::Used(place), Some(target)) = (&mut self.held, target)
            && let Some(connection) = place.0.as_mut()
        {
            let cleaned = tokio::time::timeout(CLEANING, connection.clean(&target.reset)).await;
            if matches!(cleaned, Ok(Ok(()))) {
                self.held = match std::mem::replace(&mut self.held, Held::Gone) {
                    Held::Used(place) => Held::Clean(place),
                    other => other,
                };
            }
        }
    }

    /// Closes the connection instead of returning it.
    pub fn discard(mut self) {
        // Counts as used, so the drop closes it.
        self.connection();
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.held, Held::Gone) {
            Held::Clean(place) => self.lender.returned(self.pool, self.key, place),
            Held::Used(place) => self.lender.discarded(self.pool, self.key, place),
            Held::Gone => {}
        }
    }
}

/// Takes the connection out of its slot; the empty slot then leaves bb8.
pub(super) fn taken_out(mut place: PooledConnection<'static, Dialer>) -> Option<Connection> {
    let slot: &mut Slot = &mut place;
    slot.0.take()
}
