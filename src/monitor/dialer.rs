//! What bb8 is told of the connection: how to open it, and when it has left.

use std::net::SocketAddr;
use std::time::Duration;

use bb8::ManageConnection;
use bb8_postgres::PostgresConnectionManager;
use tokio_postgres::config::ChannelBinding as Binding;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::config::{self, Role, Secret, Target, Upstream};
use crate::server::search::objection;
use crate::server::{Address, ConnectError, Password, Seeker, resolve, search};

use super::error::Problem;
use super::line::Line;
use super::{APPLICATION_NAME, Question};

/// What a server is.
const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    pg_catalog.current_setting('transaction_read_only') = 'on'";

/// The question for it.
struct WhatAreYou;

impl Question for WhatAreYou {
    type Answer = Role;

    async fn put(&self, client: &Client, _: Option<SocketAddr>) -> Result<Role, Error> {
        let row = client.query_typed_one(ROLE, &[]).await?;
        Ok(Role {
            is_standby: row.try_get(0)?,
            is_read_only: row.try_get(1)?,
        })
    }
}

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

    /// Tries one machine after the other, each for its share of the time. A server that has
    /// heard us and says no ends the search, as in libpq; one that is starting does not.
    async fn dial_any(&self, password: Option<&Secret>) -> Result<Slot, Problem> {
        let dial = Dial {
            dialer: self,
            login: self.login(password),
        };
        let addresses: Vec<Address> = self.target.hosts.iter().map(Address::from).collect();
        let line = search(&dial, &addresses, self.target.session_attrs).await?;
        Ok(Slot(Some(line)))
    }

    /// One machine's part of the time, of so many that a host's name means.
    fn share(&self, machines: usize) -> Duration {
        let all = self.target.hosts.len().max(1) * machines.max(1);
        // A process has not as many as an u32 has numbers.
        self.connect_timeout / u32::try_from(all).unwrap_or(u32::MAX)
    }

    /// Whether an open connection leads to where one would be dialled: its machine is still one
    /// of those that its name means, and the machine's role still suits. One that does not is given up.
    ///
    /// Cancel safe: the connection is closed when the answer is not awaited.
    pub(super) async fn still_leads_well(&self, slot: &mut Slot) -> bool {
        let Some(mut line) = slot.0.take() else {
            return false;
        };
        // A resolver that does not answer must leave time for the question.
        let moved = match resolve(line.address(), self.share(1) / 4).await {
            Ok(machines) => !machines.contains(&line.machine()),
            // The machine may be well all the same.
            Err(_) => false,
        };
        // In the last round whoever is taken is asked for least.
        let wanted = self.target.session_attrs.rounds().last();
        let wanted = wanted.copied().unwrap_or_default();
        let seeker = Dial {
            dialer: self,
            login: Config::new(),
        };
        if moved || objection(&seeker, wanted, &mut line).await.is_some() {
            return false;
        }
        slot.0 = Some(line);
        true
    }
}

/// A search for a server, with what is sent at start-up.
struct Dial<'a> {
    dialer: &'a Dialer,
    login: Config,
}

impl Seeker for Dial<'_> {
    type Connection = Line;
    type Error = Problem;

    fn patience(&self) -> Duration {
        self.dialer.share(1)
    }

    async fn dial(
        &self,
        address: &Address,
        machine: Option<SocketAddr>,
        of: usize,
    ) -> Result<Line, Problem> {
        let share = self.dialer.share(of);
        let tls = &self.dialer.target.tls;
        let dial = Line::connect(address, machine, tls, &self.login);
        let dialled = tokio::time::timeout(share, dial).await;
        dialled.unwrap_or_else(|_| {
            Err(Problem::Connect(ConnectError::Timeout {
                address: address.clone(),
                after: share,
            }))
        })
    }

    async fn role(&self, line: &mut Line) -> Result<Role, String> {
        let asked = line.ask(&WhatAreYou);
        match tokio::time::timeout(self.dialer.share(1), asked).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("it did not say in time what it is".to_owned()),
        }
    }

    fn leave(&self, line: Line) {
        drop(line);
    }

    fn told_of(&self, problem: &Problem) -> Option<String> {
        problem.may_be_the_hosts().then(|| problem.to_string())
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
