//! Connections of the control socket: who may ask, how many at once, and how long each may take.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::listener;

use super::Control;
use super::problem::{Kind, Problem};
use super::stall::Impatient;

/// How many connections may ask at once; `hold` streams are counted apart.
const CONNECTIONS: usize = 256;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// How much of a head is read.
const LARGEST_HEAD: usize = 64 << 10;

/// How long answers that are under way may take once the process ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection's place among those that may ask, and who is at its other end.
#[derive(Debug)]
pub(super) struct Place {
    /// The user of the process; none where the system does not tell.
    uid: Option<u32>,
    /// None for one that has left.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Place {
    /// The connection asks nothing more: somebody else may.
    pub(super) fn leave(&self) {
        drop(self.permit.lock().take());
    }

    /// # Errors
    /// The user at the other end is none of `allowed`, if there is such a list.
    pub(super) fn may_ask(&self, allowed: Option<&[u32]>) -> Result<(), Problem> {
        let Some(allowed) = allowed else {
            return Ok(());
        };
        if self.uid.is_some_and(|uid| allowed.contains(&uid)) {
            return Ok(());
        }
        let who = self
            .uid
            .map_or("an unknown user".to_owned(), |uid| format!("user {uid}"));
        Err(Problem::new(
            Kind::UserNotAllowed,
            format!("{who} may not use the control socket"),
            "Add the user's number to control.allow_uids.",
        ))
    }
}

impl Control {
    /// Serves the socket until `shutdown`, and finishes what is under way then, within a second.
    /// Looks after the health of the databases meanwhile.
    ///
    /// Cancel safe: every connection is closed when it is dropped.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut watching = JoinSet::new();
        for number in 0..self.monitors.len() {
            watching.spawn(Arc::clone(&self).watch(number));
        }
        let (stop, stopped) = watch::channel(());
        let doors = Doors::at(listener);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                (stream, permit) = doors.next() => {
                    let control = Arc::clone(&self);
                    connections.spawn(control.serve_one(stream, permit, stopped.clone()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop(doors);
        drop(stop);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, all).await;
    }

    /// Serves one connection until it closes, or until the answer under way when `stopped` ends.
    async fn serve_one(
        self: Arc<Self>,
        stream: UnixStream,
        permit: OwnedSemaphorePermit,
        mut stopped: watch::Receiver<()>,
    ) {
        let place = Arc::new(Place {
            uid: stream.peer_cred().ok().map(|peer| peer.uid()),
            permit: Mutex::new(Some(permit)),
        });
        let service = service_fn(|request| {
            let (control, place) = (Arc::clone(&self), Arc::clone(&place));
            async move { Ok::<_, Infallible>(control.answer(request, &place).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(Impatient::new(stream)), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            _ = stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the control socket broke");
        }
    }
}

/// Where connections come in.
struct Doors {
    listener: UnixListener,
    places: Arc<Semaphore>,
}

impl Doors {
    fn at(listener: UnixListener) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// The next connection and its place, for which it waits in the kernel's queue. Cancel safe.
    async fn next(&self) -> (UnixStream, OwnedSemaphorePermit) {
        // Never closed.
        let Ok(permit) = Arc::clone(&self.places).acquire_owned().await else {
            return std::future::pending().await;
        };
        (listener::accept(&self.listener).await, permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_users_may_ask_where_there_is_a_list() {
        let place = |uid| Place {
            uid,
            permit: Mutex::new(None),
        };
        assert_eq!(place(None).may_ask(None), Ok(()));
        assert_eq!(place(Some(7)).may_ask(Some(&[5, 7])), Ok(()));
        for uid in [Some(8), None] {
            let refused = place(uid).may_ask(Some(&[5, 7])).unwrap_err();
            assert_eq!(refused.kind(), Kind::UserNotAllowed);
        }
    }
}
