//! The login over TCP: a client proves the password that the operator has put into a file.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Secret;
use crate::protocol::message::Report;
use crate::protocol::sasl::{
    self, SaslError, authentication_sasl, authentication_sasl_continue, authentication_sasl_final,
};
use crate::protocol::scram::{Exchange, NONCE, Verifier};
use crate::protocol::startup::Startup;

use super::greeting::PATIENCE;
use super::line::Line;
use super::words;

/// The longest password file that is read, in bytes.
const MAX_FILE: u64 = 4096;
/// How much is read of a client at once, in bytes.
const READ: usize = 2048;
/// How long a client waits to hear that its password is wrong: who guesses waits as well.
const PENALTY: Duration = Duration::from_millis(500);
/// How often wrong passwords are logged.
const SAID: Duration = Duration::from_secs(10);

/// What clients over TCP must prove.
#[derive(Debug)]
pub(super) struct Logins {
    file: PathBuf,
    /// What was made of the file's content the last time: that takes milliseconds.
    known: Mutex<Option<(Secret, Arc<Verifier>)>>,
    wrong: Mutex<Wrong>,
    /// When it was last logged that there is no password.
    missing: Mutex<Option<Instant>>,
}

/// Wrong passwords: when that was last logged, and how many came since.
#[derive(Debug, Default)]
struct Wrong {
    said: Option<Instant>,
    unsaid: u64,
}

/// Why a client does not come in.
pub(super) enum NoLogin {
    /// It has gone.
    Gone,
    /// It is told so; with it, a word for counting.
    Refused(Box<Report>, &'static str),
}

impl From<std::io::Error> for NoLogin {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl From<SaslError> for NoLogin {
    fn from(error: SaslError) -> Self {
        Self::Refused(Box::new(error.report()), "login_malformed")
    }
}

impl Logins {
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            known: Mutex::default(),
            wrong: Mutex::default(),
            missing: Mutex::default(),
        }
    }

    /// Lets the client prove the password until `deadline`. `bytes` is what it has sent behind its
    /// startup message, and in the end what it has sent behind its proof.
    pub(super) async fn login(
        &self,
        line: &Line,
        startup: &mut Startup,
        bytes: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<(), NoLogin> {
        let exchange = self.exchange(line, startup, bytes);
        match tokio::time::timeout_at(deadline, exchange).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                self.note_wrong();
                tokio::time::sleep(PENALTY).await;
                let report = words::wrong_password(&startup.user);
                Err(NoLogin::Refused(Box::new(report), "wrong_password"))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let report = words::login_timeout(PATIENCE);
                Err(NoLogin::Refused(Box::new(report), "timeout"))
            }
        }
    }

    /// Whether the client knows the password. Who the client says it is makes no difference.
    async fn exchange(
        &self,
        line: &Line,
        startup: &mut Startup,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, NoLogin> {
        let verifier = self.verifier().map_err(|why| {
            self.note_missing(&why);
            NoLogin::Refused(Box::new(words::no_password_to_prove()), "no_password")
        })?;
        let mut out = startup.take_negotiation().unwrap_or_default();
        authentication_sasl(&mut out);
        line.write(&out).await?;
        let response = read(line, bytes).await?;
        let first = match sasl::initial(&response)? {
            Some(first) => first.to_vec(),
            None => {
                out.clear();
                authentication_sasl_continue(b"", &mut out);
                line.write(&out).await?;
                read(line, bytes).await?
            }
        };
        let mut random = [0; NONCE];
        getrandom::fill(&mut random).map_err(std::io::Error::from)?;
        let exchange = Exchange::begin(&verifier, &first, &random)?;
        out.clear();
        authentication_sasl_continue(exchange.server_first().as_bytes(), &mut out);
        line.write(&out).await?;
        let last = read(line, bytes).await?;
        let Some(proof) = exchange.finish(&last)? else {
            return Ok(false);
        };
        out.clear();
        authentication_sasl_final(proof.as_bytes(), &mut out);
        line.write(&out).await?;
        Ok(true)
    }

    /// The verifier of the file as it is now, made anew only where its content is new.
    fn verifier(&self) -> Result<Arc<Verifier>, String> {
        let (content, mode) = content(&self.file)?;
        let mut known = self.known.lock();
        if let Some((of, verifier)) = &*known
            && of.expose() == content.expose()
        {
            return Ok(Arc::clone(verifier));
        }
        if mode & 0o004 != 0 {
            tracing::warn!(
                event = "tcp.password_readable",
                file = %self.file.display(),
                "every user of the machine can read the password of TCP connections"
            );
        }
        let verifier = Verifier::of(content.expose()).map_err(|error| error.to_string())?;
        let verifier = Arc::new(verifier);
        *known = Some((content, Arc::clone(&verifier)));
        Ok(verifier)
    }

    /// Says why nobody comes in, but not for each that tries.
    fn note_missing(&self, why: &str) {
        let mut missing = self.missing.lock();
        if missing.is_none_or(|said| said.elapsed() >= SAID) {
            tracing::error!(event = "tcp.no_password", file = %self.file.display(), "nobody can connect over TCP: {why}");
            *missing = Some(Instant::now());
        }
    }

    fn note_wrong(&self) {
        let mut wrong = self.wrong.lock();
        wrong.unsaid += 1;
        if wrong.said.is_none_or(|said| said.elapsed() >= SAID) {
            tracing::warn!(
                event = "tcp.wrong_password",
                count = wrong.unsaid,
                "a wrong password over TCP"
            );
            *wrong = Wrong {
                said: Some(Instant::now()),
                unsaid: 0,
            };
        }
    }
}

/// The body of the client's next message.
async fn read(line: &Line, bytes: &mut Vec<u8>) -> Result<Vec<u8>, NoLogin> {
    loop {
        if let Some((body, length)) = sasl::response(bytes)? {
            let body = body.to_vec();
            bytes.drain(..length);
            return Ok(body);
        }
        if line.read(bytes, READ).await? == 0 {
            return Err(NoLogin::Gone);
        }
    }
}

/// The file's text, less one newline at its end, and its permissions. A file that is none, such as a
/// pipe, keeps nobody waiting.
fn content(file: &Path) -> Result<(Secret, u32), String> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(file)
        .map_err(|error| error.to_string())?;
    let found = opened.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(format!("it is no file of at most {MAX_FILE} bytes"));
    }
    let mut text = String::new();
    let read = opened.take(MAX_FILE).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok((Secret::new(line), found.mode()))
}
