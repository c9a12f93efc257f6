//! The password exchange of a client's login: the messages around SCRAM-SHA-256, and SCRAM's own.
//!
//! See "SASL Authentication" in the PostgreSQL documentation, RFC 5802 and RFC 7677. What is refused,
//! and in which words, is as in PostgreSQL.

use super::message::{Report, Severity, SqlState, message};

/// The one mechanism that is offered. Its sibling with channel binding needs TLS.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The longest message of a client during its login, in bytes, without type and length: as in
/// PostgreSQL.
pub const MAX_RESPONSE: usize = 1024;

/// Type and length.
const HEADER: usize = 5;

/// Appends AuthenticationSASL, which offers the mechanism.
pub fn authentication_sasl(out: &mut Vec<u8>) {
    authentication(out, 10, &[MECHANISM.as_bytes(), b"\0\0"].concat());
}

/// Appends AuthenticationSASLContinue with the server's part of the exchange.
pub fn authentication_sasl_continue(data: &[u8], out: &mut Vec<u8>) {
    authentication(out, 11, data);
}

/// Appends AuthenticationSASLFinal with the server's proof.
pub fn authentication_sasl_final(data: &[u8], out: &mut Vec<u8>) {
    authentication(out, 12, data);
}

fn authentication(out: &mut Vec<u8>, code: i32, data: &[u8]) {
    message(out, b'R', |body| {
        body.extend_from_slice(&code.to_be_bytes());
        body.extend_from_slice(data);
    });
}

/// What a client got wrong in its login. The text is the sentence that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// Another message.
    #[error("expected SASL response, got message type {0}")]
    Type(u8),
    /// A length below its own four bytes, or over what is read.
    #[error("a SASL response of {0} bytes is none of a login")]
    Length(u32),
    /// Something else than what was offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// Bytes that are none of SCRAM's grammar.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// A wish to be bound to a TLS channel that does not exist.
    #[error(
        "client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data"
    )]
    ChannelBinding,
    /// Something of SCRAM that PostgreSQL does not serve either.
    #[error("{0}")]
    NotServed(&'static str),
    /// The second message belongs to no first one of this exchange.
    #[error("invalid SCRAM response: {0}")]
    Invalid(&'static str),
}

impl SaslError {
    /// What the client is told before it is closed.
    #[must_use]
    pub fn report(self) -> Report {
        let sqlstate = match self {
            Self::NotServed(_) => SqlState::FEATURE_NOT_SUPPORTED,
            _ => SqlState::PROTOCOL_VIOLATION,
        };
        Report::new(Severity::Fatal, sqlstate, format!("execpool: {self}"))
            .with_hint("The login is SCRAM-SHA-256 as PostgreSQL has it. Can the client do that?")
    }
}

/// The body of a SASLInitialResponse or SASLResponse at the beginning of `bytes`, and how many bytes
/// the message has; `None` while it is not whole.
///
/// # Errors
/// It is another message, or too long. That is judged as soon as type and length are there.
pub fn response(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, SaslError> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if kind != b'p' {
        return Err(SaslError::Type(kind));
    }
    let Some((length, _)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    // Within the bounds it fits into a usize.
    if !(4..=MAX_RESPONSE as u32 + 4).contains(&length) {
        return Err(SaslError::Length(length));
    }
    let end = 1 + length as usize;
    Ok(bytes.get(HEADER..end).map(|body| (body, end)))
}

/// What a SASLInitialResponse carries: the first message of SCRAM, which a client may also send
/// when it is asked for it.
///
/// # Errors
/// The mechanism is none that was offered, or the body is malformed.
pub fn initial(body: &[u8]) -> Result<Option<&[u8]>, SaslError> {
    let malformed = SaslError::Malformed("the initial response");
    let end = memchr::memchr(0, body).ok_or(malformed)?;
    if &body[..end] != MECHANISM.as_bytes() {
        return Err(SaslError::Mechanism);
    }
    let (length, data) = body[end + 1..].split_first_chunk::<4>().ok_or(malformed)?;
    match (i32::from_be_bytes(*length), data) {
        (-1, []) => Ok(None),
        (length, data) if usize::try_from(length) == Ok(data.len()) => Ok(Some(data)),
        _ => Err(malformed),
    }
}

/// SCRAM's first message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFirst<'a> {
    /// What the second message must repeat in base64, as nobody in between could have changed it.
    pub gs2: Gs2,
    /// The message without it.
    pub bare: &'a str,
    /// The client's part of the nonce.
    pub nonce: &'a str,
}

/// Whether a client could be bound to a channel. It can't be here, as there is no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gs2 {
    /// It can't.
    Unable,
    /// It can, and believes that the server can't: which is so.
    Able,
}

impl Gs2 {
    /// `n,,` or `y,,` in base64.
    fn repeated(self) -> &'static str {
        match self {
            Self::Unable => "biws",
            Self::Able => "eSws",
        }
    }
}

