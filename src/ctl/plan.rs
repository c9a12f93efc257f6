//! From a command to what is asked.

use std::time::Duration;

use serde_json::Value;

use super::command::{Ask, Command};
use super::page::Page;
use super::{PATIENCE, cleanup, client, executions, pause, reload, status, timeline, top};

/// Writes an answer for people; whether all is well.
pub(super) type Show = fn(&Value, &mut Page) -> bool;

/// What one command asks, and how its answer is shown.
pub(super) struct Question {
    pub(super) method: &'static str,
    pub(super) path: String,
    /// What is sent with it.
    pub(super) body: Option<Value>,
    pub(super) patience: Duration,
    pub(super) show: Show,
}

impl Question {
    fn new(method: &'static str, path: impl Into<String>, show: Show) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
            patience: PATIENCE,
            show,
        }
    }

    /// One that only reads.
    pub(super) fn get(path: impl Into<String>, show: Show) -> Self {
        Self::new("GET", path, show)
    }

    /// One that does something.
    pub(super) fn post(path: impl Into<String>, show: Show) -> Self {
        Self::new("POST", path, show)
    }

    /// One that ends something.
    pub(super) fn delete(path: impl Into<String>, show: Show) -> Self {
        Self::new("DELETE", path, show)
    }

    /// The same with this body.
    pub(super) fn with(self, body: Value) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    /// The same, for which an answer is waited so long.
    pub(super) fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

/// What a command comes to.
pub(super) enum Plan {
    /// One question.
    Ask(Question, Ask),
    /// The same ones, again and again.
    Watch(top::Watch),
    /// Many of them.
    Examine { upstream: Option<String>, ask: Ask },
}

/// What is to be done for a command.
pub(super) fn plan(command: Command) -> Plan {
    let (question, ask) = match command {
        Command::Doctor { upstream, ask } => return Plan::Examine { upstream, ask },
        Command::Top(watch) => return Plan::Watch(watch),
        Command::Status { ask } => (Question::get("/v1/status", status::show), ask),
        Command::Executions {
            id,
            events,
            ended,
            ask,
        } => {
            let flag = |wanted: bool| wanted.then(|| "true".to_owned());
            let query = [("ended", flag(ended)), ("events", flag(events))];
            let path = match id {
                Some(id) => format!("/v1/executions/{}", client::encoded(&id)),
                None => "/v1/executions".to_owned(),
            };
            let show = match events {
                true => timeline::show,
                false => executions::show,
            };
            (Question::get(client::path(&path, query), show), ask)
        }
        Command::Sessions(which) => which.question(),
        Command::Query(statement) => statement.question(),
        Command::End(whom) => whom.question(),
        Command::Cancel { session, ask } => {
            let path = format!("/v1/sessions/{session}/cancel");
            (Question::post(path, cleanup::cancelled), ask)
        }
        Command::Cleanup(whom) => whom.question(),
        Command::Reload { ask } => (Question::post("/v1/reload", reload::show), ask),
        Command::Pause(times) => times.question(),
        Command::Resume { ask } => (Question::post("/v1/resume", pause::resumed), ask),
        Command::Reconnect { ask } => (Question::post("/v1/reconnect", pause::reconnected), ask),
        Command::Drain { ask } => (Question::post("/v1/drain", pause::drained), ask),
    };
    Plan::Ask(question, ask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn asked(line: &str) -> (&'static str, String) {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        match plan(cli.command) {
            Plan::Ask(question, _) => (question.method, question.path),
            Plan::Examine { .. } | Plan::Watch(_) => {
                panic!("{line} asks more than one question")
            }
        }
    }

    #[test]
    fn each_command_asks_its_route() {
        for (line, method, path) in [
            ("execpool status", "GET", "/v1/status"),
            ("execpool executions", "GET", "/v1/executions"),
            (
                "execpool executions --ended",
                "GET",
                "/v1/executions?ended=true",
            ),
            ("execpool executions a/b", "GET", "/v1/executions/a%2Fb"),
            (
                "execpool executions run --events --ended",
                "GET",
                "/v1/executions/run?ended=true&events=true",
            ),
            ("execpool sessions", "GET", "/v1/sessions"),
            (
                "execpool sessions --state idle --older-than 1m --execution a@b",
                "GET",
                "/v1/sessions?execution=a%40b&state=idle&older_than=1m",
            ),
            (
                "execpool sessions --suspect",
                "GET",
                "/v1/sessions?suspect=true",
            ),
            ("execpool end a/b", "DELETE", "/v1/executions/a%2Fb"),
            (
                "execpool end --session 42 --reason x",
                "DELETE",
                "/v1/sessions/42?reason=x",
            ),
            ("execpool cancel 42", "POST", "/v1/sessions/42/cancel"),
            ("execpool cleanup", "POST", "/v1/cleanup"),
            ("execpool reload", "POST", "/v1/reload"),
            ("execpool pause", "POST", "/v1/pause"),
            (
                "execpool pause --timeout 2m --for 10m",
                "POST",
                "/v1/pause?timeout=2m&for=10m",
            ),
            ("execpool resume", "POST", "/v1/resume"),
            ("execpool reconnect", "POST", "/v1/reconnect"),
            ("execpool drain", "POST", "/v1/drain"),
            (
                "execpool end a --grace 2s --reason x&y",
                "DELETE",
                "/v1/executions/a?reason=x%26y&grace=2s",
            ),
        ] {
            assert_eq!(asked(line), (method, path.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_query_is_sent_with_its_parameters_as_texts() {
        let line = [
            "execpool",
            "query",
            "--execution",
            "a/b",
            "SELECT $1",
            "--param",
            "-7",
            "--max-rows",
            "5",
            "--timeout",
            "2m",
        ];
        let cli = Cli::try_parse_from(line).unwrap();
        let Plan::Ask(question, _) = plan(cli.command) else {
            panic!("it asks more than one question");
        };
        assert_eq!(question.method, "POST");
        assert_eq!(question.path, "/v1/executions/a%2Fb/query");
        assert!(question.patience > Duration::from_secs(120));
        let body = json!({"sql": "SELECT $1", "params": ["-7"], "upstream": null, "timeout": "2m",
            "max_rows": 5});
        assert_eq!(question.body, Some(body));
    }

    #[test]
    fn a_cleanup_says_what_it_is_about() {
        for (line, body) in [
            (
                "execpool cleanup",
                json!({"dry_run": false, "execution": null}),
            ),
            (
                "execpool cleanup --dry-run --execution a",
                json!({"dry_run": true, "execution": "a"}),
            ),
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Plan::Ask(question, _) = plan(cli.command) else {
                panic!("{line} asks more than one question");
            };
            assert_eq!(question.body, Some(body), "{line}");
        }
    }
}
