//! Cancel requests: which session a process id and key belong to.
//!
//! The key is ours, 32 random bits for each session, so that two sessions may have been told the
//! same process id. Whoever guesses gets a few tries a second for each process id, and stops nobody of
//! another origin.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::execution::Executions;
use crate::execution::cancel::Cancelled;
use crate::metrics::Origin;
use crate::session::{Peer, Session};
use crate::story::{What, Word};

/// Above what a server gives to its backends.
const FIRST_SYNTHETIC_PID: i32 = 4_194_305;
/// How many wrong keys for a session are looked at in a second; then none is, not even the right
/// one, until the second is over.
const WRONG_KEYS: u32 = 10;

/// All sessions that can be cancelled.
#[derive(Debug)]
pub(super) struct Cancels {
    next_pid: AtomicI32,
    by_pid: Mutex<HashMap<i32, Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    key: u32,
    peer: Peer,
    session: Arc<Session>,
    wrong: u32,
    wrong_since: Instant,
}

/// A session's place among those that can be cancelled; dropped, it is none of them any more.
#[derive(Debug)]
pub(super) struct Registration {
    cancels: Arc<Cancels>,
    pid: i32,
    key: u32,
    session: Arc<Session>,
}

impl Cancels {
    pub(super) fn new() -> Self {
        Self {
            next_pid: AtomicI32::new(FIRST_SYNTHETIC_PID),
            by_pid: Mutex::default(),
        }
    }

    /// Makes a session cancellable, by the process id of its server connection or, where it has
    /// none yet, by one that no server gives.
    pub(super) fn register(
        self: &Arc<Self>,
        session: &Arc<Session>,
        pid: Option<i32>,
    ) -> std::io::Result<Registration> {
        let mut key = [0; 4];
        getrandom::fill(&mut key).map_err(std::io::Error::from)?;
        let pid = pid.unwrap_or_else(|| self.synthetic_pid());
        let entry = Entry {
            key: u32::from_ne_bytes(key),
            peer: session.identity().peer,
            session: Arc::clone(session),
            wrong: 0,
            wrong_since: Instant::now(),
        };
        let registration = Registration {
            cancels: Arc::clone(self),
            pid,
            key: entry.key,
            session: Arc::clone(session),
        };
        self.by_pid.lock().entry(pid).or_default().push(entry);
        Ok(registration)
    }

    fn synthetic_pid(&self) -> i32 {
        let pid = self.next_pid.fetch_add(1, Relaxed);
        if pid >= FIRST_SYNTHETIC_PID {
            return pid;
        }
        // All two billion are used up: from the beginning.
        self.next_pid.store(FIRST_SYNTHETIC_PID + 1, Relaxed);
        FIRST_SYNTHETIC_PID
    }

    /// Carries out a cancel request of somebody of this origin. As with the server, it is not
    /// told whether there was anything to cancel.
    pub(super) async fn request(
        &self,
        executions: &Executions,
        pid: i32,
        key: [u8; 4],
        peer: Peer,
    ) {
        let Some(session) = self.find(pid, u32::from_ne_bytes(key), peer) else {
            return;
        };
        let cancelled = executions.cancel(&session);
        if cancelled.is_some() {
            executions.lender().counters().cancelled(Origin::Client);
            let origin = Word::of("client");
            session.tell(What::Cancelled { origin });
        }
        if let Some(Cancelled::Query(request)) = cancelled {
            request.send().await;
        }
    }

    fn find(&self, pid: i32, key: u32, peer: Peer) -> Option<Arc<Session>> {
        let mut by_pid = self.by_pid.lock();
        let entries = by_pid.get_mut(&pid)?;
        let mut entries: Vec<&mut Entry> = entries
            .iter_mut()
            .filter(|entry| entry.peer.is_of_one_origin_with(peer))
            .collect();
        let now = Instant::now();
        for entry in &mut entries {
            if now.saturating_duration_since(entry.wrong_since) >= Duration::from_secs(1) {
                (entry.wrong, entry.wrong_since) = (0, now);
            }
        }
        // One comparison of a word takes the same time wherever the difference is.
        let Some(entry) = entries.iter().find(|entry| entry.key == key) else {
            for entry in entries {
                entry.wrong = entry.wrong.saturating_add(1);
            }
            return None;
        };
        let found = Arc::clone(&entry.session);
        (entry.wrong < WRONG_KEYS).then_some(found)
    }
}

