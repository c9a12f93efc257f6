//! Admission: which upstream, which execution, which key.

use std::sync::Arc;
use std::time::Instant;

use crate::config::UpstreamKind;
use crate::execution::Membership;
use crate::pool::{Key, KeySpec, PoolId, Target, Upkeep, UpstreamNumber};
use crate::protocol::message::Report;
use crate::protocol::startup::{Parameters, Startup};
use crate::server::Address;
use crate::session::{Identity, Mail, Peer, table::Seat};

use super::service::{Served, Service, Standing};
use super::words;

/// A session that may come in.
pub(super) struct Admission {
    pub(super) seat: Seat,
    pub(super) membership: Membership,
    pub(super) upstream: UpstreamNumber,
    pub(super) pool: PoolId,
    pub(super) key: Arc<Key>,
}

/// Lets a session in, or says why not. It hears by its mail when it is to end.
pub(super) fn admit(
    service: &Service,
    startup: &Startup,
    peer: Peer,
) -> Result<(Admission, Mail), Report> {
    let serving = service.serving();
    let settings = &serving.settings;
    if startup.replication {
        return Err(words::replication());
    }
    let served = choose(&serving.upstreams, startup)?;
    let executions = service.executions();
    if executions.sessions().len() >= settings.max_sessions as usize {
        return Err(words::too_many_sessions(settings.max_sessions));
    }
    let naming = &startup.naming;
    let mut membership = executions
        .join(naming.execution_id.as_ref())
        .map_err(|refused| refused.report())?;
    let identity = identity(startup, &membership, served, peer);
    let is_traced = identity.traceparent.is_none() || identity.trace().is_some();
    let (seat, mail) = executions.sessions().open(identity, Instant::now());
    if !is_traced {
        // What it says is for the control socket alone: it may be anything.
        tracing::debug!(
            session_id = seat.session().id().0,
            execution_id = %membership.id(),
            "execpool.traceparent is no traceparent of W3C's, and is ignored"
        );
    }
    membership.attach(seat.session());
    let key = key(service, served, startup);
    let admission = Admission {
        seat,
        pool: membership.pool(served.number),
        membership,
        upstream: served.number,
        key,
    };
    Ok((admission, mail))
}

/// The upstream of that name, or else the one that takes every name.
fn choose<'a>(served: &'a [Served], startup: &Startup) -> Result<&'a Served, Report> {
    let open = || {
        let all = served.iter();
        all.filter(|served| served.standing == Standing::Open)
    };
    let named = |name: &str| open().find(|served| &*served.name == name);
    let found = named(&startup.database).or_else(|| named("*"));
    let served = found.ok_or_else(|| {
        let known: Vec<&str> = open().map(|served| &*served.name).collect();
        words::unknown_database(&startup.database, &known)
    })?;
    let user = &served.config.target.user;
    if !served.config.any_user && startup.user != *user {
        return Err(words::wrong_user(&startup.user, &served.name, user));
    }
    Ok(served)
}

fn identity(startup: &Startup, membership: &Membership, served: &Served, peer: Peer) -> Identity {
    let name = startup.parameters.get("application_name");
    Identity {
        execution: membership.id().clone(),
        upstream: Arc::clone(&served.name),
        database: startup.database.clone(),
        application_name: name.map(|name| String::from_utf8_lossy(name).into_owned()),
        caller: startup.naming.caller.clone(),
        label: startup.naming.label.clone(),
        traceparent: startup.naming.traceparent.clone(),
        peer,
    }
}

/// The key of a session: its upstream's parameters with the client's over them.
fn key(service: &Service, served: &Served, startup: &Startup) -> Arc<Key> {
    let spec = KeySpec {
        upstream: served.number,
        database: database(served, &startup.database).to_owned(),
        parameters: startup.parameters.clone(),
    };
    make_key(service, served, spec)
}

/// The key of a session whose own is retired: where its upstream leads by now. One whose upstream
/// is no longer served keeps its own.
pub(super) fn key_again(service: &Service, admission: &Admission) -> Arc<Key> {
    let serving = service.serving();
    let served = serving.by(admission.upstream);
    if served.standing == Standing::Removed {
        return Arc::clone(&admission.key);
    }
    let spec = admission.key.spec();
    let spec = KeySpec {
        database: database(served, &spec.database).to_owned(),
        ..spec.clone()
    };
    make_key(service, served, spec)
}

fn make_key(service: &Service, served: &Served, spec: KeySpec) -> Arc<Key> {
    let lender = service.executions().lender();
    // Only a key that is new needs to know where it leads.
    let copy = spec.clone();
    lender.key(spec, || target_of(served, &copy))
}

/// The database at the server, for a client that names one.
fn database<'a>(served: &'a Served, named: &'a str) -> &'a str {
    match &*served.name {
        "*" => named,
        _ => &served.config.target.database,
    }
}

/// Where connections lead that a key stands for.
pub(super) fn target_of(served: &Served, spec: &KeySpec) -> Target {
    let database = database(served, &spec.database).to_owned();
    let parameters = merged(&served.config.target.parameters, &spec.parameters);
    target(served, database, parameters)
}

/// The URL's parameters, and the client's over them; options of both count, the client's last.
fn merged(url: &[(String, String)], client: &Parameters) -> Parameters {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, value) in url {
        let mut value = value.clone().into_bytes();
        if name == "options"
            && let Some(more) = client.get("options")
        {
            value.push(b' ');
            value.extend_from_slice(more);
        }
        all.push((name.clone(), value));
    }
    for (name, value) in client.iter() {
        let joined = name == "options" && all.iter().any(|(known, _)| known == name);
        if !joined {
            all.push((name.to_owned(), value.to_vec()));
        }
    }
    Parameters::new(all)
}

fn target(served: &Served, database: String, parameters: Parameters) -> Target {
    let upstream = &served.config;
    let pool = &upstream.pool;
    let is_postgres = upstream.kind == UpstreamKind::Postgres;
    Target {
        addresses: upstream.target.hosts.iter().map(Address::from).collect(),
        session_attrs: upstream.target.session_attrs,
        user: upstream.target.user.clone(),
        database,
        password: served.password.clone(),
        tls: Arc::clone(&upstream.target.tls),
        parameters,
        connect_timeout: upstream.connect_timeout,
        keepalive: upstream.keepalive,
        reset: is_postgres.then(|| pool.reset.clone()),
        checks_client: is_postgres,
        upkeep: Upkeep {
            recycle: pool.recycle,
            idle_timeout: pool.idle_timeout,
            ping_after: pool.pre_ping.then_some(pool.ping_after),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_parameters_win_and_options_of_both_count() {
        let url = [
            ("application_name".to_owned(), "url".to_owned()),
            ("options".to_owned(), "-c a.b=1".to_owned()),
        ];
        let client = Parameters::new(vec![
            ("application_name".to_owned(), b"client".to_vec()),
            ("options".to_owned(), b"-c c.d=2".to_vec()),
        ]);
        let all = merged(&url, &client);
        assert_eq!(all.get("application_name"), Some(&b"client"[..]));
        assert_eq!(all.get("options"), Some(&b"-c a.b=1 -c c.d=2"[..]));
        let alone = merged(&url, &Parameters::default());
        assert_eq!(alone.get("options"), Some(&b"-c a.b=1"[..]));
        let other = merged(&[], &client);
        assert_eq!(other.get("options"), Some(&b"-c c.d=2"[..]));
    }
}
