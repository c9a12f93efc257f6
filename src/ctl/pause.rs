//! `execpool pause`, `resume`, `reconnect` and `drain`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::command::{Ask, duration};
use super::page::{Page, count_of, text_of, time_of};
use super::plan::Question;
use super::{PATIENCE, client};

/// How long running transactions are waited for unless something else is said.
const USUAL: Duration = Duration::from_secs(30);

/// Let running transactions end and lend nothing, as for a restart of the database
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  execpool pause && restart-the-database && execpool resume\n  \
    execpool pause --timeout 2m --for 10m\n\n\
    Clients wait: those that hold a connection without a bound, the others for pool.timeout.\n\
    It stays in force until execpool resume, whatever the exit status.\n\
    Exit status: 0 no transaction runs, 1 failed or some still run, 2 wrong usage."
)]
pub struct Times {
    /// How long running transactions are waited for, such as 2m; 30s without
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<(String, Duration)>,
    /// When it goes on by itself, such as 10m; never without
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<(String, Duration)>,
    /// How to ask.
    #[command(flatten)]
    ask: Ask,
}

impl Times {
    /// What is asked, and how.
    pub(super) fn question(self) -> (Question, Ask) {
        let (timeout, wait) = self.timeout.unzip();
        let time = self.time.map(|(text, _)| text);
        let path = client::path("/v1/pause", [("timeout", timeout), ("for", time)]);
        let question = Question::post(path, paused);
        (question.within(wait.unwrap_or(USUAL) + PATIENCE), self.ask)
    }
}

/// Writes the answer of `POST /v1/pause`; whether nothing runs any more.
pub(super) fn paused(answer: &Value, page: &mut Page) -> bool {
    let complete = answer["complete"] == true;
    if answer["paused"] != true {
        page.line("It was resumed meanwhile.");
        return false;
    }
    let then = match answer["resumes_in_seconds"].is_number() {
        true => format!("in {}, or by", time_of(answer, "resumes_in_seconds")),
        false => "by".to_owned(),
    };
    page.line(&match complete {
        true => format!(
            "Paused: no transaction runs. {} connections are held idle, {} wait. It goes on {then} \
             execpool resume.",
            count_of(answer, "held"),
            count_of(answer, "waiting"),
        ),
        false => format!(
            "Paused, but {} connections still work; nothing new begins. It goes on {then} execpool \
             resume.",
            count_of(answer, "at_work"),
        ),
    });
    for session in answer["running"].as_array().into_iter().flatten() {
        page.line(&format!(
            "session {} of {}, {} for {}, backend {}",
            count_of(session, "id"),
            text_of(session, "execution"),
            text_of(session, "state"),
            time_of(session, "state_age_seconds"),
            count_of(session, "server_pid"),
        ));
    }
    complete
}

/// Writes the answer of `POST /v1/resume`.
pub(super) fn resumed(answer: &Value, page: &mut Page) -> bool {
    page.line(match answer["was_paused"] == true {
        true => "Resumed.",
        false => "It was not paused.",
    });
    true
}

/// Writes the answer of `POST /v1/reconnect`.
pub(super) fn reconnected(answer: &Value, page: &mut Page) -> bool {
    page.line(&format!(
        "{} idle connections closed; {} are lent and go when their sessions give them back",
        count_of(answer, "closed"),
        count_of(answer, "lent"),
    ));
    true
}

/// Writes the answer of `POST /v1/drain`.
pub(super) fn drained(answer: &Value, page: &mut Page) -> bool {
    page.line(&format!(
        "Draining: not ready any more; {} sessions are still served",
        count_of(answer, "sessions"),
    ));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(show: fn(&Value, &mut Page) -> bool, answer: &Value) -> (bool, String) {
        let mut page = Page::new(false);
        let well = show(answer, &mut page);
        (well, page.finish())
    }

    #[test]
    fn a_pause_that_is_not_complete_names_who_runs_and_is_no_success() {
        let mut answer = json!({"paused": true, "complete": true, "held": 3, "waiting": 2,
            "at_work": 0, "resumes_in_seconds": 60, "running": []});
        let (well, text) = told(paused, &answer);
        assert!(well && text.contains("no transaction runs"), "{text}");
        assert!(text.contains("It goes on in 1m00s, or by"), "{text}");
        answer["complete"] = json!(false);
        answer["running"] = json!([{"id": 7, "execution": "run", "state": "active",
            "state_age_seconds": 61, "server_pid": 42}]);
        let (well, text) = told(paused, &answer);
        assert!(!well, "{text}");
        assert!(
            text.contains("session 7 of run, active for 1m01s, backend 42"),
            "{text}"
        );
        answer["paused"] = json!(false);
        assert!(!told(paused, &answer).0);
    }

    #[test]
    fn what_was_done_is_told_in_a_line() {
        let reconnect = told(reconnected, &json!({"closed": 2, "lent": 1}));
        assert!(
            reconnect
                .1
                .starts_with("2 idle connections closed; 1 are lent")
        );
        assert_eq!(
            told(resumed, &json!({"was_paused": false})).1,
            "It was not paused.\n"
        );
        assert!(
            told(drained, &json!({"sessions": 4}))
                .1
                .contains("4 sessions")
        );
    }
}
