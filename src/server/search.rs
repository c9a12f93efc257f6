//! Which of several servers is taken, as libpq's `target_session_attrs` has it: every machine that
//! every address means, in order, until one suits.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{Role, SessionAttrs};

use super::{Address, ConnectError, resolve};

/// Who looks for a server, and how one is tried.
pub trait Seeker: Sync {
    /// A server that was reached and has let us in.
    type Connection: Send;
    /// Why one was not had.
    type Error: From<ConnectError> + Send;

    /// How long resolving one name may take.
    fn patience(&self) -> Duration;

    /// Logs in at one machine, one `of` so many that its address means.
    fn dial(
        &self,
        address: &Address,
        machine: Option<SocketAddr>,
        of: usize,
    ) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// What the server is, or why it does not say.
    fn role(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<Role, String>> + Send;

    /// Ends a connection that does not suit. Nobody waits for that.
    fn leave(&self, connection: Self::Connection);

    /// What is told of a machine that was not had, where another one may do better; none: the search
    /// is over.
    fn told_of(&self, error: &Self::Error) -> Option<String>;
}

/// The first server that suits.
///
/// Cancel safe where [`Seeker::dial`] is.
///
/// # Errors
/// None suits, none is reached, or one has said no for all.
pub async fn search<S: Seeker>(
    seeker: &S,
    addresses: &[Address],
    attrs: SessionAttrs,
) -> Result<S::Connection, S::Error> {
    let mut refused = Refusals::default();
    for wanted in attrs.rounds() {
        // What counts is what speaks against each in the last round.
        refused = Refusals::default();
        let found = round(seeker, addresses, *wanted, &mut refused).await?;
        if let Some(connection) = found {
            return Ok(connection);
        }
    }
    Err(refused.error(attrs))
}

/// What speaks against a server, by its role.
///
/// Not cancel safe: a connection that was asked and not heard must be closed.
pub async fn objection<S: Seeker>(
    seeker: &S,
    attrs: SessionAttrs,
    connection: &mut S::Connection,
) -> Option<String> {
    if attrs == SessionAttrs::Any {
        return None;
    }
    match seeker.role(connection).await {
        Ok(role) => attrs.objection(role).map(str::to_owned),
        Err(why) => Some(why),
    }
}

async fn round<S: Seeker>(
    seeker: &S,
    addresses: &[Address],
    wanted: SessionAttrs,
    refused: &mut Refusals<S::Error>,
) -> Result<Option<S::Connection>, S::Error> {
    for address in addresses {
        let machines = match resolve(address, seeker.patience()).await {
            Ok(machines) => machines,
            Err(error) => {
                let text = error.for_others();
                refused.unreached(address, text, error.into());
                continue;
            }
        };
        for machine in &machines {
            let mut connection = match seeker.dial(address, *machine, machines.len()).await {
                Ok(connection) => connection,
                Err(error) => match seeker.told_of(&error) {
                    Some(text) => {
                        refused.unreached(address, text, error);
                        continue;
                    }
                    None => return Err(error),
                },
            };
            match objection(seeker, wanted, &mut connection).await {
                None => return Ok(Some(connection)),
                Some(why) => {
                    refused.unsuited(address, why);
                    seeker.leave(connection);
                }
            }
        }
    }
    Ok(None)
}

/// Why no server was taken.
#[derive(Debug)]
struct Refusals<E> {
    found: Vec<(Address, String)>,
    /// Whether one was reached that does not suit.
    is_by_role: bool,
    last: Option<E>,
}

impl<E> Default for Refusals<E> {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            is_by_role: false,
            last: None,
        }
    }
}

impl<E: From<ConnectError>> Refusals<E> {
    fn unreached(&mut self, address: &Address, text: String, error: E) {
        self.found.push((address.clone(), text));
        self.last = Some(error);
    }

    fn unsuited(&mut self, address: &Address, why: String) {
        self.found.push((address.clone(), why));
        self.is_by_role = true;
    }

