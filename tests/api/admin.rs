//! The API as its administrator, without a program to be started for each question.

use http::Request;
use kube::config::AuthInfo;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::support::cluster::Cluster;

/// Lives in one runtime.
pub(crate) struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(cluster: &Cluster, token: &str) -> Self {
        let (host, port) = cluster.api_address();
        let mut config = Config::new(format!("https://{host}:{port}").parse().unwrap());
        let authority = CertificateDer::from_pem_file(cluster.state().join("pki/ca.crt")).unwrap();
        config.root_cert = Some(vec![authority.to_vec()]);
        config.auth_info = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
        let client = Client::try_from(config).unwrap();
        Self { client }
    }

    /// The answer, or the status of HTTP and what was said.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> Result<Value, (u16, String)> {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind);
        let request = request.body(bytes).unwrap();
        self.client
            .request(request)
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) => (status.code, status.message),
                other => (0, other.to_string()),
            })
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> impl Future<Output = Value> {
        self.sure("GET", path, "application/json", &Value::Null)
    }

    #[track_caller]
    pub(crate) fn create(&self, path: &str, body: &Value) -> impl Future<Output = Value> {
        self.sure("POST", path, "application/json", body)
    }

    #[track_caller]
    pub(crate) fn merge(&self, path: &str, body: &Value) -> impl Future<Output = Value> {
        self.sure("PATCH", path, "application/merge-patch+json", body)
    }

    #[track_caller]
    pub(crate) fn patch(
        &self,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> impl Future<Output = Value> {
        self.sure("PATCH", path, kind, body)
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> impl Future<Output = Value> {
        let now = serde_json::json!({"gracePeriodSeconds": 0});
        self.sure("DELETE", path, "application/json", &now)
    }

    #[track_caller]
    fn sure<'a>(
        &'a self,
        method: &str,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> impl Future<Output = Value> + use<'a> {
        let caller = std::panic::Location::caller();
        let (method, path) = (method.to_owned(), path.to_owned());
        let (kind, body) = (kind.to_owned(), body.clone());
        async move {
            let answer = self.ask(&method, &path, &kind, &body).await;
            answer.unwrap_or_else(|why| panic!("{caller}: {method} {path}: {why:?}"))
        }
    }
}
