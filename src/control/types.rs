//! What is answered. Durations are numbers of seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::budget;
use crate::execution::{self, Kind, PerSecond, PoolView, ResourceKind, Summary, View};
use crate::session::{Oldest, State, Totals};

pub use super::remedies::Reactor;
pub use crate::events::Seconds;

/// `GET /v1/status`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// The version of execpool.
    pub version: &'static str,
    /// How long the process has been there.
    pub uptime_seconds: Seconds,
    /// Whether what runs is what is configured; none where nobody can tell.
    pub configuration: Option<ConfigurationStatus>,
    /// Whether an operator has paused everything.
    pub paused: bool,
    /// For how long; null if it is not paused.
    pub paused_seconds: Option<Seconds>,
    /// When it goes on by itself; null: by `POST /v1/resume` alone.
    pub resumes_in_seconds: Option<Seconds>,
    /// Whether the pod is about to end.
    pub draining: bool,
    /// Why it is not ready; null if it is.
    pub not_ready: Option<String>,
    /// Where probes are answered; null: nowhere.
    #[schemars(with = "Option<String>")]
    pub telemetry: Option<SocketAddr>,
    /// Where PostgreSQL clients come in over TCP; not there where that is off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub tcp: Vec<SocketAddr>,
    /// The pod's server connections.
    pub budget: Budget,
    /// Whether connections run out.
    pub exhaustion: Exhaustion,
    /// What is done about it.
    pub reactor: Reactor,
    /// The databases, as they were last seen.
    pub upstreams: Vec<UpstreamStatus>,
    /// How many executions there are and were.
    pub executions: ExecutionCounts,
    /// How many sessions there are and were.
    pub sessions: SessionCounts,
    /// What apps have registered.
    pub resources: ResourceTotals,
    /// How fast sessions and executions come and go.
    pub rates: Rates,
    /// The process's memory.
    pub memory: Memory,
    /// What `include` has asked for, of the same moment; not there without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Included")]
    pub included: Option<Included>,
}

/// Lists beside the counts of `GET /v1/status`, of the same moment.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Included {
    /// The executions that have not ended; not there if they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IncludedExecutions")]
    pub executions: Option<IncludedExecutions>,
    /// The sessions; not there if they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IncludedSessions")]
    pub sessions: Option<IncludedSessions>,
}

/// The executions that are worth a look first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IncludedExecutions {
    /// 500 at most, those with most connections lent first.
    pub listed: Vec<Execution>,
    /// How many more there are.
    pub left_out: usize,
}

/// The sessions that are worth a look first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IncludedSessions {
    /// 500 at most: those that hold a server connection, the longest held first, then the others.
    pub listed: Vec<Session>,
    /// How many more there are.
    pub left_out: usize,
}

/// Whether what runs is what is configured.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigurationStatus {
    /// How often something was changed since the start.
    pub reloads: u64,
    /// The knobs whose change waits for a restart.
    pub waiting_for_restart: Vec<String>,
    /// Why the configuration, as it was last seen, is refused.
    pub refused: Vec<String>,
}

/// The pod's server connections.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Budget {
    /// How many may stay open idle.
    pub size: usize,
    /// How many may be open.
    pub limit: usize,
    /// How many may be open now: less where the database allows less.
    pub effective: usize,
    /// Those lent to sessions that have queried.
    pub used: usize,
    /// All that are open.
    pub open: usize,
    /// Those in the pools.
    pub idle: usize,
    /// Those that are being opened.
    pub connecting: usize,
    /// Those in the reserve.
    pub reserve: usize,
    /// Checkouts that wait.
    pub waiting: usize,
    /// How long the first of these has waited.
    pub oldest_wait_seconds: Seconds,
    /// Whether the database allows less than is configured.
    pub limited_by_database: bool,
}

