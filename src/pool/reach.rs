//! Whether an upstream's database is there, as dials find it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::server::ConnectError;

use super::UpstreamNumber;

/// How long an upstream is left alone after a dial has found nobody: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How upstreams are, of those that were reached once.
#[derive(Debug, Default)]
pub(super) struct Reaches(HashMap<UpstreamNumber, Reach>);

/// How one of them is.
#[derive(Debug)]
enum Reach {
    /// The last dial succeeded. Left by one that finds nobody there.
    There,
    /// Nobody was there. Left by a dial that succeeds.
    Away {
        /// Why, as others may read it.
        why: String,
        /// Since when.
        since: Instant,
        /// How long it is left alone after the next dial that finds nobody.
        pause: Duration,
        /// Until when it is left alone by now.
        until: Instant,
    },
}

impl Reaches {
    /// A dial has succeeded. Answers how long nobody was there, if so.
    pub(super) fn reached(&mut self, upstream: UpstreamNumber) -> Option<Duration> {
        match self.0.insert(upstream, Reach::There)? {
            Reach::Away { since, .. } => Some(since.elapsed()),
            Reach::There => None,
        }
    }

    /// A dial has failed. Answers for how long to leave the upstream alone, if the next one may do
    /// better: nobody is there where somebody was, as while a server is restarted or another takes
    /// its place. Of dials that fail together one is answered so, and the others with none at all.
    pub(super) fn postponed(
        &mut self,
        upstream: UpstreamNumber,
        error: &ConnectError,
    ) -> Option<Option<Duration>> {
        let reach = self.0.get_mut(&upstream).filter(|_| error.may_pass())?;
        let (now, why) = (Instant::now(), error.for_others());
        let (since, pause) = match reach {
            Reach::Away { until, .. } if now < *until => return Some(None),
            Reach::Away { since, pause, .. } => (*since, *pause),
            Reach::There => (now, FIRST_PAUSE),
        };
        *reach = Reach::Away {
            why,
            since,
            pause: (pause * 2).min(LAST_PAUSE),
            until: now + pause,
        };
        Some(Some(pause))
    }

    /// Why nobody is there, if so.
    pub(super) fn away(&self, upstream: UpstreamNumber) -> Option<String> {
        match self.0.get(&upstream)? {
            Reach::There => None,
            Reach::Away { why, .. } => Some(why.clone()),
        }
    }

    /// It leads elsewhere from now on.
    pub(super) fn forget(&mut self, upstream: UpstreamNumber) {
        self.0.remove(&upstream);
    }
}
