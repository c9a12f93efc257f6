//! What a connect needs. Files are read anew each time, so that rotated ones count at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, SupportedProtocolVersion, version,
};

use crate::config::{Identity, Roots, SslMode, Tls};

use super::TlsProblem;
use super::verify::{Trusted, Verifier};

/// PostgreSQL's protocol, as TLS names it.
pub(super) const ALPN: &[u8] = b"postgresql";

/// Where systems keep their authorities.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// A session that is about to shake hands with `host`.
pub(in crate::server) fn begin(tls: &Tls, host: &str) -> Result<ClientConnection, TlsProblem> {
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_) if tls.mode == SslMode::VerifyFull => return Err(TlsProblem::Name(host.to_owned())),
        // Not verified, and an address is not sent.
        Err(_) => ServerName::from(std::net::Ipv4Addr::UNSPECIFIED),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        roots: roots(&tls.roots)?,
        names: tls.mode == SslMode::VerifyFull,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
    versions.extend(tls.tls13.then_some(&version::TLS13));
    versions.extend(tls.tls12.then_some(&version::TLS12));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(TlsProblem::Failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let own = own(identity, builder.crypto_provider())?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = tls.sni;
    config.resumption = Resumption::disabled();
    ClientConnection::new(Arc::new(config), name).map_err(TlsProblem::Failed)
}

fn roots(roots: &Roots) -> Result<Option<Trusted>, TlsProblem> {
    let path = match roots {
        Roots::None => return Ok(None),
        Roots::File(path) => path.clone(),
        Roots::System => match system() {
            Some(path) => path,
            None => {
                let known = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
                return Ok(Some(Trusted {
                    authorities: known.collect(),
                    certificates: Vec::new(),
                }));
            }
        },
    };
    let mut authorities = RootCertStore::empty();
    let certificates = certificates("sslrootcert", &path)?;
    let (added, _) = authorities.add_parsable_certificates(certificates.iter().cloned());
    match added {
        0 => Err(file(
            "sslrootcert",
            &path,
            "holds no certificate of an authority",
        )),
        _ => Ok(Some(Trusted {
            authorities,
            certificates,
        })),
    }
}

/// Which authorities `sslrootcert=system` means now, for people.
#[must_use]
pub fn system_roots() -> String {
    system().map_or_else(
        || "Mozilla's, which are built in".to_owned(),
        |path| path.display().to_string(),
    )
}

/// The system's bundle; `SSL_CERT_FILE` names another.
fn system() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SSL_CERT_FILE").filter(|name| !name.is_empty()) {
        return Some(named.into());
    }
    BUNDLES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// The certificate and its key. Where they don't belong together they are read once more: both may
/// have been replaced between the two.
fn own(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, TlsProblem> {
    for _ in 0..2 {
        let (chain, key) = read_own(identity)?;
        match CertifiedKey::from_der(chain, key, provider) {
            Err(Error::InconsistentKeys(_)) => {}
            own => return own.map_err(|error| unfit(identity, &error)),
        }
    }
    let certificate = identity.certificate.display();
    let why = format!("does not belong to the certificate in {certificate} of sslcert");
    Err(file("sslkey", &identity.key, why))
}

fn unfit(identity: &Identity, error: &Error) -> TlsProblem {
    match error {
        Error::InvalidCertificate(_) => {
            let why = "holds a certificate that can't be read";
            file("sslcert", &identity.certificate, why)
        }
        _ => file("sslkey", &identity.key, format!("can't be used: {error}")),
    }
}

fn read_own(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsProblem> {
    let chain = certificates("sslcert", &identity.certificate)?;
    let path = &identity.key;
    check_access(path)?;
    let text = read("sslkey", path)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let why = "holds no key that can be read as PEM without a passphrase";
        file("sslkey", path, why)
    })?;
    Ok((chain, key))
}

/// As libpq: a key is its owner's alone, but the group may read root's.
fn check_access(path: &Path) -> Result<(), TlsProblem> {
    let found = fs::metadata(path)
        .map_err(|error| file("sslkey", path, format!("can't be read: {error}")))?;
    let forbidden = if found.uid() == 0 { 0o037 } else { 0o077 };
    match found.mode() & forbidden {
        0 => Ok(()),
        _ => Err(file(
            "sslkey",
            path,
            "may be read by others: its mode must be 0600 or less, or 0640 or less if root owns it",
        )),
    }
}

fn certificates(
    parameter: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let text = read(parameter, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(file(parameter, path, "holds no certificate as PEM")),
        Err(_) => Err(file(
            parameter,
            path,
            "is no PEM from its beginning to its end",
        )),
    }
}

fn read(parameter: &'static str, path: &Path) -> Result<Vec<u8>, TlsProblem> {
    fs::read(path).map_err(|error| file(parameter, path, format!("can't be read: {error}")))
}

fn file(parameter: &'static str, path: &Path, why: impl Into<String>) -> TlsProblem {
    TlsProblem::File {
        parameter,
        file: path.to_owned(),
        why: why.into(),
    }
}
