//! `GET /v1/events`: server-sent events, from any number on that is still kept.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use crate::events::{Entry, Event, Events, NAMES, Text, Tide, time};

use super::Control;
use super::problem::{Kind, Problem, near, repeated};
use super::query::{Query, wrong};
use super::router::{Answer, Asked};
use super::server::Place;
use super::sessions;
use super::types::EventsLost;

/// How long a stream is silent at most.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How many events are copied at a time.
const AT_ONCE: usize = 32;

/// The name of what is told instead of events that are gone.
const LOST: &str = "events.lost";

/// Tells one process from the one before it, whose numbers began anew.
const STARTED: &str = "execpool-started";

pub(super) fn get(control: &Control, asked: &Asked, place: &Place) -> Answer {
    let query = Query::parse(
        asked.query.as_deref(),
        &["last_event_id", "execution", "event"],
    )?;
    let filter = Filter::of(&query)?;
    // Who comes back says in the header what has been read since the address was made.
    let last = asked.last_event_id.as_deref().filter(|id| !id.is_empty());
    let last = last.or_else(|| query.get("last_event_id"));
    let last = last.map(number).transpose()?;
    let Ok(permit) = Arc::clone(&control.readers).try_acquire_owned() else {
        return Err(Problem::new(
            Kind::TooManyReaders,
            "as many read events as there may be",
            "Close streams that are not needed: one for each program is enough.",
        ));
    };
    place.leave();
    let reader = Reader::new(Arc::clone(control.remote.events()), last, filter);
    let stream = Stream {
        next: Some(Box::pin(reader.next())),
        _permit: permit,
    };
    let mut response = Response::new(stream.boxed_unsync());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // It has left its place among the connections that ask.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let facts = &control.outlook().facts;
    let started = SystemTime::now().checked_sub(facts.started.elapsed());
    let started = started.map(|at| HeaderValue::from_str(&time::instant(at)));
    if let Some(Ok(started)) = started {
        headers.insert(STARTED, started);
    }
    Ok(response)
}

fn number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| {
        wrong(
            format!("{} is not the id of an event", repeated(text)),
            "Say the id of the last event that was read, or 0 for all that are kept.",
        )
    })
}

/// Which events are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    execution: Option<Text>,
    /// The beginning of their names.
    prefix: Option<String>,
}

impl Filter {
    fn of(query: &Query) -> Result<Self, Problem> {
        let execution = query
            .get("execution")
            .map(sessions::execution)
            .transpose()?;
        let prefix = query.get("event");
        if let Some(prefix) = prefix
            && !NAMES.iter().any(|name| name.starts_with(prefix))
        {
            return Err(wrong(
                format!("no event's name begins with {}", repeated(prefix)),
                format!("Did you mean {}?", near(prefix, NAMES, 3).join(", or ")),
            ));
        }
        Ok(Self {
            execution: execution.map(|id| Text::name(&id)),
            prefix: prefix.map(str::to_owned),
        })
    }

    fn wants(&self, event: &Event) -> bool {
        let prefix = self.prefix.as_deref();
        let execution = self.execution.as_ref();
        prefix.is_none_or(|prefix| event.name().starts_with(prefix))
            && execution.is_none_or(|id| event.execution() == Some(id))
    }
}

/// Who follows the events, at its own pace: what it has not taken stays where it is kept for all.
struct Reader {
    events: Arc<Events>,
    tide: watch::Receiver<Tide>,
    filter: Filter,
    /// The number of the last event that it has come past.
    last: u64,
    /// The last number that it was told.
    told: Option<u64>,
    /// What is to be said first.
    first: Option<Bytes>,
}

impl Reader {
    /// After the event of that number; without one, after the last that there is.
    fn new(events: Arc<Events>, last: Option<u64>, filter: Filter) -> Self {
        let tide = events.follow();
        let now = events.last();
        // The numbers of a process that is gone.
        let restarted = last.is_some_and(|last| last > now);
        let mut reader = Self {
            tide,
            filter,
            last: last.unwrap_or(now),
            told: None,
            first: None,
            events,
        };
        if restarted {
            let lost = reader.events.after(0, 0).lost;
            reader.first = Some(gone(lost, true).into());
            reader.last = lost;
        }
        reader
    }

    /// What is to be sent next, and who goes on; none at the end.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if let Some(first) = self.first.take() {
            return Some((first, self));
        }
        let silent_until = Instant::now() + HEARTBEAT;
        loop {
            let tide = *self.tide.borrow_and_update();
            let batch = self.events.after(self.last, AT_ONCE);
            let mut out = String::new();
            if batch.lost > 0 {
                out.push_str(&gone(batch.lost, false));
                self.last += batch.lost;
            }
            for entry in &batch.entries {
                self.last = entry.record().id;
                if self.filter.wants(&entry.record().event) {
                    frame(entry, &mut out);
                    self.told = Some(self.last);
                }
            }
            if !out.is_empty() {
                return Some((out.into(), self));
            }
            if !batch.entries.is_empty() {
                continue;
            }
            if self.told.is_none() {
                return Some((self.beat(), self));
            }
            if tide.over {
                return None;
            }
            tokio::select! {
                // Its sender lives as long as this.
                _ = self.tide.changed() => {}
                () = sleep_until(silent_until) => return Some((self.beat(), self)),
            }
        }
    }

    /// A comment, so that a reader that is gone is noticed; with the number from which to go on.
    fn beat(&mut self) -> Bytes {
        if self.told == Some(self.last) {
            return Bytes::from_static(b":\n\n");
        }
        self.told = Some(self.last);
        format!(":\nid: {}\n\n", self.last).into()
    }
}

