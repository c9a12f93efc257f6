//! The control API in this process, over a real socket, real executions and a real database;
//! sessions are played by the test, without the wire protocol.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use execpool::budget::Budget;
use execpool::config::{self, PasswordSource, Sources};
use execpool::control::{Control, Facts, UpstreamFacts};
use execpool::execution::{Executions, Remote, Rules, Untagged, Upstream};
use execpool::monitor::Monitor;
use execpool::pool::{KeySpec, Lender, PoolLimits, Target, Upkeep, UpstreamNumber, WaiterId};
use execpool::protocol::startup::Parameters;
use execpool::server::{Address, Password};
use execpool::session::{Identity, Peer, State, Table};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::guard;
use super::http;
use super::postgres::{Database, Postgres};
use super::wait::SOON;

/// The `application_name` of the pooled server connections.
pub(crate) const POOLED: &str = "pooled";

/// The limits of a pool that has none of its own.
pub(crate) const LIMITS: PoolLimits = PoolLimits {
    size: 2,
    overflow: 3,
};

/// How an API differs from the usual one.
#[derive(Clone)]
pub(crate) struct ApiOptions {
    /// The pod's server connections: size and overflow.
    pub(crate) budget: (usize, usize),
    /// The URL by which the monitor asks; the database's own without.
    pub(crate) monitored: Option<String>,
    /// `control.admin`.
    pub(crate) admin: bool,
    /// `control.allow_uids`.
    pub(crate) allow_uids: Option<Vec<u32>>,
    /// Whether backends are ended by force from the start; later see [`Api::force`].
    pub(crate) force: bool,
    /// How long the monitor waits for an answer.
    pub(crate) patience: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            budget: (20, 10),
            monitored: None,
            admin: true,
            allow_uids: None,
            force: true,
            patience: SOON,
        }
    }
}

/// A control API that is served. It ends with the test's runtime.
pub(crate) struct Api {
    directory: TempDir,
    pub(crate) executions: Arc<Executions>,
    /// Whether backends are ended by force.
    pub(crate) force: Arc<AtomicBool>,
    target: Target,
    /// Ends it when it is sent.
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) serving: JoinHandle<()>,
    clock: JoinHandle<()>,
}

/// A session that is played: it holds a server connection until it is told to end, or until
/// this is dropped.
pub(crate) struct Played {
    pub(crate) pid: i32,
    task: JoinHandle<()>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Api {
    /// Over one database, as an upstream `app`, with every default.
    pub(crate) async fn over(postgres: &Postgres, database: &Database) -> Self {
        Self::with(postgres, database, ApiOptions::default()).await
    }

    pub(crate) async fn with(
        postgres: &Postgres,
        database: &Database,
        options: ApiOptions,
    ) -> Self {
        let directory = guard::short_directory();
        let url = options.monitored.unwrap_or_else(|| database.url());
        let monitor = Arc::new(Monitor::new(&upstream(&url, options.patience)));
        let force = Arc::new(AtomicBool::new(options.force));
        let executions = executions(options.budget, &monitor, &force);
        let facts = Facts {
            socket_dir: directory.path().to_owned(),
            port: 5432,
            upstreams: vec![UpstreamFacts {
                name: "app".to_owned(),
                database: database.name.clone(),
                user: "app".to_owned(),
                limits: LIMITS,
            }],
            version: "0.0.0",
            started: Instant::now(),
            admin: options.admin,
            allow_uids: options.allow_uids,
            telemetry: None,
            tcp: Vec::new(),
            life: Arc::default(),
        };
        let control = Control::new(Remote::new(Arc::clone(&executions)), vec![monitor], facts);
        let listener = UnixListener::bind(directory.path().join("control.sock")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        Self {
            target: target(postgres, database),
            serving: tokio::spawn(control.serve(listener, shutdown)),
            clock: tokio::spawn(clock(Arc::clone(&executions))),
            directory,
            executions,
            force,
            stop: Some(stop),
        }
    }

    /// The path of the control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Asks; answers with the status and the body.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        http::request(&self.socket(), method, path, body.as_ref())
            .await
            .unwrap_or_else(|why| panic!("{why}"))
    }

    /// `GET` of a path that must answer 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        match self.ask("GET", path, None).await {
            (200, body) => body,
            (status, body) => panic!("GET {path}: {status} {body}"),
        }
    }

    /// A session of this execution whose last statement is `sql`, and that holds its server connection, and
    /// stays if `stays` is true even when it is told to end.
    pub(crate) async fn session(&self, execution: Option<&str>, sql: &str, stays: bool) -> Played {
        let id = execution.map(|id| id.parse().unwrap());
        let mut membership = self.executions.join(id.as_ref()).unwrap();
        let identity = Identity {
            execution: membership.id().clone(),
            upstream: "app".into(),
            database: "app".to_owned(),
            application_name: Some("tool".to_owned()),
            caller: Some("agent.py:7 run".to_owned()),
            label: None,
            traceparent: None,
            peer: Peer::Unix {
                uid: 1000,
                gid: 1000,
                pid: Some(7),
            },
        };
        let now = Instant::now();
        let (seat, mut mail) = self.executions.sessions().open(identity, now);
        let session = Arc::clone(seat.session());
        membership.attach(&session);
        session.transition(State::Waiting);
        let pool = membership.pool(UpstreamNumber(0));
        let lender = Arc::clone(self.executions.lender());
        let spec = KeySpec {
            upstream: UpstreamNumber(0),
            database: self.target.database.clone(),
            parameters: self.target.parameters.clone(),
        };
        let target = self.target.clone();
        let key = lender.key(spec, || target);
        let waiter = WaiterId(session.id().0);
        let mut checkout = lender.checkout(pool, &key, waiter).await.expect("lent");
        let pid = checkout.pid().expect("held");
        session.bound(pid);
        session.sent(1, Some(sql.as_bytes()));
        // Not `sql`: this one has no rows to be read.
        let asked = checkout.connection().expect("held");
        asked
            .clean("SET work_mem = '1MB'")
            .await
            .expect("it is set");
        session.transition(State::Idle);
        let task = tokio::spawn(async move {
            let _kept = (seat, membership);
            mail.ended().await;
            if stays {
                std::future::pending::<()>().await;
            }
            drop(checkout);
        });
        Played { pid, task }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
        self.clock.abort();
    }
}

