//! What the standard variables of OpenTelemetry ask for, checked.
//!
//! What decides where telemetry goes and whether it does is an error if it can't be done. Where the
//! specification has a number or a word ignored that is none, it is, with a warning.

mod traces;

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_sdk::metrics::Temporality;
use percent_encoding::percent_decode_str;

use super::environment::{Environment, Signal, Variable};
use super::resource;

pub use traces::{Batch, OfTraces, Sampling};

/// What stands for what is not shown.
const SECRET: &str = "***";

/// What is wrong with a variable: which, why, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StandardError {
    /// OTLP by another way than gRPC.
    #[error(
        "{name} is {value:?}, which execpool does not serve: OTLP goes over gRPC alone; set it to grpc, or not at all, and the endpoint to the collector's port for gRPC, by default 4317"
    )]
    Protocol {
        /// The variable.
        name: String,
        /// What it says.
        value: String,
    },
    /// An address that is none.
    #[error(
        "{name} is {value:?}: {why}; write it as http://collector:4317, or https://collector:4317 for TLS"
    )]
    Endpoint {
        /// The variable.
        name: String,
        /// What it says, without credentials.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody to export to by this name.
    #[error(
        "OTEL_METRICS_EXPORTER names {0:?}, which execpool does not serve; it serves otlp, prometheus, or both with a comma between them, and none"
    )]
    Exporter(String),
    /// Nobody to export spans to by this name.
    #[error(
        "OTEL_TRACES_EXPORTER is {0:?}, which execpool does not serve; it serves otlp, and none"
    )]
    TracesExporter(String),
    /// Headers that are none.
    #[error(
        "{name}: its entry {entry} is no header; write name=value pairs with commas between them, percent-encoded where a value has a comma or a space"
    )]
    Header {
        /// The variable.
        name: String,
        /// Which, by its number or its name, as its value may be secret.
        entry: String,
    },
    /// A file of TLS that can't be read or used.
    #[error("{name} is {path:?}: {why}; name a PEM file that execpool can read")]
    File {
        /// The variable.
        name: String,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A certificate without its key, or the other way round.
    #[error("{name} is set without {other}; set both, or none")]
    Half {
        /// The one that is set.
        name: String,
        /// The one that is missing.
        other: String,
    },
}

/// All that the variables ask for of metrics.
#[derive(Debug, Clone)]
pub struct Standard {
    /// `OTEL_SDK_DISABLED`: nothing is measured.
    pub is_disabled: bool,
    /// Whether `/metrics` is served, where the port is.
    pub prometheus: bool,
    /// Where and how metrics are sent; none: nowhere.
    pub otlp: Option<Otlp>,
    /// From the start of an export to the next.
    pub interval: Duration,
    /// How long one export may take, with all tries.
    pub patience: Duration,
    /// Whether counts go on for ever, or start anew at each export.
    pub temporality: Temporality,
    /// What is ignored, a sentence each.
    pub warnings: Vec<String>,
}

/// Where and how one signal is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Otlp {
    /// `http://host:port` or `https://host:port`, without credentials.
    pub endpoint: String,
    /// Headers of each request, by name. Their values may be secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// How long one export may take, with all tries.
    pub timeout: Duration,
    /// Who is trusted, and who we say we are.
    pub tls: Tls,
}

/// Values of headers are not shown.
impl std::fmt::Debug for Otlp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Otlp")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Otlp {
    /// Whether it goes over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.endpoint.starts_with("https:")
    }

    /// A text without what is secret of the headers.
    #[must_use]
    pub fn without_secrets(&self, text: &str) -> String {
        let values = self
            .headers
            .iter()
            .filter_map(|(_, value)| value.to_str().ok());
        let mut text = text.to_owned();
        for value in values {
            // The token alone, too, without its scheme.
            for part in std::iter::once(value).chain(value.split(' ')) {
                if part.len() >= 4 {
                    text = text.replace(part, SECRET);
                }
            }
        }
        text
    }
}

