//! What an event says.

use crate::reactor::{Reason, Report};

use super::place::Place;
use super::time::second;

/// The most bytes of a name or a caller that is repeated.
const WORD: usize = 250;

/// How it stands, who holds most, and where to look.
pub(super) fn note(reason: Reason, report: &Report, place: &Place) -> String {
    let Report {
        used,
        limit,
        waiting,
        ..
    } = report;
    let begins = match reason {
        Reason::PoolWarning => "Server connections run short",
        Reason::PoolExhausted => "Server connections have run out",
        Reason::PoolRecovered => "There are server connections again",
    };
    let mut note = format!("{begins}: {used} of {limit} in use, {waiting} waiting.");
    if let Some(holder) = report
        .holder
        .as_deref()
        .filter(|_| reason != Reason::PoolRecovered)
    {
        note += &format!(" Held longest by execution {}", cut(holder, WORD));
        if let Some(caller) = report.holder_caller.as_deref() {
            note += &format!(", opened at {}", cut(caller, WORD));
        }
        note += ".";
    }
    note += &match reason {
        Reason::PoolRecovered => format!(" In this state since {}.", second(report.since)),
        Reason::PoolWarning | Reason::PoolExhausted => look(place),
    };
    note
}

fn look(place: &Place) -> String {
    let Place { namespace, pod, .. } = place;
    let container = place.container.as_deref().unwrap_or("execpool");
    format!(" Look with: kubectl exec -n {namespace} {pod} -c {container} -- /execpool sessions")
}

/// The beginning of a text, of so many bytes at most.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev();
    let end = end.into_iter().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::{History, Policy, Snapshot};
    use std::time::{Duration, Instant};

    fn report(holder: &str, caller: &str) -> Report {
        let policy = Policy {
            warning: 800,
            hold: Duration::ZERO,
            wait: Duration::ZERO,
            after: Duration::ZERO,
            sustained_after: Duration::ZERO,
            cleanup: false,
            restart: None,
            restart_after: Duration::ZERO,
            jitter: Duration::ZERO,
            cooldown: Duration::ZERO,
            max_restarts_per_hour: 0,
            dry_run: false,
        };
        let history = History::new(Instant::now());
        let mut report = Report::of(&history, &Snapshot::default(), &policy);
        (report.used, report.limit, report.waiting) = (30, 30, 5);
        report.holder = Some(holder.to_owned());
        report.holder_caller = Some(caller.to_owned());
        report
    }

    fn place(pod: &str) -> Place {
        Place {
            pod: pod.to_owned(),
            namespace: "n".repeat(63),
            uid: "u".to_owned(),
            container: None,
            server: "https://a".parse().unwrap(),
            credentials: "/".into(),
        }
    }

    #[test]
    fn a_note_is_never_longer_than_kubernetes_takes_and_ends_with_where_to_look() {
        let long = report(&"r".repeat(128), &"ä".repeat(2000));
        let said = note(Reason::PoolExhausted, &long, &place(&"p".repeat(253)));
        assert!(said.len() <= 1024, "{} bytes", said.len());
        assert!(said.ends_with("/execpool sessions"), "{said}");
    }

    #[test]
    fn who_held_most_is_no_matter_when_it_is_over() {
        let said = note(
            Reason::PoolRecovered,
            &report("run-7", "a.py:1"),
            &place("agent"),
        );
        assert!(
            !said.contains("run-7") && said.contains("30 of 30"),
            "{said}"
        );
    }
}
