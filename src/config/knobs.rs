//! The table of all knobs: the one source of defaults, names, checks and documentation.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::time::Duration;

/// What a knob takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true`/`on` or `false`/`off`.
    Switch,
    /// A whole number from the first to the second.
    Count(u32, u32),
    /// A part of a whole: above 0, at most 1, to a thousandth.
    Share,
    /// Numbers with units, at least this long.
    Time(Duration),
    /// The same, or `off`.
    TimeOrOff(Duration),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text but the empty one.
    Text,
    /// An SQL statement.
    Statement,
    /// An absolute path.
    Path,
    /// Permissions in octal.
    Mode,
    /// `any`, or numbers of users.
    Uids,
    /// `off`, or an address of the loopback with a port.
    Loopback,
    /// A level or a filter expression.
    Filter,
    /// The URL of a database.
    Url,
    /// A program and its arguments, as a shell would split them.
    Command,
    /// An IP address and a port to listen on, or `off`.
    AddressOrOff,
    /// A liveness probe on the loopback.
    Probe,
}

/// How a change takes effect while execpool runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// At once, for all that happens from now on.
    Live,
    /// For server connections that are opened from now on; idle ones are replaced, lent ones when
    /// they come back.
    NewConnections,
    /// For sessions that connect from now on.
    NewSessions,
    /// For executions that begin from now on.
    NewExecutions,
    /// Only by a restart.
    Restart,
}

impl Serialize for Reload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for Reload {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Reload".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

impl Reload {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Live,
        Self::NewConnections,
        Self::NewSessions,
        Self::NewExecutions,
        Self::Restart,
    ];

    /// The words for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "at once",
            Self::NewConnections => "new connections",
            Self::NewSessions => "new sessions",
            Self::NewExecutions => "new executions",
            Self::Restart => "restart",
        }
    }
}

/// One knob.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Its name, with dots.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default as one would write it; empty: none.
    pub default: &'static str,
    /// How a change takes effect.
    pub reload: Reload,
    /// What it does.
    pub meaning: &'static str,
}

const fn knob(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    reload: Reload,
    meaning: &'static str,
) -> Knob {
    Knob {
        path,
        kind,
        default,
        reload,
        meaning,
    }
}

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const ZERO: Kind = Kind::Time(Duration::ZERO);
const SOME: Kind = Kind::Time(MILLI);
const MANY: u32 = 1_000_000;

