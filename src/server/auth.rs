//! The answers to the server's authentication requests.
//!
//! Served: trust, md5, SCRAM-SHA-256, and the password in clear text where it can't be
//! overheard. See "Start-up" in the PostgreSQL documentation's chapter on message flow.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};

use crate::config::{self, Tls};

use super::socket::Socket;
use super::tls::TlsProblem;
use super::{Address, ConnectError};

/// The codes of AuthenticationXXX messages.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const CLEARTEXT: i32 = 3;
    pub(super) const MD5: i32 = 5;
    pub(super) const SASL: i32 = 10;
    pub(super) const SASL_CONTINUE: i32 = 11;
    pub(super) const SASL_FINAL: i32 = 12;
}

/// What a login goes through.
#[derive(Debug, Clone, Default)]
pub(super) struct Channel {
    /// Whether nobody can listen.
    is_encrypted: bool,
    /// What binds SCRAM to it, where it can be bound.
    end_point: Option<Vec<u8>>,
    is_binding_required: bool,
}

impl Channel {
    pub(super) fn of(socket: &Socket, tls: &Tls) -> Self {
        Self {
            is_encrypted: socket.is_encrypted(),
            end_point: match tls.channel_binding {
                config::ChannelBinding::Disable => None,
                _ => socket.end_point(),
            },
            is_binding_required: tls.channel_binding == config::ChannelBinding::Require,
        }
    }
}

/// A login under way: fed with the bodies of the server's `R` messages.
pub(super) struct Authentication<'a> {
    address: &'a Address,
    user: &'a str,
    password: Option<&'a [u8]>,
    channel: Channel,
    is_bound: bool,
    scram: Option<ScramSha256>,
}

/// What to do after an `R` message.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this PasswordMessage or SASL response.
    Send(Vec<u8>),
    /// Nothing: the server goes on.
    Wait,
}

impl<'a> Authentication<'a> {
    pub(super) fn new(
        address: &'a Address,
        user: &'a str,
        password: Option<&'a [u8]>,
        channel: Channel,
    ) -> Self {
        Self {
            address,
            user,
            password,
            channel,
            is_bound: false,
            scram: None,
        }
    }

    /// The answer to one authentication request.
    pub(super) fn answer(&mut self, body: &[u8]) -> Result<Step, ConnectError> {
        let (code, rest) = body
            .split_first_chunk::<4>()
            .ok_or_else(|| self.malformed())?;
        let code = i32::from_be_bytes(*code);
        let is_sasl = matches!(code, code::SASL | code::SASL_CONTINUE | code::SASL_FINAL);
        if self.channel.is_binding_required && !is_sasl && !self.is_bound {
            return Err(self.no_binding());
        }
        match code {
            code::OK => Ok(Step::Wait),
            code::CLEARTEXT if self.address.is_local_socket() || self.channel.is_encrypted => {
                Ok(Step::Send(password_message(self.password()?)))
            }
            code::CLEARTEXT => Err(ConnectError::CleartextRefused(self.address.clone())),
            code::MD5 => self.md5(rest),
            code::SASL => self.sasl(rest),
            code::SASL_CONTINUE => self.sasl_continue(rest),
            code::SASL_FINAL => self.sasl_final(rest),
            other => Err(ConnectError::MethodNotServed {
                address: self.address.clone(),
                method: method_name(other),
            }),
        }
    }

    fn md5(&self, salt: &[u8]) -> Result<Step, ConnectError> {
        let salt: [u8; 4] = salt.try_into().map_err(|_| self.malformed())?;
        let hash = md5_hash(self.user.as_bytes(), self.password()?, salt);
        Ok(Step::Send(password_message(hash.as_bytes())))
    }

