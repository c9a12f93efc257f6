//! The command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde::Serialize;

use crate::app::{self, Source};
use crate::config;
use crate::ctl;
use crate::demo;
use crate::telemetry::{self, Environment};

const DEFAULT_FILE: &str = "/etc/execpool/config.yaml";

/// A PostgreSQL connection pool per execution, under one budget per pod.
#[derive(Debug, Parser)]
#[command(name = "execpool", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar, in the foreground, until SIGTERM
    #[command(after_help = "Examples:\n  \
        DATABASE_URL=postgresql://app@db/app execpool run\n  \
        execpool run --config config.yaml --set listen.dir=/tmp/pool\n\n\
        Clients then connect to host=/run/execpool, as with any Unix socket of PostgreSQL's.\n\
        Exit status: 0 ended by a signal, 1 could not start, 2 wrong usage, 88 the reactor\n\
        wants all containers of the pod restarted (reactor.restart: exit-code).")]
    Run(Layers),
    /// Validate the configuration; print each value and where it came from
    #[command(after_help = "Examples:\n  execpool check\n  \
        DATABASE_URL=postgresql://app@db/app execpool check\n  \
        execpool check --config config.yaml --set budget.size=30 --json\n\n\
        Exit status: 0 valid, 1 not valid, 2 wrong usage.")]
    Check(Check),
    /// Print what a shell needs to complete this command line
    #[command(after_help = "Examples:\n  \
        source <(execpool completion bash)\n  \
        execpool completion zsh > ~/.zfunc/_execpool\n  \
        execpool completion fish > ~/.config/fish/completions/execpool.fish")]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Show a real workload through execpool and straight at a throw-away PostgreSQL
    #[command(
        after_help = "It needs PostgreSQL's programs (from EXECPOOL_PG_BIN, PATH, \
        /usr/lib/postgresql)\nand a python3 with psycopg and sqlalchemy (EXECPOOL_PYTHON, \
        python3). It takes less\nthan a minute and leaves nothing behind.\n\n\
        Exit status: 0 every claim it shows is true, 1 one is false, 2 something is missing."
    )]
    Demo,
    /// Follow what happens: executions, refusals, limits, the databases
    Events(ctl::Follow),
    #[command(flatten)]
    Control(ctl::Command),
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    layers: Layers,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Where configuration comes from, beside the environment.
#[derive(Debug, Args)]
struct Layers {
    /// The configuration file; by default /etc/execpool/config.yaml, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A knob, such as budget.size=30; wins over environment and file; may be repeated
    #[arg(long, value_name = "KNOB=VALUE", value_parser = knob)]
    set: Vec<(String, String)>,
}

/// Runs the command that `args` name, and says how the process shall exit.
///
/// # Errors
/// Standard output can't be written.
pub fn run<I, A>(args: I, env: Vec<(String, String)>) -> anyhow::Result<ExitCode>
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    match Cli::try_parse_from(args) {
        Ok(cli) => match cli.command {
            Command::Run(layers) => run_sidecar(layers, env),
            Command::Check(check) => run_check(check, env),
            Command::Completion { shell } => complete(shell),
            Command::Demo => demo::run(&env),
            Command::Events(events) => ctl::follow(events, &env),
            Command::Control(command) => ctl::run(command, &env),
        },
        Err(usage) => {
            usage.print()?;
            // clap's: 0 for help and version, 2 for wrong usage.
            let code = u8::try_from(usage.exit_code()).unwrap_or(2);
            Ok(ExitCode::from(code))
        }
    }
}

fn complete(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "execpool", &mut script);
    match std::io::stdout().write_all(&script) {
        // As in `execpool completion bash | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}

fn run_sidecar(layers: Layers, env: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let source = source(layers, env);
    let look = source.look();
    let complaints = match source.load(&look) {
        Ok(loaded) => match app::run(loaded, source, look) {
            Ok(ended) => return Ok(ExitCode::from(ended.code())),
            Err(error) => vec![error.to_string()],
        },
        Err(complaints) => complaints,
    };
    complain(&complaints)
}

/// Says what is wrong, a line each.
fn complain(complaints: &[String]) -> anyhow::Result<ExitCode> {
    for complaint in complaints {
        writeln!(std::io::stderr(), "execpool: {complaint}")?;
    }
    Ok(ExitCode::FAILURE)
}

fn run_check(check: Check, env: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let environment = Environment::new(&env);
    let source = source(check.layers, env);
    let loaded = source.load(&source.look());
    let traces = loaded.as_ref().is_ok_and(|it| it.config.telemetry.traces);
    let exported = exported(&environment, traces);
    let (mut loaded, exported) = match (loaded, exported) {
        (Ok(loaded), Ok(exported)) => (loaded, exported),
        (loaded, exported) => {
            let complaints = [loaded.err(), exported.err().map(|why| vec![why])];
            let complaints: Vec<String> = complaints.into_iter().flatten().flatten().collect();
            return complain(&complaints);
        }
    };
    loaded.warnings.extend(exported.warnings);
    let mut out = std::io::stdout().lock();
    if check.json {
        let shown = Checked {
            shown: config::show(&loaded),
            telemetry: exported.shown.into_iter().collect(),
        };
        serde_json::to_writer_pretty(&mut out, &shown)?;
        writeln!(out)?;
    } else {
        write!(out, "{}\nOpenTelemetry\n", config::render(&loaded))?;
        for (name, value) in &exported.shown {
            writeln!(out, "{name:20}  {value}")?;
        }
        for warning in &loaded.warnings {
            writeln!(std::io::stderr(), "execpool: warning: {warning}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `check --json` prints.
#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    shown: config::Shown,
    /// What the standard variables come to.
    telemetry: BTreeMap<&'static str, String>,
}

/// What the standard variables come to.
struct Exported {
    shown: Vec<(&'static str, String)>,
    warnings: Vec<String>,
}

fn exported(environment: &Environment, traces: bool) -> Result<Exported, String> {
    let standard = telemetry::exports::standard(environment).map_err(|error| error.to_string())?;
    let mut exported = Exported {
        shown: standard.shown(),
        warnings: standard.warnings,
    };
    if !traces {
        let off = ("traces", "off (telemetry.traces)".to_owned());
        exported.shown.push(off);
        return Ok(exported);
    }
    let traces = telemetry::exports::of_traces(environment).map_err(|error| error.to_string())?;
    exported.shown.extend(traces.shown());
    let more = traces.warnings.into_iter();
    let known = &mut exported.warnings;
    more.for_each(|warning| {
        if !known.contains(&warning) {
            known.push(warning);
        }
    });
    Ok(exported)
}

fn source(layers: Layers, env: Vec<(String, String)>) -> Source {
    Source {
        is_required: layers.config.is_some(),
        file: layers.config.unwrap_or_else(|| DEFAULT_FILE.into()),
        env,
        flags: layers.set,
    }
}

fn knob(given: &str) -> Result<(String, String), String> {
    let (name, value) = given
        .split_once('=')
        .ok_or("a knob and its value, such as budget.size=30")?;
    Ok((name.to_owned(), value.to_owned()))
}