    fn error(self, attrs: SessionAttrs) -> E {
        match self.last {
            _ if self.is_by_role => ConnectError::NoneSuits {
                wanted: attrs.as_str(),
                found: self.found,
            }
            .into(),
            Some(error) => error,
            None => ConnectError::NoAddress.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// How a machine answers.
    #[derive(Clone, Copy)]
    enum Is {
        Primary,
        Standby,
        Away,
        Firm,
    }

    /// Machines by their ports; what was dialled and left.
    struct Script {
        machines: Vec<(u16, Is)>,
        dialled: Mutex<Vec<u16>>,
        left: Mutex<Vec<u16>>,
    }

    impl Seeker for Script {
        type Connection = u16;
        type Error = ConnectError;

        fn patience(&self) -> Duration {
            Duration::from_secs(5)
        }

        async fn dial(
            &self,
            address: &Address,
            machine: Option<SocketAddr>,
            _: usize,
        ) -> Result<u16, ConnectError> {
            let port = machine.unwrap().port();
            self.dialled.lock().push(port);
            match self.is(port) {
                Is::Away => Err(ConnectError::Timeout {
                    address: address.clone(),
                    after: Duration::from_secs(1),
                }),
                Is::Firm => Err(ConnectError::PasswordMissing(address.clone())),
                Is::Primary | Is::Standby => Ok(port),
            }
        }

        async fn role(&self, connection: &mut u16) -> Result<Role, String> {
            Ok(Role {
                is_standby: matches!(self.is(*connection), Is::Standby),
                is_read_only: false,
            })
        }

        fn leave(&self, connection: u16) {
            self.left.lock().push(connection);
        }

        fn told_of(&self, error: &ConnectError) -> Option<String> {
            error.is_elsewhere_worth_a_try().then(|| error.for_others())
        }
    }

    impl Script {
        fn is(&self, port: u16) -> Is {
            self.machines.iter().find(|(of, _)| *of == port).unwrap().1
        }

        async fn takes(machines: &[(u16, Is)], attrs: SessionAttrs) -> (Result<u16, String>, Self) {
            let script = Self {
                machines: machines.to_vec(),
                dialled: Mutex::default(),
                left: Mutex::default(),
            };
            let addresses: Vec<Address> = machines
                .iter()
                .map(|(port, _)| Address::Tcp {
                    host: "127.0.0.1".to_owned(),
                    port: *port,
                })
                .collect();
            let found = search(&script, &addresses, attrs).await;
            (found.map_err(|error| error.to_string()), script)
        }
    }

    #[tokio::test]
    async fn the_first_that_suits_is_taken_and_the_others_are_left() {
        let all = [
            (1, Is::Away),
            (2, Is::Standby),
            (3, Is::Primary),
            (4, Is::Primary),
        ];
        let (found, script) = Script::takes(&all, SessionAttrs::Primary).await;
        assert_eq!(found, Ok(3));
        assert_eq!(*script.dialled.lock(), [1, 2, 3]);
        assert_eq!(*script.left.lock(), [2]);
    }

    #[tokio::test]
    async fn a_preferred_standby_is_looked_for_twice_and_no_refusal_is_told_twice() {
        let (found, script) = Script::takes(&[(1, Is::Primary)], SessionAttrs::PreferStandby).await;
        assert_eq!(found, Ok(1));
        assert_eq!(*script.dialled.lock(), [1, 1]);
        let away = [(1, Is::Away), (2, Is::Away)];
        let (found, script) = Script::takes(&away, SessionAttrs::PreferStandby).await;
        assert!(found.unwrap_err().contains("127.0.0.1:2"));
        assert_eq!(*script.dialled.lock(), [1, 2, 1, 2]);
        let (found, _) =
            Script::takes(&[(1, Is::Primary), (2, Is::Away)], SessionAttrs::Standby).await;
        let told = found.unwrap_err();
        for (part, times) in [
            ("127.0.0.1:1", 1),
            ("it is no standby", 1),
            ("did not answer", 1),
        ] {
            assert_eq!(told.matches(part).count(), times, "{told}");
        }
    }

    #[tokio::test]
    async fn a_server_that_says_no_for_good_ends_the_search() {
        let (found, script) =
            Script::takes(&[(1, Is::Firm), (2, Is::Primary)], SessionAttrs::Any).await;
        assert!(found.unwrap_err().contains("wants a password"));
        assert_eq!(*script.dialled.lock(), [1]);
    }
}
