//! How the server is spoken to: the `ssl…` parameters of a URL, with libpq's meaning.

use super::url::UrlProblem;
use std::path::PathBuf;

/// How far TLS is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only where the server lets nobody in without it.
    Allow,
    /// Where the server offers it; without it is fine.
    Prefer,
    /// Always; the certificate is verified where a root certificate is named.
    Require,
    /// Always, by a certificate of a known authority.
    VerifyCa,
    /// The same, and the certificate names the host that was dialled.
    VerifyFull,
}

/// Whose signature makes a server's certificate good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Nobody's: it is not verified.
    None,
    /// The machine's authorities, and Mozilla's where the machine has none.
    System,
    /// Those in this file, read at each connect.
    File(PathBuf),
}

/// Whether SCRAM is bound to the TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Always: nothing else logs in.
    Require,
}

/// The client's certificate, read at each connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and what it is signed by, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM, not encrypted.
    pub key: PathBuf,
}

/// How the server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// How far TLS is demanded.
    pub mode: SslMode,
    /// Who vouches for the server.
    pub roots: Roots,
    /// Who we are, if the server asks.
    pub identity: Option<Identity>,
    /// Whether TLS begins without PostgreSQL's own question.
    pub direct: bool,
    /// Whether the server is told which name is meant.
    pub sni: bool,
    /// Whether TLS 1.2 may be spoken.
    pub tls12: bool,
    /// Whether TLS 1.3 may be spoken.
    pub tls13: bool,
    /// Whether SCRAM is bound to the TLS connection.
    pub channel_binding: ChannelBinding,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            mode: SslMode::Prefer,
            roots: Roots::None,
            identity: None,
            direct: false,
            sni: true,
            tls12: true,
            tls13: true,
            channel_binding: ChannelBinding::Prefer,
        }
    }
}

impl SslMode {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The parameters, as they are read.
#[derive(Debug, Default)]
pub(super) struct Builder {
    tls: Tls,
    mode: Option<SslMode>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Builder {
    /// Takes one parameter; false if it is none of TLS.
    pub(super) fn take(&mut self, name: &'static str, value: &str) -> Result<bool, UrlProblem> {
        let is_empty = value.is_empty();
        let wrong = |allowed| Err(UrlProblem::Value(name, allowed));
        match (name, value) {
            ("sslmode", value) => self.mode = Some(mode(value)?),
            ("sslrootcert", "system") => self.tls.roots = Roots::System,
            ("sslrootcert", file) if !is_empty => self.tls.roots = Roots::File(file.into()),
            ("sslcert", file) if !is_empty => self.certificate = Some(file.into()),
            ("sslkey", file) if !is_empty => self.key = Some(file.into()),
            ("sslrootcert" | "sslcert" | "sslkey", _) => return wrong("the path of a file"),
            ("sslnegotiation", "postgres") => self.tls.direct = false,
            ("sslnegotiation", "direct") => self.tls.direct = true,
            ("sslnegotiation", _) => return wrong("postgres or direct"),
            ("sslsni", "0") => self.tls.sni = false,
            ("sslsni", "1") => self.tls.sni = true,
            ("sslsni", _) => return wrong("0 or 1"),
            ("channel_binding", "disable") => self.tls.channel_binding = ChannelBinding::Disable,
            ("channel_binding", "prefer") => self.tls.channel_binding = ChannelBinding::Prefer,
            ("channel_binding", "require") => self.tls.channel_binding = ChannelBinding::Require,
            ("channel_binding", _) => return wrong("disable, prefer or require"),
            ("ssl_min_protocol_version", "TLSv1.2") => self.tls.tls12 = true,
            ("ssl_min_protocol_version", "TLSv1.3") => self.tls.tls12 = false,
            ("ssl_max_protocol_version", "TLSv1.2") => self.tls.tls13 = false,
            ("ssl_max_protocol_version", "TLSv1.3") => self.tls.tls13 = true,
            ("ssl_min_protocol_version" | "ssl_max_protocol_version", _) => {
                return wrong("TLSv1.2 or TLSv1.3");
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What they say together.
    pub(super) fn build(self) -> Result<Tls, UrlProblem> {
        let mut tls = self.tls;
        let default = match tls.roots {
            Roots::System => SslMode::VerifyFull,
            _ => SslMode::Prefer,
        };
        tls.mode = self.mode.unwrap_or(default);
        tls.identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            _ => return Err(UrlProblem::Pair),
        };
        if tls.roots == Roots::System && tls.mode != SslMode::VerifyFull {
            return Err(UrlProblem::Value(
                "sslmode",
                "verify-full with sslrootcert=system: anybody has a certificate of theirs",
            ));
        }
        if tls.mode >= SslMode::VerifyCa && tls.roots == Roots::None {
            return Err(UrlProblem::NoRoots(tls.mode.as_str()));
        }
        if tls.direct && tls.mode < SslMode::Require {
            return Err(UrlProblem::Value(
                "sslmode",
                "require, verify-ca or verify-full with sslnegotiation=direct",
            ));
        }
        if !tls.tls12 && !tls.tls13 {
            return Err(UrlProblem::Value(
                "ssl_max_protocol_version",
                "at least ssl_min_protocol_version",
            ));
        }
        Ok(tls)
    }
}

fn mode(value: &str) -> Result<SslMode, UrlProblem> {
    use SslMode as M;
    let all = [
        M::Disable,
        M::Allow,
        M::Prefer,
        M::Require,
        M::VerifyCa,
        M::VerifyFull,
    ];
    let found = all.into_iter().find(|mode| mode.as_str() == value);
    found.ok_or(UrlProblem::Value(
        "sslmode",
        "disable, allow, prefer, require, verify-ca or verify-full",
    ))
}
