//! Standing still at the gatepost: during a pause nothing new is taken to the server, while running
//! transactions go on. What the client sends meanwhile is kept, within a bound, so that its
//! goodbye and its end are noticed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::client::refuse::Refusal;
use crate::client::wait::{MOST_HELD, TERMINATE};
use crate::client::words;
use crate::session::{Gatepost, Session};

use super::{Over, Relay};

/// What wakes one that stands still, besides its client.
pub(super) enum Woken {
    /// The gatepost is open.
    Opened,
    /// A cancel request for this session.
    Cancelled,
}

/// A session that stands still; there only then.
pub(super) type Standing<'a> = Pin<Box<dyn Future<Output = Woken> + Send + 'a>>;

fn standing<'a>(gatepost: &Gatepost, session: &'a Session) -> Standing<'a> {
    let opened = gatepost.opened();
    Box::pin(async move {
        tokio::select! {
            () = opened => Woken::Opened,
            () = session.wait_cancelled() => Woken::Cancelled,
        }
    })
}

impl Relay<'_> {
    /// Whether the session must stand still: nobody may pass, no transaction is open, and the
    /// server needs nothing more of the client for what it works on.
    fn must_stand(&self) -> bool {
        self.gatepost.is_shut()
            && self.connection.status() == b'I'
            && self.expectations.needs_no_more()
            && self.frontend.at_boundary()
    }

    /// Whether it stands still and need not any more.
    pub(super) fn is_released(&self) -> bool {
        self.standing.is_some() && !self.must_stand()
    }

    /// Waits for as long as the session must stand still. `None`: it may go on.
    pub(super) fn poll_gatepost(&mut self, cx: &mut Context<'_>) -> Poll<Option<Over>> {
        while self.must_stand() {
            let (gatepost, session) = (self.gatepost, self.session);
            let woken = self
                .standing
                .get_or_insert_with(|| standing(gatepost, session));
            match woken.as_mut().poll(cx) {
                Poll::Pending => return self.hear(cx).map(Some),
                Poll::Ready(woken) => {
                    self.standing = Some(standing(gatepost, session));
                    if let (Woken::Cancelled, Poll::Ready(over)) = (&woken, self.hear(cx)) {
                        return Poll::Ready(Some(over));
                    }
                    if let Woken::Cancelled = woken {
                        self.refuse_kept();
                    }
                }
            }
        }
        let was_standing = self.standing.take().is_some();
        if !was_standing || self.up.unscanned.is_empty() {
            return Poll::Ready(None);
        }
        let kept = std::mem::take(&mut self.up.unscanned);
        Poll::Ready(self.pass_up(&kept))
    }

    /// Keeps what the client sends, and notices when it goes.
    fn hear(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let line = self.line;
        loop {
            let kept = &mut self.up.unscanned;
            if kept.len() >= MOST_HELD {
                return Poll::Pending;
            }
            let Ok(readable) = ready!(line.socket.poll_readable(cx)) else {
                return Poll::Ready(Over::Vanished);
            };
            let mut buffer = line.scratch.lend();
            match readable.read(&mut buffer[..MOST_HELD - kept.len()]) {
                Ok(None) => {}
                // One that said goodbye behind its query wants it done all the same.
                Ok(Some(0)) | Err(_) if kept.ends_with(TERMINATE) => return Poll::Pending,
                Ok(Some(0)) | Err(_) => return Poll::Ready(Over::Vanished),
                Ok(Some(read)) => kept.extend_from_slice(&buffer[..read]),
            }
            if kept.starts_with(TERMINATE) {
                return Poll::Ready(Over::Terminated);
            }
        }
    }

    /// What was kept and is whole fails as cancelled, one error for each segment. Nothing of it
    /// has reached the server.
    fn refuse_kept(&mut self) {
        let mut error = Vec::new();
        words::cancelled_while_paused().encode(&mut error);
        let (mut refusal, mut out) = (Refusal::default(), Vec::new());
        let kept = &self.up.unscanned;
        let is_whole = refusal
            .feed(kept, &error, &mut out)
            .is_ok_and(|fed| fed.taken == kept.len() && !fed.terminated && refusal.is_over());
        // Only between two answers of the server's.
        if is_whole && self.is_idle() {
            self.up.unscanned = Vec::new();
            // Who takes nothing any more is noticed by the next read.
            let _ = self.tell(&out);
        }
    }
}
