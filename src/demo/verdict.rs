//! What the demo claims, each with the numbers that it rests on.

use std::time::Duration;

use super::crew::{self, AGENTS, Part};
use super::direct;
use super::pooled::{self, By, End};
use super::screen::{Screen, Tone};
use super::server_log::ServerLog;

/// A status that takes longer does not answer "at once".
const AT_ONCE: Duration = Duration::from_secs(1);

/// A sentence that is true or false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    text: String,
    evidence: String,
    holds: bool,
}

/// How execpool itself ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    /// Whether with exit status 0.
    pub(super) well: bool,
    /// The connections that were left, in the end.
    pub(super) left: usize,
    /// How long it took until that, after its process had gone.
    pub(super) took: Duration,
}

/// Everything that was found out.
#[derive(Debug)]
pub(super) struct Findings {
    /// The server's own limit.
    pub(super) max_connections: usize,
    pub(super) pooled: pooled::Outcome,
    /// The server's log of that time.
    pub(super) pooled_log: ServerLog,
    pub(super) stopped: Stopped,
    pub(super) direct: direct::Outcome,
    /// The server's log of that time.
    pub(super) direct_log: ServerLog,
}

impl Claim {
    fn new(text: impl Into<String>, evidence: impl Into<String>, holds: bool) -> Self {
        Self {
            text: text.into(),
            evidence: evidence.into(),
            holds,
        }
    }

    /// Whether it is true.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// Writes it.
    pub(super) fn say(&self, screen: &mut Screen) -> std::io::Result<()> {
        let (tone, word) = if self.holds {
            (Tone::Good, "ok    ")
        } else {
            (Tone::Bad, "FAILED")
        };
        screen.say(tone, &format!("{word}  {}", self.text))?;
        screen.say(Tone::Faint, &format!("        {}", self.evidence))
    }
}

/// All claims.
pub(super) fn claims(findings: &Findings) -> Vec<Claim> {
    vec![
        more_than_there_are(findings),
        all_worked(findings),
        within_budget(findings),
        nothing_left(findings),
        one_left_behind(findings, Part::Forgets, "forgot its connections"),
        one_left_behind(findings, Part::Idles, "sat idle in transaction"),
        killed(findings),
        status_answered(findings),
        stopped(findings),
        direct_failed(findings),
    ]
}

fn more_than_there_are(findings: &Findings) -> Claim {
    let sessions = findings.pooled.extremes.sessions;
    let max = findings.max_connections;
    Claim::new(
        "together they wanted more connections than the database has",
        format!("{sessions} sessions at once, max_connections = {max}"),
        sessions > max,
    )
}

fn all_worked(findings: &Findings) -> Claim {
    let pooled = &findings.pooled;
    let all = crew::all_work();
    let errors = match pooled.errors.as_slice() {
        [] => "no error".to_owned(),
        [first, ..] => format!("{} errors, such as {first}", pooled.errors.len()),
    };
    let pgbench = if pooled.pgbench_succeeded {
        "pgbench succeeded"
    } else {
        "pgbench failed"
    };
    Claim::new(
        "through execpool all of them did their work",
        format!(
            "{} of {all} tool calls in the database, {errors}, {pgbench}; up to {} waited \
             at once",
            pooled.work, pooled.extremes.waiting
        ),
        pooled.work == all && pooled.errors.is_empty() && pooled.pgbench_succeeded,
    )
}

fn within_budget(findings: &Findings) -> Claim {
    let (pooled, log) = (&findings.pooled, &findings.pooled_log);
    let extremes = &pooled.extremes;
    let holds = extremes.connections > 0
        && extremes.connections <= pooled.budget
        && log.peak > 0
        && log.peak <= pooled.budget
        && log.refused == 0
        && extremes.monitors <= 1;
    Claim::new(
        format!(
            "execpool never had more than its budget of {} connections",
            pooled.budget
        ),
        format!(
            "at most {} in {} looks at pg_stat_activity (and {} monitor), at most {} of {} by \
             the server's log, {} refused",
            extremes.connections,
            extremes.looks,
            extremes.monitors,
            log.peak,
            log.opened,
            log.refused
        ),
        holds,
    )
}