/// Whether connections run out.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Exhaustion {
    /// How bad it is: `healthy`, `warning`, `exhausted` or `sustained`.
    #[schemars(schema_with = "exhaustion_state")]
    pub state: &'static str,
    /// For how long it has been so.
    pub age_seconds: Seconds,
    /// Why there is no room: `database_unreachable`, `limited_by_database`, `queries` (most of the
    /// connections that are held run queries) or `held` (most do not); null while it is healthy.
    pub cause: Option<&'static str>,
}

fn exhaustion_state(_: &mut SchemaGenerator) -> Schema {
    let words = budget::State::ALL.map(budget::State::as_str);
    json_schema!({"type": "string", "enum": words})
}

impl From<budget::Exhaustion> for Exhaustion {
    fn from(it: budget::Exhaustion) -> Self {
        Self {
            state: it.state.as_str(),
            age_seconds: Seconds(it.since.elapsed()),
            cause: it.cause.map(budget::Cause::as_str),
        }
    }
}

/// A database as it was last seen.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UpstreamStatus {
    /// The upstream's name.
    pub name: String,
    /// Whether it answered; null before the first answer.
    pub reachable: Option<bool>,
    /// The round trip of a trivial query.
    pub latency_seconds: Option<Seconds>,
    /// How long ago that was.
    pub checked_seconds_ago: Option<Seconds>,
    /// Why it did not answer.
    pub error: Option<String>,
}

/// How many executions there are and were.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExecutionCounts {
    /// Sessions may join them.
    pub active: usize,
    /// They are on their way out.
    pub ending: usize,
    /// Ended since the start, by reason.
    pub ended: BTreeMap<&'static str, u64>,
}

/// A count for each state that is told.
fn by_state(_: &mut SchemaGenerator) -> Schema {
    let count = json!({"type": "integer", "minimum": 0, "description": "Those in this state."});
    let words = State::ALL.map(State::as_str);
    let properties: BTreeMap<&str, &Value> = words.iter().map(|word| (*word, &count)).collect();
    json_schema!({"type": "object", "properties": properties, "required": words})
}

/// A session, or null, for each state that is told.
fn oldest(generator: &mut SchemaGenerator) -> Schema {
    let mut one = generator.subschema_for::<Option<OldestSession>>();
    let told = "The one that has stood in this state for longest; null where none is in it.";
    one.insert("description".to_owned(), told.into());
    let words = State::ALL.map(State::as_str);
    let properties: BTreeMap<&str, &Schema> = words.iter().map(|word| (*word, &one)).collect();
    json_schema!({"type": "object", "properties": properties, "required": words})
}

/// How many sessions there are and were.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionCounts {
    /// All that are there.
    pub total: usize,
    /// Those in each state.
    #[serde(flatten)]
    #[schemars(schema_with = "by_state")]
    pub by_state: BTreeMap<&'static str, usize>,
    /// Ever opened.
    pub opened: u64,
    /// Ever closed.
    pub closed: u64,
    /// Connections that became no session, by why.
    pub refused: BTreeMap<&'static str, u64>,
    /// Ended by a fault of execpool's.
    pub panics: u64,
    /// Those that are suspected of having been forgotten.
    pub leak_suspects: u64,
    /// What has happened to suspicions since the start.
    pub leaks: Leaks,
    /// The session that has stood in each state for longest; null where none is in it.
    #[schemars(schema_with = "oldest")]
    pub oldest: BTreeMap<&'static str, Option<OldestSession>>,
}

/// What has happened to suspicions since the start: each that began has come to one of the other ends,
/// or still lasts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Leaks {
    /// Suspicions that began.
    pub suspect: u64,
    /// The session has queried after all.
    pub recovered: u64,
    /// A cleanup has ended the session.
    pub reclaimed: u64,
    /// The session has ended otherwise, suspected to its end.
    pub ended: u64,
}

/// The session that has stood in one state for longest.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OldestSession {
    /// Its number.
    pub id: u64,
    /// Its execution's name.
    pub execution: String,
    /// For how long it has stood there.
    pub state_age_seconds: Seconds,
}

