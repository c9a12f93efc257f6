//! A small HTTP client, over a Unix socket or a port of the loopback.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use super::wait::SOON;

/// Sends one request; answers with the status and the body: JSON as it is, other text
/// as a string, nothing as null.
pub(crate) async fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), String> {
    let exchange = async {
        let response = open(socket, method, path, body).await?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        let body = value(&body);
        super::schema::assert_described(method, path, status, &body);
        Ok((status, body))
    };
    tokio::time::timeout(SOON, exchange)
        .await
        .map_err(|_| format!("{method} {path}: no answer within {SOON:?}"))?
}

/// Sends one request; answers as soon as the head of the response is there, for
/// streams. Dropping the response closes the connection.
pub(crate) async fn open(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<http::Response<Incoming>, String> {
    open_with(socket, method, path, body, &[]).await
}

/// The same with more headers.
pub(crate) async fn open_with(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> Result<http::Response<Incoming>, String> {
    let why = |error: &dyn std::fmt::Display| format!("{method} {path}: {error}");
    let stream = UnixStream::connect(socket).await.map_err(|e| why(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| why(&e))?;
    tokio::spawn(connection);

    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "execpool");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let request = request.body(Full::new(body)).map_err(|e| why(&e))?;
    sender.send_request(request).await.map_err(|e| why(&e))
}

/// Asks a TCP port, such as `127.0.0.1:9464`, for a path; answers with the status and the body as text.
pub(crate) async fn get_tcp(address: &str, path: &str) -> Result<(u16, String), String> {
    let why = |error: &dyn std::fmt::Display| format!("GET {address}{path}: {error}");
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|e| why(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| why(&e))?;
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", address);
        let request = request.body(Full::new(Bytes::new())).map_err(|e| why(&e))?;
        let response = sender.send_request(request).await.map_err(|e| why(&e))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|e| why(&e))?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok((status, body))
    };
    tokio::time::timeout(SOON, exchange)
        .await
        .map_err(|_| why(&format_args!("no answer within {SOON:?}")))?
}

fn value(body: &Bytes) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}