fn nothing_left(findings: &Findings) -> Claim {
    let pooled = &findings.pooled;
    let (ends, summaries) = (&pooled.ends, &pooled.summaries);
    let left: usize = ends.iter().map(|end| end.left).sum();
    let leftovers: usize = summaries.iter().map(|summary| summary.leftovers).sum();
    let deletes = ends.iter().filter(|end| end.by == By::Delete);
    let slowest = deletes.map(|end| end.took).max().unwrap_or_default();
    let complete = ends.iter().all(|end| end.complete);
    // Every agent's, and the shared one of pgbench.
    let all = AGENTS + 1;
    let is_summarised = |end: &&End| summaries.iter().any(|summary| summary.id == end.name);
    let summarised = ends.iter().filter(is_summarised).count();
    Claim::new(
        "each execution ended with zero connections left",
        format!(
            "{} of {all} ended, {left} connections left in pg_stat_activity, {leftovers} by \
             execpool's {summarised} summaries; the slowest DELETE took {} ms",
            ends.len(),
            slowest.as_millis()
        ),
        ends.len() == all && summarised == all && left == 0 && leftovers == 0 && complete,
    )
}

fn one_left_behind(findings: &Findings, part: Part, what: &str) -> Claim {
    let end = findings.pooled.ends.iter().find(|end| end.part == part);
    let Some(end) = end else {
        return Claim::new(
            format!("the one that {what} is over"),
            "it never ended",
            false,
        );
    };
    let process = if end.alive { "lives on" } else { "has gone" };
    Claim::new(
        format!("{} {what}; its end took them all", end.name),
        format!(
            "{} connections before, {} left after {} ms; its process {process}",
            end.before,
            end.left,
            end.took.as_millis()
        ),
        end.before > 0 && end.left == 0 && end.alive,
    )
}

fn killed(findings: &Findings) -> Claim {
    let end = findings
        .pooled
        .ends
        .iter()
        .find(|end| end.part == Part::Hangs);
    let (Some(end), Some(killed)) = (end, &findings.pooled.killed) else {
        return Claim::new("the one that was killed is over", "it never ended", false);
    };
    Claim::new(
        format!(
            "{} was killed; its queries stopped, its connections went",
            end.name
        ),
        format!(
            "{} queries ran, {} after {} ms; {} connections left",
            killed.running,
            killed.left,
            killed.took.as_millis(),
            end.left
        ),
        killed.running > 0 && killed.left == 0 && end.left == 0,
    )
}

fn status_answered(findings: &Findings) -> Claim {
    let extremes = &findings.pooled.extremes;
    Claim::new(
        "execpool's status answered at once, also while all of the budget was in use",
        format!(
            "{} answers, the slowest in {:.1} ms; {} of them in the exhaustion, the slowest in \
             {:.1} ms",
            extremes.looks,
            extremes.slowest.as_secs_f64() * 1e3,
            extremes.exhausted,
            extremes.slowest_exhausted.as_secs_f64() * 1e3
        ),
        extremes.exhausted > 0 && extremes.slowest < AT_ONCE,
    )
}

fn stopped(findings: &Findings) -> Claim {
    let Stopped { well, left, took } = findings.stopped;
    let how = if well { "exit status 0" } else { "it failed" };
    Claim::new(
        "execpool itself ended and left nothing",
        format!(
            "{how}, {left} connections left in pg_stat_activity after {} ms",
            took.as_millis()
        ),
        well && left == 0,
    )
}