impl<'a> ClientFirst<'a> {
    /// Reads it. The user's name in it counts for nothing: the startup message has it.
    ///
    /// # Errors
    /// It is malformed, or asks for what is not served.
    pub fn parse(message: &'a [u8]) -> Result<Self, SaslError> {
        let message = text(message)?;
        let (gs2, rest) = match message.split_once(',') {
            Some(("n", rest)) => (Gs2::Unable, rest),
            Some(("y", rest)) => (Gs2::Able, rest),
            Some((flag, _)) if flag.starts_with("p=") => return Err(SaslError::ChannelBinding),
            _ => return Err(SaslError::Malformed("the channel binding flag")),
        };
        let bare = match rest.split_once(',') {
            Some(("", bare)) => bare,
            Some((identity, _)) if identity.starts_with("a=") => {
                return Err(SaslError::NotServed(
                    "client uses authorization identity, but it is not supported",
                ));
            }
            _ => return Err(SaslError::Malformed("the authorization identity")),
        };
        if bare.starts_with("m=") {
            return Err(SaslError::NotServed(
                "client requires an unsupported SCRAM extension",
            ));
        }
        let mut attributes = bare.split(',');
        attribute(attributes.next(), "n=").ok_or(SaslError::Malformed("the user's name"))?;
        let nonce = attribute(attributes.next(), "r=");
        let nonce = nonce.filter(|nonce| is_printable(nonce));
        let nonce = nonce.ok_or(SaslError::Malformed("the nonce"))?;
        // Whatever else there is are extensions, which may be ignored.
        Ok(Self { gs2, bare, nonce })
    }
}

/// SCRAM's second message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFinal<'a> {
    /// The message without the proof.
    pub without_proof: &'a str,
    /// The whole nonce.
    pub nonce: &'a str,
    /// The proof, in base64.
    pub proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// It is malformed, or says something else of channel binding than the first message.
    pub fn parse(message: &'a [u8], gs2: Gs2) -> Result<Self, SaslError> {
        let message = text(message)?;
        let (without_proof, proof) = message
            .rsplit_once(",p=")
            .ok_or(SaslError::Malformed("the proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(attributes.next(), "c=");
        let binding = binding.ok_or(SaslError::Malformed("the channel binding"))?;
        let nonce = attribute(attributes.next(), "r=");
        let nonce = nonce.ok_or(SaslError::Malformed("the nonce"))?;
        if binding != gs2.repeated() {
            return Err(SaslError::Invalid(
                "unexpected SCRAM channel-binding attribute",
            ));
        }
        Ok(Self {
            without_proof,
            nonce,
            proof,
        })
    }
}

fn text(message: &[u8]) -> Result<&str, SaslError> {
    let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed("it is no text"))?;
    match text.contains('\0') {
        true => Err(SaslError::Malformed("it has a zero byte")),
        false => Ok(text),
    }
}

fn attribute<'a>(part: Option<&'a str>, name: &str) -> Option<&'a str> {
    part?.strip_prefix(name)
}

