//! A faulty relay between execpool and PostgreSQL.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::guard;
use super::port::Port;
use super::postgres::{Database, Postgres};

/// What the relay does to all of its connections, old and new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Passes everything on.
    None,
    /// Passes nothing on and closes nothing; goes on when the fault is lifted.
    Freeze,
    /// The same for connections that are open when it is set; new ones pass.
    FreezeOld,
    /// Closes a connection after so many more bytes from the server.
    CutAfter(usize),
    /// Closes the connections that are open when it is set; new ones pass.
    CutOld,
    /// Holds back every read for so long.
    Delay(Duration),
    /// Passes so many more bytes from the server on, and the rest a moment later.
    SplitAt(usize),
    /// Passes what the server sends on byte by byte, each a moment after the other.
    ByteByByte,
    /// Passes so many more bytes from the server on, and nothing behind them until it is lifted.
    HoldAfter(usize),
    /// Refuses new connections as if nobody listened; old ones live on.
    Refuse,
}

/// Long enough that a reader at the other side sees what came before.
const MOMENT: Duration = Duration::from_millis(1);

/// The relay. Dropping it closes every connection.
pub(crate) struct Proxy {
    address: Address,
    fault: watch::Sender<Fault>,
    connections: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
    directory: Option<TempDir>,
    /// It stays ours while connections are refused.
    kept: Option<Port>,
}

#[derive(Clone)]
enum Address {
    Unix { directory: PathBuf, port: u16 },
    Tcp { ip: Ipv4Addr, port: u16 },
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Proxy {
    /// On a Unix socket in a directory of its own.
    pub(crate) async fn unix(postgres: &Postgres) -> Self {
        let directory = guard::short_directory();
        let address = Address::Unix {
            directory: directory.path().to_owned(),
            port: postgres.port(),
        };
        let mut proxy = Self::start(address, postgres).await;
        proxy.directory = Some(directory);
        proxy
    }

    /// On a port of 127.0.0.1.
    pub(crate) async fn tcp(postgres: &Postgres) -> Self {
        Self::tcp_at(Ipv4Addr::LOCALHOST, 0, postgres).await
    }

    /// On a port of some address of the loopback.
    pub(crate) async fn tcp_at(ip: Ipv4Addr, port: u16, postgres: &Postgres) -> Self {
        let kept = Port::free_at(ip, port);
        let port = kept.number;
        let mut proxy = Self::start(Address::Tcp { ip, port }, postgres).await;
        proxy.kept = Some(kept);
        proxy
    }

    /// Its port, of TCP or in the socket's name.
    pub(crate) fn port(&self) -> u16 {
        match self.address {
            Address::Unix { port, .. } | Address::Tcp { port, .. } => port,
        }
    }

    /// Sets what happens from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Closes every connection that is open now.
    pub(crate) async fn cut(&self) {
        self.set(Fault::CutAfter(0));
        // Each notices when it is next polled.
        while self.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.set(Fault::None);
    }

    /// How many connections are relayed now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many connections have passed on as much as [`Fault::HoldAfter`] lets them.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Where it listens, for a dial.
    pub(crate) fn address(&self) -> execpool::server::Address {
        match &self.address {
            Address::Unix { directory, port } => execpool::server::Address::Unix {
                dir: directory.clone(),
                port: *port,
            },
            Address::Tcp { ip, port } => execpool::server::Address::Tcp {
                host: ip.to_string(),
                port: *port,
            },
        }
    }

    /// A URL of a database by way of this relay, for the role `app`.
    pub(crate) fn url(&self, database: &Database) -> String {
        let name = &database.name;
        match &self.address {
            Address::Unix { directory, port } => format!(
                "postgresql://app@/{name}?host={}&port={port}",
                directory.display()
            ),
            Address::Tcp { ip, port } => format!("postgresql://app@{ip}:{port}/{name}"),
        }
    }

    async fn start(address: Address, postgres: &Postgres) -> Self {
        let listener = address.listen().await.expect("the address is free");
        let (fault, receiver) = watch::channel(Fault::None);
        let connections = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(AtomicUsize::new(0));
        let lines = Lines {
            target: postgres.socket(),
            fault: receiver,
            connections: Arc::clone(&connections),
            held: Arc::clone(&held),
        };
        let accepting = tokio::spawn(accept(listener, address.clone(), lines));
        Self {
            address,
            fault,
            connections,
            held,
            accepting,
            directory: None,
            kept: None,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections' tasks end as the sender of their faults is dropped.
        self.accepting.abort();
    }
}

impl Address {
    async fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                UnixListener::bind(path).map(Listener::Unix)
            }
            Self::Tcp { ip, port } => TcpListener::bind((*ip, *port)).await.map(Listener::Tcp),
        }
    }

    fn unlink(&self) {
        if let Self::Unix { directory, port } = self {
            let _ = std::fs::remove_file(directory.join(format!(".s.PGSQL.{port}")));
        }
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// What each relayed connection needs.
#[derive(Clone)]
struct Lines {
    target: PathBuf,
    fault: watch::Receiver<Fault>,
    connections: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
}

/// Accepts for ever; without a listener while connections are to be refused.
async fn accept(mut listener: Listener, address: Address, lines: Lines) {
    let mut fault = lines.fault.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Who comes when the others are refused already is none of the old.
                if let Ok(client) = accepted
                    && *fault.borrow() != Fault::Refuse
                {
                    tokio::spawn(relay(client, lines.clone()));
                }
            }
            change = fault.changed() => if change.is_err() { return },
        }
        if *fault.borrow_and_update() != Fault::Refuse {
            continue;
        }
        drop(listener);
        address.unlink();
        while *fault.borrow_and_update() == Fault::Refuse {
            if fault.changed().await.is_err() {
                return;
            }
        }
        listener = address.listen().await.expect("the address was ours");
    }
}