impl From<Oldest> for OldestSession {
    fn from(oldest: Oldest) -> Self {
        Self {
            id: oldest.id.0,
            execution: oldest.execution.to_string(),
            state_age_seconds: Seconds(oldest.state_age),
        }
    }
}

/// How fast sessions and executions come and go.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Rates {
    /// Over how long this is: a minute, or less after the start.
    pub over_seconds: Seconds,
    /// Sessions that were opened.
    pub sessions_opened_per_second: f64,
    /// Sessions that were closed.
    pub sessions_closed_per_second: f64,
    /// Executions that began.
    pub executions_begun_per_second: f64,
    /// Executions that ended.
    pub executions_ended_per_second: f64,
}

impl From<PerSecond> for Rates {
    fn from(rates: PerSecond) -> Self {
        Self {
            over_seconds: Seconds(rates.over),
            sessions_opened_per_second: rates.sessions_opened,
            sessions_closed_per_second: rates.sessions_closed,
            executions_begun_per_second: rates.executions_begun,
            executions_ended_per_second: rates.executions_ended,
        }
    }
}

/// What apps have registered with all executions.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ResourceTotals {
    /// What is registered now.
    pub registered: ResourceCounts,
    /// Those that were not released within their ttl, since the start.
    pub expired: u64,
}

/// How many resources there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResourceCounts {
    /// Connections that are none of execpool's.
    pub connection: usize,
    /// Browsers, or pages of them.
    pub browser: usize,
    /// HTTP clients.
    pub http: usize,
    /// Open or temporary files.
    pub file: usize,
    /// Anything else.
    pub other: usize,
}

impl From<execution::ResourceCounts> for ResourceCounts {
    fn from(counts: execution::ResourceCounts) -> Self {
        Self {
            connection: counts.of(ResourceKind::Connection),
            browser: counts.of(ResourceKind::Browser),
            http: counts.of(ResourceKind::Http),
            file: counts.of(ResourceKind::File),
            other: counts.of(ResourceKind::Other),
        }
    }
}

/// A resource that an app has registered with an execution: the answer of
/// `POST /v1/executions/{id}/resources`, and one of those of `GET /v1/executions/{id}`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Resource {
    /// Its number, by which it is released; none is given twice.
    pub id: u64,
    /// What it is: connection, browser, http, file or other.
    pub kind: &'static str,
    /// What the app calls it.
    pub name: String,
    /// How long it has been registered.
    pub age_seconds: Seconds,
    /// The time until it is forgotten; null without a ttl.
    pub expires_in_seconds: Option<Seconds>,
}

impl From<execution::Registered> for Resource {
    fn from(one: execution::Registered) -> Self {
        Self {
            id: one.id.0,
            kind: one.kind.as_str(),
            name: one.name,
            age_seconds: Seconds(one.age),
            expires_in_seconds: one.expires_in.map(Seconds),
        }
    }
}

/// A line of `GET /v1/executions/{id}/hold`, at the end of the execution; all others are empty.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schemars(transform = with_word_described)]
pub enum HoldLine {
    /// What is still registered: for the app to close. Only where there is something.
    ResourcesLeft {
        /// The oldest first.
        resources: Vec<Resource>,
    },
    /// The last line.
    Ended {
        /// Why; null where that is not known any more.
        reason: Option<&'static str>,
    },
}

/// Describes the word that tells lines apart.
fn with_word_described(schema: &mut Schema) {
    let lines = schema.get_mut("oneOf").and_then(Value::as_array_mut);
    for line in lines.into_iter().flatten() {
        line["properties"]["event"]["description"] = "What is told.".into();
    }
}

/// The process's memory.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Memory {
    /// What is resident; null where the system does not tell.
    pub resident_bytes: Option<u64>,
}

