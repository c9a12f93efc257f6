//! The log: events as lines on standard error.
//!
//! | module | gives |
//! |---|---|
//! | `queue` | lines that wait for a thread of their own to write them |
//! | `panic` | a panic as an event |

mod panic;
mod queue;
#[cfg(test)]
mod tests;

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{self, LogFormat};

use super::process::DroppedLines;

use queue::Queue;

pub use panic::install_panic_hook;

/// How long the last lines are waited for.
const FLUSH: Duration = Duration::from_secs(1);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The configured level is no filter.
    #[error("log.level is not a filter such as info or info,execpool=debug: {0}")]
    Level(#[from] ParseError),
    /// Standard error can't be written to.
    #[error("cannot log to standard error: {0}; run execpool with standard error open")]
    Output(#[source] io::Error),
    /// The thread that writes can't be started.
    #[error("cannot start the thread that writes the log: {0}; raise the limit on processes")]
    Thread(#[source] io::Error),
    /// There is a log already.
    #[error("the log was set up twice in one process; set it up once, in main")]
    Twice,
}

/// Keeps the log. Dropping it waits for the last lines, for a second at most; what is logged
/// after that is lost.
#[must_use = "dropping it ends the log"]
pub struct LogGuard {
    queue: Arc<Queue>,
    filter: SetFilter,
}

/// Exchanges the filter; false where the log has ended.
type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

impl fmt::Debug for LogGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogGuard").finish_non_exhaustive()
    }
}

impl LogGuard {
    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// It is no filter; nothing changes then.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = filter(level)?;
        // A log that has ended needs none.
        let _ = (self.filter)(filter);
        Ok(())
    }

    /// How many lines were dropped, as long as the process runs.
    #[must_use]
    pub fn dropped(&self) -> DroppedLines {
        self.queue.dropped.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.queue.close(FLUSH);
    }
}

/// Logs all events of the process to standard error: as text on a terminal and else as
/// JSON, unless the configuration says which; coloured on a terminal unless `NO_COLOR` is set.
///
/// A line of JSON is one object: `timestamp` (RFC 3339, UTC), `level`, `target`, `message`,
/// and the event's fields beside them, which must not have one of these names; within a
/// span also `span`.
///
/// A line is written by a thread of its own. If it can't keep up, lines are dropped, and how
/// many is logged as soon as it can: nobody ever waits for the log.
///
/// # Errors
/// See [`LogError`].
pub fn init(config: &config::Log) -> Result<LogGuard, LogError> {
    let stderr = io::stderr();
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let shape = Shape::of(config.format, stderr.is_terminal(), no_color);
    // Past std's lock on standard error: whoever holds that may wait for a reader.
    let output = stderr.as_fd().try_clone_to_owned();
    let output = File::from(output.map_err(LogError::Output)?);
    let (dispatch, guard) = log_to(output, shape, &config.level)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Twice)?;
    Ok(guard)
}

/// A log to any output.
fn log_to(
    output: impl Write + Send + 'static,
    shape: Shape,
    level: &str,
) -> Result<(Dispatch, LogGuard), LogError> {
    let filter = filter(level)?;
    let dropped = move |count| line_about_dropped(shape, count);
    let queue = Queue::start(output, dropped).map_err(LogError::Thread)?;
    let (dispatch, filter) = dispatch(shape, filter, Arc::clone(&queue));
    Ok((dispatch, LogGuard { queue, filter }))
}

/// The filter that is configured. OpenTelemetry's own lines, one for each export that fails, are left
/// out unless it names them: what they tell is said once by us.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    const OWN: [&str; 5] = [
        "opentelemetry=off",
        "opentelemetry_sdk=off",
        "opentelemetry-otlp=off",
        "opentelemetry-prometheus=off",
        "opentelemetry_prometheus=off",
    ];
    let filter = EnvFilter::try_new(level)?;
    if level.contains("opentelemetry") {
        return Ok(filter);
    }
    OWN.iter()
        .try_fold(filter, |filter, own| Ok(filter.add_directive(own.parse()?)))
}

/// The shape of the lines, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    Text { coloured: bool },
}

impl Shape {
    fn of(format: LogFormat, is_terminal: bool, no_color: bool) -> Self {
        let coloured = is_terminal && !no_color;
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Text => Self::Text { coloured },
            LogFormat::Auto if is_terminal => Self::Text { coloured },
            LogFormat::Auto => Self::Json,
        }
    }
}

/// What turns events into lines and gives each to `output` as one write, and what exchanges its
/// filter.
fn dispatch<W>(shape: Shape, filter: EnvFilter, output: W) -> (Dispatch, SetFilter)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output)
        // It would complain on standard error, and wait for its reader.
        .log_internal_errors(false);
    match shape {
        Shape::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            let set: SetFilter = Box::new(move |filter| handle.reload(filter).is_ok());
            (lines.finish().into(), set)
        }
        Shape::Text { coloured } => {
            let lines = lines.with_ansi(coloured).with_filter_reloading();
            let handle = lines.reload_handle();
            let set: SetFilter = Box::new(move |filter| handle.reload(filter).is_ok());
            (lines.finish().into(), set)
        }
    }
}

/// The line that says how many were dropped, in the shape of the others.
fn line_about_dropped(shape: Shape, count: u64) -> Vec<u8> {
    let line = Arc::new(Kept(Mutex::default()));
    let filter = EnvFilter::default().add_directive(LevelFilter::WARN.into());
    tracing::dispatcher::with_default(&dispatch(shape, filter, Arc::clone(&line)).0, || {
        tracing::warn!(
            event = "log.dropped",
            dropped = count,
            "lines of the log were dropped, as standard error was not read fast enough"
        );
    });
    std::mem::take(&mut *line.0.lock())
}

/// Keeps what is written.
struct Kept(Mutex<Vec<u8>>);

impl Write for &Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
