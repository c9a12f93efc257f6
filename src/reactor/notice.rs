//! What Events of Kubernetes say.

use crate::budget::State;
use crate::config::Restart;
use crate::protocol::startup::ExecutionId;

use super::report::{cut, moment};
use super::{Guard, Reason, Report};

/// The most bytes of a name or a caller that is repeated.
const WORD: usize = 250;

/// The most bytes of a part that says what is done, or why it is not.
const PART: usize = 350;

/// What an Event of Kubernetes says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its reason.
    pub reason: Reason,
    /// What it is about, in a word: what has the same reason and is about the same is a series, and a series keeps
    /// the words of its first.
    pub about: &'static str,
    /// Whole sentences for a person: what is so, and who holds the connections.
    pub words: String,
}

impl Notice {
    /// Of a change of state, for one of its [reasons](super::Action::Announce).
    #[must_use]
    pub fn of_state(reason: Reason, report: &Report) -> Self {
        let begins = match (reason, report.state) {
            (Reason::PoolWarning, _) => "Server connections run short",
            (Reason::PoolRecovered, _) => "There are server connections again",
            (_, State::Sustained) => "Server connections have run out, and it does not pass",
            _ => "Server connections have run out",
        };
        let Report {
            used,
            limit,
            waiting,
            ..
        } = report;
        let more = match reason {
            Reason::PoolRecovered => format!(" In this state since {}.", moment(report.since)),
            _ => held(report),
        };
        Self {
            reason,
            about: report.state.as_str(),
            words: format!("{begins}: {used} of {limit} in use, {waiting} waiting.{more}"),
        }
    }

    /// Of a restart in this way, which is so many within an hour, of as many as there may be; `what` says what is
    /// done, as a part of a sentence.
    #[must_use]
    pub fn of_restart(
        mode: Restart,
        what: &str,
        (count, most): (u32, u32),
        report: &Report,
    ) -> Self {
        let mode = mode.as_str();
        let words = format!(
            "Restart by {mode}, as nothing else has helped: {}. {}{} Restarts within an hour, with this one: {count} \
             of at most {most}.",
            cut(what, PART),
            stands(report),
            held(report),
        );
        Self {
            reason: Reason::PoolRestart,
            about: mode,
            words,
        }
    }

    /// Of a restart that is due and not done: this forbids it, and says why.
    #[must_use]
    pub fn of_refusal(guard: &Guard, why: &str, report: &Report) -> Self {
        Self::refused("A restart is due, and is not done", guard, why, report)
    }

    /// Of a restart that was due and was not done, as this was found against it when it was tried; `report` is of
    /// then.
    #[must_use]
    pub fn of_objection(guard: &Guard, why: &str, report: &Report) -> Self {
        Self::refused("A restart was due, and was not done", guard, why, report)
    }

    fn refused(begins: &str, guard: &Guard, why: &str, report: &Report) -> Self {
        Self {
            reason: Reason::PoolRestartRefused,
            about: guard.as_str(),
            words: format!("{begins}: {}. {}", cut(why, PART), stands(report)),
        }
    }

    /// Of an emergency cleanup that has ended so many sessions, while so many wait still; `what` names what it has
    /// closed. Where it has ended none, all of that is what ended executions have left behind.
    #[must_use]
    pub fn of_cleanup(ended: usize, waiting: usize, what: &str) -> Self {
        let ended = match ended {
            0 => "what ended executions have left on the server was closed".to_owned(),
            1 => "1 session was ended".to_owned(),
            many => format!("{many} sessions were ended"),
        };
        Self {
            reason: Reason::PoolCleanup,
            about: "cleanup",
            words: format!(
                "Emergency cleanup: {ended} to make room, and {waiting} wait still. Closed: {}.",
                cut(what, PART)
            ),
        }
    }
}

fn stands(report: &Report) -> String {
    let Report {
        used,
        limit,
        waiting,
        ..
    } = report;
    let (state, since) = (report.state.as_str(), moment(report.since));
    format!(
        "{used} of {limit} server connections are in use, {waiting} wait for one, {state} since {since}."
    )
}

/// Who has held one for longest, and where to look for that in the app. Nobody is `shared`: there, it is where
/// most of them were opened.
fn held(report: &Report) -> String {
    let Some(holder) = report.holder.as_deref() else {
        return String::new();
    };
    let caller = report.holder_caller.as_deref();
    let caller = caller.map(|caller| cut(caller, WORD));
    match (holder == ExecutionId::shared().as_str(), caller) {
        (true, Some(caller)) => format!(
            " Held longest by sessions that name no execution ({holder}), most of them opened at {caller}."
        ),
        (true, None) => format!(
            " Held longest by sessions that name no execution ({holder}), nor where they were opened \
             (execpool.caller)."
        ),
        (false, Some(caller)) => format!(
            " Held longest by execution {}, opened at {caller}.",
            cut(holder, WORD)
        ),
        (false, None) => format!(" Held longest by execution {}.", cut(holder, WORD)),
    }
}