/// `POST /v1/executions`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Created {
    /// The execution's name.
    pub id: String,
    /// Which of that name, from 1.
    pub generation: u64,
    /// How it came to be.
    pub kind: &'static str,
    /// A PostgreSQL URL by which a driver joins it.
    pub url: String,
    /// The startup parameters that name it, for a driver that is given them apart from a URL.
    pub parameters: BTreeMap<&'static str, String>,
    /// The time until its deadline; null without one.
    pub deadline_seconds: Option<Seconds>,
}

/// What `POST /v1/executions` takes. The body is read field by field, so that what is wrong with
/// one can be told; this is what is described of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Its name; without it one is made up.
    pub id: Option<String>,
    /// The time until its deadline, such as `20m`; without it `execution.max_duration`.
    pub deadline: Option<String>,
    /// What the app wants to remember it by; without it nothing.
    pub labels: Option<BTreeMap<String, String>>,
    /// The limits of its pools; without it the upstream's.
    pub pool: Option<PoolRequest>,
    /// When a session returns its connection: `session`, also without it.
    pub mode: Option<String>,
}

/// The limits of the pools of an execution.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// How many may stay open idle; without it the upstream's.
    pub size: Option<u32>,
    /// How many more while in use; without it the upstream's.
    pub overflow: Option<u32>,
}

/// What `POST /v1/executions/{id}/heartbeat` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// How far from now on the deadline is to be, such as `10m`; without it as far as at first.
    pub extend: Option<String>,
}

/// What `POST /v1/cleanup` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CleanupRequest {
    /// Whether to tell only what would be done; without it, it is done.
    pub dry_run: Option<bool>,
    /// The execution that it is about; without it, what makes room for those that wait.
    pub execution: Option<String>,
}

/// What `POST /v1/executions/{id}/resources` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceRequest {
    /// What it is: connection, browser, http, file or other.
    pub kind: String,
    /// What the app calls it: 1 to 256 bytes without control characters.
    pub name: String,
    /// After how long it is forgotten, such as `10m`; without it never.
    pub ttl: Option<String>,
}

/// What `POST /v1/executions/{id}/query` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// One statement.
    pub sql: String,
    /// The values of `$1`, `$2` and so on: null, strings, numbers, booleans; arrays for array types;
    /// objects and arrays for json and jsonb. Without it there are none.
    pub params: Option<Vec<Value>>,
    /// How long it may take, waits included, an hour at most; without it 30 s.
    pub timeout: Option<String>,
    /// How many rows are answered, 10,000 at most; without it 1,000.
    pub max_rows: Option<u32>,
    /// The upstream's name; without it the first.
    pub upstream: Option<String>,
}

/// `POST /v1/executions/{id}/heartbeat`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Heartbeat {
    /// The execution's name.
    pub id: String,
    /// Which of that name, from 1.
    pub generation: u64,
    /// The time until its deadline; null without one.
    pub deadline_seconds: Option<Seconds>,
}

/// What the sessions of an execution, or one session, have done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Work {
    /// Queries.
    pub queries: u64,
    /// How long server connections were held.
    pub held_seconds: Seconds,
    /// How long of that they worked.
    pub active_seconds: Seconds,
    /// How long of that they waited inside a transaction.
    pub idle_in_transaction_seconds: Seconds,
    /// How long of that they waited outside of one.
    pub idle_seconds: Seconds,
    /// The share of work in the held time; null if nothing was held.
    pub hold_efficiency: Option<f64>,
    /// How often a session was suspected of having been forgotten.
    pub leaks: u64,
}

impl From<Totals> for Work {
    fn from(totals: Totals) -> Self {
        Self {
            queries: totals.queries,
            held_seconds: Seconds(totals.held.total()),
            active_seconds: Seconds(totals.held.active),
            idle_in_transaction_seconds: Seconds(totals.held.in_transaction),
            idle_seconds: Seconds(totals.held.idle),
            hold_efficiency: totals.held.efficiency(),
            leaks: totals.leaks,
        }
    }
}

