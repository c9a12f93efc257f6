//! `GET /v1/executions/{id}/hold`: a byte every 2 s, for as long as the execution is active and
//! somebody listens.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, interval};

use crate::execution;
use crate::protocol::startup::ExecutionId;

use super::Control;
use super::executions::none;
use super::problem::{Kind, Problem};
use super::query::Query;
use super::router::{Answer, Asked};
use super::server::Place;
use super::types::HoldLine;

/// How often a byte comes.
const BEAT: Duration = Duration::from_secs(2);

/// The byte: an empty line, which readers of lines of JSON pass over.
const BYTE: &[u8] = b"\n";

pub(super) async fn get(control: &Arc<Control>, asked: &Asked, place: &Place) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let id = asked.execution()?;
    let Ok(permit) = Arc::clone(&control.holds).try_acquire_owned() else {
        return Err(Problem::new(
            Kind::TooManyHolds,
            "as many hold streams are open as there may be",
            "Close those that are not needed: one for each execution is enough.",
        ));
    };
    let known = id.clone();
    let hold = control
        .remote
        .ask(move |executions| executions.hold(&known));
    let Some(hold) = hold.await? else {
        return Err(not_active(control, &id).await);
    };
    place.leave();
    let control = Arc::clone(control);
    // The hold lives in this future, and so in the answer's body.
    let ended = async move {
        match hold.ended().await {
            Some(ended) => lines(&ended),
            // The process ends, and nobody tells any more.
            None => {
                let summary = control.summary(&id).await.ok().flatten();
                vec![HoldLine::Ended {
                    reason: summary.map(|it| it.reason.as_str()),
                }]
            }
        }
    };
    let stream = Stream {
        beat: interval(BEAT),
        ended: Some(Box::pin(ended)),
        _permit: permit,
    };
    let mut response = Response::new(stream.boxed_unsync());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/x-ndjson");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // It has left its place among the connections that ask.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// The execution is not active: it has ended, or there was none.
pub(super) async fn not_active(control: &Control, id: &ExecutionId) -> Problem {
    match control.summary(id).await {
        Ok(Some(summary)) => Problem::new(
            Kind::NoSuchExecution,
            format!("execution {id} has ended: {}", summary.reason),
            "Begin it anew with POST /v1/executions.",
        ),
        Ok(None) => none(id),
        Err(problem) => problem,
    }
}

/// Tells what there is to say once the execution has ended.
type Ended = Pin<Box<dyn Future<Output = Vec<HoldLine>> + Send>>;

/// The answer's body. Dropping it, as hyper does when the client goes, drops the hold.
struct Stream {
    beat: Interval,
    /// None once it was told.
    ended: Option<Ended>,
    _permit: OwnedSemaphorePermit,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(ended) = &mut self.ended else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(lines) = ended.as_mut().poll(cx) {
            self.ended = None;
            return Poll::Ready(Some(Ok(Frame::data(farewell(&lines)))));
        }
        match self.beat.poll_tick(cx) {
            Poll::Ready(_) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(BYTE))))),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What is told at the end: what the app has left registered, if anything, and why it has ended.
fn lines(ended: &execution::Ended) -> Vec<HoldLine> {
    let left = ended.resources.iter().cloned().map(Into::into);
    let left = HoldLine::ResourcesLeft {
        resources: left.collect(),
    };
    let reason = Some(ended.summary.reason.as_str());
    let last = HoldLine::Ended { reason };
    match ended.resources.is_empty() {
        true => vec![last],
        false => vec![left, last],
    }
}

fn farewell(lines: &[HoldLine]) -> Bytes {
    let mut out = Vec::new();
    for line in lines {
        // Texts and numbers: JSON can say them.
        out.extend(serde_json::to_vec(line).unwrap_or_default());
        out.push(b'\n');
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_json() {
        let line = farewell(&[HoldLine::Ended {
            reason: Some("deadline"),
        }]);
        assert_eq!(line, "{\"event\":\"ended\",\"reason\":\"deadline\"}\n");
    }
}
