//! The URL of a database, as libpq reads it.

use super::Secret;
use super::nearest::nearest;
use percent_encoding::percent_decode_str;

/// What is wrong with a URL. Only names of parameters are ever repeated from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// Another scheme, or none.
    #[error(
        "it must begin with postgresql:// or postgres:// (a driver's suffix such as +asyncpg does not belong here)"
    )]
    Scheme,
    /// An `@` after the host.
    #[error("an @ after the host's part: write @ as %40, / as %2F and ? as %3F in a password")]
    At,
    /// A percent sign that begins nothing, or no UTF-8.
    #[error("a % in it does not begin a two-digit code of UTF-8 text (write % itself as %25)")]
    Percent,
    /// A port out of range, or no number.
    #[error("a port must be a number from 1 to 65535")]
    Port,
    /// As many ports as hosts, or one, or none.
    #[error("the number of ports fits neither one nor the number of hosts")]
    Ports,
    /// A bracket without its partner.
    #[error("an IPv6 address stands in brackets, as in [::1]:5432")]
    Brackets,
    /// Nobody says as whom.
    #[error("it names no user: write postgresql://user@host/database or set PGUSER")]
    NoUser,
    /// Nobody says where.
    #[error(
        "it names no host: write postgresql://user@host/database, or ?host=/directory for a socket"
    )]
    NoHost,
    /// A certificate without its key, or the other way around.
    #[error("sslcert and sslkey belong together: name both files")]
    Pair,
    /// Nobody vouches for the server.
    #[error("sslmode={0} needs sslrootcert: the file of an authority's certificate, or system")]
    NoRoots(&'static str),
    /// A value that the parameter does not take.
    #[error("the parameter {0} must be {1}")]
    Value(&'static str, &'static str),
    /// libpq knows it; here it has no effect.
    #[error("the parameter {0} is not served by this version")]
    NotServed(&'static str),
    /// Nobody knows it.
    #[error("an unknown parameter; the nearest known one is {0}")]
    Unknown(&'static str),
    /// A parameter without `=`.
    #[error("a parameter without a value")]
    NoValue,
    /// A zero byte.
    #[error("a zero byte in it")]
    Zero,
}

/// The parameters that have an effect (or whose only value says nothing).
pub(super) const SERVED: &[&str] = &[
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslsni",
    "sslrootcert",
    "sslkey",
    "sslcert",
    "sslnegotiation",
    "channel_binding",
    "connect_timeout",
    "application_name",
    "options",
    "client_encoding",
    "keepalives",
    "keepalives_idle",
    "target_session_attrs",
    "load_balance_hosts",
];

/// What libpq knows besides.
const NOT_SERVED: &[&str] = &[
    "hostaddr",
    "passfile",
    "require_auth",
    "fallback_application_name",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "replication",
    "gssencmode",
    "requiressl",
    "sslcompression",
    "sslpassword",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "requirepeer",
    "min_protocol_version",
    "max_protocol_version",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "service",
];

/// The parts of a URL, decoded; the query has overruled what stands before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    /// Names, addresses, directories; an empty one is the default.
    pub(super) hosts: Vec<String>,
    /// None where it stands for the default; as many as hosts, or one, or none at all.
    pub(super) ports: Vec<Option<u16>>,
    pub(super) database: Option<String>,
    /// The other parameters, all of them of `SERVED`.
    pub(super) query: Vec<(&'static str, String)>,
}

/// Takes a URL apart.
pub(super) fn parse(url: &str) -> Result<Parts, UrlProblem> {
    let rest = url
        .strip_prefix("postgresql://")
        .or_else(|| url.strip_prefix("postgres://"))
        .ok_or(UrlProblem::Scheme)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') {
        return Err(UrlProblem::At);
    }
    let mut parts = Parts::default();
    let hosts = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let (user, password) = login
                .split_once(':')
                .map_or((login, None), |(user, word)| (user, Some(word)));
            parts.user = some(decode(user)?);
            parts.password = password
                .map(decode)
                .transpose()?
                .and_then(some)
                .map(Secret::new);
            hosts
        }
        None => authority,
    };
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let (name, port) = host_and_port(host)?;
        parts.hosts.push(decode(name)?);
        parts.ports.push(port);
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    parts.database = some(decode(path.strip_prefix('/').unwrap_or(path))?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(UrlProblem::NoValue)?;
        parameter(&mut parts, known(&decode(name)?)?, decode(value)?)?;
    }
    Ok(parts)
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn known(name: &str) -> Result<&'static str, UrlProblem> {
    if let Some(name) = SERVED.iter().find(|known| **known == name) {
        return Ok(name);
    }
    if let Some(name) = NOT_SERVED.iter().find(|known| **known == name) {
        return Err(UrlProblem::NotServed(name));
    }
    // SERVED is not empty, so there is always a nearest.
    Err(UrlProblem::Unknown(
        nearest(name, SERVED.iter().copied()).unwrap_or("host"),
    ))
}

