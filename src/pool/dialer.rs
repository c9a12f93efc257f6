//! What bb8 is told of our connections: how to open one, and when one has left.

use std::sync::Arc;
use std::time::Duration;

use bb8::ManageConnection;

use crate::protocol::startup::Parameters;
use crate::server::{Address, ConnectError, Connection, Login};

/// What the server connections of one key have in common.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the server listens.
    pub address: Address,
    /// As whom.
    pub user: String,
    /// To which database.
    pub database: String,
    /// The password, if one is configured.
    pub password: Option<Vec<u8>>,
    /// The forwarded startup parameters.
    pub parameters: Parameters,
    /// How long a dial may take.
    pub connect_timeout: Duration,
    /// The statement that undoes what a session set, such as `DISCARD ALL`.
    pub reset: String,
}

/// Opens the connections of one key.
#[derive(Debug)]
pub(super) struct Dialer {
    target: Arc<Target>,
}

impl Dialer {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target }
    }
}

/// A place in a bb8 pool. A connection leaves bb8 only by being taken out of its slot:
/// the empty slot reports itself broken.
#[derive(Debug)]
pub(super) struct Slot(pub(super) Option<Connection>);

impl ManageConnection for Dialer {
    type Connection = Slot;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Slot, ConnectError> {
        let target = &self.target;
        let login = Login {
            address: &target.address,
            user: &target.user,
            database: &target.database,
            password: target.password.as_deref(),
            parameters: &target.parameters,
            timeout: target.connect_timeout,
        };
        let connection = Connection::connect(&login);
        connection.await.map(|connection| Slot(Some(connection)))
    }

    /// Liveness is looked at by the lender, which replaces a dead connection by itself.
    async fn is_valid(&self, _: &mut Slot) -> Result<(), ConnectError> {
        Ok(())
    }

    fn has_broken(&self, slot: &mut Slot) -> bool {
        slot.0.is_none()
    }
}
