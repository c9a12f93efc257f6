//! The read-only port: whether the process turns, is started, is ready, whether the app is to be restarted, and
//! the metrics. It touches no pool and shows no statement and no id.

mod door;
mod places;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use crate::config::AppProbe;
use crate::shutdown::Life;

use super::app_probe::Asked;
use super::scrape::{Scrape, ScrapeError, Visit};
use door::Door;
use places::{Place, Places};

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);

/// How long a connection may take in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of a head is read, the least that hyper takes.
const LARGEST_HEAD: usize = 8 << 10;

/// How long the data plane may take for its sign of life.
const PULSE: Duration = Duration::from_secs(1);

/// What is answered.
const PATHS: [&str; 5] = ["/healthz", "/readyz", "/startupz", "/livez/app", "/metrics"];

/// Asks the data plane for a sign of life; false if it has ended.
pub type Pulse = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Asks what is known of the app: whether it is to be restarted. Answers at once, whatever is exhausted.
pub type OfApp = Box<dyn Fn() -> Pin<Box<dyn Future<Output = App> + Send>> + Send + Sync>;

/// What is known of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum App {
    /// Nothing against it: as well as this probe of its own says, where it has one.
    Well(Option<AppProbe>),
    /// It is to be restarted, and why.
    ToBeRestarted(String),
}

/// The port can't be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for probes: {source}; set telemetry.listen to a free address and port, or to off"
)]
pub struct BindError {
    /// What was asked for.
    address: SocketAddr,
    /// What the system says.
    source: io::Error,
}