/// An execution that has not ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Execution {
    /// Its name.
    pub id: String,
    /// Which of that name, from 1.
    pub generation: u64,
    /// `active` or `ending`.
    pub state: &'static str,
    /// How it came to be: explicit, implicit, shared or session.
    pub kind: &'static str,
    /// Why it is ending; null while it is active.
    pub reason: Option<&'static str>,
    /// How long it has been there.
    pub age_seconds: Seconds,
    /// The time until its deadline; null without one.
    pub deadline_seconds: Option<Seconds>,
    /// Open streams that hold it.
    pub holds: usize,
    /// What the app wants to remember it by.
    pub labels: BTreeMap<String, String>,
    /// Sessions in it now.
    pub sessions: usize,
    /// Sessions that ever joined.
    pub sessions_joined: u64,
    /// What its sessions have done.
    #[serde(flatten)]
    pub work: Work,
    /// How many resources the app has registered with it.
    pub resources: ResourceCounts,
    /// Its pools that have been used.
    pub pools: Vec<Pool>,
}

/// `GET /v1/executions/{id}` of one that has not ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExecutionDetails {
    /// What the list says of it.
    #[serde(flatten)]
    pub execution: Execution,
    /// Its resources, the oldest first.
    pub registered: Vec<Resource>,
    /// What has happened, the oldest first; not there unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<StoryEvent>>,
    /// How many older ones are no longer known; not there unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_dropped: Option<u64>,
}

/// Something that has happened in an execution, or still lasts. What is told of each event:
/// `docs/control-api.md`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct StoryEvent {
    /// When: RFC 3339, UTC.
    pub at: String,
    /// How long the execution had been there.
    pub offset_seconds: Seconds,
    /// What: the name of `/v1/events` and of the log, where they tell of the same.
    pub event: &'static str,
    /// Whose session; not there where it is about the execution as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<u64>,
    /// `true` where it lasts, and is told as far as it has come; not there otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ongoing: Option<bool>,
    /// The process at the other end, where it is known; not there but with a session's first event
    /// here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_pid: Option<i32>,
    /// Where the app opened the connection, its beginning, if it was sent; not there but with a
    /// session's first event here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Its label, its beginning, if it was sent; not there but with a
    /// session's first event here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its `application_name`, its beginning, if it has one; not there but with a session's first
    /// event here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_name: Option<String>,
    /// What a wait is for (pool, budget, database, paused, away, dialling), or the knob of
    /// a limit in time; not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'static str>,
    /// How long it had waited for a server connection; not there where it did not wait for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_seconds: Option<Seconds>,
    /// The backend; not there but where a connection is lent, or at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_pid: Option<i32>,
    /// How many queries; not there but for queries and for a session that has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<u64>,
    /// How long it took or lasted, or from the first to the last; not there where it is a moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<Seconds>,
    /// How long of that the server worked; not there but for queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_seconds: Option<Seconds>,
    /// How long the server connection was lent, over all checkouts for a session that has
    /// left; not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_seconds: Option<Seconds>,
    /// The code of the error, of the last one where there were several; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The class of the last error that came among these queries; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Where the error came; not there but for errors of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    /// How a server connection came back: clean, rolled_back, reset_failed or closed;
    /// not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<&'static str>,
    /// Who has cancelled: client, request (the control API), disconnect (the client has
    /// gone) or ended (its session was ended); not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'static str>,
    /// Why the execution ends; not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// How the execution came to be, or what a resource is; not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The time until its deadline then; not there without one, and for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<Seconds>,
    /// How many: heartbeats, sessions, backends, resources or errors; not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Streams that hold it then; not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<u32>,
    /// Backends that were still there at the end; not there for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<u32>,
}

/// `GET /v1/executions/{id}`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Found {
    /// It has not ended.
    Alive(Box<ExecutionDetails>),
    /// It has ended.
    Ended(Box<Ended>),
}

