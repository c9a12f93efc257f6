//! From a request to its answer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::execution::ResourceId;
use crate::protocol::startup::{ExecutionId, InvalidExecutionId};

use super::problem::{Kind, Problem, near, repeated};
use super::server::Place;
use super::{
    Control, body, cleanup, configuration, create, events, executions, health, heartbeat, hold,
    life, openapi, pause, resources, seeds, session, sessions, sql, status,
};

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a route comes to.
pub(super) type Answer = Result<Response<Body>, Problem>;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Route {
    Status,
    Executions,
    Execution,
    Heartbeat,
    Hold,
    Resources,
    Resource,
    Query,
    Sessions,
    Session,
    CancelSession,
    Cleanup,
    Health,
    Events,
    Config,
    Reload,
    Pause,
    Resume,
    Reconnect,
    Drain,
    Quit,
    OpenApi,
    SeedsStatus,
    SeedsCleanup,
}

impl Route {
    /// Whether it is for who administrates the whole sidecar.
    fn is_administrative(self) -> bool {
        matches!(
            self,
            Self::Session
                | Self::CancelSession
                | Self::Cleanup
                | Self::Pause
                | Self::Resume
                | Self::Reconnect
                | Self::Drain
                | Self::Quit
                | Self::Reload
                | Self::SeedsCleanup
        )
    }
}

impl Route {
    /// What to do where it is not served.
    fn instead(self) -> &'static str {
        match self {
            Self::Reload => {
                "Change the file, which is read within seconds, send SIGHUP, or set control.admin: on."
            }
            Self::Session => "End its execution, if that has a name, or set control.admin: on.",
            _ => "Set control.admin: on.",
        }
    }
}

/// Where each is, and by which methods.
const ROUTES: [(&str, Route, &[&str]); 24] = [
    ("/v1/status", Route::Status, &["GET", "HEAD"]),
    (
        "/v1/executions",
        Route::Executions,
        &["GET", "HEAD", "POST"],
    ),
    (
        "/v1/executions/{id}",
        Route::Execution,
        &["GET", "HEAD", "DELETE"],
    ),
    ("/v1/executions/{id}/heartbeat", Route::Heartbeat, &["POST"]),
    // No HEAD: its end would end the execution.
    ("/v1/executions/{id}/hold", Route::Hold, &["GET"]),
    ("/v1/executions/{id}/resources", Route::Resources, &["POST"]),
    (
        "/v1/executions/{id}/resources/{rid}",
        Route::Resource,
        &["DELETE"],
    ),
    ("/v1/executions/{id}/query", Route::Query, &["POST"]),
    ("/v1/sessions", Route::Sessions, &["GET", "HEAD"]),
    ("/v1/sessions/{id}", Route::Session, &["DELETE"]),
    ("/v1/sessions/{id}/cancel", Route::CancelSession, &["POST"]),
    ("/v1/cleanup", Route::Cleanup, &["POST"]),
    ("/v1/database/health", Route::Health, &["GET", "HEAD"]),
    ("/v1/events", Route::Events, &["GET"]),
    ("/v1/config", Route::Config, &["GET", "HEAD"]),
    ("/v1/reload", Route::Reload, &["POST"]),
    ("/v1/pause", Route::Pause, &["POST"]),
    ("/v1/resume", Route::Resume, &["POST"]),
    ("/v1/reconnect", Route::Reconnect, &["POST"]),
    ("/v1/drain", Route::Drain, &["POST"]),
    ("/quitquitquit", Route::Quit, &["POST"]),
    ("/openapi.json", Route::OpenApi, &["GET", "HEAD"]),
    (
        "/api/memory/debug/connections/status",
        Route::SeedsStatus,
        &["GET", "HEAD"],
    ),
    (
        "/api/memory/debug/connections/cleanup",
        Route::SeedsCleanup,
        &["POST"],
    ),
];

/// A request that has found its route.
#[derive(Debug)]
pub(super) struct Asked {
    /// What stands in the path for `{id}` and `{rid}`.
    named: Named,
    /// The query string.
    pub(super) query: Option<String>,
    /// The body.
    pub(super) body: Bytes,
    /// The header `Last-Event-ID`.
    pub(super) last_event_id: Option<String>,
}

/// What a path names, decoded; empty where the route names nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    /// The execution.
    id: String,
    /// The resource of it.
    rid: String,
}

impl Asked {
    /// What stands in the path for `{id}`.
    pub(super) fn id(&self) -> &str {
        &self.named.id
    }

    /// The resource that the path names; none if it is no number.
    pub(super) fn resource(&self) -> Option<ResourceId> {
        self.named.rid.parse().ok().map(ResourceId)
    }