fn frame(entry: &Entry, out: &mut String) {
    let record = entry.record();
    out.push_str(&format!(
        "id: {}\nevent: {}\ndata: ",
        record.id,
        record.event.name()
    ));
    out.push_str(&String::from_utf8_lossy(&entry.json()));
    out.push_str("\n\n");
}

/// Says that events are gone; it has no number of its own.
fn gone(lost: u64, restarted: bool) -> String {
    let said = EventsLost {
        event: LOST,
        lost,
        restarted,
    };
    // A word, a number and a truth: JSON can say them.
    let json = serde_json::to_string(&said).unwrap_or_default();
    format!("event: {LOST}\ndata: {json}\n\n")
}

/// What is to be sent next.
type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Reader)>> + Send>>;

/// The answer's body. It makes no more than the connection takes.
struct Stream {
    /// None at the end.
    next: Option<Next>,
    _permit: OwnedSemaphorePermit,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let Some((bytes, reader)) = ready!(next.as_mut().poll(cx)) else {
            self.next = None;
            return Poll::Ready(None);
        };
        self.next = Some(Box::pin(reader.next()));
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::KEPT;

    fn reader(events: &Arc<Events>, last: Option<u64>, query: &str) -> Reader {
        let known = &["execution", "event"];
        let filter = Filter::of(&Query::parse(Some(query), known).unwrap()).unwrap();
        Reader::new(Arc::clone(events), last, filter)
    }

    async fn read(reader: Reader) -> (String, Reader) {
        let (bytes, reader) = reader.next().await.expect("more");
        (String::from_utf8(bytes.to_vec()).unwrap(), reader)
    }

    fn began(id: &str) -> Event {
        Event::ExecutionLeftovers {
            execution_id: Text::name(id),
            backends: 1,
        }
    }

    #[tokio::test]
    async fn who_names_no_event_begins_with_the_next_and_learns_where_that_is() {
        let events = Arc::new(Events::default());
        events.tell(Event::Drain {});
        let (first, mut next) = read(reader(&events, None, "")).await;
        assert_eq!(first, ":\nid: 1\n\n");
        events.tell(Event::Drain {});
        let second;
        (second, next) = read(next).await;
        assert!(
            second.starts_with("id: 2\nevent: drain\ndata: {\"id\":2,\"time\":\""),
            "{second}"
        );
        assert!(second.ends_with("Z\",\"event\":\"drain\"}\n\n"), "{second}");
        events.close();
        assert!(next.next().await.is_none());
    }

    #[tokio::test]
    async fn what_is_gone_is_counted_before_what_is_kept_also_for_one_that_has_fallen_behind() {
        let events = Arc::new(Events::default());
        let behind = reader(&events, Some(0), "");
        for _ in 0..KEPT + 7 {
            events.tell(Event::Drain {});
        }
        for reader in [behind, reader(&events, Some(0), "")] {
            let (first, _) = read(reader).await;
            let gone = "event: events.lost\ndata: {\"event\":\"events.lost\",\"lost\":7,\"restarted\":false}\n\nid: 8\n";
            assert!(first.starts_with(gone), "{first}");
        }
        let (first, next) = read(reader(&events, Some(u64::MAX), "")).await;
        assert!(first.contains("\"lost\":7,\"restarted\":true"), "{first}");
        assert!(read(next).await.0.starts_with("id: 8\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_passes_over_the_others_and_a_heartbeat_says_how_far() {
        let events = Arc::new(Events::default());
        for n in 0..100 {
            events.tell(began(if n == 50 { "a" } else { "b" }));
        }
        events.tell(Event::Drain {});
        let (first, next) = read(reader(&events, Some(0), "execution=a")).await;
        assert!(first.starts_with("id: 51\n"), "{first}");
        let start = Instant::now();
        let (beat, next) = read(next).await;
        assert_eq!(
            (beat.as_str(), start.elapsed()),
            (":\nid: 101\n\n", HEARTBEAT)
        );
        assert_eq!(read(next).await.0, ":\n\n");
        let (first, _) = read(reader(&events, Some(0), "event=dra")).await;
        assert!(first.starts_with("id: 101\n"), "{first}");
    }

    #[test]
    fn a_wrong_filter_names_what_is_allowed() {
        for (query, told) in [
            ("event=executions", "execution.ended"),
            ("execution=a%20b", "1 to 128"),
        ] {
            let query = Query::parse(Some(query), &["execution", "event"]).unwrap();
            let problem = Filter::of(&query).unwrap_err();
            assert_eq!(problem.kind(), Kind::InvalidParameter);
            assert!(format!("{problem:?}").contains(told), "{problem:?}");
        }
        assert!(number("-1").is_err() && number("1x").is_err());
    }

    #[test]
    fn every_event_and_every_field_of_it_is_documented() {
        let page = include_str!("../../docs/control-api.md");
        for sample in Event::samples() {
            let row = format!("| `{}` |", sample.name());
            let row = page.lines().find(|line| line.starts_with(&row));
            let row = row.unwrap_or_else(|| panic!("{}", sample.name()));
            let json = serde_json::to_value(&sample).unwrap();
            for field in json
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "event")
            {
                assert!(row.contains(&format!("`{field}`")), "{field}: {row}");
            }
        }
        assert!(page.contains("| `events.lost` |"));
    }
}
