//! From text to values.

use super::url::redact;
use super::{AppProbe, Kind, Loopback, Share};
use std::net::SocketAddr;
use std::time::Duration;

/// What a knob was set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Switch(bool),
    Count(u32),
    Share(Share),
    Time(Option<Duration>),
    Text(String),
    Uids(Option<Vec<u32>>),
    Address(Option<SocketAddr>),
    Loopback(Option<Loopback>),
    Words(Vec<String>),
    Probe(AppProbe),
}

impl Kind {
    /// The value that a text means; none where the knob does not take it.
    pub(super) fn parse(&self, text: &str) -> Option<Value> {
        match self {
            Self::Switch => match text {
                "true" | "on" => Some(Value::Switch(true)),
                "false" | "off" => Some(Value::Switch(false)),
                _ => None,
            },
            Self::Count(low, high) => count(text)
                .filter(|n| low <= n && n <= high)
                .map(Value::Count),
            Self::Share => share(text).map(Value::Share),
            Self::Time(low) => duration(text)
                .filter(|time| low <= time)
                .map(|time| Value::Time(Some(time))),
            Self::TimeOrOff(_) if text == "off" => Some(Value::Time(None)),
            Self::TimeOrOff(low) => Self::Time(*low).parse(text),
            Self::Word(words) => word(words, text).map(|word| Value::Text(word.to_owned())),
            Self::Probe => AppProbe::parse(text).map(Value::Probe),
            Self::Statement => statement(text).then(|| Value::Text(text.to_owned())),
            Self::Text | Self::Url => (!text.trim().is_empty() && !text.contains('\0'))
                .then(|| Value::Text(text.to_owned())),
            Self::Path => (text.starts_with('/') && !text.contains('\0'))
                .then(|| Value::Text(text.to_owned())),
            Self::Command => command(text).map(Value::Words),
            Self::Mode => mode(text).map(Value::Count),
            Self::Uids => uids(text).map(Value::Uids),
            Self::Loopback if text == "off" => Some(Value::Loopback(None)),
            Self::Loopback => loopback(text).map(|at| Value::Loopback(Some(at))),
            Self::Filter => filter(text).then(|| Value::Text(text.to_owned())),
            Self::AddressOrOff if text == "off" => Some(Value::Address(None)),
            Self::AddressOrOff => text
                .parse()
                .ok()
                .map(|address| Value::Address(Some(address))),
        }
    }

    /// What others may see of a value that was written.
    pub(super) fn shown(&self, text: &str) -> String {
        match self {
            // Its arguments may be anything.
            Self::Command => match command(text).as_deref() {
                Some([program]) => program.clone(),
                Some([program, ..]) => format!("{program} …"),
                _ => String::new(),
            },
            // Its port is no password; what a query says may be one.
            Self::Probe if AppProbe::parse(text).is_some() && !text.contains(['?', '@']) => {
                text.to_owned()
            }
            _ => redact(text),
        }
    }

    /// What the knob takes, to follow "is not".
    pub fn allowed(&self) -> String {
        match self {
            Self::Switch => "true or false".into(),
            Self::Count(low, high) => format!("a whole number from {low} to {high}"),
            Self::Share => "a share above 0 and at most 1, such as 0.8 or 0.925".into(),
            Self::Time(low) if low.is_zero() => "a duration with its unit, such as 250ms, 20s or 1m30s".into(),
            Self::Time(low) => format!("a duration with its unit, such as 250ms, 20s or 1m30s, of at least {low:?}"),
            Self::TimeOrOff(low) => format!("off or a duration with its unit, such as 20s or 1m30s, of at least {low:?}"),
            Self::Word(words) => match words {
                [one] => format!("{one:?}, the only choice"),
                many => format!("one of {}", many.join(", ")),
            },
            Self::Text => "a text that is not empty".into(),
            Self::Statement => "a statement such as DISCARD ALL: the reset can't be switched off".into(),
            Self::Url => "a URL such as postgresql://user@host:5432/database".into(),
            Self::Path => "an absolute path".into(),
            Self::Command => "a list of a program and its arguments, or one text with closed quotes".into(),
            Self::AddressOrOff => "off or an IP address with a port, such as [::]:9464 or 127.0.0.1:9464".into(),
            Self::Mode => "permissions in octal, such as 0660, which let the owner read and write (quote it if it begins with 0o)".into(),
            Self::Uids => "any, or one or more numbers of users".into(),
            Self::Loopback => "off or an address of the loopback such as 127.0.0.1:6432, [::1]:6432 or localhost:6432: at any other, whoever is on the network could use the server's credentials".into(),
            Self::Probe => "an HTTP probe such as http://127.0.0.1:8080/healthz or :8080/healthz, or a connection such as tcp://127.0.0.1:8080, on the loopback: the containers of a pod share it".into(),
            Self::Filter => "a level (error, warn, info, debug, trace, off) or a filter such as info,execpool=debug".into(),
        }
    }
}

