//! Why TLS could not be had, and what to do about it.

use std::path::PathBuf;

use rustls::{AlertDescription as Alert, CertificateError as Certificate};

/// What is wrong with TLS to a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    /// The server answered that it speaks none.
    #[error("it does not speak TLS")]
    NotSpoken,
    /// The answer to the request is none, or more than that.
    #[error("it gave no proper answer to the request for TLS")]
    Answer,
    /// The other side did not choose PostgreSQL's protocol.
    #[error("it did not choose the protocol postgresql (ALPN)")]
    Alpn,
    /// The other side ended the connection before the handshake was over.
    #[error("it closed the connection amid the handshake")]
    Closed,
    /// A file can't be used.
    #[error("the file {} of {parameter} {why}", file.display())]
    File {
        /// The parameter of the URL.
        parameter: &'static str,
        /// Its value.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The dialled host can't be a certificate's name.
    #[error("the host {0:?} is no name that a certificate could have")]
    Name(String),
    /// Channel binding is demanded and can't be had.
    #[error("channel_binding=require, and channel binding can't be had")]
    NoBinding,
    /// The handshake failed, or the session broke.
    #[error("{}", sentence(.0))]
    Failed(rustls::Error),
}

impl From<rustls::Error> for TlsProblem {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(Alert::NoApplicationProtocol) => Self::Alpn,
            error => Self::Failed(error),
        }
    }
}

impl TlsProblem {
    /// What to do.
    pub(in crate::server) fn hint(&self) -> &'static str {
        use rustls::Error as E;
        match self {
            Self::NotSpoken => {
                "Set ssl = on at the server; only sslmode=prefer or less does without TLS."
            }
            Self::Answer => "Check that PostgreSQL listens at the upstream's host and port.",
            Self::Alpn => {
                "Check that PostgreSQL listens there; before version 17 use sslnegotiation=postgres."
            }
            Self::Closed => {
                "Look into the server's log; before version 17 use sslnegotiation=postgres."
            }
            Self::File { .. } => {
                "Check the file that the upstream's URL names, and its permissions."
            }
            Self::Name(_) => "Name the host as its certificate does.",
            Self::NoBinding => "Use SCRAM-SHA-256 over TLS, or channel_binding=prefer.",
            Self::Failed(E::InvalidCertificate(Certificate::UnknownIssuer)) => {
                "Put the certificate of the authority that signed the server's into sslrootcert."
            }
            Self::Failed(E::InvalidCertificate(
                Certificate::Expired | Certificate::ExpiredContext { .. },
            )) => "Renew the server's certificate.",
            Self::Failed(E::InvalidCertificate(Certificate::NotValidForNameContext { .. })) => {
                "Dial a name that the certificate has, or use sslmode=verify-ca."
            }
            Self::Failed(E::AlertReceived(Alert::HandshakeFailure | Alert::ProtocolVersion)) => {
                "Check the versions of TLS that the server speaks; its log says more."
            }
            Self::Failed(E::AlertReceived(_)) => {
                "Check sslcert and sslkey against what the server asks for; its log says more."
            }
            Self::Failed(_) => {
                "Check the server's certificate, and the versions of TLS that it speaks."
            }
        }
    }
}

fn sentence(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate is signed by no authority that is trusted".to_owned()
        }
        E::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        E::InvalidCertificate(Certificate::NotValidForNameContext {
            expected,
            presented,
        }) => format!(
            "its certificate is not for {}, but for {}",
            expected.to_str(),
            presented.join(", ")
        ),
        E::AlertReceived(Alert::CertificateRequired) => {
            "it demands a client certificate".to_owned()
        }
        E::AlertReceived(
            Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied,
        ) => format!("it rejected the client certificate ({error})"),
        _ => format!("the handshake failed: {error}"),
    }
}