/// PEM files, as they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may have signed the collector's certificate; none: the authorities that browsers trust.
    pub authorities: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Standard {
    /// What the variables ask for. Reads the files that they name.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(environment: &Environment) -> Result<Self, Vec<StandardError>> {
        let mut reader = Reader {
            environment,
            warnings: Vec::new(),
            errors: Vec::new(),
        };
        let standard = reader.all();
        if reader.errors.is_empty() {
            Ok(standard)
        } else {
            Err(reader.errors)
        }
    }

    /// What is in force, a name and a value each, without secrets.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        if self.is_disabled {
            return vec![("metrics", "off (OTEL_SDK_DISABLED)".to_owned())];
        }
        let mut shown = vec![(
            "prometheus",
            if self.prometheus {
                "/metrics of telemetry.listen"
            } else {
                "off"
            }
            .to_owned(),
        )];
        let Some(otlp) = &self.otlp else {
            shown.push(("otlp", "off (no endpoint)".to_owned()));
            return shown;
        };
        let headers: Vec<String> = otlp
            .headers
            .iter()
            .map(|(name, _)| format!("{name}={SECRET}"))
            .collect();
        let roots = match (otlp.is_tls(), &otlp.tls.authorities) {
            (false, _) => "off",
            (true, None) => "verified by public authorities",
            (true, Some(_)) => "verified by OTEL_EXPORTER_OTLP_CERTIFICATE",
        };
        let temporality = match self.temporality {
            Temporality::Delta => "delta",
            Temporality::LowMemory => "lowmemory",
            _ => "cumulative",
        };
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        shown.extend([
            ("otlp", format!("{} (grpc)", otlp.endpoint)),
            ("otlp.tls", roots.to_owned()),
            ("otlp.headers", headers.join(",")),
            (
                "otlp.compression",
                if otlp.gzip { "gzip" } else { "none" }.to_owned(),
            ),
            (
                "otlp.timeout",
                milliseconds(self.patience.min(otlp.timeout)),
            ),
            ("otlp.interval", milliseconds(self.interval)),
            ("otlp.temporality", temporality.to_owned()),
        ]);
        shown
    }
}

/// Collects what is wrong on the way.
struct Reader<'a> {
    environment: &'a Environment,
    warnings: Vec<String>,
    errors: Vec<StandardError>,
}

