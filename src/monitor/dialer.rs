//! What bb8 is told of the connection: how to open it, and when it has left.

use std::time::Duration;

use bb8::ManageConnection;
use bb8_postgres::PostgresConnectionManager;
use tokio_postgres::config::ChannelBinding as Binding;
use tokio_postgres::{Config, NoTls};

use crate::config::{self, Role, Secret, SessionAttrs, Target, Upstream};
use crate::server::{Address, ConnectError, Password};

use super::error::Problem;
use super::line::Line;
use super::{APPLICATION_NAME, Question};

/// What a server is.
const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    pg_catalog.current_setting('transaction_read_only') = 'on'";

/// Opens the connection of one upstream.
///
/// What is open is judged by bb8-postgres. It does not open it: it is given its password
/// once and for all, and its connections outlive a client whose question is unanswered.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    upstream: String,
    target: Target,
    pub(super) password: Password,
    connect_timeout: Duration,
    judge: PostgresConnectionManager<NoTls>,
}

/// The one place of the pool. The connection is taken out while it is asked: a question that
/// is given up leaves an empty slot, which reports itself broken.
#[derive(Debug)]
pub(super) struct Slot(Option<Line>);

impl Slot {
    /// Whether the connection is known to have ended.
    pub(super) fn is_over(&mut self) -> bool {
        self.0.as_mut().is_none_or(|line| line.client().is_closed())
    }

    /// Puts a question.
    ///
    /// Cancel safe: the connection is closed when the answer is not awaited.
    pub(super) async fn ask<Q: Question>(&mut self, question: &Q) -> Result<Q::Answer, Problem> {
        let mut line = self.0.take().ok_or(Problem::Ended(None))?;
        let answer = line.ask(question).await.map_err(Problem::answered);
        // The server's farewell arrives before its end is seen.
        if !matches!(answer, Err(Problem::Ended(_))) {
            self.0 = Some(line);
        }
        answer
    }
}

impl Dialer {
    pub(super) fn new(upstream: &Upstream) -> Self {
        Self {
            upstream: upstream.name.clone(),
            target: upstream.target.clone(),
            password: Password::new(upstream.target.password.clone()),
            connect_timeout: upstream.connect_timeout,
            judge: PostgresConnectionManager::new(Config::new(), NoTls),
        }
    }

    /// The name of the upstream.
    pub(super) fn upstream(&self) -> &str {
        &self.upstream
    }

    /// What is sent at start-up. Of the upstream's further parameters only `options` may be
    /// needed to get in; the others say how a client's session is to be.
    fn login(&self, password: Option<&Secret>) -> Config {
        let mut login = Config::new();
        login
            .user(&self.target.user)
            .dbname(&self.target.database)
            .application_name(APPLICATION_NAME)
            .channel_binding(match self.target.tls.channel_binding {
                config::ChannelBinding::Disable => Binding::Disable,
                config::ChannelBinding::Prefer => Binding::Prefer,
                config::ChannelBinding::Require => Binding::Require,
            })
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        for (name, value) in &self.target.parameters {
            if name == "options" {
                login.options(value);
            }
        }
        if let Some(password) = password {
            login.password(password.expose());
        }
        login
    }

    /// Tries one host after the other, each for its share of the time. A server that has
    /// heard us and says no ends the search, as in libpq; one that is starting does not.
    async fn dial_any(&self, password: Option<&Secret>) -> Result<Slot, Problem> {
        let login = self.login(password);
        let attrs = self.target.session_attrs;
        let mut found = Vec::new();
        let mut last = Problem::Ended(None);
        for round in attrs.rounds() {
            match self.dial(&login, *round, &mut found).await {
                Ok(line) => return Ok(Slot(Some(line))),
                Err(problem) if problem.may_be_the_hosts() => last = problem,
                Err(problem) => return Err(problem),
            }
        }
        if found.is_empty() {
            return Err(last);
        }
        let wanted = attrs.as_str();
        Err(Problem::Connect(ConnectError::NoneSuits { wanted, found }))
    }

    /// The first host that suits; what speaks against those that were reached goes to `found`.
    async fn dial(
        &self,
        login: &Config,
        attrs: SessionAttrs,
        found: &mut Vec<(Address, String)>,
    ) -> Result<Line, Problem> {
        let hosts = &self.target.hosts;
        // A process has not as many hosts as an u32 has numbers.
        let share = self.connect_timeout / u32::try_from(hosts.len().max(1)).unwrap_or(u32::MAX);
        let mut last = Problem::Ended(None);
        for host in hosts {
            let address = Address::from(host);
            let dial =
                tokio::time::timeout(share, Line::connect(&address, &self.target.tls, login)).await;
            let dialled = dial.unwrap_or_else(|_| {
                Err(Problem::Connect(ConnectError::Timeout {
                    address: address.clone(),
                    after: share,
                }))
            });
            match dialled {
                Ok(mut line) => match objection(attrs, &mut line, share).await {
                    None => return Ok(line),
                    Some(why) => found.push((address, why)),
                },
                Err(problem) if problem.may_be_the_hosts() => last = problem,
                Err(problem) => return Err(problem),
            }
        }
        Err(last)
    }
}

impl ManageConnection for Dialer {
    type Connection = Slot;
    type Error = Problem;

    /// With another password, if the place where it comes from has another by now than the one that
    /// was refused.
    async fn connect(&self) -> Result<Slot, Problem> {
        let password = self.password.get().await?;
        let refused = match self.dial_any(password.as_ref()).await {
            Err(problem) if problem.is_password_refused() => problem,
            answer => return answer,
        };
        let other = match &password {
            Some(password) => self.password.other_than(password).await?,
            None => None,
        };
        match other {
            Some(other) => self.dial_any(Some(&other)).await,
            None => Err(refused),
        }
    }

    async fn is_valid(&self, slot: &mut Slot) -> Result<(), Problem> {
        let line = slot.0.as_mut().ok_or(Problem::Ended(None))?;
        let answer = self.judge.is_valid(line.client()).await;
        answer.map_err(Problem::answered)
    }

    fn has_broken(&self, slot: &mut Slot) -> bool {
        let line = slot.0.as_mut();
        line.is_none_or(|line| self.judge.has_broken(line.client()))
    }
}

/// What speaks against the server that was reached, if it is to be of a certain role.
async fn objection(attrs: SessionAttrs, line: &mut Line, patience: Duration) -> Option<String> {
    if attrs == SessionAttrs::Any {
        return None;
    }
    let asked = line.client().query_typed_one(ROLE, &[]);
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(row)) => {
            let role = Role {
                is_standby: row.get(0),
                is_read_only: row.get(1),
            };
            attrs.objection(role).map(str::to_owned)
        }
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("it did not say in time what it is".to_owned()),
    }
}
