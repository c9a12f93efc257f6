//! A reader of `GET /v1/events`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Mutex;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::support::schema::complaint_of_event;
use crate::support::{SOON, Sidecar, http};

/// An event as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// Who follows. Dropping it closes its connection.
pub(crate) struct Reader {
    body: Incoming,
    text: String,
    told: VecDeque<Told>,
    /// The last id that it was told, by an event or a comment.
    pub(crate) last: Option<u64>,
    /// The names of all that it has read.
    pub(crate) names: Vec<String>,
    /// The first of each name.
    pub(crate) firsts: BTreeMap<String, Value>,
}

/// Fails the test if an event is not as it is described. Many may read the same one.
#[track_caller]
fn assert_described(data: &str, event: &Value) {
    static KNOWN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap();
    if known.get_or_insert_default().insert(data.to_owned()) {
        drop(known);
        assert_eq!(complaint_of_event(event), None, "{data}");
    }
}

impl Reader {
    /// With this query string.
    pub(crate) async fn open(sidecar: &Sidecar, query: &str) -> Self {
        Self::at(&sidecar.control_socket(), query, None).await
    }

    /// All that are kept, and what comes.
    pub(crate) async fn of_all(sidecar: &Sidecar) -> Self {
        Self::open(sidecar, "last_event_id=0").await
    }

    /// With a header, too.
    pub(crate) async fn at(socket: &std::path::Path, query: &str, last: Option<&str>) -> Self {
        let path = format!("/v1/events?{query}");
        let headers: Vec<(&str, &str)> = last.map(|id| ("Last-Event-ID", id)).into_iter().collect();
        let response = http::open_with(socket, "GET", &path, None, &headers).await;
        let response = response.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
            told: VecDeque::new(),
            last: None,
            names: Vec::new(),
            firsts: BTreeMap::new(),
        }
    }

    /// Reads the next piece; false at the end.
    async fn read(&mut self) -> bool {
        let frame = tokio::time::timeout(SOON, self.body.frame()).await;
        let Some(frame) = frame.unwrap_or_else(|_| panic!("silence after {:?}", self.names)) else {
            return false;
        };
        let frame = frame.unwrap_or_else(|error| panic!("the stream broke: {error}"));
        let data = frame.into_data().unwrap();
        // Pieces are whole: a character is never cut in two.
        self.text.push_str(std::str::from_utf8(&data).unwrap());
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            let (block, rest) = (block.to_owned(), rest.to_owned());
            self.take(&block);
            self.text = rest;
        }
        true
    }

    fn take(&mut self, block: &str) {
        let field = |name: &str| {
            let mut lines = block.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let id: Option<u64> = field("id").map(|id| id.parse().unwrap());
        self.last = id.or(self.last);
        let (Some(name), Some(data)) = (field("event"), field("data")) else {
            assert!(block.starts_with(':'), "{block}");
            return;
        };
        assert!(data.len() <= 1024, "{data}");
        let told = Told {
            id,
            name: name.to_owned(),
            data: serde_json::from_str(data).unwrap(),
        };
        assert_eq!(told.data["event"], name);
        assert_eq!(told.data["id"].as_u64(), id);
        assert_described(data, &told.data);
        let first = self.firsts.entry(name.to_owned());
        first.or_insert_with(|| told.data.clone());
        self.names.push(name.to_owned());
        self.told.push_back(told);
    }

    /// The next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(told);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The fields of the next event of that name; others before it are passed over.
    pub(crate) async fn until(&mut self, name: &str) -> Value {
        loop {
            match self.next().await {
                Some(told) if told.name == name => return told.data,
                Some(_) => {}
                None => panic!("the stream ended before {name}: {:?}", self.names),
            }
        }
    }

    /// Reads until it has come past an id.
    pub(crate) async fn reaches(&mut self, id: u64) -> Vec<Told> {
        let mut all = Vec::new();
        while all.last().and_then(|told: &Told| told.id) < Some(id) {
            all.push(self.next().await.expect("the stream goes on"));
        }
        all
    }

    /// Waits until it was told an id, be it by a comment.
    pub(crate) async fn is_in(&mut self) -> u64 {
        loop {
            if let Some(last) = self.last {
                return last;
            }
            assert!(self.read().await, "the stream ended");
        }
    }
}

/// The ids are those after `after`, without gaps.
#[track_caller]
pub(crate) fn assert_gapless(told: &[Told], after: u64) {
    for (expected, told) in (after + 1..).zip(told) {
        assert_eq!(told.id, Some(expected), "{told:?}");
    }
}
