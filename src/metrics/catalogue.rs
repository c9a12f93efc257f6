//! Every instrument that execpool has: name, kind, unit, attributes and what it tells. Registration and
//! documentation both come from here.

use opentelemetry_semantic_conventions::{attribute, metric};

use super::words::{
    Action, Class, Close, Code, ConnectionState, DatabaseConnections, ExecutionState, HeldState,
    Origin, Outcome, Phase, Pin, SessionState,
};

/// What kind of instrument a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instrument {
    /// Only grows.
    Counter,
    /// A sum that grows and shrinks.
    UpDownCounter,
    /// A value of this moment.
    Gauge,
    /// A distribution, with these upper bounds of buckets.
    Histogram(&'static [f64]),
}

impl Instrument {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::UpDownCounter => "up-down counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Which values an attribute takes: a closed set in any case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// These words.
    Words(&'static [&'static str]),
    /// What the configuration names, as this says.
    Configured(&'static str),
    /// So many at a time as `telemetry.top_executions` says.
    Executions,
}

/// An attribute of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

const fn words(name: &'static str, words: &'static [&'static str]) -> Attribute {
    Attribute {
        name,
        values: Values::Words(words),
    }
}

const fn configured(name: &'static str, what: &'static str) -> Attribute {
    Attribute {
        name,
        values: Values::Configured(what),
    }
}

/// One metric.
#[derive(Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub instrument: Instrument,
    /// Its unit, in UCUM.
    pub unit: &'static str,
    /// Its attributes.
    pub attributes: &'static [Attribute],
    /// What it tells: the semantic conventions' words where they have it.
    pub description: &'static str,
    /// What else is to be known of it.
    pub note: &'static str,
}

/// The name of a metric of the last table, that belongs to single executions.
pub const EXECUTION_ID: &str = "execpool.execution.id";

const POOL: Attribute = configured(
    attribute::DB_CLIENT_CONNECTION_POOL_NAME,
    "the names of the upstreams",
);
const STATE: &str = "state";
const REASON: &str = "reason";
const KIND: &str = "kind";

/// Upper bounds of times that are short, in seconds: those of the semantic conventions.
const SHORT: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// The same for a wait, which `pool.timeout` ends after 20 s unless it is set otherwise.
const WAIT: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 60.0,
];
/// The same for what may be held across a model's call, or for a whole run.
const LONG: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// The words of `execpool.execution.ended`: why executions end.
pub const ENDED: &[&str] = &[
    "deleted",
    "hold_lost",
    "deadline",
    "cleanup",
    "shutdown",
    "idle",
    "session_ended",
];
/// The words of `execpool.session.leaks`: what happens to suspicions.
pub const LEAKS: &[&str] = &["suspect", "recovered", "reclaimed", "ended"];
/// The words of `execpool.resources`.
pub const RESOURCES: &[&str] = &["connection", "browser", "http", "file", "other"];

macro_rules! metrics {
    ($($id:ident: $instrument:expr, $name:expr, $unit:literal, [$($attribute:expr),*], $description:literal, $note:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($id), "`: ", $description)]
            pub const $id: Metric = Metric {
                name: $name,
                instrument: $instrument,
                unit: $unit,
                attributes: &[$($attribute),*],
                description: $description,
                note: $note,
            };
        )*
        /// All of them.
        pub const METRICS: &[&Metric] = &[$(&$id,)*];
    };
}

use Instrument::{Counter, Gauge, Histogram, UpDownCounter};

