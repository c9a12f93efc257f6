//! `GET /v1/executions`, and `GET` and `DELETE /v1/executions/{id}`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use tokio::sync::watch;

use crate::execution::{self, Reason, ReasonText, Registered, Summary, View};
use crate::protocol::startup::ExecutionId;
use crate::story::Story;

use super::Control;
use super::problem::{Kind, Problem};
use super::query::{Query, wrong};
use super::router::{Answer, Asked, json};
use super::story;
use super::types::{
    Deleted, Ended, Execution, ExecutionDetails, Found, Listed, Seconds, StoryEvent,
};

/// How long the end of an execution is waited for, beyond its grace.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one that ends at that very moment may take to tell how.
const TO_TELL: Duration = Duration::from_secs(1);

/// The longest grace that can be asked for.
const MOST_GRACE: Duration = Duration::from_secs(3600);

pub(super) async fn list(control: &Control, asked: &Asked) -> Answer {
    let ended = Query::parse(asked.query.as_deref(), &["ended"])?.flag("ended")?;
    let (views, summaries) = control
        .remote
        .ask(move |executions| {
            let summaries = ended.then(|| executions.summaries());
            (executions.views(), summaries.unwrap_or_default())
        })
        .await?;
    let alive = views.into_iter().map(alive);
    let gone = summaries.iter().map(gone);
    json(StatusCode::OK, &alive.chain(gone).collect::<Vec<_>>())
}

pub(super) async fn get(control: &Control, asked: &Asked) -> Answer {
    let query = Query::parse(asked.query.as_deref(), &["ended", "events"])?;
    let (ended, events) = (query.flag("ended")?, query.flag("events")?);
    let id = asked.execution()?;
    let known = id.clone();
    let look = control.remote.ask(move |executions| {
        let view = executions.view(&known).filter(|_| !ended);
        let view = view.map(|view| {
            let story = events.then(|| executions.story(&known)).flatten();
            (view, executions.resources_of(&known), story)
        });
        (view, latest(executions, &known))
    });
    let (view, summary) = look.await?;
    let found = view.map(|(view, resources, story)| alive_in_full(view, resources, story));
    let kept = |summary| Found::Ended(Box::new(ended_in_full(summary, events)));
    let found = found.or_else(|| summary.as_ref().map(kept));
    let none = || if ended { none_ended(&id) } else { none(&id) };
    json(StatusCode::OK, &found.ok_or_else(none)?)
}

fn alive_in_full(view: View, resources: Vec<Registered>, story: Option<Story>) -> Found {
    Found::Alive(Box::new(ExecutionDetails {
        execution: Execution::from(view),
        registered: resources.into_iter().map(Into::into).collect(),
        events_dropped: story.as_ref().map(|story| story.dropped),
        events: story.as_ref().map(told),
    }))
}

fn ended_in_full(summary: &Summary, events: bool) -> Ended {
    let story = summary.story.as_deref().filter(|_| events);
    Ended {
        events_dropped: story.map(|story| story.dropped),
        events: story.map(told),
        ..Ended::from(summary)
    }
}

fn told(story: &Story) -> Vec<StoryEvent> {
    story::events(story, (Instant::now(), SystemTime::now()))
}

pub(super) async fn delete(control: &Control, asked: &Asked) -> Answer {
    let query = Query::parse(asked.query.as_deref(), &["reason", "grace"])?;
    let id = asked.execution()?;
    let text = query.get("reason").map(ReasonText::new);
    let grace = query.duration("grace")?;
    if grace.is_some_and(|grace| grace > MOST_GRACE) {
        return Err(wrong("grace is over an hour", "Say for example grace=20s."));
    }
    if !id.is_named() && !control.outlook().facts.admin {
        return Err(Problem::new(
            Kind::AdminOff,
            format!("{id} has no name of the app's, and can't be ended while control.admin is off"),
            "End a named execution, or set control.admin: on.",
        ));
    }
    let known = id.clone();
    let (told, usual) = control
        .remote
        .ask(move |executions| {
            let told = executions.end(&known, Reason::Deleted, text, grace);
            (told, executions.grace())
        })
        .await?;
    let Some(mut told) = told else {
        return ended_before(control, id).await;
    };
    let wait = PATIENCE + grace.unwrap_or(usual);
    // What it has told by then counts, whether that came in time or with the timeout.
    let _ = tokio::time::timeout(wait, told.wait_for(Option::is_some)).await;
    let ended = told.borrow().clone();
    match ended {
        Some(ended) => json(StatusCode::OK, &deleted(&ended)),
        None => still_ending(control, id, told).await,
    }
}

