//! The app's own probe, asked on its behalf: `reactor.app_probe`.
//!
//! A kubelet has one liveness probe for a container. Where that is `/livez/app`, whatever the app had for a probe
//! itself is asked from here, as a kubelet would: 2xx and 3xx are well, redirects are not followed, and a
//! connection alone is enough of a TCP probe. However many ask for it, the app is asked once for all of them, and only
//! so many wait for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::config::AppProbe;

/// How long it may take: less than the second that a kubelet gives a probe, so that it reads why it failed.
const PATIENCE: Duration = Duration::from_millis(900);

/// For how long from its question on an answer is given again. Less than the second that is the least between two
/// probes of a kubelet, so that none of the app's failures counts twice.
const FRESH: Duration = Duration::from_millis(500);

/// How many wait for the app at once. Who comes then gets the last answer at once: a flood of those who ask for an app
/// that hangs must not fill the port.
const WAITING: usize = 64;

/// The longest head of an answer, in bytes: the least that hyper takes. No body is read.
const LARGEST_HEAD: usize = 8 << 10;

/// Who asks.
const AGENT: &str = concat!("execpool/", env!("CARGO_PKG_VERSION"));

/// The app's own probe has failed.
#[derive(Debug, thiserror::Error)]
pub enum Sick {
    /// It answers, and not well.
    #[error("the app's own probe answers {0}")]
    Answer(StatusCode),
    /// Nobody listens there.
    #[error("the app's own probe is not reached: {}: {}", without_query(.0), .1)]
    Unreached(AppProbe, io::Error),
    /// What it sends is no answer, or the connection broke.
    #[error("the app's own probe gives no answer: {}: {}", without_query(.0), .1)]
    Nonsense(AppProbe, hyper::Error),
    /// It takes too long.
    #[error("the app's own probe gives no answer within {PATIENCE:?}: {}", without_query(.0))]
    Late(AppProbe),
    /// Too many ask at once.
    #[error(
        "{WAITING} wait for the app's own probe, which has not answered anybody yet: ask again"
    )]
    Crowded,
}

/// What of it is told to everybody who reaches the port: a query may hold a token.
fn without_query(probe: &AppProbe) -> String {
    let whole = probe.to_string();
    let (shown, _) = whole.split_once('?').unwrap_or((&whole, ""));
    shown.to_owned()
}

/// What the app has answered of late, for all who want to know it: whoever they are, the app is asked no more than
/// twice a second, and 64 of them wait for it at most.
#[derive(Debug)]
pub struct Asked {
    /// Locked for as long as values are exchanged.
    last: Mutex<Option<Question>>,
    /// The places of those who wait.
    places: Semaphore,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            places: Semaphore::new(WAITING),
        }
    }
}

/// One question to the app, which goes on though who asked leaves.
#[derive(Debug)]
struct Question {
    probe: AppProbe,
    told: watch::Receiver<Option<Told>>,
    /// What was told before, of the same probe.
    before: Option<Told>,
}

#[derive(Debug, Clone)]
struct Told {
    /// When it was asked: what is later the app may not have seen.
    asked: Instant,
    answer: Result<String, Arc<Sick>>,
}

impl Asked {
    /// Asks the app, or waits for the answer to who has asked just before. Takes 900 ms at most. Where too many wait it
    /// takes no time, and is what was last told, however long ago: that is no longer than since the app was last asked
    /// before. Cancel safe. Within a runtime of tokio.
    ///
    /// # Errors
    /// See [`Sick`].
    pub async fn ask(&self, probe: &AppProbe) -> Result<String, Arc<Sick>> {
        let (mut told, before) = self.question(probe);
        if let Some(fresh) = &*told.borrow() {
            return fresh.answer.clone();
        }
        let Ok(_place) = self.places.try_acquire() else {
            let before = before.map(|told| told.answer);
            return before.unwrap_or_else(|| Err(Arc::new(Sick::Crowded)));
        };
        let told = told.wait_for(Option::is_some).await;
        let told = told.ok().and_then(|told| told.clone());
        match told {
            Some(told) => told.answer,
            // Who was to ask has ended untold.
            None => ask(probe).await.map_err(Arc::new),
        }
    }

    /// The question that is open, or was asked and answered just now; or a new one. And what was told before it.
    fn question(&self, probe: &AppProbe) -> (watch::Receiver<Option<Told>>, Option<Told>) {
        let mut last = self.last.lock();
        if let Some(question) = &*last
            && question.is_good_for(probe)
        {
            return (question.told.clone(), question.before.clone());
        }
        let before = last.take().filter(|question| question.probe == *probe);
        let before = before.and_then(Question::newest);
        let (tell, told) = watch::channel(None);
        let of = probe.clone();
        tokio::spawn(async move {
            let asked = Instant::now();
            let answer = ask(&of).await.map_err(Arc::new);
            // Whoever wanted to know may have left.
            let _ = tell.send(Some(Told { asked, answer }));
        });
        *last = Some(Question {
            probe: probe.clone(),
            told: told.clone(),
            before: before.clone(),
        });
        (told, before)
    }
}

