//! One direction of a relay: what was read and not yet forwarded, and what the other side does
//! not take.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::server::socket::Socket;

/// What of a lane's buffers is kept once they are empty, in bytes.
const KEEP: usize = 4096;

/// A message in the bytes at hand that is replaced by another one.
#[derive(Debug)]
pub(super) struct Replacement {
    /// Where the message lies in the bytes that were scanned; it may end behind them.
    pub(super) range: Range<usize>,
    /// What is sent in its place.
    pub(super) by: Vec<u8>,
}

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fate {
    /// It is written. Left for the others when the relay is over.
    #[default]
    Written,
    /// It is written while the other side is there. Left for `Dropped` when that has gone.
    Tried,
    /// It is dropped. Never left.
    Dropped,
}

/// One direction.
#[derive(Default)]
pub(super) struct Lane {
    /// The beginning of a message that must be seen whole before it is forwarded.
    pub(super) unscanned: Vec<u8>,
    /// What the writing side did not take, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// Bytes of a replaced message that are still to come, and are dropped.
    skip: usize,
    fate: Fate,
    /// Whether TLS has bytes that the socket did not take.
    is_behind: bool,
    writable: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("unscanned", &self.unscanned.len())
            .field("unsent", &(self.unsent.len() - self.sent))
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// From now on, what comes is dropped.
    pub(super) fn sink(&mut self) {
        self.fate = Fate::Dropped;
        self.unsent = Vec::new();
        self.sent = 0;
        self.is_behind = false;
        self.writable = None;
    }

    /// From now on, the other side may go: what comes then is dropped.
    pub(super) fn try_only(&mut self) {
        if self.fate == Fate::Written {
            self.fate = Fate::Tried;
        }
    }

    /// Whether all that was forwarded has been taken.
    pub(super) fn is_flushed(&self) -> bool {
        self.sent == self.unsent.len() && !self.is_behind
    }

    /// Puts the bytes that were kept before those that were just read into `buffer` behind
    /// `start`, for one scan.
    pub(super) fn put_kept(&self, buffer: &mut [u8]) {
        if !self.unscanned.is_empty() {
            buffer[..self.unscanned.len()].copy_from_slice(&self.unscanned);
        }
    }

    /// Keeps what may not be forwarded yet.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() && self.unscanned.is_empty() {
            return;
        }
        if rest.is_empty() && self.unscanned.capacity() > KEEP {
            self.unscanned = Vec::new();
        } else {
            self.unscanned.clear();
            self.unscanned.extend_from_slice(rest);
        }
    }

    /// Forwards `bytes`, less what is skipped, with messages replaced; `to` takes what it can at
    /// once, the rest is kept.
    pub(super) fn forward(
        &mut self,
        bytes: &[u8],
        replacements: &[Replacement],
        to: &Socket,
    ) -> io::Result<()> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let mut at = skipped;
        for Replacement { range, by } in replacements {
            self.send(&bytes[at..range.start], to)?;
            self.send(by, to)?;
            at = range.end.min(bytes.len());
            self.skip = range.end - at;
        }
        self.send(&bytes[at..], to)
    }

    /// Sends bytes behind all that was sent before.
    pub(super) fn send(&mut self, bytes: &[u8], to: &Socket) -> io::Result<()> {
        if self.fate == Fate::Dropped || bytes.is_empty() {
            return Ok(());
        }
        let written = self.write(bytes, to);
        self.pardon(written)
    }

    fn write(&mut self, bytes: &[u8], to: &Socket) -> io::Result<()> {
        let taken = if self.is_flushed() {
            taken(to.try_write(bytes))?
        } else {
            0
        };
        if taken < bytes.len() {
            self.unsent.extend_from_slice(&bytes[taken..]);
        }
        if to.is_encrypted() {
            self.is_behind = !to.flush()?;
        }
        Ok(())
    }

    /// An error is none where the other side may go.
    fn pardon(&mut self, written: io::Result<()>) -> io::Result<()> {
        if written.is_err() && self.fate == Fate::Tried {
            self.sink();
            return Ok(());
        }
        written
    }

    /// Sends what is left, and waits until the socket takes it. Ready when nothing is left, which is
    /// nearly always so.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() && !self.is_behind {
            return Poll::Ready(Ok(()));
        }
        let sent = std::task::ready!(self.poll_send(cx, to));
        Poll::Ready(self.pardon(sent))
    }

    #[cold]
    fn poll_send(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            if let Some(writable) = &mut self.writable {
                std::task::ready!(writable.as_mut().poll(cx))?;
                self.writable = None;
            }
            self.sent += taken(to.try_write(&self.unsent[self.sent..]))?;
            self.is_behind = !to.flush()?;
            if !self.is_flushed() {
                self.writable = Some(Box::pin(to.writable()));
            }
        }
        self.sent = 0;
        if self.unsent.capacity() > KEEP {
            self.unsent = Vec::new();
        } else {
            self.unsent.clear();
        }
        Poll::Ready(Ok(()))
    }
}

/// How much a socket took; nothing where it would block.
fn taken(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
