//! A scrape, taken apart.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::sidecar::SidecarOptions;
use crate::support::{Sidecar, eventually};

pub(crate) use crate::support::SOON;

/// All series of one scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scraped {
    /// By name and labels, as they are written.
    pub(crate) series: BTreeMap<String, f64>,
    /// The type of each family.
    pub(crate) types: BTreeMap<String, String>,
}

impl Scraped {
    fn parse(text: &str) -> Self {
        let mut scraped = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                scraped.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let before = scraped
                    .series
                    .insert(series.to_owned(), value.parse().unwrap());
                assert_eq!(before, None, "twice: {line}");
            }
        }
        scraped
    }

    /// The value of a series; of one that is not there it is 0.
    pub(crate) fn value(&self, series: &str) -> f64 {
        self.series.get(series).copied().unwrap_or(0.0)
    }

    /// Name and labels of a series, taken apart. No value here has a comma or a quote.
    pub(crate) fn labels(series: &str) -> (&str, Vec<(&str, &str)>) {
        let Some((name, labels)) = series.split_once('{') else {
            return (series, Vec::new());
        };
        let pairs = labels.trim_end_matches('}').split(',');
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            (key, value.trim_matches('"'))
        });
        (name, pairs.collect())
    }
}

/// A sidecar that can be scraped.
pub(crate) fn scraping(yaml: String) -> SidecarOptions {
    Sidecar::options()
        .config(yaml)
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
}

/// `GET /metrics`.
pub(crate) async fn scrape(sidecar: &Sidecar) -> Scraped {
    let status = sidecar.get("/v1/status").await;
    let address = status["telemetry"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: pod\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    Scraped::parse(body)
}

/// Waits until each of these series differs from `before` by so much.
pub(crate) async fn changes(
    sidecar: &Sidecar,
    before: &Scraped,
    action: &str,
    deltas: &[(&str, f64)],
) -> Scraped {
    let begun = Instant::now();
    eventually(SOON, action, async || {
        let since = begun.elapsed();
        let now = scrape(sidecar).await;
        // Histograms are of this moment; the rest is to be of a look after the action as well. Who
        // asks often gets an answer that is a quarter of a second old.
        let age = now.value("execpool_snapshot_age_seconds") + 0.25;
        if age > since.as_secs_f64() {
            return Err(vec![format!("the last look is {age} s old")]);
        }
        let wrong: Vec<String> = deltas
            .iter()
            .map(|(series, delta)| (*series, *delta, now.value(series) - before.value(series)))
            .filter(|(_, delta, found)| delta != found)
            .map(|(series, delta, found)| format!("{series}: {found}, not {delta}"))
            .collect();
        if wrong.is_empty() {
            Ok(now)
        } else {
            Err(wrong)
        }
    })
    .await
}