metrics! {
    CONNECTION_COUNT: UpDownCounter, metric::DB_CLIENT_CONNECTION_COUNT, "{connection}",
        [POOL, words(attribute::DB_CLIENT_CONNECTION_STATE, ConnectionState::WORDS)],
        "The number of connections that are currently in state described by the `state` attribute",
        "All pools of the upstream together, and its reserve. A connection that is being opened, or that was told to close, is neither; one that is being reset is `used`.";
    CONNECTION_IDLE_MAX: UpDownCounter, metric::DB_CLIENT_CONNECTION_IDLE_MAX, "{connection}", [POOL],
        "The maximum number of idle open connections allowed",
        "`budget.size`, which all upstreams share.";
    CONNECTION_IDLE_MIN: UpDownCounter, metric::DB_CLIENT_CONNECTION_IDLE_MIN, "{connection}", [POOL],
        "The minimum number of idle open connections allowed",
        "0: nothing is opened before it is needed.";
    CONNECTION_MAX: UpDownCounter, metric::DB_CLIENT_CONNECTION_MAX, "{connection}", [POOL],
        "The maximum number of open connections allowed",
        "`budget.size` and `budget.overflow`, which all upstreams share.";
    CONNECTION_PENDING: UpDownCounter, metric::DB_CLIENT_CONNECTION_PENDING_REQUESTS, "{request}", [POOL],
        "The number of current pending requests for an open connection", "";
    CONNECTION_TIMEOUTS: Counter, metric::DB_CLIENT_CONNECTION_TIMEOUTS, "{timeout}", [POOL],
        "The number of connection timeouts that have occurred trying to obtain a connection from the pool",
        "Waits that `pool.timeout` has ended, with 53300, or with 08001 where the database is away.";
    CONNECTION_CREATE_TIME: Histogram(SHORT), metric::DB_CLIENT_CONNECTION_CREATE_TIME, "s", [POOL],
        "The time it took to create a new connection",
        "From the first address that is tried to the end of the login. Those that fail are in `execpool.server.errors`.";
    CONNECTION_WAIT_TIME: Histogram(WAIT), metric::DB_CLIENT_CONNECTION_WAIT_TIME, "s", [POOL],
        "The time it took to obtain an open connection from the pool",
        "One for each wait that gets a connection, however short: at the first query, and at the startup of a session whose kind has never connected.";
    CONNECTION_USE_TIME: Histogram(LONG), metric::DB_CLIENT_CONNECTION_USE_TIME, "s", [POOL],
        "The time between borrowing a connection and returning it to the pool",
        "From the first query of a session to the end of the reset.";
    OPERATION_DURATION: Histogram(SHORT), metric::DB_CLIENT_OPERATION_DURATION, "s",
        [
            words(attribute::DB_SYSTEM_NAME, &["postgresql"]),
            configured(attribute::DB_NAMESPACE, "the upstream's database; `other` under `*`"),
            configured(attribute::SERVER_ADDRESS, "the host of the upstream that is connected, or the directory of its socket"),
            configured(attribute::SERVER_PORT, "its port, unless that is 5432"),
            words(attribute::DB_RESPONSE_STATUS_CODE, Code::WORDS),
            words(attribute::ERROR_TYPE, Code::WORDS)
        ],
        "Duration of database client operations.",
        "An operation is all that a client has sent to ReadyForQuery: a simple query with all its statements, a batch of the extended protocol, a COPY. Several that are answered in one piece are one. The wait for a connection is not in it. The last two attributes are there if it has failed, and are the same: the first SQLSTATE. What lost its server connection has 08006, what was cut off by execpool 57P01.";
    BUDGET_LIMIT: Gauge, "execpool.budget.limit", "{connection}", [],
        "Server connections that the pod may have open: budget.size and budget.overflow", "";
    BUDGET_EFFECTIVE: Gauge, "execpool.budget.effective", "{connection}", [],
        "Server connections that the pod may have open now: less than the limit where the database allows less", "";
    BUDGET_USED: Gauge, "execpool.budget.used", "{connection}", [],
        "Server connections that are lent to sessions that have queried", "";
    BUDGET_OPEN: Gauge, "execpool.budget.open", "{connection}", [],
        "Server connections that are open, from the dial to the server's end", "";
    BUDGET_RESERVE: Gauge, "execpool.budget.reserve", "{connection}", [],
        "Idle server connections that belong to no execution", "";
    BUDGET_WAITING: Gauge, "execpool.budget.waiting", "{request}", [],
        "Sessions that wait for a server connection, for whatever reason", "";
    BUDGET_OLDEST_WAIT: Gauge, "execpool.budget.oldest_wait", "s", [],
        "How long the first of those who wait for a server connection has waited; 0 if nobody does", "";
    EXECUTION_COUNT: Gauge, "execpool.execution.count", "{execution}",
        [words(STATE, ExecutionState::WORDS)],
        "Executions that have not ended, the standing one among them", "";
    EXECUTION_ENDED: Counter, "execpool.execution.ended", "{execution}", [words(REASON, ENDED)],
        "Executions that have ended, by why", "";
    SESSION_COUNT: Gauge, "execpool.session.count", "{session}", [words(STATE, SessionState::WORDS)],
        "Sessions, by what they do", "";
    SESSION_OPENED: Counter, "execpool.session.opened", "{session}", [],
        "Sessions that were opened", "";
    SESSION_CLOSED: Counter, "execpool.session.closed", "{session}", [words(REASON, Close::WORDS)],
        "Sessions that were closed, by why", "";
    SESSION_LEAKS: Counter, "execpool.session.leaks", "{session}", [words(KIND, LEAKS)],
        "Sessions that came under suspicion of having been forgotten, and what became of the suspicion", "";
    SESSION_OLDEST: Gauge, "execpool.session.oldest", "s", [words(STATE, SessionState::WORDS)],
        "How long the session has stood in its state that has for longest; 0 if none is in it", "";
    CHECKOUT_HELD: Counter, "execpool.checkout.held", "s", [words(STATE, HeldState::WORDS)],
        "How long server connections were held by sessions, by what went on meanwhile",
        "Of those that are held, up to now. `active` by the sum is the hold efficiency.";
    SERVER_ERRORS: Counter, "execpool.server.errors", "{error}",
        [words("phase", Phase::WORDS), words("class", Class::WORDS)],
        "Failures of server connections and errors that servers told, by the class of the SQLSTATE",
        "A series is there from its first error on; those that are expected of a phase from the start.";
    CANCELS: Counter, "execpool.cancels", "{cancel}", [words("origin", Origin::WORDS)],
        "Queries and waits that were cancelled, by whom", "";
    PINS: Counter, "execpool.pins", "{pin}", [words(REASON, Pin::WORDS)],
        "Server connections that stayed with their session in transaction mode, by why",
        "Always 0: transaction mode is still to come, and its reasons with it.";
    DATABASE_CONNECTIONS: Gauge, "execpool.database.connections", "{connection}",
        [words(KIND, DatabaseConnections::WORDS)],
        "Connections of the database as the monitor sees them: allowed, this pod's, all others'",
        "Asked every 30 s. Of several upstreams the one whose database has least room. Not there while it does not answer.";
    EXHAUSTION_STATE: Gauge, "execpool.exhaustion.state", "{state}", [],
        "How short of server connections the pod is: 0 healthy, 1 warning, 2 exhausted, 3 sustained", "";
    REACTOR_ACTIONS: Counter, "execpool.reactor.actions", "{action}",
        [words("action", Action::WORDS), words("outcome", Outcome::WORDS)],
        "What was done about exhaustion, and what became of it",
        "A cleanup is `ok` where it has ended something. `refused` is once for each reason and \
         shortage; of a restart that was tried, once for each try.";
    RESOURCE_COUNT: Gauge, "execpool.resources", "{resource}", [words(KIND, RESOURCES)],
        "What apps have registered with their executions, by kind", "";
    SNAPSHOT_AGE: Gauge, "execpool.snapshot.age", "s", [],
        "How old the look at the data plane is that the observed values come from",
        "Around a second; more means that the data plane does not answer.";
}

