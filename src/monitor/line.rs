//! One connection to PostgreSQL, and the task that drives it.

use std::net::SocketAddr;

use tokio::task::AbortHandle;
use tokio_postgres::{Client, Config, Error};

use crate::config::Tls;
use crate::server::wire::Wire;
use crate::server::{Address, Way, open, ways};

use super::Question;
use super::error::Problem;
use super::wary::{Secured, Wary};

/// A connection that is logged in. Dropping it says goodbye to the server, in the task that
/// drives it.
///
/// It needs no keepalive: each question has its time, and it does not stay idle for long.
#[derive(Debug)]
pub(super) struct Line {
    client: Client,
    address: Address,
    /// The machine that it leads to; none over a Unix socket.
    machine: Option<SocketAddr>,
    driver: AbortHandle,
}

impl Line {
    /// Reaches a machine of `address` and logs in, by one way and then the other, as libpq does.
    ///
    /// Cancel safe: dropping the future closes the socket.
    pub(super) async fn connect(
        address: &Address,
        machine: Option<SocketAddr>,
        tls: &Tls,
        login: &Config,
    ) -> Result<Self, Problem> {
        let mut last = Problem::Ended(None);
        for way in ways(address, tls) {
            match Self::connect_by(address, machine, tls, *way, login).await {
                Err(problem) if problem.is_the_other_way_worth_a_try() => last = problem,
                other => return other,
            }
        }
        Err(last)
    }

    async fn connect_by(
        address: &Address,
        machine: Option<SocketAddr>,
        tls: &Tls,
        way: Way,
        login: &Config,
    ) -> Result<Self, Problem> {
        let socket = open(address, machine, tls, way, None).await?;
        let machine = socket.peer();
        let mut login = login.clone();
        let secured = Secured(socket.end_point());
        let is_private = address.is_local_socket() || socket.is_encrypted();
        if socket.is_encrypted() {
            // It is in TLS already: tokio-postgres is only told so.
            login
                .ssl_mode(tokio_postgres::config::SslMode::Require)
                .ssl_negotiation(tokio_postgres::config::SslNegotiation::Direct);
        }
        let has_password = login.get_password().is_some();
        let stream = Wary::new(Box::new(Wire::new(socket)), is_private, has_password);
        let (client, driver) = login
            .connect_raw(stream, secured)
            .await
            .map_err(|error| Problem::login(address, error))?;
        // How it ends is told to whoever asks over it.
        let driver = tokio::spawn(async { driver.await.unwrap_or_default() }).abort_handle();
        Ok(Self {
            client,
            address: address.clone(),
            machine,
            driver,
        })
    }

    /// Where it was dialled.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The machine that it leads to; none over a Unix socket.
    pub(super) fn machine(&self) -> Option<SocketAddr> {
        self.machine
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Puts a question.
    ///
    /// Cancel safe: the connection is closed when the answer is not awaited, even if the
    /// server never says a word again.
    pub(super) async fn ask<Q: Question>(&mut self, question: &Q) -> Result<Q::Answer, Error> {
        let unanswered = CutOff(Some(&self.driver));
        let answer = question.put(&self.client, self.machine).await;
        unanswered.disarm();
        answer
    }
}

/// Ends the connection if it is dropped before the answer has come: the driver, left to
/// itself, would wait for that.
struct CutOff<'a>(Option<&'a AbortHandle>);

impl CutOff<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        if let Some(driver) = self.0 {
            driver.abort();
        }
    }
}
