//! Everything that sessions share, and the loop that accepts them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Instant;

use crate::config::{self, Holders};
use crate::execution::Executions;
use crate::listener::accept::{Door, accept};
use crate::listener::tcp;
use crate::pool::UpstreamNumber;
use crate::protocol::message::Report;
use crate::protocol::startup::Startup;
use crate::server::Password;
use crate::session::Peer;

use super::anteroom::{Anteroom, FAIR, Place};
use super::cancel::Cancels;
use super::forbid::Forbidden;
use super::greeting::{Greeting, PATIENCE, greet};
use super::line::{Line, Scratch};
use super::login::{Logins, NoLogin};
use super::startup;
use super::visit::Visit;
use super::words;

/// How many connections over TCP may be at their login at once: behind them is somebody who has
/// proved nothing.
const TCP_LOGINS: u32 = 1000;

/// An upstream that is served.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its number.
    pub number: UpstreamNumber,
    /// What clients name as their database; `*` is every name that no other has.
    pub name: Arc<str>,
    /// The rest of it, as it was last configured.
    pub config: config::Upstream,
    /// Its password, which all that connect to it share.
    pub password: Password,
    /// Whether sessions may come to it.
    pub standing: Standing,
}

/// Whether an upstream takes sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does. Left when it is no longer configured.
    Open,
    /// Those that it has live on. Left when it is configured again.
    Removed,
}

/// All that is configured of the PostgreSQL socket, at one moment.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The upstreams, in the order of their numbers.
    pub upstreams: Vec<Served>,
    /// What is demanded of clients.
    pub settings: Settings,
}

impl Serving {
    /// The upstream of that number, which comes from a session that was let in: numbers are given
    /// for good.
    pub(super) fn by(&self, number: UpstreamNumber) -> &Served {
        &self.upstreams[number.0 as usize]
    }
}

/// What is demanded of clients, and told to them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The users that may connect; none: any that the socket's permissions let in.
    pub allow_uids: Option<Vec<u32>>,
    /// The file with the password of TCP connections; none: there are no such connections.
    pub tcp_password_file: Option<PathBuf>,
    /// How many sessions there may be at once.
    pub max_sessions: u32,
    /// Whether connections may reach other executions by way of a reserve.
    pub has_reserve: bool,
    /// What a session that gets nothing learns of those who have something.
    pub holders: Holders,
}

/// What a client wants who is who it says.
enum Arrival {
    /// A session; with it, what the client has sent behind its startup and its password.
    Session(Box<Startup>, Vec<u8>),
    /// That another session is cancelled, by its process id and key.
    Cancel { pid: i32, key: [u8; 4] },
}

/// The PostgreSQL socket's service.
#[derive(Debug)]
pub struct Service {
    executions: Arc<Executions>,
    /// Exchanged as a whole; locked for as long as it takes to copy a pointer.
    serving: RwLock<Arc<Serving>>,
    logins: Option<Logins>,
    cancels: Arc<Cancels>,
    forbidden: Forbidden,
    scratch: Scratch,
}

impl Service {
    /// Serves these upstreams, at least one.
    #[must_use]
    pub fn new(executions: Arc<Executions>, serving: Serving) -> Arc<Self> {
        Arc::new(Self {
            executions,
            logins: serving.settings.tcp_password_file.clone().map(Logins::new),
            serving: RwLock::new(Arc::new(serving)),
            cancels: Arc::new(Cancels::new()),
            forbidden: Forbidden::new(),
            scratch: Scratch::new(),
        })
    }

    /// The upstreams as they are served now, in the order of their numbers.
    #[must_use]
    pub fn upstreams(&self) -> Vec<Served> {
        self.serving().upstreams.clone()
    }

