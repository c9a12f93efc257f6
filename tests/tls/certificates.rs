//! Certificates that are made here, and servers that have them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{self, Database, Postgres, PostgresOptions};

/// A certificate and its key, as PEM.
pub(crate) type Pair = (String, String);

/// One that signs others.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate for these hosts says.
pub(crate) fn params(common_name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    // With one name for two, OpenSSL takes the signed one for self-signed.
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

impl Authority {
    /// One that nobody has signed.
    pub(crate) fn root(name: &str) -> Self {
        Self::new(name, |params, key| params.self_signed(key).unwrap())
    }

    /// One that another has signed.
    pub(crate) fn between(&self, name: &str) -> Self {
        Self::new(name, |params, key| {
            params.signed_by(key, &self.issuer).unwrap()
        })
    }

    fn new(name: &str, sign: impl FnOnce(&CertificateParams, &KeyPair) -> Certificate) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = sign(&params, &key).pem();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    /// The certificate of these, and its key.
    pub(crate) fn signed(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A directory of files that a server may read.
pub(crate) struct Files(TempDir);

impl Files {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    /// The path of a file in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of ours, which nobody else may read if it is a key.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.at(name);
        std::fs::write(&path, text).unwrap();
        let mode = if name.ends_with("key") { 0o600 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A server with this certificate, and its database.
    pub(crate) async fn server(
        &self,
        name: &str,
        (certificate, key): &Pair,
        more: PostgresOptions,
    ) -> (Postgres, Database) {
        let certificate = self.write(&format!("{name}.crt"), certificate);
        let key = self.write(&format!("{name}.key"), key);
        support::guard::give_away(key.as_ref());
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut options = more;
        options.settings.extend([
            setting("ssl", "on"),
            setting("ssl_cert_file", &certificate),
            setting("ssl_key_file", &key),
        ]);
        let postgres = Postgres::start(options);
        let database = postgres.database(name).await;
        (postgres, database)
    }
}
