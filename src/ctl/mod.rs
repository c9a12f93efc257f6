//! The command line as a client of the control API: look at a running execpool, end an execution,
//! have the configuration read anew.
//!
//! | module | gives |
//! |---|---|
//! | `client` | one request over the control socket |
//! | [`error`] | why there is no answer, and what to do |
//! | `page` | what is printed: tables, words, colours on a terminal |
//! | `status` `executions` `sessions` `query` `end` `cleanup` `reload` `pause` | what each command prints |
//! | `timeline` | the story of an execution |
//! | `doctor` | an examination |
//! | `top` | watching |
//! | [`events`] | following what happens |

mod cleanup;
mod client;
mod doctor;
mod end;
pub mod error;
pub mod events;
mod executions;
mod page;
mod pause;
mod query;
mod reload;
mod sessions;
mod status;
mod timeline;
mod top;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use client::Client;
use error::CtlError;
pub use events::{Follow, follow};
use page::Page;

/// Where the sockets are unless something else is said.
const DEFAULT_DIR: &str = "/run/execpool";

/// The environment's word for it.
const DIR_VARIABLE: &str = "EXECPOOL_LISTEN__DIR";

/// The control socket's name in the directory.
const SOCKET: &str = "control.sock";

/// How long an answer may take that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a pause waits for running transactions unless something else is said.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a query may take unless something else is said.
const QUERY: Duration = Duration::from_secs(30);

/// The time between two looks unless something else is said.
const LOOK: Duration = Duration::from_secs(2);

