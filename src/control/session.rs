//! `POST /v1/sessions/{id}/cancel` and `DELETE /v1/sessions/{id}`.

use std::sync::Arc;

use http::StatusCode;

use crate::events::{Event, Text};
use crate::execution::cancel::Cancelled;
use crate::execution::{Gone, ReasonText};
use crate::metrics::words::{Close, Origin};
use crate::protocol::message::{Report, Severity, SqlState};
use crate::session::{self, Ending, Grace, SessionId};
use crate::story::{self, Word};

use super::Control;
use super::problem::{Kind, Problem, repeated};
use super::query::Query;
use super::router::{Answer, Asked, json};
use super::server::Place;
use super::sessions;
use super::types::{SessionCancelled, SessionEnded};

/// What there was to cancel, as it is told.
enum What {
    Query,
    Wait,
    Nothing(session::State),
}

/// Cancels what a session does, as a cancel request of its own would. Waits for no database.
pub(super) async fn cancel(control: &Control, asked: &Asked, place: &Place) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let id = id(asked)?;
    let found = control.remote.ask(move |executions| {
        let session = executions.sessions().get(id)?;
        let cancelled = executions.cancel(&session);
        if cancelled.is_some() {
            let origin = Word::of("request");
            session.tell(story::What::Cancelled { origin });
        }
        let what = match cancelled {
            Some(Cancelled::Query(request)) => {
                tokio::spawn(request.send());
                What::Query
            }
            Some(Cancelled::Wait) => What::Wait,
            None => What::Nothing(session.state()),
        };
        if !matches!(what, What::Nothing(_)) {
            executions.lender().counters().cancelled(Origin::Other);
        }
        Some((session.identity().execution.to_string(), what))
    });
    let (execution, what) = found.await?.ok_or_else(|| none(asked))?;
    let (status, cancelled) = match what {
        What::Query => (StatusCode::ACCEPTED, "query"),
        What::Wait => (StatusCode::OK, "wait"),
        What::Nothing(state) => {
            return Err(Problem::new(
                Kind::NothingToCancel,
                format!("session {id} runs nothing: it is {}", state.as_str()),
                "DELETE /v1/sessions/{id} ends it.",
            ));
        }
    };
    let who = place.who();
    let event = Event::SessionCancelled {
        session_id: id.0,
        execution_id: Text::name(&execution),
        cancelled: Text::word(cancelled),
        who: Text::word(&who),
        unsaid: 0,
    };
    tracing::info!(
        event = event.name(),
        session_id = id.0,
        execution_id = execution,
        cancelled,
        who,
        "cancelled on request"
    );
    control.remote.events().tell(event);
    let answer = SessionCancelled {
        id: id.0,
        execution,
        cancelled,
    };
    json(status, &answer)
}

/// Ends a session, and waits until its server connection is gone, for 5 s at most.
pub(super) async fn delete(control: &Control, asked: &Asked, place: &Place) -> Answer {
    let query = Query::parse(asked.query.as_deref(), &["reason"])?;
    let id = id(asked)?;
    let text = query.get("reason").map(ReasonText::new);
    let who = place.who();
    let events = Arc::clone(control.remote.events());
    let told = control.remote.ask(move |executions| {
        executions.dismiss(id, |session| {
            events.tell(log_ended(session, &who, text.as_ref()));
            ending(session, &who, text.as_ref())
        })
    });
    let dismissed = told.await?.ok_or_else(|| none(asked))?;
    // Dropped untold only where the data plane ends.
    let dismissed = dismissed.await.map_err(|_| Gone)?;
    let complete = dismissed.is_complete;
    let session = sessions::session(&dismissed.session);
    let answer = SessionEnded {
        complete,
        remaining_pid: session.server_pid.filter(|_| !complete),
        session,
    };
    json(StatusCode::OK, &answer)
}

fn log_ended(session: &session::Session, who: &str, text: Option<&ReasonText>) -> Event {
    let execution = &session.identity().execution;
    let text = text.map(ReasonText::as_str);
    let event = Event::SessionEnded {
        session_id: session.id().0,
        execution_id: Text::name(execution.as_str()),
        reason_text: text.map(Text::sentence),
        who: Text::word(who),
        unsaid: 0,
    };
    tracing::info!(
        event = event.name(),
        session_id = session.id().0,
        execution_id = %execution,
        reason_text = text,
        who,
        "a session is ended on request"
    );
    event
}

/// What its client is told.
fn ending(session: &session::Session, who: &str, text: Option<&ReasonText>) -> Ending {
    let execution = &session.identity().execution;
    let by = match text {
        Some(text) => format!("{who}: {}", text.as_str()),
        None => who.to_owned(),
    };
    let message = format!(
        "execpool: a session of execution {execution} was ended through the control API by {by}"
    );
    let hint = "Its server connection is closed. Connect again, unless it was meant to stop.";
    Ending {
        cause: Close::Deleted,
        report: Report::new(Severity::Fatal, SqlState::ADMIN_SHUTDOWN, message).with_hint(hint),
        grace: Grace::none(),
    }
}

/// The session that the path names. What is no number is none either.
fn id(asked: &Asked) -> Result<SessionId, Problem> {
    asked.id().parse().map(SessionId).map_err(|_| none(asked))
}

fn none(asked: &Asked) -> Problem {
    Problem::new(
        Kind::NoSuchSession,
        format!("there is no session {}", repeated(asked.id())),
        "GET /v1/sessions lists them; one that has ended is not remembered.",
    )
}
