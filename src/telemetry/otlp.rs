//! OTLP over gRPC: the connection to a collector, whatever is sent on it.

use std::error::Error;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::standard::Otlp;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The pause before the second try; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How much of a collector's answer is read, in bytes.
pub(super) const LARGEST_ANSWER: usize = 64 << 10;

/// Why something did not arrive: one closed set for metrics, log and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// What is known beyond that, for people; without credentials.
    pub(super) reason: String,
}

/// The values of `error.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// No answer in time.
    Timeout,
    /// The collector took the rest alone.
    Rejected,
    /// A status of gRPC, by its number.
    Status(Code),
}

impl FailureKind {
    /// Every kind, in the order of [`FailureKind::index`].
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let statuses = (1..=16).map(|code| Self::Status(Code::from_i32(code)));
        [Self::Timeout, Self::Rejected].into_iter().chain(statuses)
    }

    /// How many there are.
    pub(super) const COUNT: usize = 18;

    /// Its place among all.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Timeout => 0,
            Self::Rejected => 1,
            // A status that is no failure is no kind; it would count as unknown.
            Self::Status(code) => usize::try_from(code as i32).unwrap_or(2).max(1) + 1,
        }
    }

    /// The value of `error.type`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
            Self::Status(code) => match code {
                Code::Ok | Code::Unknown => "UNKNOWN",
                Code::Cancelled => "CANCELLED",
                Code::InvalidArgument => "INVALID_ARGUMENT",
                Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
                Code::NotFound => "NOT_FOUND",
                Code::AlreadyExists => "ALREADY_EXISTS",
                Code::PermissionDenied => "PERMISSION_DENIED",
                Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
                Code::FailedPrecondition => "FAILED_PRECONDITION",
                Code::Aborted => "ABORTED",
                Code::OutOfRange => "OUT_OF_RANGE",
                Code::Unimplemented => "UNIMPLEMENTED",
                Code::Internal => "INTERNAL",
                Code::Unavailable => "UNAVAILABLE",
                Code::DataLoss => "DATA_LOSS",
                Code::Unauthenticated => "UNAUTHENTICATED",
            },
        }
    }

    /// Whether OTLP has it tried again.
    fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Status(
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            )
        )
    }
}

/// A connection to a collector, made when it is needed and again after it broke.
pub(super) struct Line {
    endpoint: Endpoint,
    /// Taken for a moment only. Replaced after a try that got no answer: the collector may be gone
    /// without a word.
    channel: Mutex<Channel>,
    metadata: MetadataMap,
    otlp: Otlp,
}

impl Line {
    /// Prepares it. Needs the runtime on which the connection will live.
    ///
    /// # Errors
    /// TLS can't be had with these files.
    pub(super) fn new(otlp: &Otlp) -> Result<Self, tonic::transport::Error> {
        let endpoint = endpoint(otlp)?;
        let headers = otlp.headers.iter().cloned().collect();
        Ok(Self {
            channel: Mutex::new(endpoint.connect_lazy()),
            endpoint,
            metadata: MetadataMap::from_headers(headers),
            otlp: otlp.clone(),
        })
    }

    /// How it is to be used.
    pub(super) fn otlp(&self) -> &Otlp {
        &self.otlp
    }

    /// Sends until it arrives, has failed for good, or `deadline` is over. To be polled within the
    /// runtime. Cancel safe: what is under way may arrive or not then.
    pub(super) async fn deliver<T, A, F>(
        &self,
        message: &T,
        deadline: Instant,
        send: impl Fn(Channel, Request<T>) -> F,
    ) -> Result<A, Failure>
    where
        T: Clone,
        F: Future<Output = Result<A, Status>>,
    {
        let mut pause = PAUSE;
        let mut last = None;
        loop {
            let channel = self.channel.lock().clone();
            let mut request = Request::new(message.clone());
            *request.metadata_mut() = self.metadata.clone();
            let failure = match tokio::time::timeout_at(deadline, send(channel, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => self.failure(&status),
                Err(_) => {
                    *self.channel.lock() = self.endpoint.connect_lazy();
                    // Why the tries before did not get there says more.
                    return Err(last.unwrap_or_else(no_answer));
                }
            };
            if !failure.kind.may_pass() || Instant::now() + pause >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            last = Some(failure);
        }
    }

    fn failure(&self, status: &Status) -> Failure {
        let mut reason = status.message().to_owned();
        let mut source = status.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !reason.contains(&text) {
                if !reason.is_empty() {
                    reason += ": ";
                }
                reason += &text;
            }
            source = error.source();
        }
        // What has a source is no word of the collector's: it was not reached, or not understood, and
        // tonic calls that by several codes in turn.
        let code = match status.source() {
            Some(_) => Code::Unavailable,
            None => status.code(),
        };
        Failure {
            kind: FailureKind::Status(code),
            reason: self.told(&reason),
        }
    }

    /// What a collector says, fit to be shown.
    pub(super) fn told(&self, text: &str) -> String {
        const LONGEST: usize = 200;
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let plain: String = plain.collect();
        self.otlp
            .without_secrets(&plain)
            .chars()
            .take(LONGEST)
            .collect()
    }
}

/// No answer came in time.
pub(super) fn no_answer() -> Failure {
    Failure {
        kind: FailureKind::Timeout,
        reason: "no answer in time".to_owned(),
    }
}

/// How the collector is reached.
///
/// # Errors
/// TLS can't be had with these files.
pub(super) fn endpoint(otlp: &Otlp) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(otlp.endpoint.clone())?
        .connect_timeout(CONNECT)
        .user_agent(concat!("execpool/", env!("CARGO_PKG_VERSION")))?;
    if !otlp.is_tls() {
        return Ok(endpoint);
    }
    let mut tls = match &otlp.tls.authorities {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    if let Some((certificate, key)) = &otlp.tls.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(tls)
}
