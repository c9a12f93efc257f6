//! The conversation with a session: one statement, in PostgreSQL's own protocol.
//!
//! It is no driver's: drivers read results in binary, of which only some types can be shown, and keep
//! rows of any length in memory. What is longer than the answer may be is skipped here as it comes.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{
    DATA_ROW_TAG, DataRowBody, Header, Message, NOTICE_RESPONSE_TAG, RowDescriptionBody,
};
use postgres_protocol::message::frontend::{self, BindError};
use postgres_protocol::{IsNull, Oid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_postgres::types::Type;

use crate::control::types::{Column, Queried};

use super::Wanted;
use super::failure::Failure;
use super::value::{MOST_BYTES, Rows, parameter};

/// How much is read at once, in bytes.
const READ: usize = 16 * 1024;

/// The longest message that is read. A row that is longer is longer as JSON than all may be: of what is
/// sent with it, 4 bytes for each of at most 1,664 columns are no part of that.
const LONGEST: usize = MOST_BYTES + 16 * 1024;

/// A session, from the client's side.
#[derive(Debug)]
pub(super) struct Talk {
    stream: UnixStream,
    received: BytesMut,
    key: (i32, i32),
}

/// What comes next.
enum Next {
    Message(Message),
    /// A row that is longer than can be answered; it was thrown away.
    LongRow,
}

/// What is known of a statement before it runs.
struct Described {
    parameters: Vec<Oid>,
    /// The names and types of its columns.
    columns: Vec<(String, Oid)>,
}

impl Talk {
    /// Begins a session. Cancel safe: dropped, its client has vanished.
    ///
    /// # Errors
    /// It is not let in.
    pub(super) async fn begin(
        stream: UnixStream,
        parameters: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let mut talk = Self {
            stream,
            received: BytesMut::new(),
            key: (0, 0),
        };
        let mut out = BytesMut::new();
        frontend::startup_message(parameters.iter().copied(), &mut out)?;
        talk.send(&out).await?;
        loop {
            match talk.message().await? {
                Message::BackendKeyData(body) => talk.key = (body.process_id(), body.secret_key()),
                Message::ErrorResponse(body) => return Err(Failure::told(&body)),
                Message::ReadyForQuery(_) => return Ok(talk),
                _ => {}
            }
        }
    }

    /// What its queries are cancelled by.
    pub(super) fn key(&self) -> (i32, i32) {
        self.key
    }

    /// Says that the client has what it wanted, if that can be said at once.
    pub(super) fn say_goodbye(self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        let _ = self.stream.try_write(&out);
    }

    /// Runs the statement, and answers what is asked for of its rows. Not cancel safe: the session is of
    /// no use afterwards.
    ///
    /// # Errors
    /// It fails, or is a COPY.
    pub(super) async fn query(&mut self, wanted: &Wanted) -> Result<Queried, Failure> {
        let described = self.describe(&wanted.sql).await?;
        let types: Vec<Oid> = described.columns.iter().map(|(_, of)| *of).collect();
        // How many there must be is the server's to say.
        let of = described.parameters.iter().copied();
        let values = wanted.params.iter().zip(of.chain(std::iter::repeat(0)));
        let values = values.map(|(value, of)| parameter(value, of)).collect();
        let mut rows = Rows::new(wanted.max_rows);
        // One more, to know whether there is one; the bound is far below i32's.
        let most = i32::try_from(wanted.max_rows).unwrap_or(i32::MAX - 1) + 1;
        let command = self.execute(values, most, |row| match row {
            Some(row) => rows.push(row, &types),
            None => {
                rows.leave_out();
                Ok(())
            }
        });
        let command = command.await?;
        let names = self.names(&types).await;
        let columns = described.columns.into_iter().map(|(name, of)| Column {
            name,
            r#type: names.get(&of).cloned().unwrap_or_else(|| of.to_string()),
        });
        Ok(Queried {
            columns: columns.collect(),
            truncated: rows.is_truncated(),
            rows: rows.finish()?,
            command,
        })
    }

    /// Has the statement looked at. Its locks last until it is executed, or the session ends.
    async fn describe(&mut self, sql: &str) -> Result<Described, Failure> {
        let mut out = BytesMut::new();
        frontend::parse("", sql, [], &mut out)?;
        frontend::describe(b'S', "", &mut out)?;
        frontend::flush(&mut out);
        self.send(&out).await?;
        let mut parameters = Vec::new();
        let columns = loop {
            match self.message().await? {
                Message::ParameterDescription(body) => parameters = body.parameters().collect()?,
                Message::RowDescription(body) => break columns(&body)?,
                Message::NoData => break Vec::new(),
                Message::ErrorResponse(body) => return Err(Failure::told(&body)),
                _ => {}
            }
        };
        Ok(Described {
            parameters,
            columns,
        })
    }

    /// Executes the statement that was described; `take` gets each row, and none for one that was too
    /// long. Answers the command tag; none where there were more than `most` rows.
    async fn execute(
        &mut self,
        values: Vec<Option<String>>,
        most: i32,
        mut take: impl FnMut(Option<&DataRowBody>) -> io::Result<()>,
    ) -> Result<Option<String>, Failure> {
        self.send_execute(values, most).await?;
        let mut command = None;
        loop {
            let message = match self.next().await? {
                Next::Message(message) => message,
                Next::LongRow => {
                    take(None)?;
                    continue;
                }
            };
            match message {
                Message::DataRow(row) => take(Some(&row))?,
                Message::CommandComplete(body) => command = Some(body.tag()?.to_owned()),
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                    return Err(Failure::Copy);
                }
                Message::ErrorResponse(body) => return Err(Failure::told(&body)),
                // Only now it is committed.
                Message::ReadyForQuery(_) => return Ok(command),
                _ => {}
            }
        }
    }

    async fn send_execute(
        &mut self,
        values: Vec<Option<String>>,
        most: i32,
    ) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        let text = |value: Option<String>, out: &mut BytesMut| {
            Ok(match value {
                None => IsNull::Yes,
                Some(text) => {
                    out.extend_from_slice(text.as_bytes());
                    IsNull::No
                }
            })
        };
        // No format is told: all is text.
        frontend::bind("", "", [], values, text, [], &mut out).map_err(|error| match error {
            BindError::Serialization(error) => error,
            BindError::Conversion(error) => io::Error::other(error),
        })?;
        frontend::execute("", most, &mut out)?;
        frontend::sync(&mut out);
        self.send(&out).await
    }

    /// Sends. Where the session has left, why it did is what it has said before: that is read next.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self.stream.write_all(bytes).await {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// The names of types; those that are not built in are asked for. Where that fails they are
    /// unknown: the answer is there, and is told without.
    async fn names(&mut self, types: &[Oid]) -> BTreeMap<Oid, String> {
        let mut names = BTreeMap::new();
        let mut others = Vec::new();
        for of in types {
            match Type::from_oid(*of) {
                Some(known) => {
                    names.insert(*of, known.name().to_owned());
                }
                None => others.push(of.to_string()),
            }
        }
        if !others.is_empty() {
            let sql = format!(
                "SELECT oid, typname FROM pg_catalog.pg_type WHERE oid IN ({})",
                others.join(", ")
            );
            // What has come by then is true.
            let _ = self.pairs(&sql, &mut names).await;
        }
        names
    }

    /// Rows of a number and a text.
    async fn pairs(&mut self, sql: &str, into: &mut BTreeMap<Oid, String>) -> Result<(), Failure> {
        self.describe(sql).await?;
        let taken = self.execute(Vec::new(), 0, |row| {
            let Some(row) = row else { return Ok(()) };
            let texts = row.ranges().map(|range| {
                let bytes = range.map(|range| &row.buffer()[range]);
                Ok(String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned())
            });
            let texts: Vec<String> = texts.collect()?;
            if let [oid, name] = texts.as_slice()
                && let Ok(oid) = oid.parse()
            {
                into.insert(oid, name.clone());
            }
            Ok(())
        });
        taken.await.map(drop)
    }

    /// The next message that is no row.
    async fn message(&mut self) -> Result<Message, Failure> {
        loop {
            if let Next::Message(message) = self.next().await? {
                return Ok(message);
            }
        }
    }

    /// The next message. Notices that are too long are passed over.
    async fn next(&mut self) -> Result<Next, Failure> {
        loop {
            if let Some(header) = Header::parse(&self.received)? {
                // Not negative, which was looked at.
                let length = usize::try_from(header.len()).unwrap_or_default() + 1;
                match header.tag() {
                    _ if length <= LONGEST => {}
                    DATA_ROW_TAG => {
                        self.skip(length).await?;
                        return Ok(Next::LongRow);
                    }
                    NOTICE_RESPONSE_TAG => {
                        self.skip(length).await?;
                        continue;
                    }
                    _ => {
                        let what = format!("it says {length} bytes at once");
                        return Err(io::Error::other(what).into());
                    }
                }
            }
            if let Some(message) = Message::parse(&mut self.received)? {
                return Ok(Next::Message(message));
            }
            self.read().await?;
        }
    }

    /// Throws so many bytes away.
    async fn skip(&mut self, mut length: usize) -> Result<(), Failure> {
        loop {
            let here = length.min(self.received.len());
            self.received.advance(here);
            length -= here;
            if length == 0 {
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        self.received.reserve(READ);
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn columns(body: &RowDescriptionBody) -> io::Result<Vec<(String, Oid)>> {
    let columns = body.fields();
    let columns = columns.map(|field| Ok((field.name().to_owned(), field.type_oid())));
    columns.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn why_a_session_has_left_is_told_though_nothing_can_be_said_to_it_any_more() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"Z\0\0\0\x05I").await.unwrap();
        let mut talk = Talk::begin(ours, &[("user", "app")]).await.unwrap();
        let fields = b"SFATAL\0C57P01\0Mexecpool: execution run has ended\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap();
        let last = [b"E", &length.to_be_bytes()[..], fields].concat();
        theirs.write_all(&last).await.unwrap();
        drop(theirs);
        let wanted = Wanted {
            sql: "SELECT 1".to_owned(),
            params: Vec::new(),
            timeout: Duration::from_secs(30),
            max_rows: 1,
            upstream: None,
        };
        let failure = talk.query(&wanted).await.unwrap_err();
        let told = matches!(&failure, Failure::Sql(error) if error.sqlstate == "57P01");
        assert!(told, "{failure:?}");
    }
}