    /// The execution that the path names.
    pub(super) fn execution(&self) -> Result<ExecutionId, Problem> {
        execution_named(&self.named.id)
            .map_err(|error| invalid_id(Kind::InvalidExecutionId, &error))
    }
}

/// The execution of that name. Other than clients, who may not choose such a name, a request may
/// name an execution that belongs to one session.
pub(super) fn execution_named(id: &str) -> Result<ExecutionId, InvalidExecutionId> {
    let number = id.strip_prefix("session-");
    let number = number.and_then(|number| number.parse().ok());
    match number.map(ExecutionId::session) {
        Some(of_one) if of_one.as_str() == id => Ok(of_one),
        _ => id.parse(),
    }
}

/// A name that is none of an execution.
pub(super) fn invalid_id(kind: Kind, error: &InvalidExecutionId) -> Problem {
    Problem::new(kind, error.to_string(), InvalidExecutionId::ALLOWED)
}

impl Control {
    /// The answer to a request. A panic of its route ends it alone, and dropping it gives the
    /// route up.
    pub(super) async fn answer<B>(
        self: &Arc<Self>,
        request: Request<B>,
        place: &Arc<Place>,
    ) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (control, place) = (Arc::clone(self), Arc::clone(place));
        guarded(async move { control.route(request, &place).await }).await
    }

    async fn route<B>(self: &Arc<Self>, request: Request<B>, place: &Place) -> Answer
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        // Read whatever comes of it: an answer before the end of a body may be lost on its way.
        let body = body::read(body).await?;
        place.may_ask(self.outlook().facts.allow_uids.as_deref())?;
        let (route, named) = find(head.uri.path())?;
        allowed(route, &head.method, head.uri.path())?;
        if route.is_administrative() && !self.outlook().facts.admin {
            return Err(Problem::new(
                Kind::AdminOff,
                format!(
                    "{} is not served while control.admin is off",
                    head.uri.path()
                ),
                route.instead(),
            ));
        }
        let asked = Asked {
            named,
            query: head.uri.query().map(str::to_owned),
            body,
            last_event_id: head
                .headers
                .get("last-event-id")
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        };
        match (route, head.method) {
            (Route::Status, _) => status::get(self, &asked).await,
            (Route::Executions, Method::POST) => create::post(self, &asked).await,
            (Route::Executions, _) => executions::list(self, &asked).await,
            (Route::Execution, Method::DELETE) => executions::delete(self, &asked).await,
            (Route::Execution, _) => executions::get(self, &asked).await,
            (Route::Heartbeat, _) => heartbeat::post(self, &asked).await,
            (Route::Hold, _) => hold::get(self, &asked, place).await,
            (Route::Resources, _) => resources::post(self, &asked).await,
            (Route::Resource, _) => resources::delete(self, &asked).await,
            (Route::Query, _) => sql::post(self, &asked, place).await,
            (Route::Sessions, _) => sessions::get(self, &asked).await,
            (Route::Session, _) => session::delete(self, &asked, place).await,
            (Route::CancelSession, _) => session::cancel(self, &asked, place).await,
            (Route::Cleanup, _) => cleanup::post(self, &asked).await,
            (Route::Health, _) => health::get(self, &asked).await,
            (Route::Events, _) => events::get(self, &asked, place),
            (Route::Config, _) => configuration::get(self, &asked),
            (Route::Reload, _) => configuration::reload(self, &asked).await,
            (Route::Pause, _) => pause::pause(self, &asked).await,
            (Route::Resume, _) => pause::resume(self, &asked).await,
            (Route::Reconnect, _) => pause::reconnect(self, &asked).await,
            (Route::Drain, _) => life::drain(self, &asked).await,
            (Route::Quit, _) => life::quit(self, &asked).await,
            (Route::OpenApi, _) => openapi::get(self, &asked).await,
            (Route::SeedsStatus, _) => seeds::status(self, &asked).await,
            (Route::SeedsCleanup, _) => seeds::cleanup(self, &asked).await,
        }
    }
}

/// Runs a route in a task of its own, so that its panic is its own.
async fn guarded(route: impl Future<Output = Answer> + Send + 'static) -> Response<Body> {
    let mut task = JoinSet::new();
    task.spawn(route);
    match task.join_next().await {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(problem))) => problem.response(),
        Some(Err(_)) | None => {
            tracing::error!(
                event = "control.panic",
                "a request to the control API panicked"
            );
            let hint = "See the log, and report it.";
            Problem::new(Kind::Internal, "the request panicked", hint).response()
        }
    }
}

/// Every path and method that is served.
#[cfg(test)]
pub(super) fn served() -> impl Iterator<Item = (&'static str, &'static str)> {
    let routes = ROUTES.iter();
    routes.flat_map(|(path, _, methods)| methods.iter().map(move |method| (*path, *method)))
}

