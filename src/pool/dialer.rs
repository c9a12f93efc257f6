//! How the connections of one key are opened, and how bb8 is told when one has left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bb8::ManageConnection;

use crate::config::{Role, Secret, SessionAttrs, Tls};
use crate::protocol::startup::Parameters;
use crate::server::{Address, ConnectError, Connection, Login, Password, Seeker, search};

/// What the server connections of one key have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where servers listen, tried in this order; at least one.
    pub addresses: Vec<Address>,
    /// Which of them is taken.
    pub session_attrs: SessionAttrs,
    /// As whom.
    pub user: String,
    /// To which database.
    pub database: String,
    /// The password, as it is at each dial.
    pub password: Password,
    /// How servers are spoken to.
    pub tls: Arc<Tls>,
    /// The forwarded startup parameters.
    pub parameters: Parameters,
    /// How long reaching one address and logging in may take.
    pub connect_timeout: Duration,
    /// The idleness of a TCP connection after which the kernel asks whether the server is there.
    pub keepalive: Duration,
    /// The statement that undoes what a session set, such as `DISCARD ALL`; none: nothing does, and
    /// a connection is closed when a session has used it.
    pub reset: Option<String>,
    /// Whether the server is to look, amid a query, whether we are still there.
    pub checks_client: bool,
    /// When idle connections are looked after.
    pub upkeep: Upkeep,
}

impl Target {
    /// Whether connections lead to the same place in the same way, however they are looked after:
    /// what was learned of one server is true of the other.
    #[must_use]
    pub fn leads_where(&self, other: &Self) -> bool {
        let same = Self {
            connect_timeout: other.connect_timeout,
            keepalive: other.keepalive,
            reset: other.reset.clone(),
            upkeep: other.upkeep,
            ..self.clone()
        };
        same == *other
    }
}

/// When idle connections are asked, replaced and closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// The age at which a connection is replaced, give or take a tenth.
    pub recycle: Duration,
    /// The idleness at which it is closed.
    pub idle_timeout: Duration,
    /// The idleness from which it is asked before it is lent; none: never.
    pub ping_after: Option<Duration>,
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

    /// Logs in; with another password, if the place where it comes from has another by now than the
    /// one that was refused.
    async fn dial_one(
        &self,
        address: &Address,
        machine: Option<SocketAddr>,
    ) -> Result<Connection, ConnectError> {
        let password = self.target.password.get().await?;
        let refused = match self.log_in(address, machine, password.as_ref()).await {
            Err(error) if error.is_password_refused() => error,
            answer => return answer,
        };
        let other = match &password {
            Some(password) => self.target.password.other_than(password).await?,
            None => None,
        };
        match other {
            Some(other) => self.log_in(address, machine, Some(&other)).await,
            None => Err(refused),
        }
    }

    async fn log_in(
        &self,
        address: &Address,
        machine: Option<SocketAddr>,
        password: Option<&Secret>,
    ) -> Result<Connection, ConnectError> {
        let target = &self.target;
        let login = Login {
            address,
            machine,
            user: &target.user,
            database: &target.database,
            password: password.map(|secret| secret.expose().as_bytes()),
            tls: &target.tls,
            parameters: &target.parameters,
            checks_client: target.checks_client,
            timeout: target.connect_timeout,
            keepalive: target.keepalive,
        };
        Connection::connect(&login).await
    }
}

/// Each machine that a name means has its own time.
impl Seeker for Dialer {
    type Connection = Connection;
    type Error = ConnectError;

    fn patience(&self) -> Duration {
        self.target.connect_timeout
    }

    async fn dial(
        &self,
        address: &Address,
        machine: Option<SocketAddr>,
        _: usize,
    ) -> Result<Connection, ConnectError> {
        self.dial_one(address, machine).await
    }

    async fn role(&self, connection: &mut Connection) -> Result<Role, String> {
        let asked = tokio::time::timeout(self.target.connect_timeout, connection.role());
        match asked.await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("it did not say in time what it is".to_owned()),
        }
    }

    fn leave(&self, connection: Connection) {
        // Nobody waits for its end, and it gets no time without end.
        let goodbye = connection.terminate();
        tokio::spawn(tokio::time::timeout(self.target.connect_timeout, goodbye));
    }

    fn told_of(&self, error: &ConnectError) -> Option<String> {
        let goes_on = error.is_elsewhere_worth_a_try();
        goes_on.then(|| error.for_others())
    }
}

/// A place in a bb8 pool. A connection leaves bb8 only by being taken out of its slot:
/// the empty slot reports itself broken.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) connection: Option<Connection>,
    /// When it is too old to be lent again.
    pub(super) expires: Instant,
    /// Since when it is idle, while it is.
    pub(super) idle_since: Instant,
    /// The epoch in which it was dialled; one of an earlier epoch is not lent again.
    pub(super) epoch: u64,
}

impl Slot {
    fn new(connection: Connection, upkeep: &Upkeep) -> Self {
        let now = Instant::now();
        Self {
            expires: now + lifetime(upkeep.recycle, connection.pid()),
            connection: Some(connection),
            idle_since: now,
            epoch: 0,
        }
    }

    /// Whether it is too old, or was idle for too long, to stay.
    pub(super) fn is_overdue(&self, upkeep: &Upkeep, now: Instant) -> bool {
        self.expires <= now || now.saturating_duration_since(self.idle_since) > upkeep.idle_timeout
    }
}

/// The age spread by a tenth either way, so that connections opened together do not end
/// together. Process ids are as good as dice for that.
fn lifetime(recycle: Duration, pid: i32) -> Duration {
    let spread = pid.unsigned_abs().wrapping_mul(2_654_435_761) >> 16; // 0 to 65,535
    recycle.mul_f64(0.9 + 0.2 * f64::from(spread) / 65_535.0)
}

impl ManageConnection for Dialer {
    type Connection = Slot;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Slot, ConnectError> {
        let target = &self.target;
        let connection = search(self, &target.addresses, target.session_attrs).await?;
        Ok(Slot::new(connection, &target.upkeep))
    }

    /// Liveness is looked at by the lender, which replaces a dead connection by itself.
    async fn is_valid(&self, _: &mut Slot) -> Result<(), ConnectError> {
        Ok(())
    }

    fn has_broken(&self, slot: &mut Slot) -> bool {
        slot.connection.is_none()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::PasswordSource;

    pub(in super::super) fn target() -> Target {
        Target {
            addresses: Vec::new(),
            session_attrs: SessionAttrs::Any,
            user: "app".to_owned(),
            database: "app".to_owned(),
            password: Password::new(PasswordSource::None),
            tls: Arc::default(),
            parameters: Parameters::default(),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            reset: Some("DISCARD ALL".to_owned()),
            checks_client: true,
            upkeep: Upkeep {
                recycle: Duration::from_secs(1800),
                idle_timeout: Duration::from_secs(300),
                ping_after: None,
            },
        }
    }

    #[test]
    fn lifetimes_are_spread_by_a_tenth_and_no_more() {
        let recycle = Duration::from_secs(1000);
        let lifetimes: Vec<_> = (1..5000).map(|pid| lifetime(recycle, pid)).collect();
        let (least, most) = (lifetimes.iter().min(), lifetimes.iter().max());
        assert!(*least.unwrap() >= Duration::from_secs(900));
        assert!(*least.unwrap() < Duration::from_secs(910));
        assert!(*most.unwrap() <= Duration::from_secs(1100));
        assert!(*most.unwrap() > Duration::from_secs(1090));
    }
}