/// The server connections of an execution to one upstream.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pool {
    /// The upstream's name.
    pub upstream: String,
    /// How many may stay open idle; null where the budget alone limits it.
    pub size: Option<usize>,
    /// How many more while in use.
    pub overflow: Option<usize>,
    /// All that are open.
    pub open: usize,
    /// Those with a session.
    pub lent: usize,
    /// Those in the pool.
    pub idle: usize,
    /// Those that are being opened.
    pub connecting: usize,
    /// Those that are being closed.
    pub closing: usize,
    /// The most that were open at once.
    pub peak: usize,
    /// Checkouts that wait.
    pub waiting: usize,
    /// How long the first of these has waited.
    pub oldest_wait_seconds: Seconds,
    /// The backends.
    pub server_pids: Vec<i32>,
}

/// An execution that has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ended {
    /// Its name.
    pub id: String,
    /// Which of that name, from 1.
    pub generation: u64,
    /// `ended`; `ending` where its end was no longer waited for.
    pub state: &'static str,
    /// Why it ended.
    pub reason: &'static str,
    /// What the client gave as its reason.
    pub reason_text: Option<String>,
    /// From its beginning to its end.
    pub duration_seconds: Seconds,
    /// How long ago it ended; null where it has not.
    pub ended_seconds_ago: Option<Seconds>,
    /// Sessions that ever joined.
    pub sessions_joined: u64,
    /// What its sessions have done.
    #[serde(flatten)]
    pub work: Work,
    /// The most server connections that it had at once, over its pools.
    pub peak_connections: usize,
    /// Server connections that were still there when it ended.
    pub leftovers: usize,
    /// Resources that were still registered when it ended: the app's to close.
    pub resources_left: ResourceCounts,
    /// Whether somebody may want to know how it came to that: see `docs/control-api.md`.
    pub ended_badly: bool,
    /// What has happened, the oldest first; not there unless it was asked for, nor where it was not
    /// kept, as it ended well, or as there was no room for so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<StoryEvent>>,
    /// How many older ones are no longer known; not there without `events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_dropped: Option<u64>,
}

/// `DELETE /v1/executions/{id}`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deleted {
    /// What is kept of it.
    #[serde(flatten)]
    pub summary: Ended,
    /// Whether nothing of it is left at the database.
    pub complete: bool,
    /// The backends that remain, as far as they are known; not there if it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_pids: Option<Vec<i32>>,
}

/// One of the list of executions.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Listed {
    /// It has not ended.
    Alive(Box<Execution>),
    /// It has ended.
    Ended(Box<Ended>),
}

/// A session.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// Its execution's name.
    pub execution: String,
    /// The name of its upstream.
    pub upstream: String,
    /// The database that it named.
    pub database: String,
    /// Its `application_name`.
    pub application_name: Option<String>,
    /// Where it stands.
    pub state: &'static str,
    /// How long it has been there.
    pub age_seconds: Seconds,
    /// For how long it has stood there.
    pub state_age_seconds: Seconds,
    /// For how long it has asked nothing while it holds a server connection; null if it holds none, or
    /// if that works.
    pub idle_for_seconds: Option<Seconds>,
    /// Whether it is suspected of having been forgotten: it has asked nothing for
    /// `session.leak_after`.
    pub leak_suspect: bool,
    /// How long its transaction has been open; null if none is.
    pub transaction_seconds: Option<Seconds>,
    /// What it has done.
    #[serde(flatten)]
    pub work: Work,
    /// Where it was opened in the app.
    pub caller: Option<String>,
    /// Free text of the app's.
    pub label: Option<String>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// Who opened it.
    pub peer: Peer,
    /// The backend that it holds.
    pub server_pid: Option<i32>,
    /// Its last statement without literals; null before the first.
    pub statement: Option<String>,
}

