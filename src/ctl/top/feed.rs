//! What happens, from the stream of events, across restarts of the sidecar.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc::Sender;

use super::super::client::{self, Client};
use super::super::events::{Lines, at, rest};
use super::super::page::text_of;
use super::model::{EventLine, Input};

/// How long after a lost stream the sidecar is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long the stream may be silent: twice the time between two heartbeats, and a little.
const SILENCE: Duration = Duration::from_secs(35);

/// Tells each event, those that are kept first, until nobody listens any more.
pub(super) async fn follow(client: Client, tell: Sender<Input>) {
    let mut last: u64 = 0;
    let mut of: Option<String> = None;
    while !tell.is_closed() {
        let query = [("last_event_id", Some(last.to_string()))];
        let path = client::path("/v1/events", query);
        if let Ok((started, body)) = client.stream(&path, SILENCE).await {
            let is_other = of.is_some() && of != started;
            of = started;
            if is_other && last != 0 {
                // Its numbers have begun anew, and so all of them are news.
                last = 0;
                continue;
            }
            read(body, &mut last, &tell).await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Tells the events of one stream until it ends, falls silent, or nobody listens.
async fn read(mut body: Incoming, last: &mut u64, tell: &Sender<Input>) {
    let mut lines = Lines::default();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
        for line in lines.split(frame.into_data().unwrap_or_default()) {
            if let Some(id) = line.strip_prefix("id: ") {
                *last = id.parse().unwrap_or(*last);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let Ok(event) = serde_json::from_str(data) else {
                    continue;
                };
                if tell.send(Input::Event(line_of(&event))).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn line_of(event: &Value) -> EventLine {
    EventLine {
        at: at(event).to_owned(),
        name: text_of(event, "event").to_owned(),
        rest: rest(event),
        execution: text_of(event, "execution_id").to_owned(),
    }
}
