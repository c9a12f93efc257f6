//! A relay in front of PostgreSQL that writes down what a driver and the server say.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::guard;
use super::postgres::{Database, Postgres};

/// What one side said, in the order in which it was heard.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

/// What was said on one connection.
pub(crate) type Recording = Vec<Said>;

/// The relay. What it passes on is small: it does not read one side while it writes to the other.
pub(crate) struct Recorder {
    directory: TempDir,
    recordings: Arc<Mutex<Vec<Recording>>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    pub(crate) async fn start(postgres: &Postgres) -> Self {
        let directory = guard::short_directory();
        let path = directory.path().join(".s.PGSQL.5432");
        let listener = UnixListener::bind(path).expect("the directory was just made");
        let recordings = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn(accept(listener, postgres.socket(), Arc::clone(&recordings)));
        Self {
            directory,
            recordings,
            accepting,
        }
    }

    /// A driver's URL of a database, for the role `app`.
    pub(crate) fn url(&self, database: &Database) -> String {
        let directory = self.directory.path().display();
        format!("postgresql://app@/{}?host={directory}", database.name)
    }

    /// What was said on each connection, from the first on.
    pub(crate) fn recordings(&self) -> Vec<Recording> {
        self.recordings.lock().expect("no panic under it").clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, server: PathBuf, recordings: Arc<Mutex<Vec<Recording>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = {
            let mut recordings = recordings.lock().expect("no panic under it");
            recordings.push(Recording::new());
            recordings.len() - 1
        };
        let server = UnixStream::connect(&server).await.expect("it serves");
        let recordings = Arc::clone(&recordings);
        let note = move |said| {
            let mut recordings = recordings.lock().expect("no panic under it");
            recordings[number].push(said);
        };
        tokio::spawn(record(client, server, note));
    }
}

/// Passes on what either side says, noted before the other side hears it.
async fn record(mut client: UnixStream, mut server: UnixStream, note: impl Fn(Said)) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let passed = tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count @ 1..) => {
                    note(Said::Client(up[..count].to_vec()));
                    server.write_all(&up[..count]).await
                }
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(count @ 1..) => {
                    note(Said::Server(down[..count].to_vec()));
                    client.write_all(&down[..count]).await
                }
                _ => return,
            },
        };
        if passed.is_err() {
            return;
        }
    }
}
