//! Whether a server's certificate is good: by its authority, and by its name.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::der::Outline;

/// Those who are trusted.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) authorities: RootCertStore,
    /// The certificates that this was made of, where they are of a file.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// Whether this very certificate is trusted: it is signed by itself and is one of ours. webpki
    /// would have none that is an authority's, as `openssl req -x509` makes them.
    fn has(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<bool, Error> {
        if !self.certificates.contains(certificate) {
            return Ok(false);
        }
        match Outline::of(certificate) {
            Some(found) if found.issuer != found.subject => Ok(false),
            Some(found) if now < found.not_before => Err(CertificateError::NotValidYet.into()),
            Some(found) if now > found.not_after => Err(CertificateError::Expired.into()),
            Some(_) => Ok(true),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }
}

/// Verifies as far as the sslmode demands.
#[derive(Debug)]
pub(super) struct Verifier {
    /// The authorities that are trusted; none: everybody is.
    pub(super) roots: Option<Trusted>,
    /// Whether the name counts.
    pub(super) names: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            if !roots.has(end_entity, now)? {
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &roots.authorities,
                    intermediates,
                    now,
                    self.algorithms.all,
                )?;
            }
            if self.names {
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
