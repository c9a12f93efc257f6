//! What was done of late, for the status; and what was said of it, so that it is said once.

use std::time::{Duration, Instant, SystemTime};

use crate::budget::State;
use crate::config::{self, Restart};
use crate::control::Reactor;
use crate::control::remedies::{KubernetesStatus, PendingRestart, RefusedAction};
use crate::events::Text;
use crate::reactor::{Guard, Heard, Report, Restarts, Rung};

use super::act::Objection;
use super::vigil::Waits;

/// What was done of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// The restart that is under way, and since when.
    under_way: Option<(Restart, Instant)>,
    /// What was last due and not done.
    refused: Option<RefusedAction>,
    /// What the last cleanup of this spell has ended, or would have; none: there was none.
    cleaned: Option<String>,
    /// Why the last restart of this spell came to nothing.
    failed: Option<(Restart, String)>,
    /// What was found against a restart when it was tried, until the next look has told it.
    objection: Option<Objection>,
    /// The state and the condition that were last told in a dry run.
    would: Option<(State, bool)>,
    /// How it was published at the last look: in a dry run, and with a condition.
    published: Option<(bool, bool)>,
}

/// What is known besides.
pub(super) struct Seen<'a> {
    pub(super) reactor: &'a config::Reactor,
    pub(super) restarts: &'a Restarts,
    /// The restart by `liveness` that is pending.
    pub(super) waits: Option<Waits>,
    pub(super) kubernetes: KubernetesStatus,
}

impl Standing {
    /// A restart is being carried out.
    pub(super) fn begins(&mut self, mode: Restart, now: Instant) {
        self.under_way = Some((mode, now));
    }

    /// How long ago that was.
    pub(super) fn under_way(&self, now: Instant) -> Duration {
        let since = self.under_way.map(|(_, since)| since);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Something was carried out, or not.
    pub(super) fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::CleanedUp => {}
            Heard::Restarted(_)
            | Heard::WouldRestart
            | Heard::RestartRefused(_)
            | Heard::RestartFailed => self.under_way = None,
        }
    }

    /// Something is due and must not be.
    pub(super) fn refused(&mut self, rung: Rung, guard: &Guard, why: &str, now: Instant) {
        self.refused = Some(RefusedAction {
            action: rung.as_str(),
            guard: guard.as_str(),
            why: Text::sentence(why),
            at: now,
        });
    }

    /// Something was found against a restart when it was tried.
    pub(super) fn objects(&mut self, objection: Objection) {
        self.objection = Some(objection);
    }

    /// What was found so, if that is what this guard is refused for; once.
    pub(super) fn objection(&mut self, rung: Rung, guard: Guard) -> Option<Objection> {
        let is_it = |found: &mut Objection| rung == Rung::Restart && found.guard == guard;
        self.objection.take_if(is_it)
    }

    /// What was found so is not told any more: a later refusal by the same guard is another matter.
    pub(super) fn forgets_objection(&mut self) {
        self.objection = None;
    }

    /// This would be published; whether it is something else than before.
    pub(super) fn would_publish(&mut self, report: &Report) -> bool {
        let would = Some((report.state, report.condition().status));
        std::mem::replace(&mut self.would, would) != would
    }

    /// Whether what is published, or that it is, is another thing than at the last look.
    pub(super) fn follows(&mut self, config: &config::Reactor) -> bool {
        let now = (config.dry_run, config.condition);
        self.published
            .replace(now)
            .is_some_and(|before| before != now)
    }

    /// A cleanup has ended this, or would have; whether that is news in this spell.
    pub(super) fn cleaned(&mut self, what: String) -> bool {
        let is_news = self.cleaned.as_ref() != Some(&what);
        self.cleaned = Some(what);
        is_news
    }

    /// A restart came to nothing; whether that is news in this spell.
    pub(super) fn failed(&mut self, mode: Restart, why: &str) -> bool {
        let failed = (mode, why.to_owned());
        let is_news = self.failed.as_ref() != Some(&failed);
        self.failed = Some(failed);
        is_news
    }

    /// Connections are not exhausted any more: the next time all is said anew.
    pub(super) fn spell_is_over(&mut self) {
        self.cleaned = None;
        self.failed = None;
    }

    /// All of it.
    pub(super) fn shown(&self, seen: Seen<'_>, now: Instant, time: SystemTime) -> Reactor {
        let Seen {
            reactor,
            restarts,
            waits,
            kubernetes,
        } = seen;
        let waits = waits.map(|waits| PendingRestart {
            mode: Restart::Liveness.as_str(),
            since: waits.since,
            sessions: Some(waits.sessions),
        });
        let under_way = self.under_way.map(|(mode, since)| PendingRestart {
            mode: mode.as_str(),
            since,
            sessions: None,
        });
        let last = restarts.ages(time).last().copied();
        let left = last.map(|age| reactor.cooldown.saturating_sub(age));
        Reactor {
            restart: reactor.restart.map_or("off", Restart::as_str),
            cleanup: reactor.cleanup,
            dry_run: reactor.dry_run,
            restarts: restarts.total(),
            restarts_last_hour: u64::from(restarts.in_last_hour(time)),
            max_restarts_per_hour: reactor.max_restarts_per_hour,
            last_restart: restarts.last(),
            cooldown_until: left.filter(|left| !left.is_zero()).map(|left| now + left),
            pending: waits.or(under_way),
            refused: self.refused.clone(),
            kubernetes,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::reactor::{History, Policy, Snapshot};

    use super::*;

    fn report() -> Report {
        let env = [("DATABASE_URL", "postgresql://a@h/a")];
        let loaded = crate::config::load(&crate::config::Sources {
            file: None,
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            flags: Vec::new(),
        });
        let config = loaded.unwrap().config;
        let policy = Policy::of(&config.exhaustion, &config.reactor, Duration::ZERO);
        let history = History::new(Instant::now());
        Report::of(&history, &Snapshot::default(), &policy)
    }

    #[test]
    fn what_was_found_at_a_try_is_told_once_and_not_of_a_later_refusal() {
        let guard = Guard::TooMany {
            restarts: 2,
            left: Duration::from_secs(60),
        };
        let found = Objection {
            guard,
            more: Some("by the stamp of Deployment agent".to_owned()),
            report: report(),
        };
        let mut standing = Standing::default();
        standing.objects(found.clone());
        assert!(standing.objection(Rung::CleanUp, guard).is_none());
        let other = Guard::TooMany {
            restarts: 2,
            left: Duration::from_secs(59),
        };
        assert!(standing.objection(Rung::Restart, other).is_none());
        assert!(standing.objection(Rung::Restart, guard).is_some());
        assert!(standing.objection(Rung::Restart, guard).is_none(), "once");
        // One that was told before is not told again, nor kept.
        standing.objects(found);
        standing.forgets_objection();
        assert!(standing.objection(Rung::Restart, guard).is_none());
    }
}
