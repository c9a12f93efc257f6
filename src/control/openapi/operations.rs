//! What each operation takes and answers.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::config::{Plan, RunningShown};
use crate::control::problem::Kind;
use crate::control::seeds;
use crate::control::types::{
    Cleanup, CleanupRequest, CreateRequest, Created, DatabaseHealth, Deleted, Draining, EventsLost,
    Found, Heartbeat, HeartbeatRequest, HoldLine, Listed, Pause, Queried, QueryRequest, Quitting,
    Reconnected, Resource, ResourceRequest, Resumed, Session, SessionCancelled, SessionEnded,
    Status,
};
use crate::events::Record;

/// A route by one method.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Its name for generated clients.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// In the query string; none of them must be there.
    pub(super) parameters: &'static [Parameter],
    /// What may be sent with it; nothing must be.
    pub(super) body: Option<Make>,
    /// By status.
    pub(super) answers: &'static [(u16, &'static str, Content)],
    /// Why it is refused, besides what any may be.
    pub(super) problems: &'static [Kind],
}

/// A parameter of the query string.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) meaning: &'static str,
}

/// Makes a schema.
pub(super) type Make = fn(&mut SchemaGenerator) -> Schema;

/// The body of an answer.
pub(super) enum Content {
    /// None.
    Nothing,
    /// One JSON document.
    Json(Make),
    /// A stream of this media type, and what one piece of it is.
    Stream(&'static str, Make),
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A message of `text/event-stream`.
fn message(generator: &mut SchemaGenerator) -> Schema {
    let event = generator.subschema_for::<Record>();
    let lost = generator.subschema_for::<EventsLost>();
    json_schema!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The event's number; not there for `events.lost`."},
            "event": {"type": "string", "description": "Its name."},
            "data": {
                "type": "string",
                "description": "One JSON object on one line.",
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": [event, lost]},
            },
        },
        "required": ["event", "data"],
    })
}

const fn text(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter {
        name,
        kind: "string",
        meaning,
    }
}

/// One that only reads, without parameters, body and problems of its own.
const GET: Operation = Operation {
    method: "GET",
    path: "",
    id: "",
    summary: "",
    parameters: &[],
    body: None,
    answers: &[],
    problems: &[],
};

/// The same that changes something.
const POST: Operation = Operation {
    method: "POST",
    ..GET
};