fn deleted(ended: &Arc<execution::Ended>) -> Deleted {
    let complete = ended.is_complete();
    Deleted {
        summary: Ended::from(&ended.summary),
        complete,
        remaining_pids: (!complete).then(|| ended.remaining.clone()),
    }
}

/// One that had ended before: its summary again.
async fn ended_before(control: &Control, id: ExecutionId) -> Answer {
    let summary = control.summary(&id).await?.ok_or_else(|| none(&id))?;
    let deleted = Deleted {
        summary: Ended::from(&summary),
        complete: summary.remains.leftovers == 0,
        remaining_pids: None,
    };
    json(StatusCode::OK, &deleted)
}

/// One whose end takes longer than is waited for: what is known of it, and what remains.
async fn still_ending(
    control: &Control,
    id: ExecutionId,
    mut told: watch::Receiver<Option<Arc<execution::Ended>>>,
) -> Answer {
    let known = id.clone();
    let view = control
        .remote
        .ask(move |executions| {
            let mut views = executions.views().into_iter().rev();
            views.find(|view| view.id == known && view.ending.is_some())
        })
        .await?;
    let Some(view) = view else {
        // It has ended since then: its summary has no names of what remains, and what it tells has.
        let _ = tokio::time::timeout(TO_TELL, told.wait_for(Option::is_some)).await;
        let ended = told.borrow().clone();
        return match ended {
            Some(ended) => json(StatusCode::OK, &deleted(&ended)),
            None => ended_before(control, id).await,
        };
    };
    let pids = view.pools.iter().flat_map(|pool| pool.pids.iter().copied());
    let remaining: Vec<i32> = pids.collect();
    let deleted = Deleted {
        complete: false,
        summary: unfinished(&view, remaining.len()),
        remaining_pids: Some(remaining),
    };
    json(StatusCode::OK, &deleted)
}

fn unfinished(view: &View, leftovers: usize) -> Ended {
    Ended {
        id: view.id.to_string(),
        generation: view.generation,
        state: "ending",
        reason: view.ending.unwrap_or(Reason::Deleted).as_str(),
        reason_text: None,
        duration_seconds: Seconds(view.age),
        ended_seconds_ago: None,
        sessions_joined: view.joined,
        work: view.totals.into(),
        peak_connections: view.pools.iter().map(|pool| pool.peak).sum(),
        leftovers,
        resources_left: view.resources.into(),
        ended_badly: true,
        events: None,
        events_dropped: None,
    }
}

impl Control {
    /// What is kept of the latest execution of that name that has ended.
    pub(super) async fn summary(&self, id: &ExecutionId) -> Result<Option<Summary>, Problem> {
        let id = id.clone();
        let asked = self.remote.ask(move |executions| latest(executions, &id));
        Ok(asked.await?)
    }
}

fn latest(executions: &execution::Executions, id: &ExecutionId) -> Option<Summary> {
    // The latest comes first.
    let mut summaries = executions.summaries().into_iter();
    summaries.find(|summary| summary.id == *id)
}

fn alive(view: View) -> Listed {
    Listed::Alive(Box::new(Execution::from(view)))
}

fn gone(summary: &Summary) -> Listed {
    Listed::Ended(Box::new(Ended::from(summary)))
}

/// None of that name that has ended is remembered.
fn none_ended(id: &ExecutionId) -> Problem {
    Problem::new(
        Kind::NoSuchExecution,
        format!("no execution {id} that has ended is remembered"),
        "GET /v1/executions?ended=true lists them; without ended=true an active one is told.",
    )
}

/// There is no execution of that name.
pub(super) fn none(id: &ExecutionId) -> Problem {
    Problem::new(
        Kind::NoSuchExecution,
        format!("there is no execution {id}, and none is remembered"),
        "GET /v1/executions?ended=true lists them; POST /v1/executions begins one.",
    )
}
