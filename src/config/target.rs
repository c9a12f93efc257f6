//! From the parts of a URL, and what stands in for missing ones, to a target.

use super::tls;
use super::url::{self, Parts, UrlProblem};
use super::{Host, PasswordSource, Secret, SessionAttrs, Target};
use std::sync::Arc;
use std::time::Duration;

/// What libpq takes from the environment where a URL does not say.
#[derive(Default)]
pub(super) struct Fallbacks {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) host: Option<String>,
    pub(super) port: Option<String>,
    pub(super) database: Option<String>,
}

impl Fallbacks {
    pub(super) fn read(env: &[(String, String)]) -> Self {
        let get = |name: &str| {
            let found = env
                .iter()
                .rev()
                .find(|(key, value)| key == name && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        Self {
            user: get("PGUSER"),
            password: get("PGPASSWORD").map(Secret::new),
            host: get("PGHOST"),
            port: get("PGPORT"),
            database: get("PGDATABASE"),
        }
    }
}

/// A target, and what its URL says of knobs.
pub(super) struct Parsed {
    pub(super) target: Target,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
}

/// Reads a URL; the password is that of the URL alone.
pub(super) fn parse(text: &str, fallbacks: &Fallbacks) -> Result<Parsed, UrlProblem> {
    let parts = url::parse(text)?;
    let hosts = hosts(&parts, fallbacks)?;
    let user = parts
        .user
        .or_else(|| fallbacks.user.clone())
        .ok_or(UrlProblem::NoUser)?;
    let mut parsed = Parsed {
        target: Target {
            hosts,
            session_attrs: SessionAttrs::default(),
            database: parts
                .database
                .or_else(|| fallbacks.database.clone())
                .unwrap_or_else(|| user.clone()),
            user,
            password: parts
                .password
                .map_or(PasswordSource::None, PasswordSource::Given),
            parameters: Vec::new(),
            tls: Arc::default(),
        },
        connect_timeout: None,
        keepalive: None,
    };
    let mut tls = tls::Builder::default();
    for (name, value) in parts.query {
        if !tls.take(name, &value)? {
            apply(&mut parsed, name, value)?;
        }
    }
    parsed.target.tls = Arc::new(tls.build()?);
    Ok(parsed)
}

fn hosts(parts: &Parts, fallbacks: &Fallbacks) -> Result<Vec<Host>, UrlProblem> {
    let named = parts.hosts.iter().any(|host| !host.is_empty());
    let names: Vec<String> = match (&fallbacks.host, named) {
        (_, true) => parts.hosts.clone(),
        (Some(list), false) => list.split(',').map(str::to_owned).collect(),
        (None, false) => return Err(UrlProblem::NoHost),
    };
    let mut ports = parts.ports.clone();
    if ports.iter().all(Option::is_none) {
        let list = fallbacks.port.as_deref().unwrap_or("");
        ports = list.split(',').map(url::port).collect::<Result<_, _>>()?;
    }
    if ports.len() != 1 && ports.len() != names.len() {
        return Err(UrlProblem::Ports);
    }
    let mut hosts = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        // One port serves all hosts; otherwise there are as many as hosts.
        let port = ports
            .get(index)
            .or(ports.first())
            .copied()
            .flatten()
            .unwrap_or(5432);
        hosts.push(match name {
            name if name.is_empty() => return Err(UrlProblem::NoHost),
            name if name.starts_with('/') => Host::Unix {
                dir: name.into(),
                port,
            },
            host => Host::Tcp { host, port },
        });
    }
    Ok(hosts)
}

fn apply(parsed: &mut Parsed, name: &'static str, value: String) -> Result<(), UrlProblem> {
    match (name, value.as_str()) {
        ("connect_timeout", text) => parsed.connect_timeout = Some(seconds(name, text)?),
        ("keepalives_idle", text) => parsed.keepalive = Some(seconds(name, text)?),
        ("keepalives", "1") => {}
        ("keepalives", _) => {
            return Err(UrlProblem::Value(name, "1: connections are always probed"));
        }
        ("load_balance_hosts", "disable") => {}
        ("load_balance_hosts", _) => {
            return Err(UrlProblem::Value(
                name,
                "disable: hosts are tried in the order in which they stand, and the addresses of a \
                 name in the resolver's",
            ));
        }
        ("target_session_attrs", word) => {
            let attrs = SessionAttrs::of_word(word).ok_or(UrlProblem::Value(
                name,
                "any, read-write, read-only, primary, standby or prefer-standby",
            ))?;
            parsed.target.session_attrs = attrs;
        }
        _ => {
            parsed.target.parameters.retain(|(known, _)| known != name);
            parsed.target.parameters.push((name.to_owned(), value));
        }
    }
    Ok(())
}

fn seconds(name: &'static str, text: &str) -> Result<Duration, UrlProblem> {
    let number = super::value::count(text).filter(|n| *n > 0);
    let number = number.ok_or(UrlProblem::Value(name, "a whole number of seconds from 1"))?;
    Ok(Duration::from_secs(number.into()))
}
