//! A session at the PostgreSQL socket, as a driver has one.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::config::{self, Host, Sources, Target};
use crate::protocol::message::Fields;
use crate::protocol::startup::Parameters;

/// How a session of the doctor's is known.
pub(super) const LABEL: &str = "execpool doctor";

/// No message of a server's that is expected here is longer.
const LONGEST: usize = 1 << 20;

/// Why a session does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The URL that execpool has answered can't be used.
    #[error("the URL of the execution can't be used: {0}")]
    Url(String),
    /// Nobody is there, or the connection broke.
    #[error("{}: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An ErrorResponse.
    #[error("{message} ({sqlstate})")]
    Refused {
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its message.
        message: String,
        /// Its hint, if it has one.
        hint: String,
    },
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl Trouble {
    /// What to do.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Refused { hint, .. } if !hint.is_empty() => hint.clone(),
            Self::Refused { .. } => "It is the database's own word: see its log.".to_owned(),
            Self::Url(_) => "Report it.".to_owned(),
            Self::Broken { .. } => {
                "Run this as a user who may use the PostgreSQL socket (listen.mode, listen.group, listen.allow_uids), where its directory is mounted.".to_owned()
            }
            Self::Timeout(_) => "`execpool status` shows whether anybody waits, and for what.".to_owned(),
        }
    }
}

/// A session that is open.
pub(super) struct Session {
    stream: UnixStream,
    path: PathBuf,
}

impl Session {
    /// Opens one by a URL, in the execution that the URL names.
    pub(super) async fn open(url: &str) -> Result<Self, Trouble> {
        Self::of(url, true).await
    }

    /// Opens one in the standing execution instead.
    pub(super) async fn open_shared(url: &str) -> Result<Self, Trouble> {
        Self::of(url, false).await
    }

    async fn of(url: &str, is_named: bool) -> Result<Self, Trouble> {
        let target = target(url)?;
        let Some(Host::Unix { dir, port }) = target.hosts.first() else {
            return Err(Trouble::Url(url.to_owned()));
        };
        let path = dir.join(format!(".s.PGSQL.{port}"));
        let own = [
            ("application_name", LABEL),
            ("execpool.label", LABEL),
            ("execpool.caller", "execpool doctor"),
        ];
        let named = target.parameters.iter().filter(|_| is_named);
        let named = named.map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        let own = own.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let parameters = Parameters::new(named.chain(own).collect());
        let stream = UnixStream::connect(&path).await;
        let stream = stream.map_err(|source| Trouble::Broken {
            path: path.clone(),
            source,
        })?;
        let mut session = Self { stream, path };
        session
            .send(&parameters.encode(&target.user, &target.database))
            .await?;
        session.until_ready().await?;
        Ok(session)
    }

    /// The first column of the first row of a query's last result.
    pub(super) async fn first(&mut self, sql: &str) -> Result<String, Trouble> {
        let mut query = vec![b'Q'];
        // A statement of ours, some dozens of bytes.
        query.extend((sql.len() as i32 + 5).to_be_bytes());
        query.extend(sql.as_bytes());
        query.push(0);
        self.send(&query).await?;
        let row = self.until_ready().await?;
        // The number of columns, the length of the first, and the first.
        let length = row.get(2..6).and_then(|length| length.try_into().ok());
        let length = length.map_or(0, |length| i32::from_be_bytes(length).max(0) as usize);
        let value = row.get(6..6 + length).unwrap_or_default();
        Ok(String::from_utf8_lossy(value).into_owned())
    }

    /// Waits to be told that it is over; answers the SQLSTATE.
    pub(super) async fn farewell(&mut self) -> Result<String, Trouble> {
        match self.until_ready().await {
            Err(Trouble::Refused { sqlstate, .. }) => Ok(sqlstate),
            Err(trouble) => Err(trouble),
            Ok(_) => Ok("nothing".to_owned()),
        }
    }

    /// Reads up to ReadyForQuery; answers the body of the last DataRow.
    async fn until_ready(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut row = Vec::new();
        loop {
            let (kind, body) = self.message().await?;
            match kind {
                b'Z' => return Ok(row),
                b'D' => row = body,
                b'E' => return Err(refused(&body)),
                _ => {}
            }
        }
    }

    async fn message(&mut self) -> Result<(u8, Vec<u8>), Trouble> {
        let mut head = [0; 5];
        let read = self.stream.read_exact(&mut head).await;
        read.map_err(|source| self.broken(source))?;
        let [kind, length @ ..] = head;
        let length = (u32::from_be_bytes(length) as usize).saturating_sub(4);
        if length > LONGEST {
            return Err(self.broken(io::ErrorKind::InvalidData.into()));
        }
        let mut body = vec![0; length];
        let read = self.stream.read_exact(&mut body).await;
        read.map_err(|source| self.broken(source))?;
        Ok((kind, body))
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let sent = self.stream.write_all(bytes).await;
        sent.map_err(|source| self.broken(source))
    }

    fn broken(&self, source: io::Error) -> Trouble {
        Trouble::Broken {
            path: self.path.clone(),
            source,
        }
    }
}

/// What a URL says, read as an upstream's. It leads to execpool's own socket, as no upstream may, so
/// that is told to be elsewhere.
fn target(url: &str) -> Result<Target, Trouble> {
    let loaded = config::load(&Sources {
        file: None,
        env: vec![("DATABASE_URL".to_owned(), url.to_owned())],
        flags: vec![("listen.dir".to_owned(), "/nowhere".to_owned())],
    });
    let loaded = loaded.map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Trouble::Url(all.join("; "))
    })?;
    let upstream = loaded.config.upstreams.into_iter().next();
    let upstream = upstream.ok_or_else(|| Trouble::Url(url.to_owned()))?;
    Ok(upstream.target)
}

fn refused(body: &[u8]) -> Trouble {
    let fields = Fields::parse(body);
    let text = |code: u8| {
        let field = fields.as_ref().and_then(|fields| fields.get(code));
        field.map_or_else(String::new, |text| {
            String::from_utf8_lossy(text).into_owned()
        })
    };
    Trouble::Refused {
        sqlstate: text(b'C'),
        message: text(b'M'),
        hint: text(b'H'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_leads_to_the_socket_where_it_is_by_default_can_be_used() {
        let target = target("postgresql://app@/app?host=/run/execpool").unwrap();
        let own = Host::Unix {
            dir: PathBuf::from("/run/execpool"),
            port: 5432,
        };
        assert_eq!(target.hosts, [own]);
    }
}
