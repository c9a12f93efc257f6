//! How control gets a session of our own: whoever hands in a [`Within`] lets it in, as if it had come
//! to the PostgreSQL socket.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use tokio::net::UnixStream;

use crate::session::Peer;

use super::Control;
use super::problem::{Kind, Problem};

/// Lets a client in who is this peer; called on the data plane's runtime.
type Welcome = dyn Fn(OwnedFd, Peer) + Send + Sync;

/// The way into the data plane from within the process.
#[derive(Clone)]
pub struct Within(Option<Arc<Welcome>>);

impl Within {
    /// There is none.
    #[must_use]
    pub fn closed() -> Self {
        Self(None)
    }

    /// Clients are handed to `welcome`, on the data plane's runtime.
    #[must_use]
    pub fn new(welcome: impl Fn(OwnedFd, Peer) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(welcome)))
    }
}

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Within").finish_non_exhaustive()
    }
}

impl Control {
    /// A connection to the PostgreSQL service, opened in the place of `peer`. Cancel safe: dropped, it is
    /// one whose client has vanished.
    ///
    /// # Errors
    /// There is no way in, no descriptor is left, or the data plane has ended.
    pub(super) async fn come_in(&self, peer: Peer) -> Result<UnixStream, Problem> {
        let fault =
            |what: String| Problem::new(Kind::Internal, what, "See the log, and report it.");
        let Some(welcome) = self.within.0.clone() else {
            return Err(fault("queries are not served here".to_owned()));
        };
        let opened = pair().map_err(|error| fault(format!("no socket could be had: {error}")));
        let (ours, theirs) = opened?;
        self.remote.ask(move |_| welcome(theirs, peer)).await?;
        Ok(ours)
    }
}

fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