/// Commas end an attribute, so that there is none in it.
fn is_printable(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::message::backend::Message;
    use proptest::prelude::*;

    fn sent(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [b"p", &length[..], body].concat()
    }

    fn first_response(mechanism: &str, length: i32, data: &[u8]) -> Vec<u8> {
        [mechanism.as_bytes(), b"\0", &length.to_be_bytes()[..], data].concat()
    }

    #[test]
    fn what_is_sent_is_read_back_by_an_independent_parser() {
        let mut out = Vec::new();
        authentication_sasl(&mut out);
        assert_eq!(&out[9..], b"SCRAM-SHA-256\0\0");
        authentication_sasl_continue(b"more", &mut out);
        authentication_sasl_final(b"last", &mut out);
        let mut buffer = out[..].into();
        let mut next = || Message::parse(&mut buffer).unwrap().unwrap();
        assert!(matches!(next(), Message::AuthenticationSasl(_)));
        assert!(matches!(next(), Message::AuthenticationSaslContinue(it) if it.data() == b"more"));
        assert!(matches!(next(), Message::AuthenticationSaslFinal(it) if it.data() == b"last"));
    }

    #[test]
    fn a_response_is_judged_by_type_and_length_before_it_is_there() {
        assert_eq!(response(b""), Ok(None));
        assert_eq!(response(b"Q"), Err(SaslError::Type(b'Q')));
        assert_eq!(response(b"p\0\0\0"), Ok(None));
        for (length, fine) in [(3, false), (4, true), (1028, true), (1029, false)] {
            let bytes = [b"p", &u32::to_be_bytes(length)[..]].concat();
            let expected = match fine {
                true => Ok(response(&bytes).unwrap()),
                false => Err(SaslError::Length(length)),
            };
            assert_eq!(response(&bytes), expected, "{length}");
        }
        let whole = sent(b"abc");
        assert_eq!(response(&whole[..7]), Ok(None));
        let behind = [&whole[..], b"Q"].concat();
        assert_eq!(response(&behind), Ok(Some((&b"abc"[..], 8))));
    }

    #[test]
    fn only_the_mechanism_that_was_offered_is_taken() {
        let fine = first_response(MECHANISM, 3, b"abc");
        assert_eq!(initial(&fine), Ok(Some(&b"abc"[..])));
        assert_eq!(initial(&first_response(MECHANISM, -1, b"")), Ok(None));
        for other in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "PLAIN", ""] {
            let body = first_response(other, 0, b"");
            assert_eq!(initial(&body), Err(SaslError::Mechanism), "{other}");
        }
        for (length, data) in [
            (2, &b"abc"[..]),
            (4, b"abc"),
            (-1, b"x"),
            (-2, b""),
            (i32::MAX, b""),
        ] {
            let body = first_response(MECHANISM, length, data);
            assert!(matches!(initial(&body), Err(SaslError::Malformed(_))));
        }
        assert!(initial(b"SCRAM-SHA-256").is_err());
        assert!(initial(b"SCRAM-SHA-256\0\0\0").is_err());
    }

    #[test]
    fn first_messages_are_read_as_in_the_standard() {
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(first.gs2, Gs2::Unable);
        assert_eq!(first.bare, "n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(first.nonce, "rOprNGfwEbeRWgbNEkqO");
        let able = ClientFirst::parse(b"y,,n=,r=abc,x=ignored").unwrap();
        assert_eq!((able.gs2, able.nonce), (Gs2::Able, "abc"));
    }

    #[test]
    fn each_wrong_first_message_has_its_own_answer() {
        let of = |message: &[u8]| ClientFirst::parse(message).unwrap_err();
        assert_eq!(of(b"p=tls-unique,,n=,r=a"), SaslError::ChannelBinding);
        assert!(matches!(of(b"n,a=root,n=,r=a"), SaslError::NotServed(_)));
        assert!(matches!(of(b"n,,m=x,n=,r=a"), SaslError::NotServed(_)));
        for malformed in [
            &b""[..],
            b"n",
            b"n,",
            b"n,,",
            b"x,,n=,r=a",
            b"n,b,n=,r=a",
            b"n,,r=a",
            b"n,,n=",
            b"n,,n=,r=",
            b"n,,n=,r=a b",
            b"n,,n=,r=\xc3\xa4",
            b"n,,n=\xff,r=a",
            b"n,,n=\0,r=a",
        ] {
            let error = of(malformed);
            assert!(matches!(error, SaslError::Malformed(_)), "{malformed:?}");
            assert_eq!(error.report().sqlstate.as_str(), "08P01");
        }
    }

    #[test]
    fn the_second_message_must_say_of_channel_binding_what_the_first_one_said() {
        let plain = b"c=biws,r=nonce,p=cHJvb2Y=";
        let last = ClientFinal::parse(plain, Gs2::Unable).unwrap();
        assert_eq!(last.without_proof, "c=biws,r=nonce");
        assert_eq!((last.nonce, last.proof), ("nonce", "cHJvb2Y="));
        let downgraded = ClientFinal::parse(plain, Gs2::Able);
        assert!(matches!(downgraded, Err(SaslError::Invalid(_))));
        assert!(ClientFinal::parse(b"c=eSws,r=nonce,p=cHJvb2Y=", Gs2::Able).is_ok());
        for malformed in [
            &b""[..],
            b"c=biws,r=n",
            b"r=n,p=x",
            b"c=biws,p=x",
            b"c=biws\0,r=n,p=x",
        ] {
            let error = ClientFinal::parse(malformed, Gs2::Unable);
            assert!(
                matches!(error, Err(SaslError::Malformed(_))),
                "{malformed:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = response(&bytes);
            let _ = response(&sent(&bytes));
            let _ = initial(&bytes);
            let _ = initial(&[MECHANISM.as_bytes(), b"\0", &bytes].concat());
            let _ = ClientFirst::parse(&bytes);
            let _ = ClientFirst::parse(&[b"n,,n=,r=", &bytes[..]].concat());
            let _ = ClientFinal::parse(&bytes, Gs2::Able);
        }

        #[test]
        fn a_response_cut_anywhere_waits_for_its_rest(
            body in prop::collection::vec(any::<u8>(), 0..=MAX_RESPONSE), cut in any::<prop::sample::Index>(),
        ) {
            let whole = sent(&body);
            prop_assert_eq!(response(&whole[..cut.index(whole.len())]), Ok(None));
            prop_assert_eq!(response(&whole), Ok(Some((&body[..], whole.len()))));
        }

        #[test]
        fn what_a_first_message_says_is_read_back(nonce in "[!-+\\--~]{1,40}", name in "[^,\0]{0,20}") {
            let message = format!("n,,n={name},r={nonce}");
            let first = ClientFirst::parse(message.as_bytes()).unwrap();
            prop_assert_eq!(first.nonce, nonce);
            prop_assert_eq!(first.bare, &message[3..]);
        }
    }
}