impl Reader<'_> {
    fn all(&mut self) -> Standard {
        let is_disabled = self.environment.is_disabled();
        let (otlp, prometheus) = self.exporters();
        let otlp = if otlp && !is_disabled {
            self.otlp(Signal::Metrics)
        } else {
            None
        };
        let interval = self.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60_000);
        let patience = self.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30_000);
        let temporality = self.temporality();
        if let Err(pair) = resource::attributes(self.environment) {
            self.warnings.push(format!(
                "OTEL_RESOURCE_ATTRIBUTES is left aside: {pair:?} in it is no key=value pair"
            ));
        }
        if is_disabled {
            self.errors.clear();
        }
        Standard {
            is_disabled,
            prometheus: prometheus && !is_disabled,
            otlp,
            interval,
            patience,
            temporality,
            warnings: std::mem::take(&mut self.warnings),
        }
    }

    /// Whether OTLP is wanted, and whether `/metrics` is: both, unless it is said.
    fn exporters(&mut self) -> (bool, bool) {
        let Some(said) = self.environment.get("OTEL_METRICS_EXPORTER") else {
            return (true, true);
        };
        let (mut otlp, mut prometheus) = (false, false);
        for name in said
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            match name {
                "otlp" => otlp = true,
                "prometheus" => prometheus = true,
                "none" => {}
                other => self.errors.push(StandardError::Exporter(other.to_owned())),
            }
        }
        (otlp, prometheus)
    }

    /// Where and how this signal is sent; none where no endpoint is set.
    fn otlp(&mut self, signal: Signal) -> Option<Otlp> {
        if let Some(Variable { name, value }) = self.environment.otlp(signal, "PROTOCOL")
            && value != "grpc"
        {
            let value = value.to_owned();
            self.errors.push(StandardError::Protocol { name, value });
        }
        let gzip = self.compression(signal);
        let timeout = self.timeout(signal);
        let mut headers = self.headers(signal);
        let tls = self.tls(signal);
        let endpoint = self.environment.otlp(signal, "ENDPOINT")?;
        let insecure = self.environment.otlp(signal, "INSECURE");
        let insecure = insecure.is_some_and(|said| said.value.eq_ignore_ascii_case("true"));
        let (endpoint, credentials) = match endpoint_of(&endpoint, insecure) {
            Ok(found) => found,
            Err(error) => {
                self.errors.push(error);
                return None;
            }
        };
        let is_said = |name| headers.iter().any(|(known, _)| known == name);
        if let Some(credentials) = credentials
            && !is_said(http::header::AUTHORIZATION)
        {
            headers.push((http::header::AUTHORIZATION, credentials));
        }
        Some(Otlp {
            endpoint,
            headers,
            gzip,
            timeout,
            tls,
        })
    }

    fn compression(&mut self, signal: Signal) -> bool {
        let Some(Variable { name, value }) = self.environment.otlp(signal, "COMPRESSION") else {
            return false;
        };
        match value.to_ascii_lowercase().as_str() {
            "gzip" => true,
            "none" => false,
            _ => {
                self.warnings.push(format!(
                    "{name} is {value:?}, which is neither gzip nor none: nothing is compressed"
                ));
                false
            }
        }
    }

    fn timeout(&mut self, signal: Signal) -> Duration {
        let name = self.environment.otlp(signal, "TIMEOUT");
        let name = name.map_or_else(|| "OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), |said| said.name);
        self.milliseconds(&name, 10_000)
    }

    /// A positive number of milliseconds.
    fn milliseconds(&mut self, name: &str, default: u64) -> Duration {
        let said = self.environment.get(name);
        let number = said.and_then(|said| said.parse().ok());
        // A day is longer than anybody waits, and sums of it are no overflow.
        let number = number.filter(|number| (1..=86_400_000).contains(number));
        if let (Some(said), None) = (said, number) {
            self.warnings.push(format!(
                "{name} is {said:?}, which is no number of milliseconds from 1 to a day: {default} is used"
            ));
        }
        Duration::from_millis(number.unwrap_or(default))
    }

    fn temporality(&mut self) -> Temporality {
        const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let said = self.environment.get(NAME).unwrap_or("cumulative");
        match said.to_ascii_lowercase().as_str() {
            "cumulative" => Temporality::Cumulative,
            "delta" => Temporality::Delta,
            "lowmemory" => Temporality::LowMemory,
            _ => {
                self.warnings.push(format!(
                    "{NAME} is {said:?}, which is none of cumulative, delta, lowmemory: cumulative is used"
                ));
                Temporality::Cumulative
            }
        }
    }

    fn headers(&mut self, signal: Signal) -> Vec<(HeaderName, HeaderValue)> {
        let Some(Variable { name, value }) = self.environment.otlp(signal, "HEADERS") else {
            return Vec::new();
        };
        let entries = value.split(',').map(str::trim).enumerate();
        let mut headers = Vec::new();
        for (at, entry) in entries.filter(|(_, entry)| !entry.is_empty()) {
            match header(entry) {
                Some(header) => headers.push(header),
                None => self.errors.push(StandardError::Header {
                    name: name.clone(),
                    entry: match entry.split_once('=') {
                        Some((key, _)) => format!("{:?}", key.trim()),
                        None => format!("number {}", at + 1),
                    },
                }),
            }
        }
        headers
    }

    fn tls(&mut self, signal: Signal) -> Tls {
        let mut file = |what| {
            let Variable { name, value } = self.environment.otlp(signal, what)?;
            let text = fs::read(value).map_err(|error| error.to_string());
            let text = text.and_then(|text| {
                let is_pem = text.windows(11).any(|part| part == b"-----BEGIN ");
                if is_pem {
                    Ok(text)
                } else {
                    Err("it is no PEM".to_owned())
                }
            });
            match text {
                Ok(text) => Some((name, text)),
                Err(why) => {
                    let path = value.to_owned();
                    self.errors.push(StandardError::File { name, path, why });
                    None
                }
            }
        };
        let authorities = file("CERTIFICATE").map(|(_, text)| text);
        let (certificate, key) = (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY"));
        for (one, other, missing) in [
            (&certificate, "CLIENT_KEY", "CLIENT_CERTIFICATE"),
            (&key, "CLIENT_CERTIFICATE", "CLIENT_KEY"),
        ] {
            if let Some((name, _)) = one
                && self.environment.otlp(signal, other).is_none()
            {
                self.errors.push(StandardError::Half {
                    name: name.clone(),
                    other: name.replace(missing, other),
                });
            }
        }
        let identity = certificate.zip(key);
        Tls {
            authorities,
            identity: identity.map(|((_, certificate), (_, key))| (certificate, key)),
        }
    }
}

fn header(entry: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = entry.split_once('=')?;
    let name: HeaderName = name.trim().to_ascii_lowercase().parse().ok()?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let mut value: HeaderValue = value.parse().ok()?;
    value.set_sensitive(true);
    // tonic takes these for base64.
    (!name.as_str().ends_with("-bin")).then_some((name, value))
}

/// Scheme, host and port of an endpoint; and its user and password, as a header.
fn endpoint_of(
    said: &Variable<'_>,
    insecure: bool,
) -> Result<(String, Option<HeaderValue>), StandardError> {
    let failed = |why: &str| StandardError::Endpoint {
        name: said.name.clone(),
        value: without_credentials(said.value),
        why: why.to_owned(),
    };
    let text = match (said.value.contains("://"), insecure) {
        (true, _) => said.value.to_owned(),
        (false, true) => format!("http://{}", said.value),
        (false, false) => format!("https://{}", said.value),
    };
    let uri: Uri = text.parse().map_err(|_| failed("it is no address"))?;
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err(failed("its scheme is neither http nor https")),
    };
    let authority = uri.authority().ok_or_else(|| failed("it has no host"))?;
    let (credentials, place) = match authority.as_str().rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, authority.as_str()),
    };
    if authority.host().is_empty() {
        return Err(failed("it has no host"));
    }
    // What is no port at all is none to the parser.
    let port = match place.strip_prefix(authority.host()) {
        None | Some("") => None,
        Some(rest) => {
            let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
            let port = port.filter(|port: &u16| *port != 0);
            Some(port.ok_or_else(|| failed("its port is no number from 1 to 65535"))?)
        }
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(failed(
            "it has a path, which OTLP over HTTP has and OTLP over gRPC has not",
        ));
    }
    let port = port.unwrap_or(match scheme {
        "http" => 80,
        _ => 443,
    });
    let endpoint = format!("{scheme}://{}:{port}", authority.host());
    Ok((endpoint, credentials.and_then(basic)))
}

