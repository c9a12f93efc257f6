//! The command line as a client of the control API: look at a running execpool, end an execution,
//! have the configuration read anew.
//!
//! | module | gives |
//! |---|---|
//! | `client` | one request over the control socket |
//! | [`error`] | why there is no answer, and what to do |
//! | `command` `plan` | the command line, and from each command to what is asked |
//! | `page` `terminal` | what is printed: tables, words, colours on a terminal |
//! | `timeline` | the story of an execution |
//! | `status` `executions` `sessions` `query` `end` `cleanup` `reload` `pause` | what each command takes and prints |
//! | `doctor` | an examination |
//! | `top` | watching |
//! | [`events`] | following what happens |

mod cleanup;
mod client;
mod command;
mod doctor;
mod end;
pub mod error;
pub mod events;
mod executions;
mod page;
mod pause;
mod plan;
mod query;
mod reload;
mod sessions;
mod status;
mod terminal;
mod timeline;
mod top;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

pub use command::{Ask, Command};
pub use events::{Follow, follow};
use page::Page;
use plan::{Plan, Question, plan};
use terminal::{colours, complain, print, width};

/// Where the sockets are unless something else is said.
const DEFAULT_DIR: &str = "/run/execpool";

/// The environment's word for it.
const DIR_VARIABLE: &str = "EXECPOOL_LISTEN__DIR";

/// The control socket's name in the directory.
const SOCKET: &str = "control.sock";

/// How long an answer may take that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

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
            Plan::Watch(look) => top::watch(look, env).await,
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

/// Whether an answer says of itself that something is left to do.
fn is_done(answer: &Value) -> bool {
    answer.get("complete") != Some(&Value::Bool(false))
}

/// The socket that the environment names.
fn default_socket(env: &[(String, String)]) -> PathBuf {
    let dir = env.iter().find(|(name, _)| name == DIR_VARIABLE);
    let dir = dir.map_or(DEFAULT_DIR, |(_, dir)| dir);
    PathBuf::from(dir).join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

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
