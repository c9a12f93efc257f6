//! The command line's definitions: each command, and how to ask. Those with much to say stand beside
//! what they print.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::Client;
use super::{cleanup, default_socket, end, pause, query, sessions, top};

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
    Top(top::Watch),
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
    Sessions(sessions::Which),
    /// Run one statement in an execution, as a session like any other
    Query(query::Statement),
    /// End an execution or one session: cancel, close connections, wait until they are gone
    End(end::Whom),
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
    Cleanup(cleanup::Whom),
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
    Pause(pause::Times),
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
    pub(super) json: bool,
    /// The control socket; by default control.sock in $EXECPOOL_LISTEN__DIR or /run/execpool
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

impl Ask {
    /// Who is asked.
    pub(super) fn client(&self, env: &[(String, String)]) -> Client {
        let socket = self.socket.clone();
        Client::new(socket.unwrap_or_else(|| default_socket(env)))
    }
}

/// Reads a duration; with its text, as it is sent.
pub(super) fn duration(text: &str) -> Result<(String, Duration), &'static str> {
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
        _command: Command,
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
}
