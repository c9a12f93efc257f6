//! `tls-server-end-point` (RFC 5929): the hash of the server's certificate, by the hash of its
//! signature, or by SHA-256 where that is MD5 or SHA-1.

use super::der::element;
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