/// All knobs but those of an upstream, in the order of the documentation.
pub const KNOBS: &[Knob] = &[
    knob(
        "listen.dir",
        Kind::Path,
        "/run/execpool",
        Reload::Restart,
        "directory of the sockets",
    ),
    knob(
        "listen.port",
        Kind::Count(1, 65535),
        "5432",
        Reload::Restart,
        "number in the name of the PostgreSQL socket, `.s.PGSQL.5432`",
    ),
    knob(
        "listen.mode",
        Kind::Mode,
        "0660",
        Reload::Live,
        "permissions of the sockets, in octal",
    ),
    knob(
        "listen.group",
        Kind::Text,
        "",
        Reload::Live,
        "group of the sockets, by name or number",
    ),
    knob(
        "listen.allow_uids",
        Kind::Uids,
        "any",
        Reload::NewSessions,
        "users that may connect to the PostgreSQL socket; TCP connections give the password instead",
    ),
    knob(
        "listen.max_sessions",
        Kind::Count(1, MANY),
        "10000",
        Reload::NewSessions,
        "sessions at once; the next one gets 53300",
    ),
    knob(
        "listen.tcp",
        Kind::Loopback,
        "off",
        Reload::Restart,
        "address of a PostgreSQL listener on the loopback, for clients that can't use the socket; needs listen.tcp_password_file",
    ),
    knob(
        "listen.tcp_password_file",
        Kind::Path,
        "",
        Reload::Restart,
        "file with the password of TCP connections, or its SCRAM-SHA-256 verifier, read at each login",
    ),
    knob(
        "control.allow_uids",
        Kind::Uids,
        "any",
        Reload::Live,
        "users that may connect to the control socket",
    ),
    knob(
        "control.admin",
        Kind::Switch,
        "on",
        Reload::Live,
        "off leaves the reading routes and a scope's own",
    ),
    knob(
        "budget.size",
        Kind::Count(1, MANY),
        "20",
        Reload::Live,
        "server connections of the pod that may stay open idle",
    ),
    knob(
        "budget.overflow",
        Kind::Count(0, MANY),
        "10",
        Reload::Live,
        "how many more while in use",
    ),
    knob(
        "budget.warm",
        Kind::Count(0, MANY),
        "0",
        Reload::Live,
        "idle connections that may wait in the reserve for another execution; 0: never",
    ),
    knob(
        "pool.size",
        Kind::Count(1, MANY),
        "2",
        Reload::Live,
        "server connections of one execution and upstream that may stay open idle",
    ),
    knob(
        "pool.overflow",
        Kind::Count(0, MANY),
        "3",
        Reload::Live,
        "how many more while in use",
    ),
    knob(
        "pool.timeout",
        ZERO,
        "20s",
        Reload::Live,
        "longest wait for a server connection, then 53300",
    ),
    knob(
        "pool.notice_after",
        ZERO,
        "5s",
        Reload::Live,
        "wait before a NOTICE tells the client that it waits",
    ),
    knob(
        "pool.recycle",
        SOME,
        "30m",
        Reload::NewConnections,
        "age at which a connection is replaced, give or take 10 %",
    ),
    knob(
        "pool.idle_timeout",
        SOME,
        "5m",
        Reload::NewConnections,
        "idleness at which a connection is closed",
    ),
    knob(
        "pool.pre_ping",
        Kind::Switch,
        "true",
        Reload::NewConnections,
        "ask an idle connection whether it lives before it is lent",
    ),
    knob(
        "pool.ping_after",
        ZERO,
        "30s",
        Reload::NewConnections,
        "idleness from which it is asked",
    ),
    knob(
        "pool.mode",
        Kind::Word(&["session"]),
        "session",
        Reload::NewSessions,
        "a session keeps its connection until it disconnects",
    ),
    knob(
        "pool.reset",
        Kind::Statement,
        "DISCARD ALL",
        Reload::NewConnections,
        "statement that cleans a returned connection",
    ),
    knob(
        "execution.max_duration",
        Kind::TimeOrOff(SECOND),
        "30m",
        Reload::NewExecutions,
        "deadline of executions that name none of their own",
    ),
    knob(
        "execution.idle_timeout",
        ZERO,
        "60s",
        Reload::Live,
        "how long an implicit execution lives without a session",
    ),
    knob(
        "execution.tombstone",
        ZERO,
        "10m",
        Reload::Live,
        "how long the id of an ended execution is refused",
    ),
    knob(
        "execution.untagged",
        Kind::Word(&["shared", "session", "reject"]),
        "shared",
        Reload::NewSessions,
        "sessions that name no execution: one for all, one each, or refused",
    ),
    knob(
        "execution.grace",
        ZERO,
        "0s",
        Reload::Live,
        "time that running queries get when an execution ends",
    ),
    knob(
        "hold.grace",
        ZERO,
        "2s",
        Reload::Live,
        "between the close of an execution's last hold and its end",
    ),
    knob(
        "session.idle_in_transaction.notice",
        Kind::TimeOrOff(MILLI),
        "10s",
        Reload::Live,
        "idleness within a transaction at which the client gets a NOTICE, once for each transaction",
    ),
    knob(
        "session.idle_in_transaction.end",
        Kind::TimeOrOff(MILLI),
        "off",
        Reload::Live,
        "idleness within a transaction at which the session is ended with 25P03",
    ),
    knob(
        "session.transaction.notice",
        Kind::TimeOrOff(MILLI),
        "60s",
        Reload::Live,
        "age of a transaction at which the client gets a NOTICE, once for each",
    ),
    knob(
        "session.transaction.end",
        Kind::TimeOrOff(MILLI),
        "off",
        Reload::Live,
        "age of a transaction at which the session is ended with 25P04; a statement outside of one is not limited",
    ),
    knob(
        "session.leak_after",
        Kind::TimeOrOff(MILLI),
        "60s",
        Reload::Live,
        "idleness of a session that holds a server connection at which it is a leak suspect: logged, counted, shown",
    ),
    knob(
        "session.reclaim_leaks",
        Kind::Switch,
        "false",
        Reload::Live,
        "whether an emergency cleanup may end leak suspects that belong to no named execution",
    ),
    knob(
        "cleanup.idle_in_transaction",
        ZERO,
        "60s",
        Reload::Live,
        "idleness within a transaction from which an emergency cleanup may end a session",
    ),
    knob(
        "exhaustion.warning",
        Kind::Share,
        "0.8",
        Reload::Live,
        "share of the budget above which, used for 30 s, the pod is short of connections: `warning`",
    ),
    knob(
        "exhaustion.wait",
        SOME,
        "5s",
        Reload::Live,
        "wait for the budget above which the pod is without connections",
    ),
    knob(
        "exhaustion.after",
        SOME,
        "10s",
        Reload::Live,
        "how long somebody must wait so, or in vain, at every look: `exhausted`",
    ),
    knob(
        "exhaustion.sustained_after",
        SOME,
        "120s",
        Reload::Live,
        "how long it must be exhausted: `sustained`",
    ),
    knob(
        "reactor.kubernetes",
        Kind::Word(&["auto", "on", "off"]),
        "auto",
        Reload::Restart,
        "whether the Kubernetes API is told, and asked: `auto` where a service account's token and the pod's name are given; `on` where their lack is an error; `off`: no call is made",
    ),
    knob(
        "reactor.condition",
        Kind::Switch,
        "on",
        Reload::Live,
        "whether the pod's condition `execpool.dev/PoolAvailable` is set there",
    ),
    knob(
        "reactor.cleanup",
        Kind::Switch,
        "on",
        Reload::Live,
        "whether an emergency cleanup begins where exhaustion is sustained and somebody waits",
    ),
    knob(
        "reactor.restart",
        Kind::Word(&["off", "liveness", "exit-code", "evict", "rollout"]),
        "off",
        Reload::Live,
        "what restarts the app where that does not help: `/livez/app`, which the kubelet asks; the sidecar's exit with 88; an eviction of the pod; a rollout of its owner",
    ),
    knob(
        "reactor.restart_after",
        ZERO,
        "60s",
        Reload::Live,
        "how long exhaustion must be sustained before a restart; as much again, at most 60 s, may be added by chance, so that not all pods restart at once",
    ),
    knob(
        "reactor.cooldown",
        ZERO,
        "10m",
        Reload::Live,
        "least time between two restarts, and least age of the pod for one",
    ),
    knob(
        "reactor.max_restarts_per_hour",
        Kind::Count(1, 60),
        "2",
        Reload::Live,
        "most restarts within any hour; `reactor.restart: off` is for none",
    ),
    knob(
        "reactor.app_probe",
        Kind::Probe,
        "",
        Reload::Live,
        "the app's own liveness probe, which `/livez/app` asks on its behalf where that has taken its place",
    ),
    knob(
        "reactor.dry_run",
        Kind::Switch,
        "false",
        Reload::Live,
        "whether it is only told what would be done",
    ),
    knob(
        "maintenance.interval",
        Kind::TimeOrOff(SECOND),
        "5m",
        Reload::Live,
        "how often leftovers of ended executions and idle connections above the budget's size are closed",
    ),
    knob(
        "telemetry.listen",
        Kind::AddressOrOff,
        "[::]:9464",
        Reload::Restart,
        "read-only HTTP port with `/healthz`, `/readyz`, `/startupz`, `/livez/app` and `/metrics`; `[::]` is `0.0.0.0` where there is no IPv6",
    ),
    knob(
        "telemetry.status_log",
        Kind::TimeOrOff(SECOND),
        "5m",
        Reload::Live,
        "how often the status is logged",
    ),
    knob(
        "telemetry.top_executions",
        Kind::Count(0, 500),
        "0",
        Reload::Restart,
        "how many of the largest executions are told by their ids, over OTLP alone; 0: none",
    ),
    knob(
        "telemetry.traces",
        Kind::Switch,
        "false",
        Reload::Restart,
        "a span for each checkout and each execution, over OTLP, as the variables of OpenTelemetry say",
    ),
    knob(
        "errors.holders",
        Kind::Word(&["full", "ids", "none"]),
        "full",
        Reload::Live,
        "what a 53300 tells of those who hold connections",
    ),
    knob(
        "shutdown.grace",
        ZERO,
        "25s",
        Reload::Live,
        "from SIGTERM to the exit, at most",
    ),
    knob(
        "shutdown.mode",
        Kind::Word(&["sidecar", "plain"]),
        "sidecar",
        Reload::Live,
        "`plain` for a container beside a live app: it stays for the whole grace",
    ),
    knob(
        "log.level",
        Kind::Filter,
        "info",
        Reload::Live,
        "`error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as `info,execpool::pool=debug`",
    ),
    knob(
        "log.format",
        Kind::Word(&["auto", "json", "text"]),
        "auto",
        Reload::Restart,
        "`auto` is JSON unless on a terminal",
    ),
];

