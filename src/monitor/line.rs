//! One connection to PostgreSQL, and the task that drives it.

use std::io;

use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::server::{Address, ConnectError};

use super::Question;
use super::error::Problem;
use super::wary::{Stream, Wary};

/// A connection that is logged in. Dropping it says goodbye to the server, in the task that
/// drives it.
///
/// It needs no keepalive: each question has its time, and it does not stay idle for long.
#[derive(Debug)]
pub(super) struct Line {
    client: Client,
    driver: AbortHandle,
}

impl Line {
    /// Reaches `address` and logs in.
    ///
    /// Cancel safe: dropping the future closes the socket.
    pub(super) async fn connect(address: &Address, login: &Config) -> Result<Self, Problem> {
        let stream = reach(address).await.map_err(|source| {
            Problem::Connect(ConnectError::Unreachable {
                address: address.clone(),
                source,
            })
        })?;
        let stream = Wary::new(
            stream,
            address.is_local_socket(),
            login.get_password().is_some(),
        );
        let (client, driver) = login
            .connect_raw(stream, NoTls)
            .await
            .map_err(|error| Problem::login(address, error))?;
        // How it ends is told to whoever asks over it.
        let driver = tokio::spawn(async { driver.await.unwrap_or_default() }).abort_handle();
        Ok(Self { client, driver })
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
        let answer = question.put(&self.client).await;
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

async fn reach(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Address::Unix { dir, port } => {
            let path = dir.join(format!(".s.PGSQL.{port}"));
            Ok(Box::new(UnixStream::connect(path).await?))
        }
    }
}
