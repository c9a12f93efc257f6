//! What may be done about exhaustion.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Loopback;
use super::value;

/// What may be done about exhaustion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reactor {
    /// Whether the Kubernetes API is spoken to.
    pub kubernetes: KubernetesUse,
    /// Whether the pod's condition is set there.
    pub condition: bool,
    /// Whether an emergency cleanup is begun.
    pub cleanup: bool,
    /// How the app is restarted; none: never.
    pub restart: Option<Restart>,
    /// How long exhaustion must be sustained before that.
    pub restart_after: Duration,
    /// The least time between two restarts.
    pub cooldown: Duration,
    /// The most restarts within any hour, at least 1.
    pub max_restarts_per_hour: u32,
    /// The app's own liveness probe, which is asked on its behalf; none: there is none.
    pub app_probe: Option<AppProbe>,
    /// Whether it is only told what would be done.
    pub dry_run: bool,
}

/// Whether the Kubernetes API is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubernetesUse {
    /// Where a service account's token and the pod's name are given.
    Auto,
    /// Yes; where they are missing, that is an error.
    On,
    /// Never.
    Off,
}

/// How the app is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// `/livez/app` answers 503, so that the kubelet restarts the app's container alone.
    Liveness,
    /// The sidecar exits with 88, upon which all containers of the pod are restarted.
    ExitCode,
    /// The pod is evicted: another takes its place, as far as its disruption budget allows.
    Evict,
    /// Its owner is rolled out anew.
    Rollout,
}

impl Restart {
    /// All of them, from the one that ends least to the one that ends most.
    pub const ALL: [Self; 4] = [Self::Liveness, Self::ExitCode, Self::Evict, Self::Rollout];

    /// The word for it in the configuration, in answers, events and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::ExitCode => "exit-code",
            Self::Evict => "evict",
            Self::Rollout => "rollout",
        }
    }

    /// Whether it is Kubernetes' API that does it.
    #[must_use]
    pub fn needs_api(self) -> bool {
        matches!(self, Self::Evict | Self::Rollout)
    }
}

/// A liveness probe within the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppProbe {
    /// A GET that must be answered by a status of 200 to 399.
    Http {
        /// Who is asked.
        at: Loopback,
        /// For what: a path, and a query where there is one.
        path: String,
    },
    /// A connection that must be taken.
    Tcp {
        /// By whom.
        at: Loopback,
    },
}

impl AppProbe {
    /// Where it is tried, one after the other until one is connected to: an app that listens on
    /// either loopback alone is found, too.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let at = self.at();
        let first = at.first();
        [first].into_iter().chain(at.second(first.port()))
    }

    pub(super) fn at(&self) -> Loopback {
        match self {
            Self::Http { at, .. } | Self::Tcp { at } => *at,
        }
    }

    /// `http://127.0.0.1:8080/healthz`, `:8080/healthz` or `tcp://127.0.0.1:8080`; none where it is
    /// something else, or leads out of the pod.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(at) = text.strip_prefix("tcp://") {
            return at_port(at).map(|at| Self::Tcp { at });
        }
        let rest = text.strip_prefix("http://");
        let rest = rest.or_else(|| text.starts_with(':').then_some(text))?;
        let (at, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let at = at_port(at).or_else(|| at_port(&format!("{at}:80")))?;
        // What stands in a request line as it is; a fragment is nothing that a server sees.
        let is_sent = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        path.bytes().all(is_sent).then(|| Self::Http {
            at,
            path: path.to_owned(),
        })
    }
}

/// An address of the loopback with a port; `:8080` is any loopback's.
fn at_port(text: &str) -> Option<Loopback> {
    let at = match text.strip_prefix(':') {
        Some(port) => value::loopback(&format!("localhost:{port}")),
        None => value::loopback(text),
    };
    at.filter(|at| at.first().port() != 0)
}

impl fmt::Display for AppProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { at, path } => write!(f, "http://{at}{path}"),
            Self::Tcp { at } => write!(f, "tcp://{at}"),
        }
    }
}