/// The word that a switch takes for another one that means as much elsewhere.
pub(super) fn switch_for(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "1" | "enabled" | "true" | "on" => Some("true"),
        "no" | "n" | "0" | "disabled" | "false" | "off" => Some("false"),
        _ => None,
    }
}

/// Digits alone, so that `+5` and `5_0` stay errors.
pub(super) fn count(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// A decimal fraction of three digits at most, so that it is exact.
fn share(text: &str) -> Option<Share> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 3 {
        return None;
    }
    let (whole, part) = (count(whole)?, count(&format!("{part:0<3}"))?);
    let thousandths = whole.checked_mul(1000)?.checked_add(part)?;
    (1..=1000)
        .contains(&thousandths)
        .then_some(Share { thousandths })
}

/// One or more numbers with a unit each, in any order.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &rest[letters..];
    }
    // A deadline is a point in time: a century keeps every sum of one within the clock's range.
    (!text.is_empty() && sum <= Duration::from_secs(100 * 365 * 86_400)).then_some(sum)
}

/// `0660`, `660` and a quoted `0o660` are the same: permissions are octal. A bare `0o660` reaches us
/// as the number 432; demanding that the owner can read and write refuses every such number, since
/// none of up to 0o777 = 511 begins with 6 or 7.
pub(super) fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let shaped = (3..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| shaped)?;
    (mode <= 0o777 && mode & 0o600 == 0o600).then_some(mode)
}

fn uids(text: &str) -> Option<Option<Vec<u32>>> {
    if text == "any" {
        return Some(None);
    }
    let list: Option<Vec<u32>> = text
        .split(',')
        .map(|part| Some(part.trim()).filter(|p| !p.is_empty()).and_then(count))
        .collect();
    list.map(Some)
}

/// The word of the list that is meant. Templates that take `off` for a truth value, as Helm does, write
/// `false`.
fn word(words: &[&'static str], text: &str) -> Option<&'static str> {
    let meant = match text {
        "true" => "on",
        "false" => "off",
        text => text,
    };
    let listed = |wanted: &str| words.iter().copied().find(|word| *word == wanted);
    listed(text).or_else(|| listed(meant))
}

/// The words of a command line, the first of them a program.
fn command(text: &str) -> Option<Vec<String>> {
    let words = shlex::split(text).filter(|_| !text.contains('\0'))?;
    let has_program = words.first().is_some_and(|program| !program.is_empty());
    has_program.then_some(words)
}

/// Where nobody but this machine, or this pod, can connect.
pub(super) fn loopback(text: &str) -> Option<Loopback> {
    if let Some(port) = text.strip_prefix("localhost:") {
        // At most what a port's type holds.
        let port = count(port).and_then(|port| u16::try_from(port).ok())?;
        return Some(Loopback::Localhost(port));
    }
    let address: SocketAddr = text.parse().ok()?;
    address
        .ip()
        .is_loopback()
        .then_some(Loopback::Address(address))
}

/// A word that means no is no statement: each returned connection would fail by it.
fn statement(text: &str) -> bool {
    const NO: &[&str] = &["off", "none", "no", "false", "null", "~", "0"];
    let word = text.trim().trim_end_matches(';').to_ascii_lowercase();
    !word.is_empty() && !text.contains('\0') && !NO.contains(&word.as_str())
}

/// A part that is a single word must be a level: the subscriber would take a slip such as `inof` for a module.
fn filter(text: &str) -> bool {
    const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
    let is_word = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_level = |part: &str| LEVELS.contains(&part.to_ascii_lowercase().as_str());
    let words = || text.split(',').map(str::trim).filter(|part| is_word(part));
    if !words().all(is_level) {
        return false;
    }
    tracing_subscriber::EnvFilter::try_new(text).is_ok()
}
