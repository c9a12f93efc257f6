//! Connections of the control socket: who may ask, how many at once, and how long each may take.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::listener;
use crate::session::Peer;

use super::Control;
use super::problem::{Kind, Problem};
use super::stall::Impatient;

/// How many connections may ask at once; streams of `hold` and of events are counted apart.
const CONNECTIONS: usize = 256;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// How much of a head is read.
const LARGEST_HEAD: usize = 64 << 10;

/// How long answers that are under way may take once the process ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a connection may keep its place without a whole head, once all places are taken.
const SILENCE: Duration = Duration::from_secs(1);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A connection's place among those that may ask, and who is at its other end.
#[derive(Debug)]
pub(super) struct Place {
    /// The process; none where the system does not tell.
    peer: Option<Peer>,
    /// None for one that has left.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    since: Instant,
    /// Whether it has sent the head of a request.
    heard: AtomicBool,
    /// Told to make room.
    evicted: Notify,
}

impl Place {
    fn new(peer: Option<Peer>, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            peer,
            permit: Mutex::new(permit),
            since: Instant::now(),
            heard: AtomicBool::new(false),
            evicted: Notify::new(),
        }
    }

    /// The process at the other end; none where the system does not tell.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// The connection asks nothing more: somebody else may.
    pub(super) fn leave(&self) {
        drop(self.permit.lock().take());
    }

    /// Who is at the other end, for people.
    pub(super) fn who(&self) -> String {
        let uid = self.peer.and_then(Peer::uid);
        uid.map_or("an unknown user".to_owned(), |uid| format!("user {uid}"))
    }

    /// # Errors
    /// The user at the other end is none of `allowed`, if there is such a list.
    pub(super) fn may_ask(&self, allowed: Option<&[u32]>) -> Result<(), Problem> {
        let Some(allowed) = allowed else {
            return Ok(());
        };
        let uid = self.peer.and_then(Peer::uid);
        if uid.is_some_and(|uid| allowed.contains(&uid)) {
            return Ok(());
        }
        let who = self.who();
        Err(Problem::new(
            Kind::UserNotAllowed,
            format!("{who} may not use the control socket"),
            "Add the user's number to control.allow_uids.",
        ))
    }
}

impl Control {
    /// Serves the socket until `shutdown`, and finishes what is under way then, within a second.
    /// Looks after the health of the databases meanwhile, and tells readers of events.
    ///
    /// Cancel safe: every connection is closed when it is dropped.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut watching = JoinSet::new();
        watching.spawn(Arc::clone(&self).watch_all());
        let events = Arc::clone(self.remote.events());
        watching.spawn(async move { events.herald().await });
        let (stop, stopped) = watch::channel(());
        let mut doors = Doors::at(listener);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                (stream, place) = doors.next() => {
                    let control = Arc::clone(&self);
                    connections.spawn(control.serve_one(stream, place, stopped.clone()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop(doors);
        self.remote.events().close();
        drop(stop);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, all).await;
    }

    /// Serves one connection until it closes, or until the answer under way when `stopped` ends.
    async fn serve_one(
        self: Arc<Self>,
        stream: UnixStream,
        place: Arc<Place>,
        mut stopped: watch::Receiver<()>,
    ) {
        let service = service_fn(|request| {
            place.heard.store(true, Relaxed);
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
            () = place.evicted.notified() => return,
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
    /// Has come in and waits for a place.
    newcomer: Option<UnixStream>,
    /// Those that had said nothing when they were last looked at, the oldest first.
    silent: VecDeque<Weak<Place>>,
}

impl Doors {
    fn at(listener: UnixListener) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            newcomer: None,
            silent: VecDeque::new(),
        }
    }

    /// The next connection with its place. Others wait in the kernel's queue. Cancel safe.
    async fn next(&mut self) -> (UnixStream, Arc<Place>) {
        loop {
            if self.newcomer.is_none() {
                self.newcomer = Some(listener::accept(&self.listener).await);
            }
            let permit = self.permit().await;
            if let Some(stream) = self.newcomer.take() {
                let place = Arc::new(Place::new(peer(&stream), Some(permit)));
                self.silent.push_back(Arc::downgrade(&place));
                return (stream, place);
            }
        }
    }

    /// Room for one more; made, where there is none, by whoever has been silent for longest.
    async fn permit(&mut self) -> OwnedSemaphorePermit {
        self.silent.retain(|place| is_silent(place).is_some());
        loop {
            let places = Arc::clone(&self.places);
            if let Ok(permit) = places.try_acquire_owned() {
                return permit;
            }
            self.evict();
            let free = Arc::clone(&self.places).acquire_owned();
            // The semaphore is never closed.
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK, free).await {
                return permit;
            }
        }
    }

    fn evict(&mut self) {
        let is_due = |place: &Arc<Place>| place.since.elapsed() >= SILENCE;
        while let Some(oldest) = self.silent.pop_front() {
            match is_silent(&oldest) {
                None => {}
                Some(place) if is_due(&place) => return place.evicted.notify_one(),
                Some(_) => return self.silent.push_front(oldest),
            }
        }
    }
}

/// Who has opened a connection.
fn peer(stream: &UnixStream) -> Option<Peer> {
    let credentials = stream.peer_cred().ok()?;
    Some(Peer::Unix {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid().filter(|pid| *pid > 0),
    })
}

/// The place, if its connection is still there and has sent no head.
fn is_silent(place: &Weak<Place>) -> Option<Arc<Place>> {
    place.upgrade().filter(|place| !place.heard.load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_users_may_ask_where_there_is_a_list() {
        let peer = |uid: Option<u32>| {
            uid.map(|uid| Peer::Unix {
                uid,
                gid: 0,
                pid: None,
            })
        };
        let place = |uid| Place::new(peer(uid), None);
        assert_eq!(place(None).may_ask(None), Ok(()));
        assert_eq!(place(Some(7)).may_ask(Some(&[5, 7])), Ok(()));
        for uid in [Some(8), None] {
            let refused = place(uid).may_ask(Some(&[5, 7])).unwrap_err();
            assert_eq!(refused.kind(), Kind::UserNotAllowed);
        }
    }
}
