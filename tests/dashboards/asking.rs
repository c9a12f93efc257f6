//! Asks a Prometheus, whoever has filled it, all that dashboards and rules ask.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;

use super::board::Expression;

/// What Grafana would put for its variables.
#[derive(Debug, Clone)]
pub(crate) struct Variables {
    pub(crate) namespace: String,
    pub(crate) workload: String,
    pub(crate) pod: String,
    pub(crate) rate_interval: String,
    pub(crate) range: String,
}

impl Default for Variables {
    /// All of everything, for a scrape every 15 s or 30 s.
    fn default() -> Self {
        Self {
            namespace: ".*".into(),
            workload: ".*".into(),
            pod: ".*".into(),
            rate_interval: "2m".into(),
            range: "30m".into(),
        }
    }
}

/// From when to when, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) step: Duration,
}

impl Window {
    /// So long, up to now and the second that has begun.
    pub(crate) fn of(length: Duration, step: Duration) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let to = now.expect("it is later").as_secs() + 1;
        let from = to - length.as_secs();
        Self { from, to, step }
    }
}

/// What an expression is answered.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Data,
    Nothing,
    Error(String),
}

/// An expression as Grafana sends it.
pub(crate) fn substituted(text: &str, variables: &Variables) -> String {
    let values = [
        ("$__rate_interval", &variables.rate_interval),
        ("$__range", &variables.range),
        ("$namespace", &variables.namespace),
        ("$workload", &variables.workload),
        ("$pod", &variables.pod),
    ];
    let put = |text: String, (name, value): (&str, &String)| text.replace(name, value);
    let text = values.into_iter().fold(text.to_owned(), put);
    assert!(!text.contains('$'), "a variable that is not known: {text}");
    text
}

/// Asks each expression over the window; answers in their order.
pub(crate) async fn ask_all(
    prometheus: &str,
    expressions: &[Expression],
    variables: &Variables,
    window: Window,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    for expression in expressions {
        let text = substituted(&expression.text, variables);
        answers.push(ask(prometheus, &text, window).await);
    }
    answers
}

/// Asks one, without variables, over the window. What has no value but NaN is nothing to look at.
pub(crate) async fn ask(prometheus: &str, expression: &str, window: Window) -> Answer {
    match values(prometheus, expression, window).await {
        Err(why) => Answer::Error(why),
        Ok(values) if values.is_empty() => Answer::Nothing,
        Ok(_) => Answer::Data,
    }
}

/// The values of all series of an answer, without NaN; why not, if Prometheus refuses the question.
pub(crate) async fn values(
    prometheus: &str,
    expression: &str,
    window: Window,
) -> Result<Vec<f64>, String> {
    let query = utf8_percent_encode(expression, NON_ALPHANUMERIC);
    let Window { from, to, step } = window;
    let step = step.as_secs();
    let path = format!("/api/v1/query_range?query={query}&start={from}&end={to}&step={step}");
    let answer = get(prometheus, &path).await;
    let series = match (
        answer["status"].as_str(),
        answer["data"]["result"].as_array(),
    ) {
        (Some("success"), Some(series)) => series,
        _ => return Err(answer["error"].to_string()),
    };
    let samples = series
        .iter()
        .flat_map(|one| one["values"].as_array())
        .flatten();
    let values = samples.filter_map(|sample| sample[1].as_str()?.parse::<f64>().ok());
    Ok(values.filter(|value| !value.is_nan()).collect())
}

/// GET from an address such as `127.0.0.1:9090`; JSON, or null where there is no answer.
async fn get(address: &str, path: &str) -> Value {
    let exchange = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.ok()?;
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", address);
        let request = request
            .body(Empty::<Bytes>::new())
            .expect("a path is a URI");
        let response = sender.send_request(request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    exchange.await.unwrap_or_default()
}