/// The knobs of one upstream, besides any `pool.…`.
pub const UPSTREAM_KNOBS: &[Knob] = &[
    knob(
        "name",
        Kind::Text,
        "",
        Reload::NewSessions,
        "what clients name as their database; without it the URL's database; `*` takes every other name",
    ),
    knob(
        "url",
        Kind::Url,
        "",
        Reload::NewConnections,
        "where the database is, and as whom: `postgresql://user@host:5432/database`",
    ),
    knob(
        "password_file",
        Kind::Path,
        "",
        Reload::NewConnections,
        "file with the password, read at each connect",
    ),
    knob(
        "password_command",
        Kind::Command,
        "",
        Reload::NewConnections,
        "command that prints the password, such as a cloud's token: a list or one text, run without a shell, at most once a minute and when the server refuses what it gave; it has 10 s",
    ),
    knob(
        "kind",
        Kind::Word(&["postgres", "pooler"]),
        "postgres",
        Reload::NewConnections,
        "`pooler` where PgBouncer or the like answers instead of PostgreSQL: connections are closed after use instead of reset, and nothing is asked of it that only PostgreSQL knows",
    ),
    knob(
        "any_user",
        Kind::Switch,
        "false",
        Reload::NewSessions,
        "accept and ignore whatever user a client names",
    ),
    knob(
        "connect_timeout",
        SOME,
        "5s",
        Reload::NewConnections,
        "longest that one connect may take; also `connect_timeout` of the URL, in seconds",
    ),
    knob(
        "keepalive",
        Kind::Time(SECOND),
        "30s",
        Reload::NewConnections,
        "idle time before TCP keepalive probes; also `keepalives_idle` of the URL, in seconds",
    ),
];