fn executions(
    budget: (usize, usize),
    monitor: &Arc<Monitor>,
    force: &Arc<AtomicBool>,
) -> Arc<Executions> {
    let rules = Rules {
        max_duration: Some(Duration::from_secs(1800)),
        idle_timeout: Duration::from_secs(60),
        tombstone: Duration::from_secs(600),
        hold_grace: Duration::from_millis(300),
        untagged: Untagged::Shared,
    };
    let upstreams = vec![Upstream {
        name: "app".into(),
        limits: LIMITS,
    }];
    let (monitor, force) = (Arc::clone(monitor), Arc::clone(force));
    let runtime = Handle::current();
    let terminate = move |_, backends: Vec<execpool::server::Backend>, older_than| {
        let (tell, asked) = tokio::sync::oneshot::channel();
        if !force.load(Ordering::Relaxed) {
            return asked;
        }
        let monitor = Arc::clone(&monitor);
        tokio::spawn(async move {
            let ended = monitor.terminate(&backends, older_than).await;
            let _ = tell.send(ended.is_ok());
        });
        asked
    };
    Executions::new(
        rules,
        Duration::ZERO,
        upstreams,
        Lender::new(
            Budget::new(budget.0, budget.1),
            runtime.clone(),
            Arc::default(),
        ),
        Arc::new(Table::default()),
        Box::new(terminate),
        runtime,
    )
}

/// Ends what time ends.
async fn clock(executions: Arc<Executions>) {
    loop {
        executions.end_due(Instant::now());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn upstream(url: &str, patience: Duration) -> config::Upstream {
    let loaded = config::load(&Sources {
        file: None,
        env: vec![("DATABASE_URL".to_owned(), url.to_owned())],
        flags: Vec::new(),
    });
    let mut upstream = loaded.expect("the URL is good").config.upstreams.remove(0);
    upstream.name = "app".to_owned();
    upstream.connect_timeout = patience;
    upstream
}

fn target(postgres: &Postgres, database: &Database) -> Target {
    Target {
        addresses: vec![Address::Unix {
            dir: postgres.directory().to_owned(),
            port: postgres.port(),
        }],
        session_attrs: execpool::config::SessionAttrs::Any,
        user: "app".to_owned(),
        database: database.name.clone(),
        password: Password::new(PasswordSource::None),
        tls: std::sync::Arc::default(),
        parameters: Parameters::new(vec![("application_name".to_owned(), POOLED.into())]),
        connect_timeout: SOON,
        keepalive: Duration::from_secs(30),
        reset: Some("DISCARD ALL".to_owned()),
        checks_client: true,
        upkeep: Upkeep {
            recycle: Duration::from_secs(1800),
            idle_timeout: Duration::from_secs(300),
            ping_after: None,
        },
    }
}
