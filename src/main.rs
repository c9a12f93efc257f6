//! The process's life on one screen.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    execpool::cli::run(std::env::args_os(), env)
}
