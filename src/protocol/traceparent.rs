//! W3C's `traceparent`: which trace somebody's work belongs to, and under which span.

use std::fmt;

/// How long one of version 00 is, in bytes.
const LENGTH: usize = 55;

/// A checked `traceparent`: `00-<trace id>-<parent id>-<flags>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace; never all zero.
    pub trace_id: TraceId,
    /// The span that asks; never all zero.
    pub span_id: [u8; 8],
    /// The flags, of which the lowest bit says that who asks has sampled the trace.
    pub flags: u8,
}

/// A trace's id, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Traceparent {
    /// Reads one; none where the specification has it ignored. One of a later version may go on
    /// behind what is known of it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let [version] = digits(bytes.get(..2)?)?;
        let is_whole = match (version, bytes.get(LENGTH)) {
            (0xff, _) => false,
            (_, None) => true,
            (version, Some(next)) => version > 0 && *next == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !is_whole || !dashes {
            return None;
        }
        let trace_id = digits(bytes.get(3..35)?)?;
        let span_id = digits(bytes.get(36..52)?)?;
        let [flags] = digits(bytes.get(53..LENGTH)?)?;
        let is_zero = trace_id == [0; 16] || span_id == [0; 8];
        (!is_zero).then_some(Self {
            trace_id: TraceId(trace_id),
            span_id,
            flags,
        })
    }
}

/// Two lower-case hexadecimal digits for each byte.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_its_trace_written_as_it_was() {
        let parent = Traceparent::parse(GOOD).unwrap();
        assert_eq!(
            parent.trace_id.to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(
            parent.span_id,
            [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]
        );
        assert_eq!(parent.flags, 1);
        let unsampled = Traceparent::parse(&GOOD.replace("-01", "-00")).unwrap();
        assert_eq!(unsampled.flags, 0);
    }

    #[test]
    fn a_later_version_may_go_on_behind_what_is_known() {
        let later = GOOD.replacen("00-", "cc-", 1);
        for text in [later.clone(), format!("{later}-more"), format!("{later}-")] {
            assert!(Traceparent::parse(&text).is_some(), "{text}");
        }
        assert_eq!(Traceparent::parse(&format!("{later}.more")), None);
    }

    #[test]
    fn what_is_none_is_ignored() {
        let zero_trace = GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_span = GOOD.replace("b7ad6b7169203331", &"0".repeat(16));
        for text in [
            "",
            "00",
            "garbage",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &format!(" {GOOD}"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replacen("00-", "0x-", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("-01", "-0g"),
            &GOOD.replacen('7', "ä", 1),
            &"0".repeat(100_000),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(Traceparent::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(text in "\\PC{0,70}") {
            let _ = Traceparent::parse(&text);
        }
    }
}
