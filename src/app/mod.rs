//! Wiring: from a configuration to a running process, and its end.
//!
//! Two threads, each with a runtime of its own: sessions and pools on the data plane's, everything
//! that looks at them from outside on the main one.
//!
//! | module | gives |
//! |---|---|
//! | [`error`] | why the process does not start |
//! | `doors` | the sockets, all of them bound before anything is served |
//! | `house` | all that there is before anybody looks |
//! | `data` | the data plane: its thread, what lives on it |
//! | `keeper` | what time alone does on the data plane |
//! | `watch` | the main thread: who looks at the data plane, until the end |
//! | `common` | what everybody there has at hand |
//! | `desk` | the control API, and whom it speaks to |
//! | `measuring` | what is measured of the data plane, and told by instruments |
//! | `monitors` `search` | the monitor of each upstream, and its first answer |
//! | `remedies` | whether connections run out, every second, and what is done about it |
//! | `probing` | what probes are told |
//! | [`source`] | where the configuration comes from |
//! | `reload` `stage` | it is read anew, and applied |
//! | `status_log` | how everything is, into the log, every few minutes |
//! | `stop` `exit` | from a signal, or a decision, to the exit |

mod common;
mod data;
mod desk;
mod doors;
pub mod error;
mod exit;
mod house;
mod keeper;
mod measuring;
mod monitors;
mod probing;
mod reload;
mod remedies;
mod search;
pub mod source;
mod stage;
mod status_log;
mod stop;
mod watch;

use std::sync::Arc;

use tokio::runtime::Builder;

use crate::config::{Loaded, Roots};
use crate::telemetry;

pub use error::StartError;
pub use exit::Ended;
use house::House;
pub use source::{Look, Source};

/// Runs until a signal ends it, or the reactor does. `loaded` is what `source` has given at that look. Answers how
/// it has ended.
///
/// # Errors
/// What keeps it from starting; nothing is left behind then.
pub fn run(loaded: Loaded, source: Source, look: Look) -> Result<Ended, StartError> {
    let log = Arc::new(telemetry::init(&loaded.config.log)?);
    telemetry::install_panic_hook();
    for warning in &loaded.warnings {
        tracing::warn!(event = "configuration.warning", "{warning}");
    }
    allow_all_descriptors();
    tell_of_authorities(&loaded);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let house = House::build(loaded, (source, look), Arc::clone(&log), runtime.handle())?;
    Ok(runtime.block_on(watch::over(house)))
}

/// Each session needs a descriptor, each server connection another: the soft limit, often 1,024,
/// is raised to the hard one.
fn allow_all_descriptors() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let raised =
        getrlimit(RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(event = "descriptors.few", %error, "cannot raise the limit of open descriptors");
    }
}

/// Who the system's authorities are is known only where the process runs.
fn tell_of_authorities(loaded: &Loaded) {
    let mut upstreams = loaded.config.upstreams.iter();
    if upstreams.any(|upstream| upstream.target.tls.roots == Roots::System) {
        let authorities = crate::server::tls::system_roots();
        tracing::info!(
            event = "tls.system_roots",
            authorities,
            "sslrootcert=system"
        );
    }
}