    /// Accepts sessions, each in a task of its own, until `shutdown` is ready; those that have come
    /// in go on. Those who have not yet, at each kind of door apart, are at most as many as there may
    /// be sessions. Must run on the data plane's runtime.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        tcp: Vec<TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut others = tokio::task::JoinSet::new();
        let of_tcp_logins = Arc::new(Anteroom::default());
        for listener in tcp {
            let room = Arc::clone(&of_tcp_logins);
            others.spawn(Arc::clone(&self).accept_at(listener, of_tcp, room, TCP_LOGINS));
        }
        // Dropped at the end, the set ends its tasks, and nothing is accepted any more.
        tokio::select! {
            () = shutdown => {}
            () = Arc::clone(&self).accept_at(listener, of_unix, Arc::default(), u32::MAX) => {}
        }
    }

    /// Accepts for ever at one place.
    async fn accept_at<D: Door>(
        self: Arc<Self>,
        door: D,
        open: fn(D::Stream) -> io::Result<(OwnedFd, Peer)>,
        room: Arc<Anteroom>,
        most: u32,
    ) {
        loop {
            let stream = accept(&door).await;
            let most = most.min(self.serving().settings.max_sessions);
            // u32 fits into usize on every platform with sockets.
            let place = room.enter(most as usize).await;
            let service = Arc::clone(&self);
            let opened = open(stream);
            tokio::spawn(async move {
                let _counted = CountsPanic(Arc::clone(&service));
                if let Ok((connection, peer)) = opened {
                    service.receive(connection, peer, Some(place)).await;
                }
            });
        }
    }

    pub(super) fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    /// What is configured now. Who asks again may be told something else.
    pub(super) fn serving(&self) -> Arc<Serving> {
        Arc::clone(&self.serving.read())
    }

    /// Serves in another way from now on: sessions that come, and waits that begin. Numbers must
    /// mean the upstreams that they meant. The connections of an upstream that leads elsewhere are
    /// replaced. Must be called on the data plane's thread.
    pub fn reconfigure(&self, serving: Serving) {
        let before = std::mem::replace(&mut *self.serving.write(), Arc::new(serving));
        let now = self.serving();
        let lender = self.executions.lender();
        for (was, is) in before.upstreams.iter().zip(&now.upstreams) {
            let stays = was.config.has_connections_like(&is.config);
            match (was.standing, is.standing) {
                (Standing::Open, Standing::Removed) => lender.retire(is.number, |_| None),
                (_, Standing::Open) if !stays => {
                    lender.retire(is.number, |spec| Some(startup::target_of(is, spec)));
                }
                _ => {}
            }
        }
    }

    pub(super) fn cancels(&self) -> &Arc<Cancels> {
        &self.cancels
    }

    pub(super) fn forbidden(&self) -> &Forbidden {
        &self.forbidden
    }

    /// Serves a connection that comes from within, of somebody who is known: one like any other,
    /// but that it need not wait at the door. Must be called on the data plane's runtime.
    pub fn welcome(self: &Arc<Self>, connection: OwnedFd, peer: Peer) {
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let _counted = CountsPanic(Arc::clone(&service));
            service.receive(connection, peer, None).await;
        });
    }

    /// One connection, from its first packet to its end.
    async fn receive(self: Arc<Self>, connection: OwnedFd, peer: Peer, mut place: Option<Place>) {
        let Ok(line) = Line::new(connection, self.scratch.clone()) else {
            return;
        };
        // Large, and soon over.
        let arrived = Box::pin(async {
            tokio::select! {
                arrived = self.arrive(&line, peer) => arrived,
                () = sent_away(&mut place) => {
                    Err(NoLogin::Refused(Box::new(words::crowded(FAIR)), "crowded"))
                }
            }
        });
        let arrived = arrived.await;
        drop(place);
        match arrived {
            Ok(Arrival::Cancel { pid, key }) => {
                self.cancels.request(&self.executions, pid, key, peer).await;
            }
            Ok(Arrival::Session(startup, behind)) => {
                match startup::admit(&self, &startup, peer) {
                    Ok((admission, mail)) => {
                        let visit = Visit::new(self, line, admission, mail, behind);
                        // A session that is there for hours should not carry its beginning along.
                        Box::pin(visit.run(startup)).await;
                    }
                    Err(report) => self.refuse(&line, peer, &report, "not_admitted"),
                }
            }
            Err(NoLogin::Gone) => {}
            Err(NoLogin::Refused(report, kind)) => self.refuse(&line, peer, &report, kind),
        }
    }

    /// What a client wants who may want something, within [`PATIENCE`] in all.
    async fn arrive(&self, line: &Line, peer: Peer) -> Result<Arrival, NoLogin> {
        let deadline = Instant::now() + PATIENCE;
        let greeting = greet(line, deadline).await;
        let barred = self.barred(peer);
        match greeting {
            Greeting::Gone => Err(NoLogin::Gone),
            // Nobody is told anything of a cancel request.
            Greeting::Cancel { .. } if barred.is_some() => {
                self.executions.sessions().refused("cancel_not_allowed");
                Err(NoLogin::Gone)
            }
            Greeting::Cancel { pid, key } => Ok(Arrival::Cancel { pid, key }),
            Greeting::Refused(report, kind) => Err(NoLogin::Refused(Box::new(report), kind)),
            Greeting::Startup(mut startup, mut behind) => {
                if let Some(report) = barred {
                    return Err(NoLogin::Refused(Box::new(report), "uid_not_allowed"));
                }
                if let (Peer::Tcp(_), Some(logins)) = (peer, &self.logins) {
                    logins
                        .login(line, &mut startup, &mut behind, deadline)
                        .await?;
                }
                Ok(Arrival::Session(startup, behind))
            }
        }
    }

    /// Why this peer may not even ask.
    fn barred(&self, peer: Peer) -> Option<Report> {
        match peer {
            Peer::Unix { uid, .. } => {
                let serving = self.serving();
                let allowed = serving.settings.allow_uids.as_ref();
                allowed
                    .is_some_and(|allowed| !allowed.contains(&uid))
                    .then(|| words::uid_not_allowed(uid))
            }
            // Without a password there is no listener; should there be one, nobody comes in.
            Peer::Tcp(_) => self.logins.is_none().then(words::no_password_to_prove),
        }
    }

    /// Tells a client that it does not come in, and counts it.
    fn refuse(&self, line: &Line, peer: Peer, report: &Report, kind: &'static str) {
        self.executions.sessions().refused(kind);
        let event = "session.refused";
        // One a second of each kind: whoever tries again and again is seen in the count.
        if let Some(unsaid) = self.executions.events().line(event, Some(kind)) {
            let sqlstate = report.sqlstate.as_str();
            tracing::info!(event, kind, sqlstate, %peer, unsaid, "{}", report.message);
        }
        line.say_goodbye(report);
    }
}

