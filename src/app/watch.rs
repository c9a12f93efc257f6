//! The main thread: who looks at the data plane, and what is left to do at the end.

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::budget::Exhaustion;
use crate::control::Control;
use crate::telemetry::Exports;

use super::common::Common;
use super::data::DataPlane;
use super::desk::Desk;
use super::doors::Places;
use super::exit::{Ended, Leave};
use super::house::House;
use super::measuring::{Measures, Measuring};
use super::reload::Reloader;
use super::remedies::{Parts, Remedies, Vigil};
use super::stage::Stage;
use super::{probing, search, status_log, stop};

/// How long the last export may take: so long where no time is left, and so long at most.
const LAST_EXPORT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// Looks at the data plane until a signal ends the process, or the reactor does.
pub(super) async fn over(house: House) -> Ended {
    let (watch, socket) = Watch::begin(house);
    let Some(serving) = Serving::begin(Arc::clone(&watch.control), socket) else {
        watch.data.stop();
        return Ended::Asked;
    };
    let Common {
        remote,
        running,
        life,
        started,
    } = &watch.common;
    let exhaustion = watch.exhaustion.clone();
    let status = status_log::run(remote.clone(), running.clone(), exhaustion, *started);
    tokio::spawn(status);
    let (end, ended) = stop::wait(running, remote, life, &watch.leave).await;
    serving.end().await;
    watch.end(end).await;
    tracing::info!(event = "end", code = ended.code(), "execpool ends");
    ended
}

/// Everybody who looks, and what is told of it to the last.
struct Watch {
    common: Common,
    data: DataPlane,
    control: Arc<Control>,
    exhaustion: watch::Receiver<Exhaustion>,
    leave: Leave,
    /// None where nothing is measured for others.
    measures: Option<Measures>,
    exports: Exports,
    /// Kept to the end, whatever becomes of who may change them.
    _places: Arc<Places>,
}

impl Watch {
    /// Everybody begins to look; the control socket is still to be served.
    fn begin(house: House) -> (Self, StdListener) {
        let common = Common::of(&house);
        let upstreams = house.data.service().upstreams();
        let monitors = house.monitors.follow(&upstreams);
        search::begin(
            &monitors,
            common.now().loaded.config.budget.total(),
            &common,
        );
        let desk = Desk::set(&common, &house.data, monitors, &house.addresses);
        let (control, leave) = (desk.control, Leave::default());
        let vigil = Vigil::new(&common, &control);
        if let Some(listener) = house.probes {
            probing::begin(listener, &common, vigil.probed(), house.exports.scrape());
        }
        let remedies = Remedies::new(Parts {
            common: common.clone(),
            control: Arc::clone(&control),
            vigil,
            leave: leave.clone(),
            at: house.at,
            shows: desk.shows,
        });
        tokio::spawn(remedies.run());
        let stage = Stage {
            common: common.clone(),
            service: Arc::clone(house.data.service()),
            control: Arc::clone(&control),
            monitors: house.monitors,
            measuring: house.measuring.clone(),
            places: Arc::clone(&house.places),
            log: house.log,
            upstreams,
            addresses: house.addresses,
        };
        let measures = measure(house.measuring, &common, &control, &desk.exhaustion);
        let reloader = Reloader::new(house.source, stage, house.running);
        tokio::spawn(reloader.run(desk.asked));
        let watch = Self {
            common,
            data: house.data,
            control,
            exhaustion: desk.exhaustion,
            leave,
            measures,
            exports: house.exports,
            _places: house.places,
        };
        (watch, house.control)
    }

    /// Tells the last, by `end` if that can be, and ends the data plane.
    async fn end(self, end: Instant) {
        if let Some(measures) = self.measures {
            // What was counted since the last second is exported as well: why it ends, above all.
            measures.look().await;
        }
        let left = end.saturating_duration_since(Instant::now());
        let left = left.clamp(LAST_EXPORT.0, LAST_EXPORT.1);
        self.exports.shutdown(left).await;
        self.data.stop();
    }
}

/// Begins to look at what is measured, where anything is.
fn measure(
    measuring: Option<Arc<Measuring>>,
    common: &Common,
    control: &Arc<Control>,
    exhaustion: &watch::Receiver<Exhaustion>,
) -> Option<Measures> {
    let measures = Measures::new(measuring?, common, control, exhaustion);
    tokio::spawn(measures.clone().run());
    Some(measures)
}

/// The control API, while it is served.
struct Serving {
    task: JoinHandle<()>,
    /// Dropped for its end.
    stop: oneshot::Sender<()>,
}

impl Serving {
    /// None, and said so, where the socket can't be listened on.
    fn begin(control: Arc<Control>, socket: StdListener) -> Option<Self> {
        let listener = UnixListener::from_std(socket).inspect_err(|error| {
            tracing::error!(event = "listen.failed", %error, "cannot listen on the control socket");
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(control.serve(listener.ok()?, async {
            let _ = stopped.await;
        }));
        Some(Self { task, stop })
    }

    /// Answers under way are finished, within a bound of their own.
    async fn end(self) {
        drop(self.stop);
        // A panic in it was logged.
        let _ = self.task.await;
    }
}
