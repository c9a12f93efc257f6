//! Errors for what a client has sent in vain: one error and ReadyForQuery for each segment, as the
//! server itself would answer a pipeline whose every segment fails.

use crate::protocol::frame::Violation;
use crate::protocol::frontend::{Message, Scanner};
use crate::protocol::message::ready_for_query;

/// Answers a client's messages with one and the same error.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    scanner: Scanner,
    /// Whether the segment at hand was answered already: it is skipped up to its Sync.
    skipping: bool,
}

/// What one feed came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    /// How many bytes were dealt with; the rest is given again, with more behind it.
    pub(super) taken: usize,
    /// Whether the client has said goodbye.
    pub(super) terminated: bool,
}

impl Refusal {
    /// Reads the next bytes of the client and appends to `out` what it is told.
    ///
    /// # Errors
    /// What the client sent is no message.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        error: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Fed, Violation> {
        let (mut terminated, skipping) = (false, &mut self.skipping);
        let taken = self.scanner.feed(bytes, &mut |event| {
            use Message as M;
            match event.message {
                _ if terminated => {}
                M::Terminate => terminated = true,
                M::Sync => {
                    *skipping = false;
                    ready_for_query(b'I', out);
                }
                _ if *skipping => {}
                M::Query { .. } | M::FunctionCall => {
                    out.extend_from_slice(error);
                    ready_for_query(b'I', out);
                }
                M::Parse { .. }
                | M::Bind { .. }
                | M::Execute { .. }
                | M::Describe { .. }
                | M::Close { .. } => {
                    *skipping = true;
                    out.extend_from_slice(error);
                }
                // The server ignores them outside of a COPY.
                M::Flush | M::CopyData | M::CopyDone | M::CopyFail { .. } => {}
            }
        })?;
        Ok(Fed { taken, terminated })
    }

    /// Whether all that has begun is answered.
    pub(super) fn is_over(&self) -> bool {
        !self.skipping && self.scanner.at_boundary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// The types of the answers, `E` standing for the error.
    fn answers(refusal: &mut Refusal, sent: &[u8]) -> String {
        let mut out = Vec::new();
        refusal.feed(sent, b"E", &mut out).unwrap();
        let ready = [b'Z', 0, 0, 0, 5, b'I'];
        String::from_utf8(out)
            .unwrap()
            .replace(std::str::from_utf8(&ready).unwrap(), "Z")
    }

    #[test]
    fn each_segment_fails_with_one_error_and_ready_for_query() {
        let batch = [
            framed(b'P', b"\0select 1\0\0\0"),
            framed(b'B', b"\0\0\0\0\0\0\0\0"),
            framed(b'E', b"\0\0\0\0\0"),
            framed(b'S', b""),
        ]
        .concat();
        let pipeline = [&batch[..], &batch, &framed(b'Q', b"select 1\0")].concat();
        let mut refusal = Refusal::default();
        assert_eq!(answers(&mut refusal, &pipeline), "EZEZEZ");
        assert!(refusal.is_over());
    }

    #[test]
    fn a_segment_without_its_sync_and_a_message_without_its_end_are_not_over() {
        let mut refusal = Refusal::default();
        assert_eq!(
            answers(&mut refusal, &framed(b'P', b"\0select 1\0\0\0")),
            "E"
        );
        assert!(!refusal.is_over());
        assert_eq!(answers(&mut refusal, &framed(b'S', b"")), "Z");
        assert!(refusal.is_over());
        let long = framed(b'd', &[0; 100]);
        assert_eq!(answers(&mut refusal, &long[..50]), "");
        assert!(!refusal.is_over());
        assert_eq!(answers(&mut refusal, &long[50..]), "");
        assert!(refusal.is_over());
    }

    #[test]
    fn a_goodbye_is_heard_and_garbage_is_a_violation() {
        let mut refusal = Refusal::default();
        let fed = refusal
            .feed(&framed(b'X', b""), b"E", &mut Vec::new())
            .unwrap();
        assert!(fed.terminated);
        assert!(
            refusal
                .feed(b"GET / HTTP/1.1", b"E", &mut Vec::new())
                .is_err()
        );
    }
}
