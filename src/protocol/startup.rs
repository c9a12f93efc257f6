//! The first packet of a client, and the startup message for the server.
//!
//! A client begins with a packet that has no type byte: a request for encryption, a cancel request,
//! or its startup message. The startup message says who it is, which settings its session begins
//! with, and – in one of three places – which execution it belongs to. What is meant for us is taken
//! out; all else reaches the server as the client wrote it.

mod error;
mod execution_id;
mod naming;
mod options;
mod parameters;

pub use error::StartupError;
pub use execution_id::{ExecutionId, InvalidExecutionId};
pub use naming::{MAX_CALLER, Naming, Setting};
pub use parameters::Parameters;

use super::message::{set_length, text};
use naming::Named;

/// The longest first packet that is read, in bytes, with its length word.
pub const MAX_STARTUP: usize = 10_000;

/// The protocol's version 3.0, the one that is served and spoken to servers.
const VERSION_3_0: u32 = 3 << 16;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// What a client's first packet asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// TLS, to be answered with one byte; the next first packet follows.
    Ssl,
    /// GSSAPI encryption, to be answered with one byte; the next first packet follows.
    GssEnc,
    /// The end of what another session is doing; never answered.
    Cancel {
        /// The process id from that session's BackendKeyData.
        pid: i32,
        /// The key from that session's BackendKeyData.
        key: [u8; 4],
    },
    /// A session.
    Startup(Startup),
}

/// A client's startup message, with what is meant for us taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version asked for; 0 is served.
    pub minor: u16,
    /// The user's name.
    pub user: String,
    /// The database's name; the user's where the client names none.
    pub database: String,
    /// What the server's session begins with.
    pub parameters: Parameters,
    /// Which execution the session belongs to, and where it comes from.
    pub naming: Naming,
    /// Protocol options (`_pq_.…`) asked for; none is served.
    pub unknown_options: Vec<String>,
    /// Whether a replication connection is asked for, which cannot be pooled.
    pub replication: bool,
}

/// Reads a client's first packet from the beginning of `buf`: the packet and how many bytes it has
/// taken, or `Ok(None)` while more bytes are needed.
///
/// # Errors
/// What makes the packet unreadable or unserved. The length is judged as soon as its four bytes are
/// there, so that nobody waits for a packet that will be refused.
pub fn parse(buf: &[u8]) -> Result<Option<(Packet, usize)>, StartupError> {
    let Some((length, _)) = buf.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    if length as usize > MAX_STARTUP {
        return Err(StartupError::TooLong { length });
    }
    if length < 8 {
        return Err(StartupError::TooShort { length });
    }
    let Some((code, body)) = buf
        .get(4..length as usize)
        .and_then(<[u8]>::split_first_chunk::<4>)
    else {
        return Ok(None);
    };
    let packet = match (u32::from_be_bytes(*code), body) {
        (SSL_REQUEST, []) => Packet::Ssl,
        (GSSENC_REQUEST, []) => Packet::GssEnc,
        (SSL_REQUEST | GSSENC_REQUEST, _) => {
            return Err(StartupError::Malformed("an encryption request has no body"));
        }
        (CANCEL_REQUEST, body) => cancel(body)?,
        (version, body) => Packet::Startup(startup(version, body)?),
    };
    Ok(Some((packet, length as usize)))
}

/// Reads a cancel request behind its code. We hand out keys of four bytes only, so that no longer
/// one can fit.
fn cancel(body: &[u8]) -> Result<Packet, StartupError> {
    let parts = body
        .split_first_chunk::<4>()
        .and_then(|(pid, key)| Some((i32::from_be_bytes(*pid), <[u8; 4]>::try_from(key).ok()?)));
    let (pid, key) = parts.ok_or(StartupError::Malformed(
        "a cancel request holds a process id and a key of four bytes",
    ))?;
    Ok(Packet::Cancel { pid, key })
}

/// Reads a startup message behind its version.
fn startup(version: u32, body: &[u8]) -> Result<Startup, StartupError> {
    // Shifted and masked to sixteen bits each.
    let (major, minor) = ((version >> 16) as u16, (version & 0xffff) as u16);
    if major != 3 {
        return Err(StartupError::UnsupportedVersion { major, minor });
    }
    let mut reading = Reading::default();
    let mut rest = body;
    loop {
        let name = take_text(&mut rest).ok_or(StartupError::Malformed(
            "expected a terminator as the last byte",
        ))?;
        if name.is_empty() {
            break;
        }
        let value =
            take_text(&mut rest).ok_or(StartupError::Malformed("a parameter has no value"))?;
        let name = std::str::from_utf8(name)
            .map_err(|_| StartupError::NotText("the name of a parameter"))?;
        reading.parameter(name, value)?;
    }
    if !rest.is_empty() {
        return Err(StartupError::Malformed(
            "expected the terminator to be the last byte",
        ));
    }
    reading.finish(minor)
}

