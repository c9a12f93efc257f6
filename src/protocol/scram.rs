//! The server's half of SCRAM-SHA-256: the verifier that stands for a password, and one exchange.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::{CtOutput, Output};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::sasl::{ClientFinal, ClientFirst, Gs2, SaslError};

/// How many random bytes the server adds to the nonce: as in PostgreSQL.
pub const NONCE: usize = 18;

/// What begins a verifier.
const PREFIX: &str = "SCRAM-SHA-256$";

/// What proves that a client knows a password, without telling the password.
///
/// It shows nothing of itself when it is printed.
#[derive(Clone)]
pub struct Verifier {
    iterations: u32,
    /// In base64.
    salt: String,
    stored_key: Output<Sha256>,
    server_key: Output<Sha256>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(***)")
    }
}

/// A text begins as a verifier does, and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it begins like a SCRAM-SHA-256 verifier and is none")]
pub struct NoVerifier;

impl Verifier {
    /// Reads a verifier as PostgreSQL stores it, or else makes one of a password: with a random salt,
    /// SASLprep and 4,096 rounds, which takes milliseconds.
    ///
    /// # Errors
    /// It begins like a verifier and is none: as a password it would be a surprise.
    pub fn of(text: &str) -> Result<Self, NoVerifier> {
        match text.starts_with(PREFIX) {
            true => Self::parse(text).ok_or(NoVerifier),
            false => {
                let derived = postgres_protocol::password::scram_sha_256(text.as_bytes());
                Self::parse(&derived).ok_or(NoVerifier)
            }
        }
    }

    /// `SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY`.
    fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix(PREFIX)?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|count| *count > 0)?,
            salt: salt.to_owned(),
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

fn key(text: &str) -> Option<Output<Sha256>> {
    let bytes = STANDARD.decode(text).ok()?;
    let bytes: [u8; 32] = bytes.try_into().ok()?;
    Some(bytes.into())
}

/// An exchange whose first message was answered.
pub struct Exchange<'a> {
    verifier: &'a Verifier,
    gs2: Gs2,
    nonce: String,
    /// The client's first message without its head, a comma, and the server's.
    firsts: String,
    server_first: String,
}

impl<'a> Exchange<'a> {
    /// Begins it with the client's first message and random bytes that were used for nothing else.
    ///
    /// # Errors
    /// The message is malformed, or asks for what is not served.
    pub fn begin(
        verifier: &'a Verifier,
        client_first: &[u8],
        random: &[u8; NONCE],
    ) -> Result<Self, SaslError> {
        Self::with_nonce(verifier, client_first, &STANDARD.encode(random))
    }

    fn with_nonce(
        verifier: &'a Verifier,
        client_first: &[u8],
        added: &str,
    ) -> Result<Self, SaslError> {
        let first = ClientFirst::parse(client_first)?;
        let nonce = format!("{}{added}", first.nonce);
        let Verifier {
            salt, iterations, ..
        } = verifier;
        let server_first = format!("r={nonce},s={salt},i={iterations}");
        Ok(Self {
            verifier,
            gs2: first.gs2,
            nonce,
            firsts: format!("{},{server_first}", first.bare),
            server_first,
        })
    }

    /// The server's answer to the first message.
    #[must_use]
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Ends it with the client's second message: the server's proof, or `None` where the client does
    /// not know the password. Where the difference is takes no time.
    ///
    /// # Errors
    /// The message is malformed, or belongs to another exchange.
    pub fn finish(self, client_final: &[u8]) -> Result<Option<String>, SaslError> {
        let last = ClientFinal::parse(client_final, self.gs2)?;
        if last.nonce != self.nonce {
            return Err(SaslError::Invalid("Nonce does not match."));
        }
        let proof = key(last.proof).ok_or(SaslError::Malformed("the proof"))?;
        let told = format!("{},{}", self.firsts, last.without_proof);
        let mut client_key = signature(&self.verifier.stored_key, &told);
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        if !is_same(Sha256::digest(client_key), self.verifier.stored_key) {
            return Ok(None);
        }
        let proof = signature(&self.verifier.server_key, &told);
        Ok(Some(format!("v={}", STANDARD.encode(proof))))
    }
}

fn signature(key: &Output<Sha256>, text: &str) -> Output<Sha256> {
    // HMAC fills a key up with zeros to a whole block.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut hmac = Hmac::<Sha256>::new(&block.into());
    hmac.update(text.as_bytes());
    hmac.finalize().into_bytes()
}