    fn sasl(&mut self, mechanisms: &[u8]) -> Result<Step, ConnectError> {
        let offers = |name: &str| {
            let mut offered = mechanisms.split(|byte| *byte == 0);
            offered.any(|offered| offered == name.as_bytes())
        };
        let end_point = self.channel.end_point.take();
        let (mechanism, binding) = match end_point {
            Some(data) if offers(SCRAM_SHA_256_PLUS) => {
                self.is_bound = true;
                (
                    SCRAM_SHA_256_PLUS,
                    ChannelBinding::tls_server_end_point(data),
                )
            }
            _ if self.channel.is_binding_required => return Err(self.no_binding()),
            _ if !offers(SCRAM_SHA_256) => {
                return Err(ConnectError::MethodNotServed {
                    address: self.address.clone(),
                    method: "a SASL mechanism other than SCRAM-SHA-256",
                });
            }
            // We could, and the server did not offer it: told, so that it notices a downgrade.
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        let scram = ScramSha256::new(self.password()?, binding);
        let mut body = mechanism.as_bytes().to_vec();
        body.push(0);
        // A first message is some dozens of bytes: a nonce and two attributes.
        body.extend((scram.message().len() as i32).to_be_bytes());
        body.extend(scram.message());
        self.scram = Some(scram);
        Ok(Step::Send(framed(&body)))
    }

    fn sasl_continue(&mut self, data: &[u8]) -> Result<Step, ConnectError> {
        let address = self.address;
        let scram = self.scram.as_mut().ok_or_else(|| malformed(address))?;
        scram
            .update(data)
            .map_err(|_| ConnectError::ServerNotAuthentic(address.clone()))?;
        Ok(Step::Send(framed(scram.message())))
    }

    fn sasl_final(&mut self, data: &[u8]) -> Result<Step, ConnectError> {
        let address = self.address;
        let mut scram = self.scram.take().ok_or_else(|| malformed(address))?;
        scram
            .finish(data)
            .map_err(|_| ConnectError::ServerNotAuthentic(address.clone()))?;
        Ok(Step::Wait)
    }

    /// Whether the server has proved itself as far as its method asks it to: a server
    /// that began SCRAM and says OK without its proof has not.
    pub(super) fn is_complete(&self) -> bool {
        self.scram.is_none()
    }

    fn password(&self) -> Result<&'a [u8], ConnectError> {
        self.password
            .ok_or_else(|| ConnectError::PasswordMissing(self.address.clone()))
    }

    fn no_binding(&self) -> ConnectError {
        ConnectError::Tls {
            address: self.address.clone(),
            problem: TlsProblem::NoBinding,
        }
    }

    fn malformed(&self) -> ConnectError {
        malformed(self.address)
    }
}

fn malformed(address: &Address) -> ConnectError {
    ConnectError::Broken {
        address: address.clone(),
        source: std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "a malformed authentication request",
        ),
    }
}

fn password_message(password: &[u8]) -> Vec<u8> {
    let mut body = password.to_vec();
    body.push(0);
    framed(&body)
}

/// A PasswordMessage, SASLInitialResponse or SASLResponse: all have the type `p`.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    out.push(b'p');
    // Passwords and SASL messages are far below 2 GiB: files and the protocol bound them.
    out.extend((body.len() as i32 + 4).to_be_bytes());
    out.extend(body);
    out
}

fn method_name(code: i32) -> &'static str {
    match code {
        2 => "Kerberos V5",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => "an unknown method of",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Address {
        Address::Tcp {
            host: "db.internal".to_owned(),
            port: 5432,
        }
    }

    fn request(code: i32, rest: &[u8]) -> Vec<u8> {
        [code.to_be_bytes().as_slice(), rest].concat()
    }

    #[test]
    fn a_password_never_crosses_a_network_in_clear_text() {
        let address = network();
        let mut login = Authentication::new(&address, "app", Some(b"secret"), Channel::default());
        let answer = login.answer(&request(code::CLEARTEXT, b""));
        assert!(matches!(answer, Err(ConnectError::CleartextRefused(_))));
    }

    #[test]
    fn a_wanted_password_that_is_not_configured_is_said_to_be_missing() {
        let address = network();
        for wanted in [
            request(code::MD5, b"salt"),
            request(code::SASL, b"SCRAM-SHA-256\0\0"),
        ] {
            let answer =
                Authentication::new(&address, "app", None, Channel::default()).answer(&wanted);
            assert!(matches!(answer, Err(ConnectError::PasswordMissing(_))));
        }
    }

    #[test]
    fn a_server_that_begins_scram_and_skips_its_proof_is_not_complete() {
        let address = network();
        let mut login = Authentication::new(&address, "app", Some(b"secret"), Channel::default());
        let first = login.answer(&request(code::SASL, b"SCRAM-SHA-256\0\0"));
        assert!(matches!(first, Ok(Step::Send(_))));
        assert!(matches!(
            login.answer(&request(code::OK, b"")),
            Ok(Step::Wait)
        ));
        assert!(!login.is_complete());
    }

    #[test]
    fn a_method_that_is_not_served_is_named() {
        let address = network();
        let mut login = Authentication::new(&address, "app", Some(b"secret"), Channel::default());
        let error = login.answer(&request(7, b"")).unwrap_err();
        assert!(error.to_string().contains("GSSAPI"), "{error}");
    }
}