/// `POST /v1/sessions/{id}/cancel`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionCancelled {
    /// The session's number.
    pub id: u64,
    /// Its execution's name.
    pub execution: String,
    /// `query`: the server is being asked to cancel it (202); `wait`: it is over (200).
    pub cancelled: &'static str,
}

/// `DELETE /v1/sessions/{id}`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionEnded {
    /// The session as it was when it was told to end.
    #[serde(flatten)]
    pub session: Session,
    /// Whether it and its server connection are gone.
    pub complete: bool,
    /// The backend that it held, if that is not known to be gone.
    pub remaining_pid: Option<i32>,
}

/// `POST /v1/cleanup`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cleanup {
    /// Whether nothing was done, and this tells what would be.
    pub dry_run: bool,
    /// Whether nobody waited for the budget when it was asked for: then no session was ended, unless
    /// it was about one execution.
    pub nobody_waits: bool,
    /// Whether nobody waits for the budget now (would wait, with `dry_run`), and all that was told to
    /// end has gone.
    pub complete: bool,
    /// What was closed, or would be, in this order.
    pub closed: Vec<Closed>,
    /// Checkouts that wait for the budget now; would wait, with `dry_run`.
    pub waiting: usize,
    /// Leak suspects of no named execution that `session.reclaim_leaks: false` has spared.
    pub spared: usize,
    /// Sessions that were told to end and had not gone in time.
    pub remaining_sessions: Vec<u64>,
}

/// What a cleanup has closed, or would.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Closed {
    /// `leftover`, `idle_in_transaction`, `leak_suspect` or `unnamed_leak_suspect`.
    pub why: &'static str,
    /// Its execution's name.
    pub execution: String,
    /// The backend.
    pub server_pid: Option<i32>,
    /// The session as it was; null for a leftover.
    pub session: Option<Session>,
}

/// Who is at the other end of a client's connection.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Peer {
    /// A process at the Unix socket.
    Unix {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its number; null where it lives in another PID namespace.
        pid: Option<i32>,
    },
    /// A TCP connection.
    Tcp {
        /// Where it comes from: address and port.
        address: String,
    },
}

/// `POST /v1/executions/{id}/query`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Queried {
    /// The columns; none where the statement gives no rows.
    pub columns: Vec<Column>,
    /// The rows, each an array with a value for each column: null, true and false, numbers of the types
    /// int2, int4, int8, float4 and float8 (their infinities and NaN are strings), json and jsonb as
    /// they are, everything else as the text that PostgreSQL has for it.
    #[schemars(with = "Vec<Vec<Value>>")]
    pub rows: Box<RawValue>,
    /// The command tag, such as `SELECT 3`; null where rows were left out before the end, and for an
    /// empty statement.
    pub command: Option<String>,
    /// Whether rows were left out, by `max_rows` or by the bound of 1 MiB.
    pub truncated: bool,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The name of its type, as in `pg_type`; its number where that could not be asked.
    pub r#type: String,
}

/// `POST /v1/pause`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pause {
    /// Whether it is in force; it may have been resumed meanwhile.
    pub paused: bool,
    /// Whether no transaction runs any more.
    pub complete: bool,
    /// For how long it has been in force.
    pub paused_seconds: Option<Seconds>,
    /// When it ends by itself; null: by `POST /v1/resume` alone.
    pub resumes_in_seconds: Option<Seconds>,
    /// Server connections that sessions hold, idle ones among them.
    pub held: usize,
    /// Those that still work, and dials.
    pub at_work: usize,
    /// Checkouts that wait.
    pub waiting: usize,
    /// The sessions that still run, 100 at most; empty if it is complete.
    pub running: Vec<Session>,
}

/// `POST /v1/resume`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Resumed {
    /// Whether it is paused: never.
    pub paused: bool,
    /// Whether it was.
    pub was_paused: bool,
}

/// `POST /v1/reconnect`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reconnected {
    /// Idle connections, which are being closed.
    pub closed: usize,
    /// Lent ones, which are closed when they come back.
    pub lent: usize,
}

