//! A receiver of metrics over OTLP/gRPC that does as it is told: it takes, rejects a part, refuses,
//! or never answers. HTTP/2, gRPC's framing and protobuf are real; for a real collector see the tests
//! that run one.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Takes all.
    Takes,
    /// Takes all but so many data points.
    Rejects(i64, &'static str),
    /// A status of gRPC and its message.
    Status(u8, &'static str),
    /// Nothing, ever.
    Never,
}

/// A request that it got.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) request: ExportMetricsServiceRequest,
}

/// It runs until it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    answer: Mutex<Answer>,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// On any free port.
    pub(crate) async fn start(answer: Answer) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), answer, None).await
    }

    /// Over TLS.
    pub(crate) async fn over_tls(acceptor: TlsAcceptor) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), Answer::Takes, Some(acceptor)).await
    }

    /// At an address, such as that of one that is gone.
    pub(crate) async fn at(address: SocketAddr, answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let inner = Arc::new(Inner {
            answer: Mutex::new(answer),
            received: Mutex::default(),
        });
        let own = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("it listens");
                let (inner, tls) = (Arc::clone(&own), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(inner, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(inner, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            inner,
            task,
        }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does something else from now on.
    pub(crate) fn answers(&self, answer: Answer) {
        *self.inner.answer.lock().unwrap() = answer;
    }

    /// All that it got so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.inner.received.lock().unwrap().clone()
    }

    /// Waits for a request in which `wanted` finds something.
    pub(crate) async fn wait_for<T>(
        &self,
        claim: &str,
        wanted: impl Fn(&Received) -> Option<T>,
    ) -> T {
        super::eventually(super::SOON, claim, async || {
            let received = self.received();
            received
                .iter()
                .rev()
                .find_map(&wanted)
                .ok_or(received.len())
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Received {
    /// A metric by its name.
    pub(crate) fn metric(&self, name: &str) -> Option<&Metric> {
        let resources = self.request.resource_metrics.iter();
        let scopes = resources.flat_map(|resource| &resource.scope_metrics);
        scopes
            .flat_map(|scope| &scope.metrics)
            .find(|metric| metric.name == name)
    }

    /// The points of a sum or gauge, each with its attributes as `key=value` with commas between them.
    pub(crate) fn points(&self, name: &str) -> Vec<(String, f64)> {
        let points = match self.metric(name).and_then(|metric| metric.data.as_ref()) {
            Some(Data::Sum(sum)) => &sum.data_points,
            Some(Data::Gauge(gauge)) => &gauge.data_points,
            _ => return Vec::new(),
        };
        let point = |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
            let value = match point.value {
                Some(Value::AsDouble(value)) => value,
                Some(Value::AsInt(value)) => value as f64,
                None => f64::NAN,
            };
            (attributes(&point.attributes), value)
        };
        points.iter().map(point).collect()
    }

    /// The attributes of who sent it.
    pub(crate) fn resource(&self) -> String {
        let resource = self.request.resource_metrics.first();
        let resource = resource.and_then(|metrics| metrics.resource.as_ref());
        resource.map_or(String::new(), |resource| attributes(&resource.attributes))
    }
}

fn attributes(all: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let mut all: Vec<String> = all
        .iter()
        .map(|pair| {
            let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
            match value {
                Some(Value::StringValue(value)) => format!("{}={value}", pair.key),
                other => format!("{}={other:?}", pair.key),
            }
        })
        .collect();
    all.sort();
    all.join(",")
}

async fn serve(inner: Arc<Inner>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request| answered(Arc::clone(&inner), request));
    // One that breaks off is its own affair.
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answered(
    inner: Arc<Inner>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    assert_eq!(request.uri().path(), path);
    let headers = request.headers().clone();
    let body = request.into_body().collect().await?.to_bytes();
    let received = Received {
        request: decoded(&body),
        headers,
    };
    inner.received.lock().unwrap().push(received);
    let answer = inner.answer.lock().unwrap().clone();
    let (partial_success, status, text) = match answer {
        Answer::Never => std::future::pending().await,
        Answer::Takes => (None, 0, ""),
        Answer::Status(status, text) => (None, status, text),
        Answer::Rejects(count, text) => {
            let partly = ExportMetricsPartialSuccess {
                rejected_data_points: count,
                error_message: text.to_owned(),
            };
            (Some(partly), 0, "")
        }
    };
    let mut frame = BytesMut::new();
    if status == 0 {
        let message = ExportMetricsServiceResponse { partial_success }.encode_to_vec();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).unwrap());
        frame.put_slice(&message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    trailers.insert("grpc-message", HeaderValue::from_static(text));
    let body = Full::new(frame.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body.boxed()).unwrap())
}

fn decoded(frame: &[u8]) -> ExportMetricsServiceRequest {
    let (is_compressed, message) = (frame[0] == 1, &frame[5..]);
    let mut plain = Vec::new();
    match is_compressed {
        false => plain.extend_from_slice(message),
        true => {
            let mut gzip = flate2::read::GzDecoder::new(message);
            gzip.read_to_end(&mut plain).expect("gzip");
        }
    }
    ExportMetricsServiceRequest::decode(&plain[..]).expect("what OTLP says")
}