impl Registration {
    /// The process id that the client is told.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// The key that the client is told.
    pub(super) fn key(&self) -> [u8; 4] {
        self.key.to_ne_bytes()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut by_pid = self.cancels.by_pid.lock();
        if let Some(entries) = by_pid.get_mut(&self.pid) {
            entries.retain(|entry| !Arc::ptr_eq(&entry.session, &self.session));
            if entries.is_empty() {
                by_pid.remove(&self.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Identity, Table};

    const USER: Peer = Peer::Unix {
        uid: 7,
        gid: 7,
        pid: None,
    };

    fn session() -> Arc<Session> {
        let identity = Identity {
            execution: "a".parse().unwrap(),
            upstream: "app".into(),
            database: "app".to_owned(),
            application_name: None,
            caller: None,
            label: None,
            traceparent: None,
            peer: USER,
        };
        let (seat, _) = Arc::new(Table::default()).open(identity, Instant::now());
        Arc::clone(seat.session())
    }

    #[test]
    fn pid_key_and_user_together_find_a_session() {
        let cancels = Arc::new(Cancels::new());
        let (first, second) = (session(), session());
        let one = cancels.register(&first, Some(5)).unwrap();
        let two = cancels.register(&second, Some(5)).unwrap();
        let found = cancels.find(5, two.key, USER).unwrap();
        assert!(Arc::ptr_eq(&found, &second));
        let other = Peer::Unix {
            uid: 8,
            gid: 7,
            pid: None,
        };
        assert!(cancels.find(5, one.key, other).is_none(), "another user");
        let tcp = Peer::Tcp(([127, 0, 0, 1], 1).into());
        assert!(cancels.find(5, one.key, tcp).is_none(), "over TCP");
        assert!(cancels.find(6, one.key, USER).is_none(), "another pid");
        let key = one.key;
        drop(one);
        assert!(cancels.find(5, key, USER).is_none(), "gone");
        drop(two);
        assert!(cancels.by_pid.lock().is_empty());
    }

    #[test]
    fn a_session_s_own_key_is_no_guess_at_another_s_of_the_same_pid() {
        let cancels = Arc::new(Cancels::new());
        let (first, second) = (session(), session());
        let one = cancels.register(&first, Some(5)).unwrap();
        let two = cancels.register(&second, Some(5)).unwrap();
        for _ in 0..2 * WRONG_KEYS {
            assert!(cancels.find(5, one.key, USER).is_some());
        }
        assert!(cancels.find(5, two.key, USER).is_some());
    }

    #[test]
    fn who_guesses_is_stopped_before_the_right_key() {
        let cancels = Arc::new(Cancels::new());
        let session = session();
        let registered = cancels.register(&session, None).unwrap();
        assert!(registered.pid() >= FIRST_SYNTHETIC_PID);
        for guess in 1..=WRONG_KEYS {
            assert!(
                cancels
                    .find(registered.pid, registered.key ^ guess, USER)
                    .is_none()
            );
        }
        assert!(cancels.find(registered.pid, registered.key, USER).is_none());
    }

    #[test]
    fn who_guesses_over_tcp_stops_nobody_of_the_socket() {
        let cancels = Arc::new(Cancels::new());
        let session = session();
        let registered = cancels.register(&session, None).unwrap();
        let tcp = Peer::Tcp(([127, 0, 0, 1], 1).into());
        for guess in 0..2 * WRONG_KEYS {
            let key = registered.key ^ guess;
            assert!(cancels.find(registered.pid, key, tcp).is_none());
        }
        assert!(cancels.find(registered.pid, registered.key, USER).is_some());
    }
}
