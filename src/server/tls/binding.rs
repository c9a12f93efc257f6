//! `tls-server-end-point` (RFC 5929): the hash of the server's certificate, by the hash of its
//! signature, or by SHA-256 where that is MD5 or SHA-1.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// The channel binding data of a certificate; none where its signature has no hash of its own, or
/// is not known.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, inside, _) = element(certificate)?;
    let (_, _, behind) = element(inside)?;
    let (_, algorithm, _) = element(behind)?;
    let (_, oid, _) = element(algorithm)?;
    Some(match oid {
        // RSA with MD5, SHA-1 and SHA-256; ECDSA with SHA-1 and SHA-256.
        [42, 134, 72, 134, 247, 13, 1, 1, 4 | 5 | 11]
        | [42, 134, 72, 206, 61, 4, 1]
        | [42, 134, 72, 206, 61, 4, 3, 2] => Sha256::digest(certificate).to_vec(),
        [42, 134, 72, 134, 247, 13, 1, 1, 14] | [42, 134, 72, 206, 61, 4, 3, 1] => {
            Sha224::digest(certificate).to_vec()
        }
        [42, 134, 72, 134, 247, 13, 1, 1, 12] | [42, 134, 72, 206, 61, 4, 3, 3] => {
            Sha384::digest(certificate).to_vec()
        }
        [42, 134, 72, 134, 247, 13, 1, 1, 13] | [42, 134, 72, 206, 61, 4, 3, 4] => {
            Sha512::digest(certificate).to_vec()
        }
        _ => return None,
    })
}

/// The first DER element: its tag, what is in it, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
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