/// Compares in constant time.
fn is_same(one: Output<Sha256>, other: Output<Sha256>) -> bool {
    CtOutput::<Hmac<Sha256>>::new(one) == CtOutput::new(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    const RANDOM: [u8; NONCE] = [7; NONCE];

    /// The example of RFC 7677, section 3: the password is "pencil".
    fn of_the_standard() -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        verifier(b"pencil", &salt, 4096)
    }

    /// Made from the standard's formulas, apart from the library that makes them otherwise.
    fn verifier(password: &[u8], salt: &[u8], iterations: u32) -> Verifier {
        let hmac = |key: &[u8], text: &[u8]| {
            let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            hmac.update(text);
            hmac.finalize().into_bytes()
        };
        let mut round = hmac(password, &[salt, &[0, 0, 0, 1]].concat());
        let mut salted = round;
        for _ in 1..iterations {
            round = hmac(password, &round);
            salted.iter_mut().zip(round).for_each(|(a, b)| *a ^= b);
        }
        let stored = Sha256::digest(hmac(&salted, b"Client Key"));
        let server = hmac(&salted, b"Server Key");
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        let text = format!(
            "{PREFIX}{iterations}:{}${}:{}",
            encode(salt),
            encode(&stored),
            encode(&server)
        );
        Verifier::of(&text).unwrap()
    }

    /// A login of the library's client.
    fn login(verifier: &Verifier, password: &[u8]) -> Result<(), &'static str> {
        let mut client = ScramSha256::new(password, ChannelBinding::unsupported());
        let exchange = Exchange::begin(verifier, client.message(), &RANDOM).unwrap();
        client.update(exchange.server_first().as_bytes()).unwrap();
        let proof = exchange.finish(client.message()).unwrap();
        let proof = proof.ok_or("refused by the server")?;
        client
            .finish(proof.as_bytes())
            .map_err(|_| "refused by the client")
    }

    #[test]
    fn the_example_of_rfc_7677_is_carried_out_to_the_letter() {
        let verifier = of_the_standard();
        let exchange = Exchange::with_nonce(
            &verifier,
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
        assert_eq!(
            exchange.server_first(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let proof = exchange.finish(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        let expected = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(proof, Ok(Some(expected.to_owned())));
    }

    #[test]
    fn the_right_password_is_let_in_and_the_server_proves_itself() {
        for password in [
            "pencil",
            "p\u{e4}ss w\u{f6}rd",
            "\u{2168}",
            "with\u{ad}hyphen",
            "7",
        ] {
            let verifier = Verifier::of(password).unwrap();
            assert_eq!(login(&verifier, password.as_bytes()), Ok(()), "{password}");
            let wrong = format!("{password}x");
            assert!(login(&verifier, wrong.as_bytes()).is_err());
        }
        assert_eq!(login(&of_the_standard(), b"pencil"), Ok(()));
        assert_eq!(
            login(&of_the_standard(), b"Pencil"),
            Err("refused by the server")
        );
    }

    #[test]
    fn passwords_that_look_the_same_are_the_same() {
        let ring = Verifier::of("\u{212b}").unwrap();
        assert_eq!(login(&ring, "A\u{30a}".as_bytes()), Ok(()));
    }

    #[test]
    fn a_broken_verifier_is_no_password() {
        let right = postgres_protocol::password::scram_sha_256(b"secret");
        assert_eq!(login(&Verifier::of(&right).unwrap(), b"secret"), Ok(()));
        for broken in [
            PREFIX.to_owned(),
            right[..right.len() - 4].to_owned(),
            right.replace("$4096:", "$0:"),
            right.replace("$4096:", "$-1:"),
            right.replace("$4096:", "$"),
            right.replace("4096:", "4096:*"),
            format!("{right} "),
        ] {
            assert!(Verifier::of(&broken).is_err(), "{broken}");
        }
        let shown = format!("{:?}", Verifier::of(&right).unwrap());
        assert_eq!(shown, "Verifier(***)");
    }

    #[test]
    fn a_proof_for_another_exchange_is_none() {
        let verifier = of_the_standard();
        let mut client = ScramSha256::new(b"pencil", ChannelBinding::unsupported());
        let first = Exchange::begin(&verifier, client.message(), &RANDOM).unwrap();
        let second = Exchange::begin(&verifier, client.message(), &[8; NONCE]).unwrap();
        client.update(first.server_first().as_bytes()).unwrap();
        let answered = second.finish(client.message());
        assert_eq!(answered, Err(SaslError::Invalid("Nonce does not match.")));
    }

    proptest! {
        #[test]
        fn no_proof_but_the_right_one_is_taken(proof in prop::array::uniform32(any::<u8>())) {
            let verifier = Verifier::of(
                "SCRAM-SHA-256$1:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            ).unwrap();
            let exchange = Exchange::begin(&verifier, b"n,,n=,r=a", &RANDOM).unwrap();
            let nonce = &exchange.nonce;
            let last = format!("c=biws,r={nonce},p={}", STANDARD.encode(proof));
            prop_assert_eq!(exchange.finish(last.as_bytes()), Ok(None));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
            let verifier = of_salt_alone();
            if let Ok(exchange) = Exchange::begin(&verifier, &bytes, &RANDOM) {
                let _ = exchange.finish(&bytes);
            }
            let exchange = Exchange::begin(&verifier, b"n,,n=,r=a", &RANDOM).unwrap();
            let last = format!("c=biws,r={},p={text}", exchange.nonce);
            let _ = exchange.finish(last.as_bytes());
            let _ = Verifier::of(&format!("{PREFIX}{text}"));
        }
    }

    fn of_salt_alone() -> Verifier {
        verifier(b"x", b"salt", 1)
    }
}
