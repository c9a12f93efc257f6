//! As much of DER as certificates are asked for.

use std::time::Duration;

use rustls::pki_types::UnixTime;

/// The first element: its tag, what is in it, and what follows it.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([tag, first], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut length = usize::from(*first);
    if length & 0x80 != 0 {
        let (digits, behind) = rest
            .split_at_checked(length & 0x7f)
            .filter(|(d, _)| d.len() <= 4)?;
        length = digits
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = behind;
    }
    let (inside, behind) = rest.split_at_checked(length)?;
    Some((*tag, inside, behind))
}

/// What a certificate says of whose it is, who signed it, and when it is valid.
pub(super) struct Outline<'a> {
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
}

impl<'a> Outline<'a> {
    /// Of a certificate of version 3; none where it can't be read.
    pub(super) fn of(certificate: &'a [u8]) -> Option<Self> {
        let (_, signed, _) = element(certificate)?;
        let (_, inside, _) = element(signed)?;
        // The version, the serial number, and the algorithm of the signature.
        let (_, _, rest) = element(inside)?;
        let (_, _, rest) = element(rest)?;
        let (_, _, rest) = element(rest)?;
        let (_, issuer, rest) = element(rest)?;
        let (_, validity, rest) = element(rest)?;
        let (_, subject, _) = element(rest)?;
        let (tag, before, rest) = element(validity)?;
        let not_before = time(tag, before)?;
        let (tag, after, _) = element(rest)?;
        Some(Self {
            issuer,
            subject,
            not_before,
            not_after: time(tag, after)?,
        })
    }
}

/// A UTCTime or a GeneralizedTime, as RFC 5280 has them: to the second, and in UTC.
fn time(tag: u8, text: &[u8]) -> Option<UnixTime> {
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, digits.len()) {
        (23, 12) => match number(&digits[..2])? {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (24, 14) => (number(&digits[..4])?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| number(&rest[at..at + 2]);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    // Days since 1970, with a year that begins in March.
    let (y, m) = match month {
        1 | 2 => (year.checked_sub(1)?, month + 9),
        _ => (year, month - 3),
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    // Before 1970 is long ago, whenever it was.
    let days = days.saturating_sub(719_468);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' => Some(sum * 10 + u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (tag, text, seconds) in [
            (23, "700101000000Z", Some(0)),
            (23, "000229235959Z", Some(951_868_799)),
            (23, "491231235959Z", Some(2_524_607_999)),
            (24, "20261124160000Z", Some(1_795_536_000)),
            (24, "99991231235959Z", Some(253_402_300_799)),
            (24, "20261324160000Z", None),
            (23, "7001010000Z", None),
            (23, "70010100000xZ", None),
        ] {
            let found = time(tag, text.as_bytes()).map(|time| time.as_secs());
            assert_eq!(found, seconds, "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = [0x30, 0x82, 0, 3, 1, 2, 3, 9];
        assert_eq!(element(&whole), Some((0x30, &[1, 2, 3][..], &[9][..])));
        for end in 0..7 {
            assert_eq!(element(&whole[..end]), None, "{end}");
        }
        assert_eq!(element(&[0x30, 0x85, 0, 0, 0, 0, 1, 2]), None);
    }
}