/// User and password as HTTP sends them.
fn basic(credentials: &str) -> Option<HeaderValue> {
    let decoded: Vec<u8> = percent_decode_str(credentials).collect();
    let mut value: HeaderValue = format!("Basic {}", STANDARD.encode(decoded)).parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn without_credentials(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://{SECRET}@{host}"),
        None => format!("{SECRET}@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &[(&str, &str)]) -> Result<Standard, Vec<String>> {
        let owned = all
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        let environment = Environment::new(&owned.collect::<Vec<_>>());
        let errors = |errors: Vec<StandardError>| errors.iter().map(ToString::to_string).collect();
        Standard::read(&environment).map_err(errors)
    }

    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    #[test]
    fn an_endpoint_is_scheme_host_and_port() {
        for (said, insecure, endpoint) in [
            ("http://collector:4317", "", "http://collector:4317"),
            ("https://collector:4317/", "", "https://collector:4317"),
            ("http://collector", "", "http://collector:80"),
            ("https://[::1]:4317", "true", "https://[::1]:4317"),
            ("collector:4317", "", "https://collector:4317"),
            ("collector:4317", "TRUE", "http://collector:4317"),
            (
                "http://user:secret@collector:4317",
                "",
                "http://collector:4317",
            ),
        ] {
            let all = [(ENDPOINT, said), ("OTEL_EXPORTER_OTLP_INSECURE", insecure)];
            assert_eq!(
                read(&all).unwrap().otlp.unwrap().endpoint,
                endpoint,
                "{said}"
            );
        }
    }

    #[test]
    fn what_is_no_endpoint_is_told_with_what_to_write_and_without_a_password() {
        for said in [
            "http://",
            "unix:///run/collector",
            "http://collector:4318/v1/metrics",
            "http://user:secret@collector:none",
            "http://collector:0",
            "http://a b",
            "user:secret@colle ctor",
            "http://collector:99999",
        ] {
            let errors = read(&[(ENDPOINT, said)]).unwrap_err();
            assert_eq!(errors.len(), 1, "{said}: {errors:?}");
            assert!(
                errors[0].contains("http://collector:4317"),
                "{said}: {errors:?}"
            );
            assert!(!errors[0].contains("secret"), "{errors:?}");
        }
    }

    #[test]
    fn headers_are_decoded_and_never_shown() {
        let found = read(&[
            (ENDPOINT, "http://user:secret@collector:4317"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "X-Tenant = a%2Cb , authorization=Bearer%20t0k3n",
            ),
        ])
        .unwrap();
        let shown = format!("{:?}", found.shown());
        assert!(shown.contains("x-tenant=***,authorization=***"), "{shown}");
        let otlp = found.otlp.unwrap();
        let values: Vec<_> = otlp
            .headers
            .iter()
            .map(|(_, value)| value.to_str().unwrap())
            .collect();
        assert_eq!(values, ["a,b", "Bearer t0k3n"]);
        assert!(!shown.contains("t0k3n") && !format!("{otlp:?}").contains("t0k3n"));
        assert_eq!(otlp.without_secrets("bad t0k3n"), "bad ***");
        let errors = read(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=b,t0k3n,ä=t0k3n")]).unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(!errors.concat().contains("t0k3n"), "{errors:?}");
    }

    #[test]
    fn a_number_or_word_that_is_none_is_a_warning_and_the_default() {
        for variable in [
            "OTEL_METRIC_EXPORT_INTERVAL",
            "OTEL_METRIC_EXPORT_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "OTEL_RESOURCE_ATTRIBUTES",
        ] {
            for value in ["nonsense", "-1", "0"] {
                let found =
                    read(&[(ENDPOINT, "http://collector:4317"), (variable, value)]).unwrap();
                assert_eq!(
                    found.warnings.len(),
                    1,
                    "{variable}={value}: {:?}",
                    found.warnings
                );
                assert!(found.warnings[0].contains(variable), "{:?}", found.warnings);
                assert_eq!(found.interval, Duration::from_secs(60));
                let otlp = found.otlp.unwrap();
                assert_eq!((otlp.timeout, otlp.gzip), (Duration::from_secs(10), false));
            }
        }
    }

    #[test]
    fn half_an_identity_and_a_file_that_is_no_pem_are_told() {
        let file = "OTEL_EXPORTER_OTLP_CLIENT_KEY";
        let errors = read(&[(file, "/proc/self/status")]).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains("no PEM") && errors[0].contains(file),
            "{errors:?}"
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        let errors = read(&[(file, path.to_str().unwrap())]).unwrap_err();
        assert!(
            errors[0].contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
            "{errors:?}"
        );
    }

    #[test]
    fn disabled_asks_for_nothing_however_wrong_the_rest_is() {
        let found = read(&[
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            (ENDPOINT, "nonsense:"),
        ])
        .unwrap();
        assert!(found.is_disabled && found.otlp.is_none() && !found.prometheus);
    }
}
