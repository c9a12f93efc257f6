//! Why a call to the Kubernetes API has failed: the cause, and what to do about it.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// What is asked of the API. Each has the rights that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// Reading the own pod.
    Read,
    /// Writing its annotations.
    Annotate,
    /// Writing its condition.
    Condition,
    /// Posting an event.
    Event,
    /// Having it evicted.
    Evict,
    /// Reading the pod's owner.
    Owner,
    /// Stamping the owner, so that its pods are replaced one by one.
    Rollout,
}

impl Deed {
    /// Its word, as in the log and in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Annotate => "annotate",
            Self::Condition => "condition",
            Self::Event => "event",
            Self::Evict => "evict",
            Self::Owner => "owner",
            Self::Rollout => "rollout",
        }
    }

    /// The right that the Role has to give: verb and resource.
    #[must_use]
    pub const fn right(self) -> &'static str {
        match self {
            Self::Read => "get pods",
            Self::Annotate => "patch pods",
            Self::Condition => "patch pods/status",
            Self::Event => "create and patch events (events.k8s.io)",
            Self::Evict => "create pods/eviction",
            Self::Owner => "get the pod's owner (deployments, statefulsets or daemonsets)",
            Self::Rollout => "patch the pod's owner (deployments, statefulsets or daemonsets)",
        }
    }
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The server is not reached, or the connection broke.
    Away,
    /// It did not answer in time.
    Slow,
    /// 401: it does not take the token.
    Unauthorized,
    /// 403: the service account has no right to it.
    Forbidden,
    /// 404: the object is not there.
    NotFound,
    /// 409: somebody else was faster, or is in the way.
    Conflict,
    /// 422 and its like: the server does not take what it is asked.
    Refused,
    /// 429: too many ask.
    TooMany,
    /// 500 and above: the server has failed.
    Server,
    /// What came is no answer of that API.
    Odd,
}

impl Cause {
    /// Its word, as in the log and in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Slow => "slow",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::TooMany => "too_many_requests",
            Self::Server => "server_error",
            Self::Odd => "odd_answer",
        }
    }

    /// Whether the cause is the server's as a whole, and not one object's or one right's.
    #[must_use]
    pub const fn is_of_all(self) -> bool {
        match self {
            Self::Away | Self::Slow | Self::Unauthorized => true,
            Self::TooMany | Self::Server | Self::Odd => true,
            Self::Forbidden | Self::NotFound | Self::Conflict | Self::Refused => false,
        }
    }

    /// The cause of a status of HTTP that is no success.
    const fn of(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            429 => Self::TooMany,
            400..=499 => Self::Refused,
            500..=599 => Self::Server,
            _ => Self::Odd,
        }
    }
}

/// The most of the server's own words that are repeated.
const WORDS: usize = 300;

/// A call that has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// What was asked for.
    pub deed: Deed,
    /// Why it is not done.
    pub cause: Cause,
    /// When the server wants to be asked again at the soonest.
    pub(super) after: Option<Duration>,
    /// The words of the server, or of the system.
    words: String,
    /// The reasons that the server gives for the cause.
    reasons: Vec<String>,
    /// Whether it is the API that says, of a pod, that it is not there.
    is_no_pod: bool,
}

impl Failure {
    /// One that has no answer of the server's.
    pub(super) fn new(deed: Deed, cause: Cause, words: impl fmt::Display) -> Self {
        Self {
            deed,
            cause,
            after: None,
            words: cut(&words.to_string()),
            reasons: Vec::new(),
            is_no_pod: false,
        }
    }

    /// There is no such pod.
    pub(super) fn no_pod(deed: Deed, words: impl fmt::Display) -> Self {
        Self {
            is_no_pod: true,
            ..Self::new(deed, Cause::NotFound, words)
        }
    }

    /// The server's answer of this status, which is no success.
    pub(super) fn answered(deed: Deed, status: u16, after: Option<Duration>, body: &[u8]) -> Self {
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = String::from_utf8_lossy(body);
        let words = told["message"].as_str().unwrap_or_else(|| text.trim());
        let causes = told["details"]["causes"].as_array();
        let causes = || causes.into_iter().flatten();
        let reasons = causes().filter_map(|cause| cause["reason"].as_str());
        // Such as which budget it is that forbids an eviction.
        let more = causes().find_map(|cause| cause["message"].as_str());
        let more = more
            .filter(|more| !words.contains(more))
            .unwrap_or_default();
        let seconds = told["details"]["retryAfterSeconds"].as_u64();
        Self {
            deed,
            cause: Cause::of(status),
            after: after.or(seconds.map(Duration::from_secs)),
            words: match words.is_empty() {
                true => format!("HTTP status {status}"),
                false => cut(&format!("{words} {more}")),
            },
            reasons: reasons.map(str::to_owned).collect(),
            is_no_pod: status == 404
                && told["reason"] == "NotFound"
                && told["details"]["kind"] == "pods",
        }
    }

    /// The API says that the pod is not there: a 404 of whatever stands before it does not.
    pub(super) fn is_no_pod(&self) -> bool {
        self.is_no_pod
    }

