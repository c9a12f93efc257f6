//! What the person sees while the workload runs. Every number comes from a [`Seen`].

use super::screen::{Line, Tone};
use super::watch::Seen;

/// How many holders are listed: with a dozen executions, 24 lines are full.
const HOLDERS: usize = 4;

/// How wide the bar of the budget is.
const BAR: usize = 15;

/// All of it, for a terminal.
pub(super) fn panel(seen: &Seen) -> Vec<Line> {
    let mut lines = vec![
        (Tone::Plain, String::new()),
        (Tone::Heading, budget(seen)),
        (Tone::Plain, database(seen)),
        (Tone::Plain, sessions(seen)),
        (
            Tone::Faint,
            format!(
                "{:<12}{:>8}{:>8}{:>10}{:>6}{:>6}{:>9}{:>9}",
                "execution", "state", "age", "sessions", "open", "lent", "waiting", "queries"
            ),
        ),
    ];
    lines.extend(executions(seen));
    lines.push((Tone::Faint, "longest holders".to_owned()));
    lines.extend(holders(seen));
    lines
}

/// The same on one line, for a file.
pub(super) fn line(seen: &Seen) -> String {
    let holders: Vec<String> = seen
        .longest_by_execution()
        .into_iter()
        .take(3)
        .map(|one| format!("{} {:.1} s {}", one.execution, one.held_seconds, one.state))
        .collect();
    format!(
        "{:5.1} s  {} | {} | {} | holders: {}",
        seen.at.as_secs_f64(),
        short_budget(seen),
        short_database(seen),
        sessions(seen),
        holders.join(", ")
    )
}

fn budget(seen: &Seen) -> String {
    let budget = &seen.status.budget;
    let full = (budget.open * BAR)
        .checked_div(budget.limit)
        .unwrap_or_default()
        .min(BAR);
    format!(
        "{:5.1} s  budget [{}{}] {}",
        seen.at.as_secs_f64(),
        "#".repeat(full),
        ".".repeat(BAR - full),
        short_budget(seen)
    )
}

fn short_budget(seen: &Seen) -> String {
    let budget = &seen.status.budget;
    format!(
        "{} of {} open, {} used, {} waiting up to {:.1} s",
        budget.open, budget.limit, budget.used, budget.waiting, budget.oldest_wait_seconds
    )
}

fn database(seen: &Seen) -> String {
    format!("pg_stat_activity: {}", short_database(seen))
}

fn short_database(seen: &Seen) -> String {
    let activity = &seen.activity;
    format!(
        "{} connections + {} monitor",
        activity.connections(),
        activity.monitors()
    )
}

fn sessions(seen: &Seen) -> String {
    let (executions, sessions) = (&seen.status.executions, &seen.status.sessions);
    format!(
        "{} executions | {} sessions: {} active, {} in transaction, {} idle, {} waiting",
        executions.active + executions.ending,
        sessions.total,
        sessions.active,
        sessions.idle_in_transaction,
        sessions.idle,
        sessions.waiting,
    )
}

fn executions(seen: &Seen) -> impl Iterator<Item = Line> {
    seen.executions.iter().map(|one| {
        let sum = |of: fn(&super::control::Pool) -> usize| one.pools.iter().map(of).sum::<usize>();
        let waiting = sum(|pool| pool.waiting);
        let text = format!(
            "{:<12}{:>8}{:>6.1} s{:>10}{:>6}{:>6}{:>9}{:>9}",
            one.id,
            one.state,
            one.age_seconds,
            one.sessions,
            sum(|pool| pool.open),
            sum(|pool| pool.lent),
            waiting,
            one.queries
        );
        let tone = if waiting > 0 {
            Tone::Warning
        } else {
            Tone::Plain
        };
        (tone, text)
    })
}

fn holders(seen: &Seen) -> impl Iterator<Item = Line> {
    seen.longest_by_execution()
        .into_iter()
        .take(HOLDERS)
        .map(|one| {
            let text = format!(
                "{:<12}{:>6.1} s  {} for {:.1} s: {}",
                one.execution,
                one.held_seconds,
                one.state,
                one.state_age_seconds,
                one.statement.as_deref().unwrap_or("-")
            );
            (Tone::Plain, text)
        })
}