/// All of them, in the order of the routes.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/v1/status",
        id: "getStatus",
        summary: "The budget, the databases as last seen, counts",
        parameters: &[
            text(
                "include",
                "lists of the same moment: executions, sessions, or both with a comma between",
            ),
            text(
                "execution",
                "whose sessions are included; those of all without it",
            ),
        ],
        answers: &[(200, "the status", Content::Json(of::<Status>))],
        ..GET
    },
    Operation {
        path: "/v1/executions",
        id: "listExecutions",
        summary: "The executions that have not ended",
        parameters: &[Parameter {
            name: "ended",
            kind: "boolean",
            meaning: "those that have ended and are remembered, too",
        }],
        answers: &[(200, "the executions", Content::Json(of::<Vec<Listed>>))],
        ..GET
    },
    Operation {
        path: "/v1/executions",
        id: "createExecution",
        summary: "Begins an execution",
        parameters: &[text(
            "upstream",
            "whose URL is answered; the first without it",
        )],
        body: Some(of::<CreateRequest>),
        answers: &[
            (201, "a new execution", Content::Json(of::<Created>)),
            (
                200,
                "the implicit execution of that name, adopted",
                Content::Json(of::<Created>),
            ),
        ],
        problems: &[
            Kind::InvalidField,
            Kind::InvalidExecutionId,
            Kind::ExecutionExists,
        ],
        ..POST
    },
    Operation {
        path: "/v1/executions/{id}",
        id: "getExecution",
        summary: "The active execution of that name, or the one that is ending, or what is kept of the last",
        parameters: &[
            Parameter {
                name: "ended",
                kind: "boolean",
                meaning: "what is kept of the last that has ended, even if another one is active",
            },
            Parameter {
                name: "events",
                kind: "boolean",
                meaning: "what has happened in it, too: the last 200 events",
            },
        ],
        answers: &[(200, "the execution", Content::Json(of::<Found>))],
        problems: &[Kind::InvalidExecutionId, Kind::NoSuchExecution],
        ..GET
    },
    Operation {
        method: "DELETE",
        path: "/v1/executions/{id}",
        id: "endExecution",
        summary: "Ends it; answers when nothing of it is left at the database, after 5 s and the grace at most",
        parameters: &[
            text(
                "reason",
                "what its sessions are told, and its summary keeps",
            ),
            text("grace", "how long running queries may go on, such as 5s"),
        ],
        answers: &[(200, "its summary", Content::Json(of::<Deleted>))],
        problems: &[
            Kind::AdminOff,
            Kind::InvalidExecutionId,
            Kind::NoSuchExecution,
        ],
        ..GET
    },
    Operation {
        path: "/v1/executions/{id}/heartbeat",
        id: "moveDeadline",
        summary: "Moves the deadline",
        body: Some(of::<HeartbeatRequest>),
        answers: &[(200, "the deadline", Content::Json(of::<Heartbeat>))],
        problems: &[
            Kind::InvalidField,
            Kind::InvalidExecutionId,
            Kind::NoSuchExecution,
        ],
        ..POST
    },
    Operation {
        path: "/v1/executions/{id}/hold",
        id: "holdExecution",
        summary: "An empty line every 2 s; the execution ends hold.grace after the last such stream closes. The last line is {\"event\":\"ended\",\"reason\":…}",
        answers: &[(
            200,
            "lines, empty or JSON",
            Content::Stream("application/x-ndjson", of::<HoldLine>),
        )],
        problems: &[
            Kind::InvalidExecutionId,
            Kind::NoSuchExecution,
            Kind::TooManyHolds,
        ],
        ..GET
    },
    Operation {
        path: "/v1/executions/{id}/resources",
        id: "registerResource",
        summary: "Registers what the app has beside its sessions, for execpool to count and to remind of",
        body: Some(of::<ResourceRequest>),
        answers: &[(201, "the resource", Content::Json(of::<Resource>))],
        problems: &[
            Kind::InvalidField,
            Kind::InvalidExecutionId,
            Kind::NoSuchExecution,
            Kind::TooManyResources,
        ],
        ..POST
    },
    Operation {
        method: "DELETE",
        path: "/v1/executions/{id}/resources/{rid}",
        id: "releaseResource",
        summary: "Releases a resource",
        answers: &[(204, "it is released", Content::Nothing)],
        problems: &[
            Kind::InvalidExecutionId,
            Kind::NoSuchExecution,
            Kind::NoSuchResource,
        ],
        ..GET
    },
    Operation {
        path: "/v1/executions/{id}/query",
        id: "query",
        summary: "Runs one statement, as a session like any other",
        parameters: &[text("upstream", "the upstream's name, as in the body")],
        body: Some(of::<QueryRequest>),
        answers: &[(200, "its rows", Content::Json(of::<Queried>))],
        problems: &[
            Kind::InvalidField,
            Kind::InvalidExecutionId,
            Kind::ExecutionEnded,
            Kind::QueryFailed,
            Kind::QueryTimeout,
            Kind::NoConnection,
            Kind::TooManyQueries,
            Kind::DatabaseUnavailable,
        ],
        ..POST
    },
    Operation {
        path: "/v1/sessions",
        id: "listSessions",
        summary: "Who holds what, since when and from which line",
        parameters: &[
            text("execution", "those of this execution"),
            text("state", "those in this state"),
            text(
                "older_than",
                "those that have been there for so long, such as 5m",
            ),
            Parameter {
                name: "suspect",
                kind: "boolean",
                meaning: "those that seem to be forgotten, or that do not",
            },
        ],
        answers: &[(200, "the sessions", Content::Json(of::<Vec<Session>>))],
        problems: &[],
        ..GET
    },
    Operation {
        method: "DELETE",
        path: "/v1/sessions/{id}",
        id: "endSession",
        summary: "Ends a session (57P01); answers when its server connection is gone, after 5 s at most",
        parameters: &[text("reason", "what its client is told")],
        answers: &[(
            200,
            "the session as it was",
            Content::Json(of::<SessionEnded>),
        )],
        problems: &[Kind::AdminOff, Kind::NoSuchSession],
        ..GET
    },
    Operation {
        path: "/v1/sessions/{id}/cancel",
        id: "cancelSession",
        summary: "Cancels what a session does, as a cancel request of its own would",
        answers: &[
            (
                202,
                "the server is being asked",
                Content::Json(of::<SessionCancelled>),
            ),
            (200, "a wait is over", Content::Json(of::<SessionCancelled>)),
        ],
        problems: &[Kind::AdminOff, Kind::NoSuchSession, Kind::NothingToCancel],
        ..POST
    },
    Operation {
        path: "/v1/cleanup",
        id: "cleanUp",
        summary: "Emergency cleanup: makes room by ending sessions that ask nothing",
        body: Some(of::<CleanupRequest>),
        answers: &[(200, "what it closed and why", Content::Json(of::<Cleanup>))],
        problems: &[
            Kind::AdminOff,
            Kind::InvalidField,
            Kind::InvalidExecutionId,
            Kind::NoSuchExecution,
        ],
        ..POST
    },
    Operation {
        path: "/v1/database/health",
        id: "getDatabaseHealth",
        summary: "Asks the databases now",
        answers: &[
            (200, "all answer", Content::Json(of::<DatabaseHealth>)),
            (
                503,
                "one does not answer",
                Content::Json(of::<DatabaseHealth>),
            ),
        ],
        ..GET
    },
    Operation {
        path: "/v1/events",
        id: "followEvents",
        summary: "What happens, as server-sent events: id, event, and data with one JSON object",
        parameters: &[
            text(
                "last_event_id",
                "begin after this one; the header Last-Event-ID wins",
            ),
            text("execution", "those of this execution"),
            text("event", "those whose name begins so"),
        ],
        answers: &[(
            200,
            "server-sent events",
            Content::Stream("text/event-stream", message),
        )],
        problems: &[Kind::TooManyReaders],
        ..GET
    },
    Operation {
        path: "/v1/config",
        id: "getConfiguration",
        summary: "Every knob with its value, who said it, and how a change takes effect; no secrets",
        answers: &[(200, "the configuration", Content::Json(of::<RunningShown>))],
        ..GET
    },
    Operation {
        path: "/v1/reload",
        id: "reload",
        summary: "Reads the configuration anew",
        answers: &[(200, "what it changes", Content::Json(of::<Plan>))],
        problems: &[Kind::AdminOff, Kind::InvalidConfiguration],
        ..POST
    },
    Operation {
        path: "/v1/pause",
        id: "pause",
        summary: "Lets running transactions end and lends nothing; answers when none runs",
        parameters: &[
            text("timeout", "how long that is waited for; 30s without it"),
            text("for", "when it goes on by itself; never without it"),
        ],
        answers: &[(200, "how far it is", Content::Json(of::<Pause>))],
        problems: &[Kind::AdminOff],
        ..POST
    },
    Operation {
        path: "/v1/resume",
        id: "resume",
        summary: "Goes on after a pause",
        answers: &[(200, "whether it was paused", Content::Json(of::<Resumed>))],
        problems: &[Kind::AdminOff],
        ..POST
    },
    Operation {
        path: "/v1/reconnect",
        id: "reconnect",
        summary: "Replaces every server connection: idle ones now, lent ones when they come back",
        answers: &[(200, "how many", Content::Json(of::<Reconnected>))],
        problems: &[Kind::AdminOff],
        ..POST
    },
    Operation {
        path: "/v1/drain",
        id: "drain",
        summary: "Marks that the pod is about to end; ends nothing",
        answers: &[(200, "what is still served", Content::Json(of::<Draining>))],
        problems: &[Kind::AdminOff],
        ..POST
    },
    Operation {
        path: "/quitquitquit",
        id: "quit",
        summary: "Ends the process once nobody is left, within shutdown.grace",
        answers: &[(200, "it will end", Content::Json(of::<Quitting>))],
        problems: &[Kind::AdminOff],
        ..POST
    },
    Operation {
        path: "/openapi.json",
        id: "getOpenApi",
        summary: "This document",
        answers: &[(
            200,
            "an OpenAPI 3.1 document",
            Content::Json(of::<serde_json::Map<String, serde_json::Value>>),
        )],
        ..GET
    },
    Operation {
        path: "/api/memory/debug/connections/status",
        id: "getConnectionStatus",
        summary: "Counts per execution, as in the Python backends that execpool grew out of",
        answers: &[(200, "the counts", Content::Json(of::<seeds::Status>))],
        ..GET
    },
    Operation {
        path: "/api/memory/debug/connections/cleanup",
        id: "cleanUpConnections",
        summary: "The maintenance pass: leftovers of ended executions, never a live session",
        answers: &[(200, "the counts", Content::Json(of::<seeds::Status>))],
        problems: &[Kind::AdminOff],
        ..POST
    },
];
