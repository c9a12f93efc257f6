//! What no knob shows alone.

use super::layers::Layer;
use super::{
    Budget, Config, ConfigError, Host, KubernetesUse, Listen, Loopback, Restart, Upstream,
    UpstreamKind,
};

/// Looks for what does not fit together.
pub(super) fn check(config: &Config, layer: &mut Layer) {
    let socket = config.listen.socket();
    let length = socket.as_os_str().len();
    if length > 107 {
        layer.errors.push(ConfigError::SocketPath {
            path: socket.clone(),
            length,
        });
    }
    let Budget { size, warm, .. } = config.budget;
    if warm > size {
        layer.errors.push(ConfigError::Warm { warm, size });
    }
    if config.listen.mode & 0o002 != 0 {
        let mode = config.listen.mode;
        layer.warnings.push(format!(
            "listen.mode {mode:04o} lets every user of the machine connect"
        ));
    }
    if config.listen.tcp.is_some() && config.listen.allow_uids.is_some() {
        layer.warnings.push(
            "listen.allow_uids does not hold for listen.tcp: whoever has its password may connect"
                .to_owned(),
        );
    }
    check_reactor(config, layer);
    for (index, upstream) in config.upstreams.iter().enumerate() {
        check_upstream(config, index, upstream, layer);
    }
}

fn check_reactor(config: &Config, layer: &mut Layer) {
    let (reactor, listen) = (&config.reactor, config.telemetry.listen);
    match reactor.restart {
        Some(restart) if restart.needs_api() && reactor.kubernetes == KubernetesUse::Off => {
            let error = ConfigError::RestartNeedsKubernetes { restart };
            layer.errors.push(error);
        }
        Some(Restart::Liveness) if listen.is_none() => {
            layer.errors.push(ConfigError::LivenessNeedsPort);
        }
        _ => {}
    }
    match (&reactor.app_probe, listen) {
        (Some(probe), Some(own)) if probe.at().first().port() == own.port() => {
            let probe = probe.clone();
            layer.errors.push(ConfigError::OwnProbe { probe });
        }
        (Some(_), None) => layer
            .warnings
            .push("reactor.app_probe is not asked: telemetry.listen is off".to_owned()),
        _ => {}
    }
}

fn check_upstream(config: &Config, index: usize, upstream: &Upstream, layer: &mut Layer) {
    if config.upstreams[..index]
        .iter()
        .any(|other| other.name == upstream.name)
    {
        let (key, name) = (format!("upstreams[{index}].name"), upstream.name.clone());
        layer.errors.push(ConfigError::DuplicateName { key, name });
    }
    let (own, all) = (upstream.pool.total(), config.budget.total());
    if own > all {
        layer.warnings.push(format!(
                "upstream {:?}: a pool of up to {own} connections (pool.size and pool.overflow) never fills: the budget is {all}",
                upstream.name
            ));
    }
    if upstream.kind == UpstreamKind::Pooler
        && layer
            .said
            .contains_key(&format!("upstreams[{index}].pool.reset"))
    {
        layer.warnings.push(format!(
            "upstream {:?}: pool.reset is not used with kind: pooler, whose connections are closed after use",
            upstream.name
        ));
    }
    if upstream.kind == UpstreamKind::Pooler && config.budget.warm > 0 {
        layer.warnings.push(format!(
            "upstream {:?}: budget.warm gives nothing to kind: pooler, whose connections are closed after use",
            upstream.name
        ));
    }
    let Listen { dir, port, .. } = &config.listen;
    let own = Host::Unix {
        dir: dir.clone(),
        port: *port,
    };
    if upstream.target.hosts.contains(&own) {
        let (key, socket) = (format!("upstreams[{index}].url"), config.listen.socket());
        layer.errors.push(ConfigError::OwnSocket { key, socket });
    }
    let tcp = config.listen.tcp.iter();
    if let Some(own) = tcp.map(|tcp| tcp.at).find(|at| leads_to(upstream, *at)) {
        let key = format!("upstreams[{index}].url");
        layer.errors.push(ConfigError::OwnListener { key, at: own });
    }
}

/// Whether one of an upstream's hosts is that address, as far as it can be told without asking.
fn leads_to(upstream: &Upstream, at: Loopback) -> bool {
    let own = at.first();
    let hosts = upstream.target.hosts.iter();
    own.port() != 0
        && hosts.into_iter().any(|host| match host {
            Host::Tcp { host, port } => {
                let same = host.parse::<std::net::IpAddr>().is_ok_and(|ip| {
                    own.ip() == ip || at.second(*port).is_some_and(|second| second.ip() == ip)
                });
                *port == own.port() && (same || host == "localhost")
            }
            Host::Unix { .. } => false,
        })
}
