//! The variables that OpenTelemetry and Kubernetes define, read once at the start.

use std::collections::BTreeMap;

/// What of the process's environment telemetry goes by: `OTEL_*`, and what the downward API tells of
/// the pod. It is read at the start, and handed on: nothing below reads the environment itself (the
/// SDK's periodic reader reads `OTEL_METRIC_EXPORT_INTERVAL`, and what is found here replaces it).
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Values may hold credentials.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What is exported: each has variables of its own, which win over those for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Numbers.
    Metrics,
    /// Spans.
    Traces,
}

impl Signal {
    /// As a sentence names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Metrics => "METRICS",
            Self::Traces => "TRACES",
        }
    }
}

/// A variable that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its name.
    pub name: String,
    /// Its value, never empty.
    pub value: &'a str,
}

/// What the downward API is asked for in the chart, and the attribute that it becomes.
pub(super) const DOWNWARD: [(&str, &str); 5] = [
    ("POD_NAME", "k8s.pod.name"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("POD_UID", "k8s.pod.uid"),
    ("NODE_NAME", "k8s.node.name"),
    ("CONTAINER_NAME", "k8s.container.name"),
];

impl Environment {
    /// From all variables of the process.
    #[must_use]
    pub fn new(all: &[(String, String)]) -> Self {
        let kept = all.iter().filter(|(name, value)| {
            let is_downward = DOWNWARD.iter().any(|(known, _)| known == name);
            // Set to nothing is as good as not set: the specification says so.
            !value.trim().is_empty() && (name.starts_with("OTEL_") || is_downward)
        });
        Self(kept.cloned().collect())
    }

    /// The value of one; none where it is not set, or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim())
    }

    /// `OTEL_EXPORTER_OTLP_<what>`, or the signal's own.
    #[must_use]
    pub fn otlp(&self, signal: Signal, what: &str) -> Option<Variable<'_>> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.word());
        [own, format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| {
                let value = self.get(&name)?;
                Some(Variable { name, value })
            })
    }

    /// Whether `OTEL_SDK_DISABLED` says that nothing is measured.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        let said = self.get("OTEL_SDK_DISABLED");
        said.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(all: &[(&str, &str)]) -> Environment {
        let owned = all
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        Environment::new(&owned.collect::<Vec<_>>())
    }

    #[test]
    fn the_signals_own_variable_wins_and_an_empty_one_is_none() {
        let all = environment(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://own:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
            ("PATH", "/bin"),
        ]);
        let endpoint = |signal| all.otlp(signal, "ENDPOINT").unwrap().value.to_owned();
        assert_eq!(endpoint(Signal::Metrics), "http://own:4317");
        assert_eq!(endpoint(Signal::Traces), "http://all:4317");
        assert_eq!(all.get("PATH"), None);
        assert!(!format!("{all:?}").contains("own:4317"));
    }

    #[test]
    fn disabled_is_true_in_any_case_and_nothing_else() {
        for (value, is) in [
            ("true", true),
            ("TRUE", true),
            ("1", false),
            ("false", false),
        ] {
            assert_eq!(
                environment(&[("OTEL_SDK_DISABLED", value)]).is_disabled(),
                is
            );
        }
    }
}
