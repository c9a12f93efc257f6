//! Calls to the Kubernetes API: each ends within ten seconds, none is tried again by itself.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::timeout;

use super::failure::{Cause, Deed, Failure};
use super::place::Place;

/// The longest that reaching the server may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// The longest that a call may take, connecting and the answer's last byte included.
const CALL: Duration = Duration::from_secs(10);

/// The largest answer that is read: an object is at most 1.5 MiB.
const ANSWER: usize = 4 << 20;

/// The name under which fields are owned.
pub(super) const MANAGER: &str = "execpool";

/// A request, which can be sent more than once.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    path: String,
    kind: &'static str,
    body: Vec<u8>,
}

impl Call {
    /// Reads an object.
    pub(super) fn get(path: String) -> Self {
        Self::new(Method::GET, path, "application/json", &Value::Null)
    }

    /// Server-side apply of a part of an object; `force` takes fields from other managers.
    pub(super) fn apply(path: &str, force: bool, body: &Value) -> Self {
        let path = format!("{path}?fieldManager={MANAGER}&force={force}");
        Self::new(Method::PATCH, path, "application/apply-patch+yaml", body)
    }

    /// A merge patch (RFC 7386).
    pub(super) fn merge(path: &str, body: &Value) -> Self {
        let path = format!("{path}?fieldManager={MANAGER}");
        Self::new(Method::PATCH, path, "application/merge-patch+json", body)
    }

    /// Creates an object.
    pub(super) fn create(path: &str, body: &Value) -> Self {
        let path = format!("{path}?fieldManager={MANAGER}");
        Self::new(Method::POST, path, "application/json", body)
    }

    fn new(method: Method, path: String, kind: &'static str, body: &Value) -> Self {
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        Self {
            method,
            path,
            kind,
            body,
        }
    }

    fn request(&self) -> Result<Request<Body>, http::Error> {
        let agent = concat!("execpool/", env!("CARGO_PKG_VERSION"));
        Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, self.kind)
            .header(USER_AGENT, agent)
            .body(Body::from(self.body.clone()))
    }
}

/// The API as it is reached from the pod.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) place: Place,
    client: Mutex<Option<Kept>>,
}

/// A client, and which it is.
#[derive(Clone)]
struct Kept {
    client: Client,
    number: u64,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Api {
    /// Nothing is read or asked before the first call.
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            client: Mutex::new(None),
        }
    }

    /// The path of the pod.
    pub(super) fn pod(&self) -> String {
        let Place { namespace, pod, .. } = &self.place;
        format!("/api/v1/namespaces/{namespace}/pods/{pod}")
    }

    /// Asks, and gives the answer's JSON. A token that is not taken (401) is read anew and tried
    /// once more: it may have been replaced since it was read, which a client does once a minute.
    ///
    /// # Errors
    /// See [`Cause`].
    ///
    /// # Cancel safety
    /// The request may or may not have been carried out.
    pub(super) async fn call(&self, deed: Deed, call: &Call) -> Result<Value, Failure> {
        let asking = async {
            let kept = self.client(deed, None)?;
            match send(deed, &kept.client, call).await {
                Err(failure) if failure.cause == Cause::Unauthorized => {
                    let fresh = self.client(deed, Some(kept.number))?;
                    send(deed, &fresh.client, call).await
                }
                other => other,
            }
        };
        let in_vain = |_| {
            Failure::new(
                deed,
                Cause::Slow,
                format!("no answer for {} s", CALL.as_secs()),
            )
        };
        timeout(CALL, asking).await.map_err(in_vain)?
    }

    /// The client, made anew where there is none or it is the `stale` one.
    fn client(&self, deed: Deed, stale: Option<u64>) -> Result<Kept, Failure> {
        let mut known = self.client.lock();
        if let Some(kept) = &*known
            && Some(kept.number) != stale
        {
            return Ok(kept.clone());
        }
        let unusable =
            |error: &dyn std::error::Error| Failure::new(deed, Cause::Unauthorized, chain(error));
        let config = config(&self.place).map_err(|error| unusable(&error))?;
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        let number = stale.map_or(0, |stale| stale + 1);
        let kept = Kept { client, number };
        *known = Some(kept.clone());
        Ok(kept)
    }
}

