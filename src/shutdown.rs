//! What the process has come to, and whether it is about to end: told by who knows, asked by who is
//! probed and by who ends it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::watch;

/// The stages of the process's life, each reached once and never left.
#[derive(Debug, Default)]
pub struct Life {
    bound: AtomicBool,
    reached: AtomicBool,
    draining: AtomicBool,
    quitting: watch::Sender<bool>,
}

/// Why the process is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Not all sockets are listened on yet.
    #[error("the sockets are not bound yet")]
    NotBound,
    /// No database has ever answered.
    #[error("no upstream was reached yet")]
    NotReached,
    /// The pod is about to end.
    #[error("it is draining")]
    Draining,
}

impl Life {
    /// All sockets are bound.
    pub fn is_bound_now(&self) {
        self.bound.store(true, Relaxed);
    }

    /// An upstream has answered. Tells whether it is the first time.
    pub fn has_reached(&self) -> bool {
        !self.reached.swap(true, Relaxed)
    }

    /// The pod is about to end. Tells whether that is news.
    pub fn drain(&self) -> bool {
        !self.draining.swap(true, Relaxed)
    }

    /// The process shall end once nobody is left.
    pub fn quit(&self) {
        self.drain();
        self.quitting.send_replace(true);
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_quitting(&self) -> bool {
        *self.quitting.borrow()
    }

    /// Waits until it is asked to end. Cancel safe.
    pub async fn quits(&self) {
        // The sender is ours.
        let _ = self.quitting.subscribe().wait_for(|asked| *asked).await;
    }

    /// Whether the pod is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether the sockets are bound.
    ///
    /// # Errors
    /// They are not.
    pub fn started(&self) -> Result<(), NotReady> {
        let bound = self.bound.load(Relaxed);
        bound.then_some(()).ok_or(NotReady::NotBound)
    }

    /// Whether new sessions are welcome.
    ///
    /// # Errors
    /// Why not, the first thing in the order of a life.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.started()?;
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        let reached = self.reached.load(Relaxed);
        reached.then_some(()).ok_or(NotReady::NotReached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_bound_and_reached_until_it_drains() {
        let life = Life::default();
        assert_eq!(life.ready(), Err(NotReady::NotBound));
        life.is_bound_now();
        assert_eq!(
            (life.started(), life.ready()),
            (Ok(()), Err(NotReady::NotReached))
        );
        assert!(life.has_reached() && !life.has_reached());
        assert_eq!(life.ready(), Ok(()));
        assert!(life.drain() && !life.drain());
        assert_eq!(life.ready(), Err(NotReady::Draining));
        assert!(!life.is_quitting());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_is_told_also_afterwards() {
        let life = Life::default();
        life.quit();
        life.quits().await;
        assert!(life.is_quitting() && life.is_draining());
    }
}
