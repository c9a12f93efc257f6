//! One request over the control socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::UnixStream;

use super::error::{CtlError, Problem};

/// How much of an answer is read: more than the longest list of sessions.
const LONGEST: usize = 256 << 20;

/// What need not be written as `%XX`.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Whom to ask.
#[derive(Debug, Clone)]
pub(super) struct Client {
    path: PathBuf,
}

impl Client {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The answer to one request, with a body of JSON where there is one; that of one which says that
    /// not all is well (503) as well.
    ///
    /// # Errors
    /// See [`CtlError`].
    pub(super) async fn ask(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Value, CtlError> {
        let exchange = tokio::time::timeout(patience, self.exchange(method, target, body));
        let (status, body) = exchange.await.unwrap_or_else(|_| {
            Err(CtlError::Timeout {
                path: self.path.clone(),
                after: patience,
            })
        })?;
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        match json {
            Some(json) if status.is_success() => Ok(json),
            Some(json) if json["code"].is_string() => Err(CtlError::Refused(Problem { json })),
            Some(json) if json.is_object() && status == StatusCode::SERVICE_UNAVAILABLE => Ok(json),
            _ => Err(self.stranger(format!("it answered {status}"))),
        }
    }

    /// A stream: which process it is of, as it says, and its body.
    ///
    /// # Errors
    /// See [`CtlError`]; its head has not come within `patience`, too.
    pub(super) async fn stream(
        &self,
        target: &str,
        patience: Duration,
    ) -> Result<(Option<String>, Incoming), CtlError> {
        let opened = tokio::time::timeout(patience, self.open("GET", target, None)).await;
        let answer = opened.unwrap_or_else(|_| {
            Err(CtlError::Timeout {
                path: self.path.clone(),
                after: patience,
            })
        })?;
        let status = answer.status();
        if status.is_success() {
            let started = answer.headers().get("execpool-started");
            let started = started.and_then(|started| started.to_str().ok());
            return Ok((started.map(str::to_owned), answer.into_body()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| self.stranger(error.to_string()))?;
        match serde_json::from_slice::<Value>(&body.to_bytes()) {
            Ok(json) if json["code"].is_string() => Err(CtlError::Refused(Problem { json })),
            _ => Err(self.stranger(format!("it answered {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), CtlError> {
        let answer = self.open(method, target, body).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| self.stranger(error.to_string()))?;
        Ok((status, body.to_bytes()))
    }

    /// The head of an answer, with its body still to come.
    async fn open(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, CtlError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| self.unconnected(source))?;
        let broken = |error: &dyn std::error::Error| self.stranger(error.to_string());
        let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "execpool")
            .body(Full::<Bytes>::new(
                body.map(Value::to_string).unwrap_or_default().into(),
            ))
            .map_err(|error| broken(&error))?;
        let answer = sender.send_request(request).await;
        answer.map_err(|error| broken(&error))
    }

    fn unconnected(&self, source: io::Error) -> CtlError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => CtlError::NotPermitted { path, source },
            _ => CtlError::NotRunning { path, source },
        }
    }

    fn stranger(&self, what: String) -> CtlError {
        CtlError::NotExecpool {
            path: self.path.clone(),
            what,
        }
    }
}

/// A path with the parameters that are there.
pub(super) fn path<const N: usize>(path: &str, query: [(&str, Option<String>); N]) -> String {
    let mut target = path.to_owned();
    let mut mark = '?';
    for (name, value) in query {
        if let Some(value) = value {
            target.push(mark);
            target.push_str(&format!("{name}={}", encoded(&value)));
            mark = '&';
        }
    }
    target
}

/// A part of a path or a query string.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// What a client says of a listener that answers like this.
    async fn answered(answer: &'static [u8]) -> Result<Value, CtlError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            // Not closed with unread bytes in it: the answer would be lost.
            std::future::pending::<()>().await;
        });
        Client::new(path).ask("GET", "/", None, PATIENCE).await
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_told_apart_from_a_stranger() {
        let nowhere = Client::new("/nonexistent/control.sock".into());
        let error = nowhere.ask("GET", "/", None, PATIENCE).await.unwrap_err();
        assert!(matches!(error, CtlError::NotRunning { .. }), "{error}");
        assert!(error.to_string().contains("/nonexistent/control.sock"));
        for stranger in [
            b"E\0\0\0\x08FATAL\0".as_slice(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
        ] {
            let error = answered(stranger).await.unwrap_err();
            assert!(matches!(error, CtlError::NotExecpool { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_problem_is_a_refusal_and_json_an_answer() {
        let problem = b"HTTP/1.1 404 Not Found\r\ncontent-length: 12\r\n\r\n{\"code\":\"a\"}";
        let error = answered(problem).await.unwrap_err();
        assert!(matches!(error, CtlError::Refused(_)), "{error}");
        let answer = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await;
        assert_eq!(answer.unwrap(), serde_json::json!([]));
    }
}