/// Made by hand: what the library infers may be a developer's kubeconfig, and by default it tries a
/// 429 again for minutes, which is also what an eviction that may not be is answered.
fn config(place: &Place) -> Result<Config, std::io::Error> {
    let authority = place.credentials.join("ca.crt");
    let token = place.credentials.join("token");
    let roots = pem(&std::fs::read(&authority)?);
    if roots.is_empty() {
        let what = format!("{} holds no certificate", authority.display());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    }
    let mut config = Config::new(place.server.clone());
    config.default_namespace.clone_from(&place.namespace);
    config.root_cert = Some(roots);
    config.root_cert_file = Some(authority);
    config.connect_timeout = Some(CONNECT);
    config.default_retry = false;
    config.auth_info = AuthInfo {
        token_file: Some(token.display().to_string()),
        ..AuthInfo::default()
    };
    Ok(config)
}

/// The certificates of a file in PEM.
fn pem(text: &[u8]) -> Vec<Vec<u8>> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let found = CertificateDer::pem_slice_iter(text);
    found
        .flatten()
        .map(|certificate| certificate.to_vec())
        .collect()
}

async fn send(deed: Deed, client: &Client, call: &Call) -> Result<Value, Failure> {
    let request = call.request();
    let request = request.map_err(|error| Failure::new(deed, Cause::Odd, chain(&error)))?;
    let answer = client.send(request).await.map_err(|error| {
        let cause = match error {
            kube::Error::Auth(_) => Cause::Unauthorized,
            _ => Cause::Away,
        };
        Failure::new(deed, cause, chain(&error))
    })?;
    read(deed, answer).await
}

async fn read(deed: Deed, answer: Response<Body>) -> Result<Value, Failure> {
    let status = answer.status();
    let after = answer.headers().get(RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = Limited::new(answer.into_body(), ANSWER).collect().await;
    let body = body
        .map_err(|error| Failure::new(deed, Cause::Away, error))?
        .to_bytes();
    if !status.is_success() {
        let after = after.map(Duration::from_secs);
        return Err(Failure::answered(deed, status.as_u16(), after, &body));
    }
    let odd = |error| Failure::new(deed, Cause::Odd, error);
    serde_json::from_slice(&body).map_err(odd)
}

/// An error with what has led to it, each part once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut inner = error.source();
    while let Some(source) = inner {
        let more = source.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        inner = source.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_never_tried_again_by_the_library_and_reads_no_kubeconfig() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        std::fs::write(folder.path().join("ca.crt"), root.pem()).unwrap();
        std::fs::write(folder.path().join("token"), "secret-token").unwrap();
        let directory = folder.path().display().to_string();
        let place = Place::find(|name| match name {
            "EXECPOOL_TOKEN_DIR" => Some(directory.clone()),
            "KUBERNETES_SERVICE_PORT" => Some("443".into()),
            _ => Some("a".into()),
        });
        let place = place.unwrap();
        let config = config(&place).unwrap();
        assert!(!config.default_retry);
        assert_eq!(config.connect_timeout, Some(CONNECT));
        assert_eq!(config.proxy_url, None);
        assert_eq!(config.cluster_url, "https://a:443/");
        let shown = format!("{:?} {place:?}", Api::new(place.clone()));
        assert!(!shown.contains("secret-token"), "{shown}");
    }

    #[test]
    fn paths_of_calls_are_taken_by_the_library() {
        let body = serde_json::json!({"a": 1});
        for call in [
            Call::get("/api/v1/x".into()),
            Call::apply("/api/v1/x", true, &body),
            Call::merge("/api/v1/x", &body),
            Call::create("/api/v1/x", &body),
        ] {
            let request = call.request().unwrap();
            assert_eq!(request.uri().path(), "/api/v1/x");
        }
    }
}