/// Takes the bytes up to the next zero byte off `rest`, and the zero byte with them.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(0, rest)?;
    let text = &rest[..end];
    *rest = &rest[end + 1..];
    Some(text)
}

/// What has been read of a startup message's parameters. Where one comes twice the last counts, as
/// in the server.
#[derive(Default)]
struct Reading {
    user: Option<String>,
    database: Option<String>,
    replication: bool,
    options: Vec<u8>,
    unknown_options: Vec<String>,
    named: Named,
    parameters: Vec<(String, Vec<u8>)>,
}

impl Reading {
    fn parameter(&mut self, name: &str, value: &[u8]) -> Result<(), StartupError> {
        let text =
            |what| String::from_utf8(value.to_vec()).map_err(|_| StartupError::NotText(what));
        match name {
            "user" => self.user = Some(text("the user's name")?),
            "database" => self.database = Some(text("the database's name")?),
            "replication" => self.replication = !is_false(value),
            "options" => self.options = value.to_vec(),
            _ if name.starts_with("_pq_.") => self.unknown_options.push(name.to_owned()),
            _ if Setting::is_ours(name) => self.named.set(Setting::find(name)?, value),
            _ => self.parameters.push((name.to_owned(), value.to_vec())),
        }
        Ok(())
    }

    fn finish(mut self, minor: u16) -> Result<Startup, StartupError> {
        let user = self
            .user
            .filter(|user| !user.is_empty())
            .ok_or(StartupError::NoUser)?;
        let mut from_options = Named::default();
        let options = options::strip(&self.options, &mut from_options)?;
        if !options.is_empty() {
            self.parameters.push(("options".to_owned(), options));
        }
        let mut parameters = Parameters::new(self.parameters);
        if let Some((id, rest)) = naming::from_application_name(parameters.get("application_name"))
        {
            self.named.in_application_name = Some(id);
            parameters.replace("application_name", rest);
        }
        Ok(Startup {
            minor,
            database: self
                .database
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| user.clone()),
            user,
            parameters,
            naming: Naming::choose(self.named, from_options)?,
            unknown_options: self.unknown_options,
            replication: self.replication,
        })
    }
}

/// Whether the server would read this as a boolean false: `false`, `no`, `off` or `0`, in any case
/// and cut short as long as it is unambiguous.
fn is_false(value: &[u8]) -> bool {
    let begins = |word: &str, least: usize| {
        value.len() >= least
            && word
                .as_bytes()
                .get(..value.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(value))
    };
    begins("false", 1) || begins("no", 1) || begins("off", 2) || value == b"0"
}

impl Startup {
    /// The same, for whoever tells it before the rest: it is asked for no more.
    pub fn take_negotiation(&mut self) -> Option<Vec<u8>> {
        let message = self.negotiation();
        self.minor = 0;
        self.unknown_options.clear();
        message
    }

    /// The NegotiateProtocolVersion message that must come before anything else when the client asks
    /// for a newer minor version or for protocol options; `None` when it asks for nothing of that.
    pub fn negotiation(&self) -> Option<Vec<u8>> {
        if self.minor == 0 && self.unknown_options.is_empty() {
            return None;
        }
        let mut out = vec![b'v', 0, 0, 0, 0];
        // The whole version, not the minor alone: this is what servers send and libpq expects.
        out.extend_from_slice(&VERSION_3_0.to_be_bytes());
        // A packet of 10,000 bytes holds fewer options than a u32 counts.
        out.extend_from_slice(&(self.unknown_options.len() as u32).to_be_bytes());
        for option in &self.unknown_options {
            text(option.as_bytes(), &mut out);
        }
        set_length(&mut out, 1);
        Some(out)
    }
}

/// The request that makes a server cancel what the backend with this id and key is doing. It goes
/// over a connection of its own.
pub fn cancel_request(pid: i32, key: [u8; 4]) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&16u32.to_be_bytes());
    out[4..8].copy_from_slice(&CANCEL_REQUEST.to_be_bytes());
    out[8..12].copy_from_slice(&pid.to_be_bytes());
    out[12..].copy_from_slice(&key);
    out
}

#[cfg(test)]
mod tests;