fn parameter(parts: &mut Parts, name: &'static str, value: String) -> Result<(), UrlProblem> {
    match name {
        "host" => parts.hosts = value.split(',').map(str::to_owned).collect(),
        "port" => parts.ports = value.split(',').map(port).collect::<Result<_, _>>()?,
        "user" => parts.user = some(value),
        "password" => parts.password = some(value).map(Secret::new),
        "dbname" => parts.database = some(value),
        _ => parts.query.push((name, value)),
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), UrlProblem> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or(UrlProblem::Brackets)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match rest.strip_prefix(':') {
        Some(digits) => Ok((host, port(digits)?)),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(UrlProblem::Brackets),
    }
}

/// A port; the empty text is the default one.
pub(super) fn port(text: &str) -> Result<Option<u16>, UrlProblem> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = super::value::count(text)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0);
    number.map(Some).ok_or(UrlProblem::Port)
}

fn decode(text: &str) -> Result<String, UrlProblem> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let code = bytes.get(at + 1..at + 3).ok_or(UrlProblem::Percent)?;
        if !code.iter().all(u8::is_ascii_hexdigit) {
            return Err(UrlProblem::Percent);
        }
        if code == b"00" {
            return Err(UrlProblem::Zero);
        }
    }
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| UrlProblem::Percent)?;
    Ok(text.into_owned())
}

/// The text without what may be a password: whatever stands between a `//user:` and the last `@`
/// (without an `@`, whatever follows the colon, as a port and a password then look the same), all
/// from the first parameter on that nobody knows or that speaks of a password, since one that is
/// not encoded may contain any sign, and the whole text where an `@` stands without a scheme.
/// Rather too much than too little.
pub(super) fn redact(text: &str) -> String {
    let mut shown = text.to_owned();
    match text.find("://").map(|at| at + 3) {
        Some(from) => {
            let end = shown.rfind('@').filter(|at| *at >= from);
            let end = end.unwrap_or(shown.len());
            if let Some(colon) = shown[from..end].find(':').map(|at| from + at + 1) {
                shown.replace_range(colon..end, "***");
            }
            if let Some(value) = unknown_parameter(&shown, from) {
                shown.replace_range(value.., "***");
            }
        }
        None if text.contains('@') => return "***".to_owned(),
        None => {}
    }
    let word = shown.to_ascii_lowercase().find("pass");
    if let Some(equals) = word.and_then(|at| shown[at..].find('=').map(|after| at + after + 1)) {
        shown.replace_range(equals.., "***");
    }
    shown
}

/// Where the name of the first parameter that nobody knows ends, in a URL whose authority begins at
/// `from`: it may be a misspelt `password`.
fn unknown_parameter(url: &str, from: usize) -> Option<usize> {
    let mut at = from + url[from..].find('?')? + 1;
    for pair in url[at..].split('&') {
        let name = pair.split('=').next().unwrap_or(pair);
        if !SERVED.contains(&name) && !NOT_SERVED.contains(&name) {
            return Some(at + name.len());
        }
        at += pair.len() + 1;
    }
    None
}