/// The knob that a path means, of an upstream or global.
pub(super) fn find(path: &str) -> Option<&'static Knob> {
    match upstream_part(path) {
        Some((_, rest)) => UPSTREAM_KNOBS
            .iter()
            .chain(KNOBS.iter().filter(|knob| knob.path.starts_with("pool.")))
            .find(|knob| knob.path == rest),
        None => KNOBS.iter().find(|knob| knob.path == path),
    }
}

/// `upstreams[3].pool.size` → 3 and `pool.size`.
pub(super) fn upstream_part(path: &str) -> Option<(usize, &str)> {
    let (index, rest) = path.strip_prefix("upstreams[")?.split_once("].")?;
    Some((upstream_index(index)?, rest))
}

/// The number of an upstream; few enough that a slip of it costs nothing.
pub(super) fn upstream_index(text: &str) -> Option<usize> {
    text.parse().ok().filter(|index| *index < 256)
}

/// Whether knobs lie below the path, such as `session.transaction`.
pub(super) fn is_section(path: &str) -> bool {
    let below = |knob: &Knob| {
        let rest = knob.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    !path.is_empty() && KNOBS.iter().any(below)
}

/// The sections, such as `budget`.
pub(super) fn sections() -> Vec<&'static str> {
    let mut names = vec!["upstreams"];
    for knob in KNOBS {
        // Every path of the table has a dot; without one the whole is its section.
        let section = knob
            .path
            .split_once('.')
            .map_or(knob.path, |(section, _)| section);
        if !names.contains(&section) {
            names.push(section);
        }
    }
    names
}
