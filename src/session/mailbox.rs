//! What a session is told from outside: notices, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::protocol::message::Report;

use super::{Ending, Session};

/// How many notices are kept for a client that takes none; the oldest is dropped.
const MOST: usize = 4;

/// Where others put what a session is to be told. Allocates nothing until something is put in.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Whether something is in it that the session has not seen. Read without the lock.
    has_news: AtomicBool,
    inbox: Mutex<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    /// Of the session's task, once it has asked.
    waker: Option<Waker>,
    notices: Vec<Report>,
    end: End,
}

#[derive(Debug, Default)]
enum End {
    /// Nobody has told it to end. Left by the first word.
    #[default]
    Open,
    /// It is told, and has not heard it. Left by being heard.
    Told(Box<Ending>),
    /// It has heard it. Never left.
    Heard,
}

impl Mailbox {
    /// Tells it to end. The first word counts.
    pub(super) fn end(&self, ending: Ending) {
        self.put(|inbox| {
            if matches!(inbox.end, End::Open) {
                inbox.end = End::Told(Box::new(ending));
            }
        });
    }

    /// Has it tell its client something between two messages.
    pub(super) fn notice(&self, report: Report) {
        self.put(|inbox| {
            if inbox.notices.len() == MOST {
                inbox.notices.remove(0);
            }
            inbox.notices.push(report);
        });
    }

    fn put(&self, change: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox.lock();
        change(&mut inbox);
        self.has_news.store(true, Ordering::Release);
        if let Some(waker) = &inbox.waker {
            waker.wake_by_ref();
        }
    }
}

/// The session's own end of its mailbox. Asking it costs next to nothing while nothing is in it.
#[derive(Debug)]
pub struct Mail {
    session: Arc<Session>,
    /// The waker that the mailbox has.
    known: Option<Waker>,
    /// Whether notices are in it that were seen and not taken yet.
    has_notices: bool,
}

impl Mail {
    pub(super) fn of(session: Arc<Session>) -> Self {
        Self {
            session,
            known: None,
            has_notices: false,
        }
    }

    /// Its end, once it is told. Notices wake the task too: see [`Mail::has_notices`].
    #[inline]
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Box<Ending>> {
        let mailbox = self.session.mailbox();
        let is_known = self
            .known
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()));
        if is_known && !mailbox.has_news.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.look(cx)
    }

    #[cold]
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Box<Ending>> {
        let mailbox = self.session.mailbox();
        let mut inbox = mailbox.inbox.lock();
        mailbox.has_news.store(false, Ordering::Relaxed);
        self.has_notices = !inbox.notices.is_empty();
        if let Some(ending) = inbox.take_end() {
            return Poll::Ready(ending);
        }
        inbox.waker = Some(cx.waker().clone());
        self.known = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until it is told to end. Cancel safe.
    pub async fn ended(&mut self) -> Box<Ending> {
        std::future::poll_fn(|cx| self.poll_end(cx)).await
    }

    /// Its end, if it is told.
    pub fn take_end(&mut self) -> Option<Box<Ending>> {
        self.session.mailbox().inbox.lock().take_end()
    }

    /// Waits until it is told to end, or until there are notices. Cancel safe.
    pub async fn news(&mut self) -> Option<Box<Ending>> {
        std::future::poll_fn(|cx| match self.poll_end(cx) {
            Poll::Ready(ending) => Poll::Ready(Some(ending)),
            Poll::Pending if self.has_notices => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Whether its client is to be told something, as of the last poll.
    #[inline]
    #[must_use]
    pub fn has_notices(&self) -> bool {
        self.has_notices
    }

    /// Appends what its client is to be told.
    #[cold]
    pub fn take_notices(&mut self, out: &mut Vec<u8>) {
        self.has_notices = false;
        let notices = std::mem::take(&mut self.session.mailbox().inbox.lock().notices);
        for notice in notices {
            notice.encode(out);
        }
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        // Nobody is to be woken any more.
        self.session.mailbox().inbox.lock().waker = None;
    }
}

impl Inbox {
    fn take_end(&mut self) -> Option<Box<Ending>> {
        if !matches!(self.end, End::Told(_)) {
            return None;
        }
        match std::mem::replace(&mut self.end, End::Heard) {
            End::Told(ending) => Some(ending),
            End::Open | End::Heard => None,
        }
    }
}