/// Relays one connection until either side closes, the relay is dropped, or a fault cuts it.
async fn relay(client: Box<dyn Stream>, lines: Lines) {
    let Ok(server) = UnixStream::connect(&lines.target).await else {
        return;
    };
    lines.connections.fetch_add(1, Ordering::SeqCst);
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let mut watched = lines.fault.clone();
    let is_new = matches!(*watched.borrow(), Fault::FreezeOld | Fault::CutOld);
    tokio::select! {
        () = copy(from_client, to_server, &lines, false, is_new) => {}
        () = copy(from_server, to_client, &lines, true, is_new) => {}
        // A direction may be stuck in writing.
        () = async { while watched.changed().await.is_ok() {} } => {}
    }
    lines.connections.fetch_sub(1, Ordering::SeqCst);
}

/// One direction. Ends, and with it the connection, at the end of the stream or when
/// it is to be cut.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    lines: &Lines,
    from_server: bool,
    is_new: bool,
) {
    let mut fault = lines.fault.clone();
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let now = *fault.borrow_and_update();
        let mut limit = buffer.len();
        match now {
            Fault::CutAfter(count) if from_server => {
                if passed >= count {
                    return;
                }
                limit = limit.min(count - passed);
            }
            Fault::CutOld if !is_new => return,
            Fault::SplitAt(count) if from_server && passed < count => {
                limit = limit.min(count - passed);
            }
            Fault::SplitAt(_) => {}
            Fault::HoldAfter(count) if from_server => {
                if passed >= count {
                    lines.held.fetch_add(1, Ordering::SeqCst);
                    let changed = fault.changed().await;
                    lines.held.fetch_sub(1, Ordering::SeqCst);
                    if changed.is_err() {
                        return;
                    }
                    passed = 0;
                    continue;
                }
                limit = limit.min(count - passed);
            }
            Fault::ByteByByte if from_server => limit = 1,
            Fault::Freeze | Fault::FreezeOld if now == Fault::Freeze || !is_new => {
                if fault.changed().await.is_err() {
                    return;
                }
                continue;
            }
            _ => passed = 0,
        }
        let count = tokio::select! {
            // What is read after a change is under the new fault.
            biased;
            changed = fault.changed() => match changed {
                Ok(()) => { passed = 0; continue }
                Err(_) => return,
            },
            read = from.read(&mut buffer[..limit]) => match read {
                Ok(count) if count > 0 => count,
                _ => return,
            },
        };
        if let Fault::Delay(time) = now {
            tokio::time::sleep(time).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        match now {
            Fault::CutAfter(_) | Fault::HoldAfter(_) => passed += count,
            Fault::SplitAt(at) if from_server => {
                let is_before = passed < at;
                passed += count;
                if is_before && passed >= at {
                    tokio::time::sleep(MOMENT).await;
                }
            }
            Fault::ByteByByte if from_server => tokio::time::sleep(MOMENT).await,
            _ => {}
        }
    }
}