/// Waits until the place is needed for another one; who has none is never sent away. Cancel safe.
async fn sent_away(place: &mut Option<Place>) {
    match place {
        Some(place) => place.sent_away().await,
        None => std::future::pending().await,
    }
}

fn of_unix(stream: UnixStream) -> io::Result<(OwnedFd, Peer)> {
    let credentials = stream.peer_cred()?;
    let peer = Peer::Unix {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid().filter(|pid| *pid > 0),
    };
    Ok((stream.into_std()?.into(), peer))
}

fn of_tcp(stream: TcpStream) -> io::Result<(OwnedFd, Peer)> {
    tcp::tune(&stream)?;
    let peer = Peer::Tcp(stream.peer_addr()?);
    Ok((stream.into_std()?.into(), peer))
}

/// Counts a session that ends by a panic, which ends that session alone.
struct CountsPanic(Arc<Service>);

impl Drop for CountsPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.executions.sessions().panicked();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::execution::{Rules, Untagged};
    use crate::pool::Lender;
    use crate::session::Table;
    use std::time::Duration;
    use tokio::runtime::Handle;

    fn service() -> Arc<Service> {
        let rules = Rules {
            max_duration: None,
            idle_timeout: Duration::ZERO,
            tombstone: Duration::ZERO,
            hold_grace: Duration::ZERO,
            untagged: Untagged::Shared,
        };
        let executions = Executions::new(
            rules,
            Duration::ZERO,
            Vec::new(),
            Lender::new(Budget::new(1, 0), Handle::current(), Arc::default()),
            Arc::new(Table::default()),
            Box::new(|_, _, _| tokio::sync::oneshot::channel().1),
            Handle::current(),
        );
        let settings = Settings {
            allow_uids: None,
            max_sessions: 10,
            has_reserve: false,
            holders: Holders::Full,
            tcp_password_file: None,
        };
        let serving = Serving {
            upstreams: Vec::new(),
            settings,
        };
        Service::new(executions, serving)
    }

    #[tokio::test]
    async fn a_panic_ends_its_session_alone_and_counts() {
        let service = service();
        let panics = |service: &Service| service.executions.sessions().counts().panics;
        let (well, counted) = (
            CountsPanic(Arc::clone(&service)),
            CountsPanic(Arc::clone(&service)),
        );
        let neighbour = tokio::spawn(async move {
            let _counted = well;
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
        let ended = tokio::spawn(async move {
            let _counted = counted;
            panic!("on purpose")
        });
        assert!(ended.await.is_err_and(|error| error.is_panic()));
        assert_eq!(panics(&service), 1);
        assert!(neighbour.await.is_ok());
        assert_eq!(panics(&service), 1);
    }
}
