//! Moments as Kubernetes writes them.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;

/// RFC 3339, UTC, to the second: `metav1.Time`.
pub(super) fn second(at: SystemTime) -> String {
    format!("{:.0}", stamp(at))
}

/// RFC 3339, UTC, to the microsecond: `metav1.MicroTime`.
pub(super) fn micro(at: SystemTime) -> String {
    format!("{:.6}", stamp(at))
}

/// The moment of a text in RFC 3339.
pub(super) fn parsed(text: &str) -> Option<SystemTime> {
    text.trim().parse::<Timestamp>().ok().map(SystemTime::from)
}

/// A time that no calendar has becomes 1970.
pub(super) fn stamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn moments_are_written_as_kubernetes_reads_them() {
        let at = UNIX_EPOCH + Duration::from_micros(1_767_322_445_250_007);
        assert_eq!(second(at), "2026-01-02T02:54:05Z");
        assert_eq!(micro(at), "2026-01-02T02:54:05.250007Z");
        assert_eq!(parsed(&micro(at)), Some(at));
        assert_eq!(parsed("2026-01-02T03:54:05.250007+01:00"), Some(at));
        assert_eq!(parsed("yesterday"), None);
    }
}