    /// A PodDisruptionBudget forbids it.
    pub(super) fn is_disruption(&self) -> bool {
        self.cause == Cause::TooMany && self.reasons.iter().any(|it| it == "DisruptionBudget")
    }

    /// Another manager owns a field of what was applied.
    pub(super) fn is_of_managers(&self) -> bool {
        self.cause == Cause::Conflict && self.reasons.iter().any(|it| it == "FieldManagerConflict")
    }

    /// The server's own words, cut.
    pub(super) fn words(&self) -> &str {
        &self.words
    }

    /// What to do about it.
    fn advice(&self) -> String {
        let right = self.deed.right();
        match self.cause {
            Cause::Away if self.words.contains("certificate") => {
                "look at ca.crt beside the token, and at what answers there; it is tried again"
                    .into()
            }
            Cause::Away => {
                "look at the API server and at NetworkPolicies; it is tried again".into()
            }
            Cause::Slow => "look at the API server's load; it is tried again".into(),
            Cause::Unauthorized => {
                "look at the token: is it the mounted one, and is the service account still there?"
                    .into()
            }
            Cause::Forbidden if self.words.contains("ValidatingAdmissionPolicy") => {
                "an admission policy forbids it: look at the policy beside the Role".into()
            }
            Cause::Forbidden => format!("give the service account's Role the right to {right}"),
            Cause::NotFound => "nothing is to be done if it was deleted".into(),
            Cause::Conflict => "it is tried again; if it goes on, find who else writes it".into(),
            Cause::Refused => {
                "look at admission policies and webhooks, and at the cluster's version".into()
            }
            Cause::TooMany => {
                "the API server is overloaded or limits this client; it is tried again".into()
            }
            Cause::Server => "look at the API server's log; it is tried again".into(),
            Cause::Odd => {
                "what answers is no Kubernetes API: look at KUBERNETES_SERVICE_HOST and at proxies"
                    .into()
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = match self.deed {
            Deed::Read => "to read the pod",
            Deed::Annotate => "to write the pod's annotations",
            Deed::Condition => "to write the pod's condition",
            Deed::Event => "to post an event",
            Deed::Evict => "to have the pod evicted",
            Deed::Owner => "to read the pod's owner",
            Deed::Rollout => "to stamp the pod's owner",
        };
        let why = match self.cause {
            Cause::Away => "is not reached",
            Cause::Slow => "did not answer in time",
            Cause::Unauthorized => "does not take the token (401)",
            Cause::Forbidden => "forbids it (403)",
            Cause::NotFound => "does not know the object (404)",
            Cause::Conflict => "tells of a conflict (409)",
            Cause::Refused => "does not take it",
            Cause::TooMany => "has too many requests (429)",
            Cause::Server => "has failed (5xx)",
            Cause::Odd => "answered what is no answer",
        };
        let advice = self.advice();
        write!(
            f,
            "asked {wanted}, the Kubernetes API {why}: {}; {advice}",
            self.words
        )
    }
}

/// A text of one line that is not too long.
fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named() {
        let body = br#"{"kind":"Status","message":"pods \"a\" is forbidden: User cannot patch"}"#;
        let failure = Failure::answered(Deed::Condition, 403, None, body);
        let said = failure.to_string();
        assert_eq!(failure.cause, Cause::Forbidden);
        assert!(
            said.contains("patch pods/status") && said.contains("is forbidden"),
            "{said}"
        );
    }

    #[test]
    fn a_disruption_budget_is_told_from_an_overloaded_server() {
        let body = br#"{"message":"Cannot evict pod","details":{"causes":[{"reason":"DisruptionBudget"}]}}"#;
        assert!(Failure::answered(Deed::Evict, 429, None, body).is_disruption());
        let failure = Failure::answered(
            Deed::Evict,
            429,
            Some(Duration::from_secs(3)),
            b"Too many requests",
        );
        assert!(!failure.is_disruption());
        assert_eq!(failure.after, Some(Duration::from_secs(3)));
        let body = br#"{"message":"x","details":{"retryAfterSeconds":7}}"#;
        assert_eq!(
            Failure::answered(Deed::Read, 500, None, body).after,
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn only_the_api_can_say_that_a_pod_is_not_there() {
        let body = br#"{"kind":"Status","reason":"NotFound","details":{"name":"a","kind":"pods"}}"#;
        assert!(Failure::answered(Deed::Read, 404, None, body).is_no_pod());
        for (status, body) in [
            (404, "<html>not found</html>"),
            (404, r#"{"kind":"Status","reason":"NotFound","details":{}}"#),
            (
                403,
                r#"{"kind":"Status","reason":"Forbidden","details":{"kind":"pods"}}"#,
            ),
        ] {
            assert!(!Failure::answered(Deed::Read, status, None, body.as_bytes()).is_no_pod());
        }
    }

    #[test]
    fn long_and_broken_answers_are_cut_to_a_line() {
        let page = "<html>\n".repeat(1000);
        let failure = Failure::answered(Deed::Read, 502, None, page.as_bytes());
        assert!(failure.to_string().len() < 600 && !failure.to_string().contains('\n'));
        let failure = Failure::answered(Deed::Read, 503, None, b"");
        assert!(failure.to_string().contains("503"), "{failure}");
    }
}