fn find(path: &str) -> Result<(Route, Named), Problem> {
    let found = ROUTES
        .iter()
        .find_map(|(pattern, route, _)| Some((*route, matched(pattern, path)?)));
    found.ok_or_else(|| {
        let paths = ROUTES.map(|(pattern, ..)| pattern);
        Problem::new(
            Kind::NoSuchRoute,
            format!("there is nothing at {}", repeated(path)),
            format!("Did you mean {}?", near(path, &paths, 3).join(", or ")),
        )
    })
}

/// What a path names that has this pattern.
fn matched(pattern: &str, path: &str) -> Option<Named> {
    let mut named = Named::default();
    let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let (mut left, mut right) = (pattern.split('/'), path.split('/'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Some(named),
            (Some("{id}"), Some(part)) if !part.is_empty() => named.id = decoded(part),
            (Some("{rid}"), Some(part)) if !part.is_empty() => named.rid = decoded(part),
            (Some(a), Some(b)) if a == b => {}
            _ => return None,
        }
    }
}

fn allowed(route: Route, method: &Method, path: &str) -> Result<(), Problem> {
    let methods = ROUTES.iter().find(|(_, known, _)| *known == route);
    let methods = methods.map_or(&[] as &[&str], |(.., methods)| methods);
    if methods.contains(&method.as_str()) {
        return Ok(());
    }
    let allowed = methods.join(", ");
    Err(Problem::method_not_allowed(method.as_str(), path, &allowed))
}

/// A body that is known as a whole.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec(value).map_err(|error| {
        let hint = "Report it.";
        Problem::new(
            Kind::Internal,
            format!("not to be said in JSON: {error}"),
            hint,
        )
    })?;
    body.push(b'\n');
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_path_with_the_id_decoded() {
        for (pattern, route, _) in ROUTES {
            let path = pattern.replace("{id}", "a%40b").replace("{rid}", "%37");
            let (found, named) = find(&path).unwrap();
            assert_eq!(found, route);
            let has = |part, decoded| if pattern.contains(part) { decoded } else { "" };
            assert_eq!(named.id, has("{id}", "a@b"));
            assert_eq!(named.rid, has("{rid}", "7"));
        }
    }

    #[test]
    fn a_wrong_path_is_told_the_nearest_ones() {
        for path in [
            "/v1/execution",
            "/",
            "",
            "/v1/executions/",
            "/v1/executions/a/b/c",
        ] {
            let problem = find(path).unwrap_err();
            assert_eq!(problem.kind(), Kind::NoSuchRoute, "{path}");
        }
        let problem = find("/v1/state").unwrap_err();
        assert!(format!("{problem:?}").contains("/v1/status"), "{problem:?}");
    }

    #[test]
    fn another_method_is_told_which_are_allowed() {
        for (path, route, methods) in ROUTES {
            for method in ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"] {
                let parsed = Method::from_bytes(method.as_bytes()).unwrap();
                let answer = allowed(route, &parsed, path);
                assert_eq!(answer.is_ok(), methods.contains(&method), "{method} {path}");
                if let Err(problem) = answer {
                    let response = problem.response();
                    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
                    assert_eq!(response.headers()[header::ALLOW], methods.join(", "));
                }
            }
        }
    }

    #[test]
    fn executions_of_one_session_can_be_named_by_a_path_and_nonsense_cannot() {
        let of = |id: &str| {
            let asked = Asked {
                named: Named {
                    id: id.to_owned(),
                    ..Named::default()
                },
                query: None,
                body: Bytes::new(),
                last_event_id: None,
            };
            asked.execution().map(|id| id.to_string())
        };
        assert_eq!(of("session-7"), Ok("session-7".to_owned()));
        assert_eq!(of("run@1"), Ok("run@1".to_owned()));
        for wrong in ["session-07", "session-x", "a b", ".a", "ä", "a/b"] {
            assert_eq!(of(wrong).unwrap_err().kind(), Kind::InvalidExecutionId);
        }
    }

    #[test]
    fn every_route_and_every_code_is_documented() {
        let page = include_str!("../../docs/control-api.md");
        for (path, _, methods) in ROUTES {
            for method in methods.iter().filter(|method| **method != "HEAD") {
                let route = format!("`{method} {path}");
                assert!(page.contains(&route), "{route}");
            }
        }
        for kind in Kind::ALL {
            let row = format!("| {} |", kind.status().as_u16());
            let row = page.lines().find(|line| line.starts_with(&row));
            let code = format!("`{}`", kind.code());
            assert!(row.is_some_and(|row| row.contains(&code)), "{code}");
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_request_ends_that_request_alone() {
        let response = guarded(async { panic!("on purpose") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
