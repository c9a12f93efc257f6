//! Everything that sessions share, and the loop that accepts them.

use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};

use crate::config::{self, Holders};
use crate::execution::Executions;
use crate::listener::accept;
use crate::pool::UpstreamNumber;

use super::cancel::Cancels;
use super::forbid::Forbidden;
use super::greeting::{Greeting, greet};
use super::line::{Line, Scratch};
use super::startup::{self, Peer};
use super::visit::Visit;

/// An upstream that is served.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its number.
    pub number: UpstreamNumber,
    /// What clients name as their database; `*` is every name that no other has.
    pub name: Arc<str>,
    /// The rest of it.
    pub config: config::Upstream,
}

/// What is demanded of clients, and told to them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The users that may connect; none: any that the socket's permissions let in.
    pub allow_uids: Option<Vec<u32>>,
    /// How many sessions there may be at once.
    pub max_sessions: u32,
    /// Whether connections may reach other executions by way of a reserve.
    pub has_reserve: bool,
    /// What a session that gets nothing learns of those who have something.
    pub holders: Holders,
}

/// The PostgreSQL socket's service.
#[derive(Debug)]
pub struct Service {
    executions: Arc<Executions>,
    served: Vec<Served>,
    settings: Settings,
    cancels: Arc<Cancels>,
    forbidden: Forbidden,
    scratch: Scratch,
}

impl Service {
    /// Serves these upstreams, in the order of their numbers, at least one.
    #[must_use]
    pub fn new(executions: Arc<Executions>, served: Vec<Served>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            executions,
            served,
            settings,
            cancels: Arc::new(Cancels::new()),
            forbidden: Forbidden::new(),
            scratch: Scratch::new(),
        })
    }

    /// Accepts sessions, each in a task of its own, until `shutdown` is ready; those that have come
    /// in go on. Must run on the data plane's runtime.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let stream = tokio::select! {
                () = &mut shutdown => return,
                stream = accept(&listener) => stream,
            };
            let service = Arc::clone(&self);
            tokio::spawn(async move {
                let _counted = CountsPanic(Arc::clone(&service));
                service.receive(stream).await;
            });
        }
    }

    pub(super) fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    pub(super) fn served(&self) -> &[Served] {
        &self.served
    }

    /// The upstream of that number, which comes from a session that was let in.
    pub(super) fn served_by(&self, number: UpstreamNumber) -> &Served {
        &self.served[number.0 as usize]
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn cancels(&self) -> &Arc<Cancels> {
        &self.cancels
    }

    pub(super) fn forbidden(&self) -> &Forbidden {
        &self.forbidden
    }

    /// One connection, from its first packet to its end.
    async fn receive(self: Arc<Self>, stream: UnixStream) {
        let credentials = stream.peer_cred();
        let line = Line::new(stream, self.scratch.clone());
        let (Ok(credentials), Ok(line)) = (credentials, line) else {
            return;
        };
        let peer = Peer {
            uid: credentials.uid(),
            pid: credentials.pid().filter(|pid| *pid > 0),
        };
        match greet(&line).await {
            Greeting::Gone => {}
            Greeting::Cancel { pid, key } => self.cancels.request(pid, key, peer.uid).await,
            Greeting::Refused(report, kind) => {
                self.executions.sessions().refused(kind);
                tracing::info!(kind, uid = peer.uid, pid = peer.pid, "{}", report.message);
                line.say_goodbye(&report);
            }
            Greeting::Startup(startup, behind) => match startup::admit(&self, &startup, peer) {
                Ok((admission, mail)) => {
                    let visit = Visit::new(self, line, admission, mail, behind);
                    // A session that is there for hours should not carry its beginning along.
                    Box::pin(visit.run(startup)).await;
                }
                Err(report) => {
                    self.executions.sessions().refused("not_admitted");
                    let sqlstate = report.sqlstate.as_str();
                    tracing::info!(
                        sqlstate,
                        uid = peer.uid,
                        pid = peer.pid,
                        "{}",
                        report.message
                    );
                    line.say_goodbye(&report);
                }
            },
        }
    }
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