/// Listens on the port. Where the system has no IPv6, `[::]` is `0.0.0.0`.
///
/// # Errors
/// It is in use, or may not be had.
pub fn bind(address: SocketAddr) -> Result<StdListener, BindError> {
    let failed = |source| BindError { address, source };
    let listener = match StdListener::bind(address) {
        Err(error) if is_without_ipv6(address, &error) => {
            StdListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    }
    .map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    address.is_ipv6()
        && address.ip().is_unspecified()
        && matches!(code, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// What is asked by probes, and who knows it.
pub struct Probes {
    life: Arc<Life>,
    pulse: Pulse,
    app: OfApp,
    scrape: Arc<Scrape>,
    own: Asked,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

impl Probes {
    /// Answers what `life` and `pulse` tell, `app` on `/livez/app`, and `scrape` on `/metrics`.
    #[must_use]
    pub fn new(life: Arc<Life>, pulse: Pulse, app: OfApp, scrape: Arc<Scrape>) -> Arc<Self> {
        Arc::new(Self {
            life,
            pulse,
            app,
            scrape,
            own: Asked::default(),
        })
    }

    /// Serves the port until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut places = Places::default();
        let mut door = Door::new(listener);
        loop {
            let has_room = places.have_room();
            tokio::select! {
                stream = door.accept(), if has_room => {
                    if places.seat(|place| Arc::clone(&self).serve_one(stream, place)) {
                        self.scrape.is_crowded_out();
                    }
                    // Whose request is there has asked before another newcomer can take its place.
                    tokio::task::yield_now().await;
                }
                () = places.one_is_over() => {}
            }
        }
    }

    async fn serve_one(self: Arc<Self>, stream: TcpStream, place: Arc<Place>) {
        // There is one request on a connection; this outlives its answer, and is dropped with it.
        let visit = Arc::new(Mutex::new(None));
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let (probes, visit) = (Arc::clone(&self), Arc::clone(&visit));
            place.has_asked();
            async move {
                let (method, path) = (request.method(), request.uri().path());
                let answer = probes.answer(method, path, &visit).await;
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(LARGEST_HEAD)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // One that breaks off or dawdles is its own affair.
        let served = tokio::time::timeout(PATIENCE, connection).await;
        if let (Ok(Ok(())), Some(visit)) = (served, visit.lock().take()) {
            visit.over();
        }
    }

    async fn answer(
        &self,
        method: &Method,
        path: &str,
        visit: &Mutex<Option<Visit>>,
    ) -> Response<Full<Bytes>> {
        if !PATHS.contains(&path) {
            let there_is = "there are /healthz, /readyz, /startupz, /livez/app and /metrics";
            return text(StatusCode::NOT_FOUND, there_is);
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD alone");
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allow);
            return response;
        }
        if path == "/metrics" {
            return match self.metrics(visit).await {
                Ok(text) => with_type(
                    StatusCode::OK,
                    text,
                    "text/plain; version=0.0.4; charset=utf-8",
                ),
                Err(why) => text(status(why), &why.to_string()),
            };
        }
        let ok = |()| "ok".to_owned();
        let verdict = match path {
            "/healthz" => self.turns().await.map(ok),
            "/livez/app" => self.app().await,
            "/readyz" => self.life.ready().map(ok).map_err(|why| why.to_string()),
            _ => self.life.started().map(ok).map_err(|why| why.to_string()),
        };
        match verdict {
            Ok(told) => text(StatusCode::OK, &told),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
        }
    }

    /// All metrics. `visit` keeps who asks until the answer is taken.
    async fn metrics(&self, visit: &Mutex<Option<Visit>>) -> Result<Bytes, ScrapeError> {
        *visit.lock() = Some(self.scrape.visit()?);
        self.scrape.text().await
    }

    /// Whether the app is well, as far as is known here, and as it says itself.
    async fn app(&self) -> Result<String, String> {
        match (self.app)().await {
            App::ToBeRestarted(why) => Err(why),
            App::Well(None) => Ok("ok".to_owned()),
            App::Well(Some(probe)) => match self.own.ask(&probe).await {
                Ok(told) => Ok(format!("ok: the app's own probe answers {told}")),
                Err(sick) => Err(sick.to_string()),
            },
        }
    }

    /// Whether the process turns: this thread does, as it answers.
    async fn turns(&self) -> Result<(), String> {
        let pulse = tokio::time::timeout(PULSE, (self.pulse)()).await;
        match pulse {
            Ok(true) => Ok(()),
            Ok(false) => Err("the data plane has ended".to_owned()),
            Err(_) => Err(format!(
                "the data plane gave no sign of life within {PULSE:?}"
            )),
        }
    }
}

fn status(why: ScrapeError) -> StatusCode {
    match why {
        ScrapeError::Disabled | ScrapeError::NotWanted => StatusCode::NOT_FOUND,
        ScrapeError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        ScrapeError::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let body = Bytes::from(format!("{text}\n"));
    with_type(status, body, "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, body: Bytes, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(pulse: Option<bool>) -> Arc<Probes> {
        let pulse: Pulse = Box::new(move || match pulse {
            Some(beats) => Box::pin(std::future::ready(beats)),
            None => Box::pin(std::future::pending()),
        });
        let scrape = Arc::new(Scrape::new(Err(ScrapeError::Disabled)));
        let app: OfApp = Box::new(|| Box::pin(std::future::ready(App::Well(None))));
        Probes::new(Arc::new(Life::default()), pulse, app, scrape)
    }

    #[tokio::test]
    async fn an_app_is_well_unless_it_is_to_be_restarted() {
        for (app, status) in [
            (App::Well(None), 200),
            (App::ToBeRestarted("why".to_owned()), 503),
        ] {
            let told = app.clone();
            let mut probes = probes(None);
            let inner = Arc::get_mut(&mut probes).unwrap();
            inner.app = Box::new(move || Box::pin(std::future::ready(told.clone())));
            let (get, none) = (Method::GET, Mutex::default());
            let answer = probes.answer(&get, "/livez/app", &none).await;
            assert_eq!(answer.status(), status, "{app:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_data_plane_that_hangs_or_has_ended_is_unhealthy() {
        for (pulse, status) in [(Some(true), 200), (Some(false), 503), (None, 503)] {
            let (get, none) = (Method::GET, Mutex::default());
            let answer = probes(pulse).answer(&get, "/healthz", &none).await;
            assert_eq!(answer.status(), status, "{pulse:?}");
        }
    }

    #[test]
    fn only_any_address_falls_back_to_the_older_protocol() {
        let none = io::Error::from_raw_os_error(Errno::EAFNOSUPPORT as i32);
        let used = io::Error::from_raw_os_error(Errno::EADDRINUSE as i32);
        assert!(is_without_ipv6("[::]:1".parse().unwrap(), &none));
        assert!(!is_without_ipv6("[::]:1".parse().unwrap(), &used));
        assert!(!is_without_ipv6("[::1]:1".parse().unwrap(), &none));
        assert!(!is_without_ipv6("0.0.0.0:1".parse().unwrap(), &none));
    }
}