impl Question {
    fn is_good_for(&self, probe: &AppProbe) -> bool {
        let is_open_or_fresh = match &*self.told.borrow() {
            Some(told) => told.asked.elapsed() < FRESH,
            None => self.told.has_changed().is_ok(),
        };
        self.probe == *probe && is_open_or_fresh
    }

    /// What was last told.
    fn newest(self) -> Option<Told> {
        let told = self.told.borrow().clone();
        told.or(self.before)
    }
}

/// Asks it; answers what it said, in a word or two. Takes 900 ms at most. Cancel safe: dropped, the connection is
/// closed.
///
/// # Errors
/// See [`Sick`].
async fn ask(probe: &AppProbe) -> Result<String, Sick> {
    let asked = async {
        let stream = connect(probe).await;
        let stream = stream.map_err(|error| Sick::Unreached(probe.clone(), error))?;
        let AppProbe::Http { path, .. } = probe else {
            return Ok("connected".to_owned());
        };
        let status = get(stream, path).await;
        let status = status.map_err(|error| Sick::Nonsense(probe.clone(), error))?;
        match status.is_success() || status.is_redirection() {
            true => Ok(status.to_string()),
            false => Err(Sick::Answer(status)),
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    asked.unwrap_or_else(|_| Err(Sick::Late(probe.clone())))
}

/// The first address that takes it.
async fn connect(probe: &AppProbe) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = probe.addresses().collect();
    TcpStream::connect(addresses.as_slice()).await
}

async fn get(stream: TcpStream, path: &str) -> Result<StatusCode, hyper::Error> {
    let host = stream.peer_addr().map(|address| address.to_string());
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LARGEST_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    // Both were looked at when they were configured; nonsense would be asked for as `/`.
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    let host = HeaderValue::try_from(host.unwrap_or_default());
    headers.insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // It ends with the answer, or without one.
        _ = &mut connection => answer.await,
    };
    Ok(answer?.status())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// An app that answers this to whoever asks, and then keeps the connection; what it was asked.
    async fn app(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap();
            let _ = stream.write_all(answer).await;
            // Until the other side has gone.
            while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            String::from_utf8_lossy(&asked[..read]).into_owned()
        });
        (address, asked)
    }

    /// What comes of an attempt in which no answer came too late: a busy machine may stand still for longer than an
    /// answer may take, but hardly each time.
    async fn in_time<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..20 {
            if let Some(done) = attempt().await {
                return done;
            }
        }
        panic!("each answer is late");
    }

    fn configured(probe: &str) -> AppProbe {
        let knobs = [
            ("DATABASE_URL", "postgresql://a@h/a"),
            ("EXECPOOL_REACTOR__APP_PROBE", probe),
        ];
        let env = knobs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = crate::config::load(&crate::config::Sources {
            file: None,
            env: env.into(),
            flags: Vec::new(),
        });
        loaded.unwrap().config.reactor.app_probe.unwrap()
    }

    fn http(address: SocketAddr) -> AppProbe {
        configured(&format!("http://{address}/healthz?full=1"))
    }

    fn tcp(address: SocketAddr) -> AppProbe {
        configured(&format!("tcp://{address}"))
    }

    #[tokio::test]
    async fn what_an_app_answers_is_well_or_not_as_a_kubelet_has_it() {
        for (answer, is_well) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 302 Found\r\nlocation: /login\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\n\r\n", true),
            // A body that never ends is not waited for.
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", false),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            ("SSH-2.0-x\r\n", false),
        ] {
            let (told, address, asked) = in_time(async || {
                let (address, asked) = app(answer.as_bytes()).await;
                let told = ask(&http(address)).await;
                match told {
                    Err(Sick::Late(_)) => None,
                    told => Some((told, address, asked)),
                }
            })
            .await;
            assert_eq!(told.is_ok(), is_well, "{answer}: {told:?}");
            let asked = asked.await.unwrap();
            assert!(
                asked.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"),
                "{asked}"
            );
            assert!(asked.contains(&format!("host: {address}\r\n")), "{asked}");
        }
    }

    #[tokio::test]
    async fn an_app_that_says_nothing_or_too_much_or_is_not_there_fails_in_time() {
        let (silent, _kept) = app(b"").await;
        let told = ask(&http(silent)).await.unwrap_err();
        assert!(matches!(told, Sick::Late(_)), "{told:?}");
        let said = told.to_string();
        assert!(
            said.ends_with("/healthz") && !said.contains("full"),
            "{said}"
        );
        let told = in_time(async || {
            let (loud, _kept) = app(&[b'x'; 100_000]).await;
            let told = ask(&http(loud)).await.unwrap_err();
            (!matches!(told, Sick::Late(_))).then_some(told)
        })
        .await;
        assert!(matches!(told, Sick::Nonsense(..)), "{told:?}");
        let free = SocketAddr::from(([127, 0, 0, 1], 1));
        for probe in [http(free), tcp(free)] {
            let told = ask(&probe).await.unwrap_err();
            assert!(matches!(told, Sick::Unreached(..)), "{told:?}");
            let said = told.to_string();
            assert!(said.contains(&free.to_string()), "{said}");
            assert!(!said.contains("full=1"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_enough_of_a_tcp_probe() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = tcp(listener.local_addr().unwrap());
        assert_eq!(ask(&probe).await.unwrap(), "connected");
    }

    /// An app that answers each who asks after so long; how often it was asked.
    async fn slow(after: Duration) -> (SocketAddr, watch::Receiver<u32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, often) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.send_modify(|asked| *asked += 1);
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    tokio::time::sleep(after).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                });
            }
        });
        (address, often)
    }

    #[tokio::test]
    async fn the_app_is_asked_once_for_all_who_want_to_know_and_anew_when_that_is_old() {
        in_time(is_asked_once_for_all).await;
    }

    /// None where an answer came too late.
    async fn is_asked_once_for_all() -> Option<()> {
        let (address, often) = slow(Duration::from_millis(200)).await;
        let (probe, asked) = (http(address), Arc::new(Asked::default()));
        let word = |told: Result<String, Arc<Sick>>| match told {
            Err(sick) if matches!(*sick, Sick::Late(_)) => None,
            told => Some(told.unwrap()),
        };
        let begun = Instant::now();
        // Who asks first leaves at once, and takes nothing with it.
        let first = asked.ask(&probe);
        let left = tokio::time::timeout(Duration::from_millis(20), first).await;
        assert!(left.is_err(), "{left:?}");
        let all: Vec<_> = (0..WAITING)
            .map(|_| {
                let (probe, asked) = (probe.clone(), Arc::clone(&asked));
                tokio::spawn(async move { asked.ask(&probe).await })
            })
            .collect();
        for one in all {
            assert_eq!(word(one.await.unwrap())?, "200 OK");
        }
        let again = word(asked.ask(&probe).await)?;
        // On a machine that is too busy for that, nothing is claimed.
        if begun.elapsed() < FRESH {
            assert_eq!((again.as_str(), *often.borrow()), ("200 OK", 1));
        }
        // Another probe is another question.
        let gone = asked.ask(&tcp(SocketAddr::from(([127, 0, 0, 1], 1)))).await;
        assert!(matches!(&*gone.unwrap_err(), Sick::Unreached(..)));
        let before = *often.borrow();
        tokio::time::sleep(FRESH).await;
        word(asked.ask(&probe).await)?;
        assert_eq!(*often.borrow(), before + 1);
        Some(())
    }

    #[tokio::test]
    async fn a_probe_each_second_of_an_app_that_hangs_is_a_question_each() {
        let (address, often) = slow(Duration::from_secs(60)).await;
        let (probe, asked) = (http(address), Asked::default());
        let begun = Instant::now();
        for count in 1..=2 {
            let told = asked.ask(&probe).await.unwrap_err();
            assert!(matches!(&*told, Sick::Late(_)), "{told:?}");
            // The first answer is a tenth of a second old by the second probe, and of a second before.
            tokio::time::sleep_until((begun + Duration::from_secs(count)).into()).await;
        }
        assert_eq!(*often.borrow(), 2);
    }

    #[tokio::test]
    async fn who_finds_too_many_waiting_gets_the_last_answer_at_once() {
        let (address, often) = slow(Duration::from_secs(60)).await;
        let (probe, asked) = (http(address), Asked::default());
        for is_first in [true, false] {
            let others = asked.places.try_acquire_many(WAITING as u32).unwrap();
            // It waits for nothing at all.
            let told = tokio::time::timeout(Duration::ZERO, asked.ask(&probe)).await;
            let told = told.expect("at once").unwrap_err();
            assert_eq!(matches!(*told, Sick::Crowded), is_first, "{told:?}");
            drop(others);
            // The app is asked all the same, for whoever waits.
            let told = asked.ask(&probe).await.unwrap_err();
            assert!(matches!(*told, Sick::Late(_)), "{told:?}");
            assert_eq!(asked.places.available_permits(), WAITING);
        }
        assert_eq!(*often.borrow(), 2);
    }
}
