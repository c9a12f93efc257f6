//! The desk: the control API, and whom it speaks to.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::budget::Exhaustion;
use crate::config::Config;
use crate::control::configuration::Asking;
use crate::control::{Configuration, Control, Facts, Shown, UpstreamFacts, Within};
use crate::monitor::Monitor;

use super::common::Common;
use super::data::{self, DataPlane};
use super::doors::Addresses;
use super::remedies::Shows;

/// How many requests for a reload may wait for their turn.
const ASKING: usize = 16;

/// The control API, and the other ends of what it is told by and asks over.
pub(super) struct Desk {
    pub(super) control: Arc<Control>,
    /// Who wants the configuration to be read anew.
    pub(super) asked: mpsc::Receiver<Asking>,
    /// By which it is told whether connections run out, and what is done about it.
    pub(super) shows: Shows,
    /// Whether connections run out, for others than the API.
    pub(super) exhaustion: watch::Receiver<Exhaustion>,
}

impl Desk {
    /// Nobody is served yet. `monitors` are those of the upstreams, in their order.
    pub(super) fn set(
        common: &Common,
        data: &DataPlane,
        monitors: Vec<Arc<Monitor>>,
        addresses: &Addresses,
    ) -> Self {
        let (ask, asked) = mpsc::channel(ASKING);
        let (show_exhaustion, exhaustion) = watch::channel(Exhaustion::healthy(common.started));
        let (show_reactor, reactor) = watch::channel(Arc::default());
        let service = Arc::clone(data.service());
        let control = Control::over(
            common.remote.clone(),
            monitors,
            facts(&common.now().loaded.config, common, addresses),
            Configuration::new(common.running.clone(), ask),
            Within::new(move |connection, peer| service.welcome(connection, peer)),
            Shown {
                exhaustion: exhaustion.clone(),
                reactor,
            },
        );
        Self {
            control,
            asked,
            shows: Shows {
                exhaustion: show_exhaustion,
                reactor: show_reactor,
            },
            exhaustion,
        }
    }
}

/// What the control API tells of the process, with this configuration.
pub(super) fn facts(config: &Config, common: &Common, addresses: &Addresses) -> Facts {
    let upstreams = config.upstreams.iter();
    Facts {
        socket_dir: config.listen.dir.clone(),
        port: config.listen.port,
        upstreams: upstreams
            .map(|upstream| UpstreamFacts {
                name: upstream.name.clone(),
                database: upstream.target.database.clone(),
                user: upstream.target.user.clone(),
                limits: data::limits(upstream),
            })
            .collect(),
        version: env!("CARGO_PKG_VERSION"),
        started: common.started,
        admin: config.control.admin,
        allow_uids: config.control.allow_uids.clone(),
        telemetry: addresses.telemetry,
        tcp: addresses.tcp.clone(),
        life: Arc::clone(&common.life),
    }
}