fn direct_failed(findings: &Findings) -> Claim {
    let direct = &findings.direct;
    Claim::new(
        format!(
            "straight at PostgreSQL {} of {AGENTS} agents failed with \"too many clients\"",
            direct.refused_agents
        ),
        format!(
            "{} of {} tool calls in the database, {} connections refused by the server's log, \
             up to {} at once beside the demo's own",
            direct.work,
            crew::all_work(),
            findings.direct_log.refused,
            direct.connections,
        ),
        direct.refused_agents > 0 && findings.direct_log.refused > 0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::control::Ended;
    use crate::demo::pooled::Killed;
    use crate::demo::watch::Extremes;

    const MS: Duration = Duration::from_millis(1);

    fn end(number: usize) -> End {
        let part = crew::part(number);
        let by = match part {
            Part::Hangs => By::Disconnect,
            _ => By::Delete,
        };
        End {
            name: format!("agent-{number}"),
            part,
            by,
            before: 5,
            left: 0,
            complete: true,
            took: MS,
            alive: matches!(part, Part::Forgets | Part::Idles),
        }
    }

    /// Findings that bear every claim out.
    fn good() -> Findings {
        // The last one stands for the shared execution.
        let ends: Vec<End> = (1..=AGENTS + 1).map(end).collect();
        let summaries = ends.iter().map(|end| Ended {
            id: end.name.clone(),
            leftovers: 0,
        });
        Findings {
            max_connections: 40,
            pooled: pooled::Outcome {
                extremes: Extremes {
                    looks: 100,
                    connections: 30,
                    monitors: 1,
                    sessions: 64,
                    waiting: 34,
                    exhausted: 50,
                    slowest: MS,
                    slowest_exhausted: MS,
                },
                budget: 30,
                summaries: summaries.collect(),
                ends,
                killed: Some(Killed {
                    running: 3,
                    left: 0,
                    took: MS,
                }),
                errors: Vec::new(),
                pgbench_succeeded: true,
                work: crew::all_work(),
            },
            pooled_log: ServerLog {
                peak: 30,
                opened: 100,
                refused: 0,
            },
            stopped: Stopped {
                well: true,
                left: 0,
                took: MS,
            },
            direct: direct::Outcome {
                refused_agents: 8,
                connections: 40,
                work: 30,
            },
            direct_log: ServerLog {
                peak: 40,
                opened: 60,
                refused: 41,
            },
        }
    }

    /// The claims that are false after something went wrong.
    fn false_claims(spoil: impl FnOnce(&mut Findings)) -> Vec<usize> {
        let mut findings = good();
        spoil(&mut findings);
        let claims = claims(&findings);
        let numbers = 0..claims.len();
        numbers.filter(|number| !claims[*number].holds()).collect()
    }

    #[test]
    fn every_claim_holds_when_all_went_well() {
        assert_eq!(false_claims(|_| ()), Vec::<usize>::new());
    }

    #[test]
    fn each_claim_is_false_when_what_it_says_did_not_happen() {
        let sessions = |it: &mut Findings| it.pooled.extremes.sessions = 40;
        assert_eq!(false_claims(sessions), [0]);
        assert_eq!(false_claims(|it| it.pooled.work -= 1), [1]);
        assert_eq!(false_claims(|it| it.pooled.errors.push("x".into())), [1]);
        assert_eq!(false_claims(|it| it.pooled.pgbench_succeeded = false), [1]);
        assert_eq!(false_claims(|it| it.pooled.extremes.connections = 31), [2]);
        assert_eq!(false_claims(|it| it.pooled_log.peak = 31), [2]);
        assert_eq!(false_claims(|it| it.pooled_log = ServerLog::default()), [2]);
        assert_eq!(false_claims(|it| it.pooled.ends[0].left = 1), [3]);
        assert_eq!(false_claims(|it| it.pooled.ends[0].complete = false), [3]);
        assert_eq!(false_claims(|it| it.pooled.summaries[3].leftovers = 1), [3]);
        assert_eq!(false_claims(|it| drop(it.pooled.ends.remove(2))), [3, 4]);
        assert_eq!(false_claims(|it| it.pooled.ends[2].before = 0), [4]);
        assert_eq!(false_claims(|it| it.pooled.ends[4].left = 1), [3, 5]);
        assert_eq!(false_claims(|it| it.pooled.killed = None), [6]);
        let slow = |it: &mut Findings| it.pooled.extremes.slowest = AT_ONCE;
        assert_eq!(false_claims(slow), [7]);
        assert_eq!(false_claims(|it| it.pooled.extremes.exhausted = 0), [7]);
        assert_eq!(false_claims(|it| it.stopped.left = 1), [8]);
        assert_eq!(false_claims(|it| it.stopped.well = false), [8]);
        assert_eq!(false_claims(|it| it.direct.refused_agents = 0), [9]);
        assert_eq!(false_claims(|it| it.direct_log.refused = 0), [9]);
    }
}