/// The commands that ask a running execpool.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a running execpool: budget, databases, executions, sessions
    #[command(after_help = "Examples:\n  execpool status\n  \
        execpool status --json | jq .budget\n  \
        execpool status --socket /tmp/pool/control.sock\n\n\
        Exit status: 0 answered, 1 not answered, 2 wrong usage.")]
    Status {
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Watch a running execpool: status, executions and sessions, who holds most first
    #[command(after_help = "Examples:\n  execpool top\n  \
        execpool top --interval 5s\n  \
        execpool top --once\n\n\
        Ctrl-C ends it. Without a terminal nothing is cleared: one picture follows the other.\n\
        With --json each is one line: status, executions, sessions.\n\
        Exit status: 0 ended by Ctrl-C or --once, 1 not answered, 2 wrong usage.")]
    Top {
        /// The time between two looks, such as 5s; 2s without
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        interval: Option<(String, Duration)>,
        /// Look once
        #[arg(long)]
        once: bool,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// List executions, with what they hold
    #[command(after_help = "Examples:\n  execpool executions\n  \
        execpool executions --ended\n  \
        execpool executions run-1 --events          what has happened in it\n  \
        execpool executions run-1 --events --ended  the same of the last that ended badly\n\n\
        RES: registered resources, or those that were left; WAIT: checkouts that wait; HELD: how long server connections were held;\n\
        BUSY: the share of that in which they worked.\n\
        Exit status: 0 answered, 1 not answered, 2 wrong usage.")]
    Executions {
        /// This one alone
        #[arg(value_name = "ID")]
        id: Option<String>,
        /// With what has happened in it: the last 200 events, as a timeline
        #[arg(long, requires = "id")]
        events: bool,
        /// With those that have ended, as far as they are remembered
        #[arg(long)]
        ended: bool,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// List sessions: who holds what, since when and from which line
    #[command(after_help = "Examples:\n  execpool sessions\n  \
        execpool sessions --execution run-1\n  \
        execpool sessions --state idle_in_transaction --older-than 1m30s\n  \
        execpool sessions --suspect\n\n\
        A suspect holds a connection and has asked nothing for session.leak_after (60s).\n\
        FOR: how long it has been in that state; HELD and BUSY as in execpool executions;\n\
        PID: the backend that it holds. Statements are shown without literals.\n\
        Exit status: 0 answered, 1 not answered, 2 wrong usage.")]
    Sessions {
        /// Of this execution alone
        #[arg(long, value_name = "ID")]
        execution: Option<String>,
        /// In this state alone, such as active, idle, idle_in_transaction or waiting
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// At least that old, such as 30s or 5m
        #[arg(long, value_name = "DURATION")]
        older_than: Option<String>,
        /// Those alone that seem to be forgotten: they hold a connection and ask nothing
        #[arg(long)]
        suspect: bool,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Run one statement in an execution, as a session like any other
    #[command(after_help = "Examples:\n  \
        execpool query --execution run-1 'SELECT count(*) FROM jobs'\n  \
        execpool query --execution run-1 'SELECT * FROM jobs WHERE id = $1' --param 7\n  \
        execpool query --execution run-1 --json 'SELECT now()' | jq '.rows[0][0]'\n\n\
        An unknown execution is begun, as by any session. The session ends with the statement: what it\n\
        has not committed is rolled back. Cells are cut where the table is wider than the terminal.\n\
        Exit status: 0 answered, 1 failed, 2 wrong usage.")]
    Query {
        /// The execution
        #[arg(long, value_name = "ID")]
        execution: String,
        /// One statement
        #[arg(value_name = "SQL")]
        sql: String,
        /// The value of $1, $2 and so on, as text; may be repeated
        #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
        params: Vec<String>,
        /// The upstream; the first without
        #[arg(long, value_name = "NAME")]
        upstream: Option<String>,
        /// How long it may take, waits included, such as 2m; 30s without
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<(String, Duration)>,
        /// How many rows are shown at most; 1000 without
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        max_rows: Option<u32>,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// End an execution or one session: cancel, close connections, wait until they are gone
    #[command(after_help = "Examples:\n  execpool end run-1\n  \
        execpool end run-1 --grace 20s --reason \"the user cancelled\"\n  \
        execpool end shared        closes its sessions; it lives on\n  \
        execpool end --session 42  one session alone; its execution lives on\n\n\
        execpool sessions lists the numbers of sessions.\n\
        Exit status: 0 nothing of it is left, 1 failed or backends remain, 2 wrong usage.")]
    End {
        /// The execution's name
        #[arg(value_name = "ID", required_unless_present = "session")]
        id: Option<String>,
        /// One session alone, by its number
        #[arg(long, value_name = "SESSION", conflicts_with_all = ["id", "grace"])]
        session: Option<u64>,
        /// Why, for whoever reads its summary
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// How long running queries may go on, such as 20s
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        grace: Option<(String, Duration)>,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Cancel what a session does: its query, or its wait for a connection
    #[command(after_help = "Examples:\n  execpool cancel 42\n  \
        execpool sessions --state active --older-than 10m --json | jq '.[].id'\n\n\
        The session lives on, as after a cancel request of its own (57014). execpool end --session\n\
        ends it.\n\
        Exit status: 0 cancelled, 1 failed or nothing ran, 2 wrong usage.")]
    Cancel {
        /// The session's number
        #[arg(value_name = "SESSION")]
        session: u64,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Make room: end sessions that hold a connection and ask nothing, while somebody waits
    #[command(after_help = "Examples:\n  execpool cleanup --dry-run\n  \
        execpool cleanup\n  \
        execpool cleanup --execution run-1    whether anybody waits or not\n\n\
        In this order, until nobody waits for the budget: leftovers of ended executions; sessions\n\
        idle in transaction for cleanup.idle_in_transaction (60s); leak suspects of named\n\
        executions; other suspects only with session.reclaim_leaks.\n\
        Exit status: 0 nobody waits any more, 1 failed or somebody still waits, 2 wrong usage.")]
    Cleanup {
        /// Only tell what would be ended
        #[arg(long)]
        dry_run: bool,
        /// Of this execution alone, whether anybody waits or not
        #[arg(long, value_name = "ID")]
        execution: Option<String>,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Read the configuration anew and apply what it changes
    #[command(after_help = "Examples:\n  execpool reload\n  \
        execpool reload --json | jq .waiting_for_restart\n\n\
        A changed file is read within seconds by itself, and at SIGHUP. What is wrong is told, and\n\
        what runs stays as it is.\n\
        Exit status: 0 applied, 1 refused or not answered, 2 wrong usage.")]
    Reload {
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Let running transactions end and lend nothing, as for a restart of the database
    #[command(
        after_help = "Examples:\n  execpool pause && restart-the-database && execpool resume\n  \
        execpool pause --timeout 2m --for 10m\n\n\
        Clients wait: those that hold a connection without a bound, the others for pool.timeout.\n\
        It stays in force until execpool resume, whatever the exit status.\n\
        Exit status: 0 no transaction runs, 1 failed or some still run, 2 wrong usage."
    )]
    Pause {
        /// How long running transactions are waited for, such as 2m; 30s without
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<(String, Duration)>,
        /// When it goes on by itself, such as 10m; never without
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        time: Option<(String, Duration)>,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Go on after a pause; those that wait are served first come first served
    #[command(after_help = "Examples:\n  execpool resume\n\n\
        Exit status: 0 it goes on, 1 failed, 2 wrong usage.")]
    Resume {
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Replace every server connection, as after a failover: idle ones now, lent ones when they come back
    #[command(after_help = "Examples:\n  execpool reconnect\n\n\
        A session keeps its connection until it disconnects; no query is harmed.\n\
        Exit status: 0 begun, 1 failed, 2 wrong usage.")]
    Reconnect {
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Go through a running execpool as an app would, and say what is wrong and what to do
    #[command(after_help = "Examples:\n  execpool doctor\n  \
        execpool doctor --upstream app --json\n\n\
        It begins an execution of its own, queries, leaves a transaction open on purpose, ends it, and\n\
        looks whether anything is left. It touches nothing of others, and takes one connection.\n\
        Exit status: 0 all is well, 1 a check has failed, 2 wrong usage.")]
    Doctor {
        /// Over this upstream; over the first without
        #[arg(long, value_name = "NAME")]
        upstream: Option<String>,
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Mark that the pod is about to end (preStop): not ready, no reserve; it ends nothing
    #[command(after_help = "Examples:\n  execpool drain\n\n\
        Exit status: 0 marked, 1 failed, 2 wrong usage.")]
    Drain {
        /// How to ask.
        #[command(flatten)]
        ask: Ask,
    },
}

/// How to ask, and how to show the answer.
#[derive(Debug, Args)]
pub struct Ask {
    /// Print the answer of the control API as JSON
    #[arg(long)]
    json: bool,
    /// The control socket; by default control.sock in $EXECPOOL_LISTEN__DIR or /run/execpool
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// What one command asks, and how its answer is shown.
struct Question {
    method: &'static str,
    path: String,
    /// What is sent with it.
    body: Option<Value>,
    patience: Duration,
    /// Writes the answer for people; whether all is well.
    show: fn(&Value, &mut Page) -> bool,
}

/// Runs a command, and says how the process shall exit.
///
/// # Errors
/// Standard output can't be written.
pub fn run(command: Command, env: &[(String, String)]) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let printed = runtime.block_on(async {
        match plan(command) {
            Plan::Ask(question, ask) => answer(question, ask, env).await,
            Plan::Examine { upstream, ask } => examine(upstream, ask, env).await,
            Plan::Watch {
                interval,
                once,
                ask,
            } => watch(interval, once, ask, env).await,
        }
    });
    match printed {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        // As in `execpool sessions | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

/// Puts one question, and prints the answer. Whether all is well.
async fn answer(question: Question, ask: Ask, env: &[(String, String)]) -> io::Result<bool> {
    let client = ask.client(env);
    let answer = client.ask(
        question.method,
        &question.path,
        question.body.as_ref(),
        question.patience,
    );
    match &answer.await {
        Ok(answer) if ask.json => print(&format!("{answer:#}\n")).map(|()| is_done(answer)),
        Ok(answer) => {
            let mut page = Page::new(colours(env)).within(width());
            let well = (question.show)(answer, &mut page);
            print(&page.finish()).map(|()| well)
        }
        Err(error) => complain(error, ask.json).map(|()| false),
    }
}

/// Examines, and prints what was found. Whether nothing has failed.
async fn examine(upstream: Option<String>, ask: Ask, env: &[(String, String)]) -> io::Result<bool> {
    let findings = doctor::examine(&ask.client(env), upstream).await;
    if ask.json {
        let json = serde_json::to_string_pretty(&findings)?;
        print(&format!("{json}\n"))?;
    } else {
        let mut page = Page::new(colours(env));
        doctor::show(&findings, &mut page);
        print(&page.finish())?;
    }
    Ok(!findings.iter().any(doctor::Finding::is_failed))
}

/// Looks again and again. Whether somebody answered to the end.
async fn watch(
    interval: Duration,
    once: bool,
    ask: Ask,
    env: &[(String, String)],
) -> io::Result<bool> {
    let look = top::Look {
        interval,
        once,
        json: ask.json,
        screen: io::stdout().is_terminal() && !once && !ask.json,
        colours: colours(env),
        room: room(),
    };
    match top::watch(&ask.client(env), look).await {
        Ok(printed) => printed.map(|()| true),
        Err(error) => complain(&error, ask.json).map(|()| false),
    }
}

impl Ask {
    /// Who is asked.
    fn client(&self, env: &[(String, String)]) -> Client {
        let socket = self.socket.clone();
        Client::new(socket.unwrap_or_else(|| default_socket(env)))
    }
}

/// What a command comes to.
enum Plan {
    /// One question.
    Ask(Question, Ask),
    /// The same ones, again and again.
    Watch {
        interval: Duration,
        once: bool,
        ask: Ask,
    },
    /// Many of them.
    Examine { upstream: Option<String>, ask: Ask },
}

fn plan(command: Command) -> Plan {
    let get = |path: String, show| Question {
        method: "GET",
        path,
        body: None,
        patience: PATIENCE,
        show,
    };
    let post = |path: &str, show| Question {
        method: "POST",
        path: path.to_owned(),
        body: None,
        patience: PATIENCE,
        show,
    };
    let (question, ask) = match command {
        Command::Doctor { upstream, ask } => return Plan::Examine { upstream, ask },
        Command::Top {
            interval,
            once,
            ask,
        } => {
            return Plan::Watch {
                interval: interval.map_or(LOOK, |(_, interval)| interval),
                once,
                ask,
            };
        }
        Command::Reload { ask } => (post("/v1/reload", reload::show), ask),
        Command::Pause { timeout, time, ask } => {
            let (timeout, wait) = timeout.unzip();
            let query = [("timeout", timeout), ("for", time.map(|(text, _)| text))];
            let question = Question {
                patience: wait.unwrap_or(PAUSE) + PATIENCE,
                ..post(&client::path("/v1/pause", query), pause::paused)
            };
            (question, ask)
        }
        Command::Resume { ask } => (post("/v1/resume", pause::resumed), ask),
        Command::Reconnect { ask } => (post("/v1/reconnect", pause::reconnected), ask),
        Command::Drain { ask } => (post("/v1/drain", pause::drained), ask),
        Command::Status { ask } => (get("/v1/status".to_owned(), status::show), ask),
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
            let show = if events {
                timeline::show
            } else {
                executions::show
            };
            (get(client::path(&path, query), show), ask)
        }
        Command::Sessions {
            execution,
            state,
            older_than,
            suspect,
            ask,
        } => {
            let query = [
                ("execution", execution),
                ("state", state),
                ("older_than", older_than),
                ("suspect", suspect.then(|| "true".to_owned())),
            ];
            (
                get(client::path("/v1/sessions", query), sessions::show),
                ask,
            )
        }
        Command::Query {
            execution,
            sql,
            params,
            upstream,
            timeout,
            max_rows,
            ask,
        } => {
            let (timeout, wait) = timeout.unzip();
            let path = format!("/v1/executions/{}/query", client::encoded(&execution));
            let question = Question {
                body: Some(json!({
                    "sql": sql,
                    "params": params,
                    "upstream": upstream,
                    "timeout": timeout,
                    "max_rows": max_rows,
                })),
                patience: wait.unwrap_or(QUERY) + PATIENCE,
                ..post(&path, query::show)
            };
            (question, ask)
        }
        Command::Cancel { session, ask } => {
            let path = format!("/v1/sessions/{session}/cancel");
            (post(&path, cleanup::cancelled), ask)
        }
        Command::Cleanup {
            dry_run,
            execution,
            ask,
        } => {
            let question = Question {
                body: Some(json!({"dry_run": dry_run, "execution": execution})),
                // One may be under way already.
                patience: 3 * PATIENCE,
                ..post("/v1/cleanup", cleanup::show)
            };
            (question, ask)
        }
        Command::End {
            session: Some(session),
            reason,
            ask,
            ..
        } => {
            let path = format!("/v1/sessions/{session}");
            let question = Question {
                method: "DELETE",
                ..get(client::path(&path, [("reason", reason)]), cleanup::ended)
            };
            (question, ask)
        }
        Command::End {
            id,
            session: None,
            reason,
            grace,
            ask,
        } => {
            let (grace, wait) = grace.unzip();
            // It is there where no session is.
            let id = id.unwrap_or_default();
            let path = format!("/v1/executions/{}", client::encoded(&id));
            let question = Question {
                method: "DELETE",
                path: client::path(&path, [("reason", reason), ("grace", grace)]),
                body: None,
                // It answers after 5 s and the grace at the latest; a grace of the
                // configuration's may be longer than we know.
                patience: wait.map_or(Duration::from_secs(3600), |grace| grace + PATIENCE),
                show: end::show,
            };
            (question, ask)
        }
    };
    Plan::Ask(question, ask)
}

/// Whether an answer says of itself that something is left to do.
fn is_done(answer: &Value) -> bool {
    answer.get("complete") != Some(&Value::Bool(false))
}

fn default_socket(env: &[(String, String)]) -> PathBuf {
    let dir = env.iter().find(|(name, _)| name == DIR_VARIABLE);
    let dir = dir.map_or(DEFAULT_DIR, |(_, dir)| dir);
    PathBuf::from(dir).join(SOCKET)
}

/// Colours are for terminals whose owner has not declined them (<https://no-color.org>).
fn colours(env: &[(String, String)]) -> bool {
    let declined = |(name, value): &(String, String)| {
        (name == "NO_COLOR" && !value.is_empty()) || (name == "TERM" && value == "dumb")
    };
    io::stdout().is_terminal() && !env.iter().any(declined)
}

/// How wide a line may be; none where it is not for a terminal.
fn width() -> Option<usize> {
    room().map(|(width, _)| width)
}

/// How wide and how high the terminal is, where there is one.
fn room() -> Option<(usize, usize)> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (width, height) = terminal_size::terminal_size()?;
    Some((width.0.into(), height.0.into()))
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Says why it failed; a program gets the problem as the API says it.
fn complain(error: &CtlError, json: bool) -> io::Result<()> {
    if let (true, CtlError::Refused(problem)) = (json, error) {
        print(&format!("{:#}\n", problem.json))?;
    }
    let mut err = io::stderr().lock();
    writeln!(err, "execpool: {error}")?;
    writeln!(err, "{}", error.hint())
}

fn duration(text: &str) -> Result<(String, Duration), &'static str> {
    let time = crate::config::duration(text);
    let time = time.ok_or("a duration with its unit, such as 250ms, 20s or 1m30s")?;
    Ok((text.to_owned(), time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn asked(line: &str) -> (&'static str, String) {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        match plan(cli.command) {
            Plan::Ask(question, _) => (question.method, question.path),
            Plan::Examine { .. } | Plan::Watch { .. } => {
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

    #[test]
    fn wrong_usage_is_refused_before_anything_is_asked() {
        for line in [
            "execpool end",
            "execpool end a --grace 2",
            "execpool query 1",
            "execpool query --execution a 1 --max-rows 0",
            "execpool end a --session 1",
            "execpool end --session one",
            "execpool end --session 1 --grace 2s",
            "execpool cancel",
            "execpool status x",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn the_socket_is_where_the_environment_says() {
        let env = [(DIR_VARIABLE.to_owned(), "/tmp/pool".to_owned())];
        assert_eq!(
            default_socket(&env),
            PathBuf::from("/tmp/pool/control.sock")
        );
        assert_eq!(
            default_socket(&[]),
            PathBuf::from("/run/execpool/control.sock")
        );
    }
}
