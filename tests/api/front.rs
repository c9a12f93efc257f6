//! A relay before the API server that ends TLS, for the faults that a real one can't be made to have:
//! it answers by itself, holds requests, cuts and trickles. It writes down what was asked.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::cluster::Cluster;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is answered so.
    Answer {
        status: u16,
        header: (&'static str, &'static str),
        body: &'static str,
    },
    /// It is never answered.
    Hold,
    /// The connection is cut.
    Cut,
    /// The answer begins and never ends.
    Trickle,
}

impl Fault {
    /// What a proxy says to browsers.
    pub(crate) const PAGE: Self = Self::Answer {
        status: 200,
        header: ("x-by", "the relay"),
        body: "<html>",
    };

    pub(crate) const fn status(status: u16) -> Self {
        Self::Answer {
            status,
            header: ("x-by", "the relay"),
            body: r#"{"kind":"Status","message":"made up"}"#,
        }
    }
}

/// A request that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// Method and path with its query.
    pub(crate) what: String,
    pub(crate) body: String,
}

#[derive(Default)]
struct State {
    /// Of requests that have this text in `what`.
    faults: Vec<(String, Fault)>,
    seen: Vec<Seen>,
}

pub(crate) struct Front {
    port: u16,
    authority: String,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Front {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let (acceptor, authority) = acceptor();
        let upstream = Upstream::new(cluster);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let serve = service_fn(move |request| {
                        answer(request, upstream.clone(), Arc::clone(&state))
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        Self {
            port,
            authority,
            state,
            _tasks: tasks,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What has to be trusted, in PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// All requests from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.set_for("", fault);
    }

    /// Those that have this text in method and path.
    pub(crate) fn set_for(&self, part: &str, fault: Fault) {
        self.state.lock().unwrap().faults = vec![(part.to_owned(), fault)];
    }

    pub(crate) fn mend(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// Requests with this text in method and path.
    pub(crate) fn seen_of(&self, part: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|one| one.what.contains(part));
        seen
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    upstream: Upstream,
    state: Arc<Mutex<State>>,
) -> Result<Answer, std::io::Error> {
    let what = format!("{} {}", request.method(), request.uri());
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let fault = {
        let mut state = state.lock().unwrap();
        state.seen.push(Seen {
            at: Instant::now(),
            what: what.clone(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let fits = |(part, _): &&(String, Fault)| what.contains(part.as_str());
        state
            .faults
            .iter()
            .find(fits)
            .map(|(_, fault)| fault.clone())
    };
    match fault {
        None => {
            upstream
                .ask(Request::from_parts(head, Full::new(body)))
                .await
        }
        Some(Fault::Hold) => std::future::pending().await,
        Some(Fault::Cut) => Err(std::io::Error::other("cut")),
        Some(Fault::Trickle) => Ok(Response::new(BoxBody::new(Trickle::default()))),
        Some(Fault::Answer {
            status,
            header,
            body,
        }) => {
            let answer = Response::builder()
                .status(status)
                .header(header.0, header.1);
            Ok(answer.body(Full::new(Bytes::from(body)).boxed()).unwrap())
        }
    }
}

/// A byte a second, for ever.
#[derive(Default)]
struct Trickle(Option<Pin<Box<tokio::time::Sleep>>>);

impl Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let second = || Box::pin(tokio::time::sleep(Duration::from_secs(1)));
        let sleep = self.0.get_or_insert_with(second);
        std::task::ready!(sleep.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

/// The real one.
#[derive(Clone)]
struct Upstream {
    address: (String, u16),
    connector: TlsConnector,
}

impl Upstream {
    fn new(cluster: &Cluster) -> Self {
        let (host, port) = cluster.api_address();
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(cluster.state().join("pki/ca.crt")).unwrap();
        roots.add(authority).unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address: (host.to_owned(), port),
            connector: TlsConnector::from(Arc::new(config)),
        }
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Answer, std::io::Error> {
        let socket = TcpStream::connect(&self.address).await?;
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::try_from("127.0.0.1").unwrap()));
        let stream = self.connector.connect(name, socket).await?;
        let ready = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = ready.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let answer = sender
            .send_request(request)
            .await
            .map_err(std::io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .map_err(std::io::Error::other)?
            .to_bytes();
        Ok(Response::from_parts(head, Full::new(body).boxed()))
    }
}

/// With a certificate of an authority of its own.
fn acceptor() -> (TlsAcceptor, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&own, &issuer).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let config = config
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority)
}
