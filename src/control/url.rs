//! The PostgreSQL URL of an execution.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::protocol::startup::ExecutionId;

use super::{Facts, UpstreamFacts};

/// What need not be written as `%XX` in a part of a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The same within the query string, where a path's slashes may stay readable.
const QUERY: &AsciiSet = &PLAIN.remove(b'/');

/// The name of the startup parameter that names an execution.
pub(super) const PARAMETER: &str = "execpool.execution_id";

/// The URL by which every driver joins the execution: over the socket, with its name in
/// `options`. The port is always said, as `PGPORT` would take its place.
pub(super) fn of(facts: &Facts, database: &str, user: &str, id: &ExecutionId) -> String {
    let part = |text| utf8_percent_encode(text, PLAIN);
    let host = path(&facts.socket_dir);
    let options = format!("-c {PARAMETER}={id}");
    format!(
        "postgresql://{}@/{}?host={host}&port={}&options={}",
        part(user),
        part(database),
        facts.port,
        utf8_percent_encode(&options, QUERY),
    )
}

/// The database and user that a client names to reach an upstream, chosen by name; the first
/// without one. Where there is no such name, `*` takes it as a database. None if nothing does.
pub(super) fn choose<'a>(
    upstreams: &'a [UpstreamFacts],
    name: Option<&'a str>,
) -> Option<(&'a UpstreamFacts, &'a str)> {
    let any = || upstreams.iter().find(|upstream| upstream.name == "*");
    let (upstream, name) = match name {
        None => upstreams.first().map(|first| (first, None))?,
        Some(name) => upstreams
            .iter()
            .find(|upstream| upstream.name == name)
            .or_else(any)
            .map(|upstream| (upstream, Some(name)))?,
    };
    let database = match name {
        Some(name) if name != "*" => name,
        _ if upstream.name == "*" => &upstream.database,
        _ => &upstream.name,
    };
    Some((upstream, database))
}

fn path(path: &Path) -> String {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    percent_encoding::percent_encode(bytes, QUERY).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pool::PoolLimits;
    use std::time::Instant;

    pub(in crate::control) fn facts(names: &[&str]) -> Facts {
        let upstreams = names.iter().map(|name| UpstreamFacts {
            name: (*name).to_owned(),
            database: "db".to_owned(),
            user: "app user".to_owned(),
            limits: PoolLimits {
                size: 2,
                overflow: 3,
            },
        });
        Facts {
            socket_dir: "/run/exec pool".into(),
            port: 5433,
            upstreams: upstreams.collect(),
            version: "1.2.3",
            started: Instant::now(),
            admin: true,
            allow_uids: None,
            telemetry: None,
            tcp: Vec::new(),
            life: std::sync::Arc::default(),
        }
    }

    #[test]
    fn the_url_is_encoded_and_read_back_by_a_driver_as_it_was_meant() {
        let id: ExecutionId = "run-1@a.b_c".parse().unwrap();
        let url = of(&facts(&["a/b"]), "a/b", "app user", &id);
        assert_eq!(
            url,
            "postgresql://app%20user@/a%2Fb?host=/run/exec%20pool&port=5433\
             &options=-c%20execpool.execution_id%3Drun-1%40a.b_c"
        );
        let read: tokio_postgres::Config = url.parse().unwrap();
        assert_eq!(read.get_user(), Some("app user"));
        assert_eq!(read.get_dbname(), Some("a/b"));
        let options = "-c execpool.execution_id=run-1@a.b_c";
        assert_eq!(read.get_options(), Some(options));
    }

    #[test]
    fn the_first_upstream_is_meant_unless_another_is_named() {
        let facts = facts(&["app", "log"]);
        let database = |name| choose(&facts.upstreams, name).map(|(_, database)| database);
        assert_eq!(database(None), Some("app"));
        assert_eq!(database(Some("log")), Some("log"));
        assert_eq!(database(Some("lag")), None);
    }

    #[test]
    fn an_upstream_for_any_name_takes_the_name_as_a_database() {
        let facts = facts(&["*"]);
        let database = |name| choose(&facts.upstreams, name).map(|(_, database)| database);
        assert_eq!(database(None), Some("db"));
        assert_eq!(database(Some("*")), Some("db"));
        assert_eq!(database(Some("other")), Some("other"));
    }
}
