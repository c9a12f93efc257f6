//! What probes are told, and by whom.

use std::net::TcpListener as StdListener;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::execution::Remote;
use crate::telemetry::probes::{OfApp, Probes, Pulse};
use crate::telemetry::scrape::Scrape;

use super::common::Common;

/// Answers probes until the runtime ends.
pub(super) fn begin(listener: StdListener, common: &Common, app: OfApp, scrape: Arc<Scrape>) {
    match TcpListener::from_std(listener) {
        Ok(listener) => {
            let (life, pulse) = (Arc::clone(&common.life), pulse(common.remote.clone()));
            let probes = Probes::new(life, pulse, app, scrape);
            tokio::spawn(probes.serve(listener));
        }
        Err(error) => {
            tracing::error!(event = "listen.failed", %error, "cannot listen on the port of telemetry.listen")
        }
    }
}

/// One turn of the data plane's loop.
fn pulse(remote: Remote) -> Pulse {
    Box::new(move || {
        let remote = remote.clone();
        Box::pin(async move { remote.ask(|_| ()).await.is_ok() })
    })
}