/// In `GET /v1/events`: events that are not kept any more.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventsLost {
    /// The word for it: `events.lost`.
    pub event: &'static str,
    /// How many, of this process.
    pub lost: u64,
    /// Whether the process was started anew since the event that was last read, so that its own
    /// are all that there are.
    pub restarted: bool,
}

/// `POST /v1/drain`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Draining {
    /// Whether the pod is about to end: always.
    pub draining: bool,
    /// Sessions that are still served.
    pub sessions: usize,
}

/// `POST /quitquitquit`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Quitting {
    /// Whether the process is about to end: always.
    pub quitting: bool,
}

/// `GET /v1/database/health`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DatabaseHealth {
    /// One for each upstream, in the order of the configuration.
    pub upstreams: Vec<UpstreamHealth>,
}

/// How a database is now.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct UpstreamHealth {
    /// The upstream's name.
    pub name: String,
    /// Whether it answered.
    pub reachable: bool,
    /// The round trip of a trivial query.
    pub latency_seconds: Option<Seconds>,
    /// The server's version, in its words.
    pub server_version: Option<String>,
    /// The server's limit of connections.
    pub max_connections: Option<u32>,
    /// How many of these ordinary roles may not use.
    pub reserved: Option<u32>,
    /// Those that execpool has for this upstream, its monitor's among them.
    pub ours: Option<u32>,
    /// All others of the server.
    pub others: Option<u32>,
    /// Whether it is a standby.
    pub in_recovery: Option<bool>,
    /// Why it did not answer.
    pub error: Option<String>,
}

/// The word for a kind of execution.
pub(super) fn kind(kind: Kind) -> &'static str {
    kind.as_str()
}

impl From<View> for Execution {
    fn from(view: View) -> Self {
        Self {
            id: view.id.to_string(),
            generation: view.generation,
            state: match view.ending {
                None => "active",
                Some(_) => "ending",
            },
            kind: kind(view.kind),
            reason: view.ending.map(crate::execution::Reason::as_str),
            age_seconds: Seconds(view.age),
            deadline_seconds: view.deadline_in.map(Seconds),
            holds: view.holds,
            labels: view.labels,
            sessions: view.sessions,
            sessions_joined: view.joined,
            work: view.totals.into(),
            resources: view.resources.into(),
            pools: view.pools.into_iter().map(Pool::from).collect(),
        }
    }
}

impl From<PoolView> for Pool {
    fn from(pool: PoolView) -> Self {
        Self {
            upstream: pool.upstream.to_string(),
            size: pool.limits.map(|limits| limits.size),
            overflow: pool.limits.map(|limits| limits.overflow),
            open: pool.counts.open(),
            lent: pool.counts.lent,
            idle: pool.counts.idle,
            connecting: pool.counts.connecting,
            closing: pool.counts.closing,
            peak: pool.peak,
            waiting: pool.queue.waiting,
            oldest_wait_seconds: Seconds(pool.queue.oldest),
            server_pids: pool.pids,
        }
    }
}

impl From<&Summary> for Ended {
    fn from(summary: &Summary) -> Self {
        let duration = summary.ended.saturating_duration_since(summary.started);
        Self {
            id: summary.id.to_string(),
            generation: summary.generation,
            state: "ended",
            reason: summary.reason.as_str(),
            reason_text: summary.text.as_ref().map(|text| text.as_str().to_owned()),
            duration_seconds: Seconds(duration),
            ended_seconds_ago: Some(Seconds(summary.ended.elapsed())),
            sessions_joined: summary.sessions,
            work: summary.remains.totals.into(),
            peak_connections: summary.remains.peak,
            leftovers: summary.remains.leftovers,
            resources_left: summary.remains.resources.into(),
            ended_badly: summary.ended_badly(),
            events: None,
            events_dropped: None,
        }
    }
}