const EXECUTION: Attribute = Attribute {
    name: EXECUTION_ID,
    values: Values::Executions,
};

/// Server connections of an execution.
pub const EXECUTION_CONNECTIONS: Metric = Metric {
    name: "execpool.execution.connections",
    instrument: Gauge,
    unit: "{connection}",
    attributes: &[EXECUTION],
    description: "Server connections of an execution",
    note: "",
};

/// How long an execution has held server connections.
pub const EXECUTION_HELD: Metric = Metric {
    name: "execpool.execution.held",
    instrument: Counter,
    unit: "s",
    attributes: &[EXECUTION],
    description: "How long the sessions of an execution have held server connections, in all",
    note: "",
};

/// Those of the sidecar itself, which `telemetry` registers: here for the documentation.
pub const OF_THE_SIDECAR: &[&Metric] = &[
    &Metric {
        name: metric::PROCESS_CPU_TIME,
        instrument: Counter,
        unit: "s",
        attributes: &[words("cpu.mode", &["user", "system"])],
        description: "CPU time that the sidecar took",
        note: "",
    },
    &Metric {
        name: metric::PROCESS_MEMORY_USAGE,
        instrument: UpDownCounter,
        unit: "By",
        attributes: &[],
        description: "Resident memory of the sidecar",
        note: "",
    },
    &Metric {
        name: "process.open_file_descriptor.count",
        instrument: UpDownCounter,
        unit: "{file_descriptor}",
        attributes: &[],
        description: "Files and sockets that the sidecar has open",
        note: "",
    },
    &Metric {
        name: "execpool.log.dropped",
        instrument: Counter,
        unit: "{record}",
        attributes: &[],
        description: "Lines of the log that nobody read in time",
        note: "",
    },
    &Metric {
        name: "execpool.scrape.failed",
        instrument: Counter,
        unit: "{scrape}",
        attributes: &[words(REASON, &["refused", "cut", "failed", "crowded"])],
        description: "Scrapes of /metrics that got no answer or did not read it, and connections to the port that had to go for newer ones (crowded)",
        note: "",
    },
    &Metric {
        name: "otel.sdk.exporter.metric_data_point.exported",
        instrument: Counter,
        unit: "{data_point}",
        attributes: &[
            configured("otel.component.type", "`otlp_grpc_metric_exporter`"),
            configured("otel.component.name", "the same with a number"),
            configured(
                "error.type",
                "`timeout`, `rejected`, or a status of gRPC; there if they did not arrive",
            ),
        ],
        description: "Data points that arrived at the collector, or, with error.type, did not",
        note: "There where metrics are sent.",
    },
    &Metric {
        name: "otel.sdk.exporter.span.exported",
        instrument: Counter,
        unit: "{span}",
        attributes: &[
            configured("otel.component.type", "`otlp_grpc_span_exporter`"),
            configured("otel.component.name", "the same with a number"),
            configured(
                "error.type",
                "`timeout`, `rejected`, or a status of gRPC; there if they did not arrive",
            ),
        ],
        description: "Spans that arrived at the collector, or, with error.type, did not",
        note: "There where spans are sent.",
    },
];

/// Those of single executions: over OTLP alone.
pub const OF_EXECUTIONS: &[&Metric] = &[&EXECUTION_CONNECTIONS, &EXECUTION_HELD];
