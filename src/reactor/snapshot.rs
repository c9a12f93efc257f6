//! How it stands, at one look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use crate::budget::Cause;
use crate::execution::Executions;
use crate::pool::UpstreamNumber;
use crate::session;

use super::guard::{Guard, against_late};

/// How it stands with the pod's server connections at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections lent to sessions that have queried.
    pub used: usize,
    /// The most that the budget allows for.
    pub limit: usize,
    /// Those of `used` that run a query.
    pub active: usize,
    /// How many wait for the budget, or for what the database leaves of it. Who waits for a place in a
    /// full pool of one execution does not: that is this execution's affair.
    pub waiting: usize,
    /// How long the first of these has waited.
    pub oldest_wait: Duration,
    /// How long anybody has waited, for the budget, for a database that is away, or in a pause: for
    /// anything but a place in the pool of one execution.
    pub oldest_of_all: Duration,
    /// Budget waits that have ended in vain, since the start of the process.
    pub timed_out: u64,
    /// Whether a database does not answer: a dial found nobody, or the monitor's last question was
    /// not answered.
    pub database_unreachable: bool,
    /// Whether the database takes fewer connections than the budget allows for.
    pub limited_by_database: bool,
    /// Who has held a connection for longest, where that is worth knowing.
    pub holder: Option<Holder>,
    /// What the data plane does not know.
    pub circumstances: Circumstances,
}

/// What stands around the data plane at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// The time of day.
    pub time: SystemTime,
    /// Whether the pod is on its way out.
    pub draining: bool,
    /// Whether a restart is under way that takes its time: `/livez/app` answers 503.
    pub restarting: bool,
    /// How long the pod has been there, at least: see [`Restarts::pod_age`](super::Restarts::pod_age).
    pub pod_age: Duration,
}

impl Default for Circumstances {
    /// A pod that begins: nothing is restarted in it.
    fn default() -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            draining: false,
            restarting: false,
            pod_age: Duration::ZERO,
        }
    }
}

/// Who holds a server connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its execution.
    pub execution: String,
    /// Where the connection was opened in the app; of `shared`, where most of its connections were that are held
    /// and say so.
    pub caller: Option<String>,
    /// For how long it has been held.
    pub held: Duration,
}

impl Snapshot {
    /// How it stands now, seen from the data plane's thread; `silence` says of each upstream that is looked
    /// after whether it did not answer its monitor when it was last asked.
    #[must_use]
    pub fn of(
        executions: &Executions,
        silence: &BTreeMap<UpstreamNumber, bool>,
        now: Instant,
    ) -> Self {
        let pressure = executions.lender().pressure();
        let sessions = executions.sessions().counts();
        let (used, limit) = (sessions.bound(), pressure.budget.limit());
        let mut snapshot = Self {
            used,
            limit,
            active: sessions.of(session::State::Active),
            waiting: pressure.starving.waiting,
            oldest_wait: pressure.starving.oldest,
            oldest_of_all: pressure.oldest,
            timed_out: pressure.timed_out,
            database_unreachable: pressure.is_away || is_missed(silence, &pressure.in_demand),
            limited_by_database: pressure.budget.limited_by_database(),
            holder: None,
            circumstances: Circumstances::default(),
        };
        // Looked for only then: all sessions are looked through.
        if snapshot.waiting > 0 || used * 2 > limit {
            snapshot.holder = holder(executions, now);
        }
        snapshot
    }

    /// The same under these circumstances.
    #[must_use]
    pub fn under(self, circumstances: Circumstances) -> Self {
        Self {
            circumstances,
            ..self
        }
    }

    /// What forbids a restart that was decided some time ago and is carried out at this moment: to carry it out may
    /// have taken until now.
    #[must_use]
    pub fn forbids_late(&self) -> Option<Guard> {
        against_late(self)
    }

    /// Why there is no room.
    #[must_use]
    pub fn cause(&self) -> Cause {
        if self.database_unreachable {
            Cause::DatabaseUnreachable
        } else if self.limited_by_database {
            Cause::LimitedByDatabase
        } else if self.active * 2 > self.used {
            Cause::Queries
        } else {
            Cause::Held
        }
    }
}

/// Whether a silent database is missed: one that somebody has a connection of, or wants one; or all that there are,
/// which is known also where nobody does just now.
fn is_missed(
    silence: &BTreeMap<UpstreamNumber, bool>,
    in_demand: &BTreeSet<UpstreamNumber>,
) -> bool {
    let is_any = silence
        .iter()
        .any(|(upstream, is_silent)| *is_silent && in_demand.contains(upstream));
    let are_all = !silence.is_empty() && silence.values().all(|is_silent| *is_silent);
    is_any || are_all
}

fn holder(executions: &Executions, now: Instant) -> Option<Holder> {
    let longest = executions.sessions().holders(None, 1, now);
    let longest = longest.into_iter().next()?;
    let execution = &longest.identity.execution;
    // Nobody is `shared`: who has held one for longest there says less than who holds most.
    let caller = match execution.is_shared() {
        true => executions.sessions().caller_of_most(execution),
        false => longest.identity.caller.clone(),
    };
    Some(Holder {
        execution: execution.to_string(),
        caller,
        held: longest.bound_age?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_database_is_missed_where_it_is_wanted_or_none_answers() {
        type Case = (&'static [(u32, bool)], &'static [u32], bool);
        let cases: [Case; 7] = [
            (&[], &[], false),
            (&[], &[0], false),
            (&[(0, false)], &[0], false),
            (&[(0, true)], &[], true),
            (&[(0, true), (1, false)], &[], false),
            (&[(0, true), (1, false)], &[1], false),
            (&[(0, true), (1, false)], &[0, 1], true),
        ];
        for (silence, in_demand, missed) in cases {
            let numbered = silence.iter();
            let silence = numbered.map(|(number, is_silent)| (UpstreamNumber(*number), *is_silent));
            let in_demand = in_demand.iter().map(|number| UpstreamNumber(*number));
            let (silence, in_demand) = (silence.collect(), in_demand.collect());
            assert_eq!(
                is_missed(&silence, &in_demand),
                missed,
                "{silence:?} {in_demand:?}"
            );
        }
    }
}
