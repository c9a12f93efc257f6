//! A connection of tokio-postgres, and how its values are shown.

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, NoTls, Row};

use crate::support::SOON;

const REPORTED: [&str; 13] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// A value as the bytes that the server sends and takes, whatever its type.
#[derive(Debug)]
pub(super) struct Binary(pub(super) Vec<u8>);

impl<'a> FromSql<'a> for Binary {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Binary {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A connection and what came on it that no query asked for.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) parameters: Value,
    pub(super) messages: mpsc::UnboundedReceiver<AsyncMessage>,
}

impl Session {
    pub(super) async fn connect(url: &str) -> Self {
        Self::connect_with(url, "").await
    }

    pub(super) async fn connect_with(url: &str, options: &str) -> Self {
        let mut config: tokio_postgres::Config = url.parse().expect("the URL is well formed");
        if !options.is_empty() {
            config.options(options);
        }
        let (client, connection) = config.connect(NoTls).await.expect("the connection opens");
        let parameters = REPORTED
            .map(|name| (name.to_owned(), json!(connection.parameter(name))))
            .into_iter()
            .collect();
        let (sender, messages) = mpsc::unbounded_channel();
        tokio::spawn(drive(connection, sender));
        Self {
            client,
            parameters,
            messages,
        }
    }

    /// The next message that no query asked for.
    pub(super) async fn heard(&mut self) -> AsyncMessage {
        tokio::time::timeout(SOON, self.messages.recv())
            .await
            .expect("a message comes soon")
            .expect("the connection lives")
    }

    pub(super) async fn one<T: for<'a> FromSql<'a>>(&self, sql: &str) -> T {
        self.client.query_one(sql, &[]).await.expect(sql).get(0)
    }
}

async fn drive<S, T>(mut connection: Connection<S, T>, sender: mpsc::UnboundedSender<AsyncMessage>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        // Nobody listens any more when the test has ended.
        let _ = sender.send(message);
    }
}

pub(super) fn code(error: &Error) -> Value {
    json!(error.code().map(tokio_postgres::error::SqlState::code))
}

pub(super) fn outcome(result: Result<Row, Error>) -> Value {
    match result {
        Ok(row) => json!(row.get::<_, i32>(0)),
        Err(error) => code(&error),
    }
}

pub(super) fn digest(data: &[u8]) -> Value {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    json!({"length": data.len(), "hash": hasher.finish()})
}
