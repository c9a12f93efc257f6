//! What the standard variables ask for of traces.

use std::time::Duration;

use super::super::environment::{Environment, Signal};
use super::{Otlp, Reader, StandardError};

/// How many spans may wait at most, whatever is asked for: room for each is made at the start.
const MOST_WAITING: u32 = 65_536;

/// All that the variables ask for of traces.
#[derive(Debug, Clone)]
pub struct OfTraces {
    /// Where and how they are sent; none: nowhere.
    pub otlp: Option<Otlp>,
    /// Why nothing is sent, where nothing is.
    pub off: Option<&'static str>,
    /// Which are recorded.
    pub sampling: Sampling,
    /// How they are put together for sending.
    pub batch: Batch,
    /// How many attributes, and how many events, a span may have.
    pub limits: (u32, u32),
    /// What is ignored, a sentence each.
    pub warnings: Vec<String>,
}

/// `OTEL_TRACES_SAMPLER` and its argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Whether the word of who asks counts, where somebody asks.
    pub is_parent_based: bool,
    /// The share of the other traces that is recorded, from 0 to 1.
    pub ratio: f64,
    /// Its name.
    pub name: &'static str,
}

/// `OTEL_BSP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// How many spans may wait.
    pub queue: u32,
    /// How many are sent at once.
    pub size: u32,
    /// How long they wait for others.
    pub delay: Duration,
    /// How long one export may take, with all tries.
    pub patience: Duration,
}

impl OfTraces {
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
        let traces = reader.traces();
        if reader.errors.is_empty() {
            Ok(traces)
        } else {
            Err(reader.errors)
        }
    }

    /// What is in force, a name and a value each, without secrets.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let Some(otlp) = &self.otlp else {
            let why = self.off.unwrap_or("no endpoint");
            return vec![("traces", format!("off ({why})"))];
        };
        let Sampling { name, ratio, .. } = self.sampling;
        let sampler = match name.ends_with("ratio") {
            true => format!("{name} {ratio}"),
            false => name.to_owned(),
        };
        vec![
            ("traces", format!("{} (grpc)", otlp.endpoint)),
            ("traces.sampler", sampler),
            ("traces.queue", self.batch.queue.to_string()),
        ]
    }
}

impl Reader<'_> {
    fn traces(&mut self) -> OfTraces {
        let is_disabled = self.environment.is_disabled();
        let is_wanted = self.is_otlp_wanted();
        let otlp = match is_wanted && !is_disabled {
            true => self.otlp(Signal::Traces),
            false => None,
        };
        let off = match (is_disabled, is_wanted, &otlp) {
            (true, _, _) => Some("OTEL_SDK_DISABLED"),
            (false, false, _) => Some("OTEL_TRACES_EXPORTER"),
            (false, true, None) => {
                self.warnings.push(
                    "telemetry.traces is on and sends nothing: set OTEL_EXPORTER_OTLP_ENDPOINT"
                        .to_owned(),
                );
                Some("no endpoint")
            }
            (false, true, Some(_)) => None,
        };
        let sampling = self.sampling();
        let batch = self.batch();
        let limit = |name: &str, reader: &mut Self| reader.count(name, 128, 0, 1024);
        let limits = (
            limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", self),
            limit("OTEL_SPAN_EVENT_COUNT_LIMIT", self),
        );
        if is_disabled {
            self.errors.clear();
        }
        OfTraces {
            otlp,
            off,
            sampling,
            batch,
            limits,
            warnings: std::mem::take(&mut self.warnings),
        }
    }

    fn is_otlp_wanted(&mut self) -> bool {
        match self.environment.get("OTEL_TRACES_EXPORTER") {
            None | Some("otlp") => true,
            Some("none") => false,
            Some(other) => {
                let other = other.to_owned();
                self.errors.push(StandardError::TracesExporter(other));
                false
            }
        }
    }

    /// The specification has a word ignored that is no sampler, and a number that is no share.
    fn sampling(&mut self) -> Sampling {
        const SAMPLERS: [(&str, bool, Option<f64>); 6] = [
            ("parentbased_always_on", true, Some(1.0)),
            ("parentbased_always_off", true, Some(0.0)),
            ("parentbased_traceidratio", true, None),
            ("always_on", false, Some(1.0)),
            ("always_off", false, Some(0.0)),
            ("traceidratio", false, None),
        ];
        let said = self.environment.get("OTEL_TRACES_SAMPLER");
        let found = said.and_then(|said| SAMPLERS.iter().find(|(name, ..)| *name == said));
        if let (Some(said), None) = (said, found) {
            let known = SAMPLERS.map(|(name, ..)| name).join(", ");
            self.warnings.push(format!(
                "OTEL_TRACES_SAMPLER is {said:?}, which is none of {known}: {} is used",
                SAMPLERS[0].0
            ));
        }
        let (name, is_parent_based, ratio) = *found.unwrap_or(&SAMPLERS[0]);
        Sampling {
            is_parent_based,
            ratio: ratio.unwrap_or_else(|| self.ratio()),
            name,
        }
    }

    fn ratio(&mut self) -> f64 {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let said = self.environment.get(NAME);
        let share = said.and_then(|said| said.parse().ok());
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        if let (Some(said), None) = (said, share) {
            self.warnings.push(format!(
                "{NAME} is {said:?}, which is no number from 0 to 1: 1 is used"
            ));
        }
        share.unwrap_or(1.0)
    }

    fn batch(&mut self) -> Batch {
        let queue = self.count("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, MOST_WAITING);
        let size = self.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, MOST_WAITING);
        Batch {
            queue,
            size: size.min(queue),
            delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            patience: self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
        }
    }

    fn count(&mut self, name: &str, default: u32, least: u32, most: u32) -> u32 {
        let said = self.environment.get(name);
        let number = said.and_then(|said| said.parse().ok());
        let number = number.filter(|number| (least..=most).contains(number));
        if let (Some(said), None) = (said, number) {
            self.warnings.push(format!(
                "{name} is {said:?}, which is no number from {least} to {most}: {default} is used"
            ));
        }
        number.unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");

    fn read(all: &[(&str, &str)]) -> Result<OfTraces, Vec<StandardError>> {
        let owned = all
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        OfTraces::read(&Environment::new(&owned.collect::<Vec<_>>()))
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        for (name, arg, is_parent_based, ratio) in [
            ("", "", true, 1.0),
            ("parentbased_always_on", "0.5", true, 1.0),
            ("parentbased_always_off", "", true, 0.0),
            ("parentbased_traceidratio", "0.25", true, 0.25),
            ("always_on", "", false, 1.0),
            ("always_off", "", false, 0.0),
            ("traceidratio", "0.01", false, 0.01),
            ("traceidratio", "", false, 1.0),
        ] {
            let all = [
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", arg),
                ENDPOINT,
            ];
            let found = read(&all).unwrap();
            assert_eq!(found.warnings, Vec::<String>::new(), "{name}");
            let sampling = found.sampling;
            assert_eq!(
                (sampling.is_parent_based, sampling.ratio),
                (is_parent_based, ratio),
                "{name} {arg}"
            );
        }
    }

    #[test]
    fn what_is_no_sampler_and_no_number_is_a_warning() {
        let found = read(&[
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4000000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1"),
        ])
        .unwrap();
        assert_eq!(found.warnings.len(), 5, "{:?}", found.warnings);
        assert_eq!((found.sampling.ratio, found.limits), (1.0, (128, 128)));
        assert_eq!((found.batch.queue, found.batch.size), (2048, 512));
        let found = read(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "jaeger_remote")]).unwrap();
        assert_eq!(found.sampling.name, "parentbased_always_on");
        assert!(
            found.warnings[0].contains("traceidratio"),
            "{:?}",
            found.warnings
        );
    }

    #[test]
    fn a_batch_is_no_larger_than_the_queue() {
        let found = read(&[ENDPOINT, ("OTEL_BSP_MAX_QUEUE_SIZE", "7")]).unwrap();
        assert_eq!((found.batch.queue, found.batch.size), (7, 7));
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }

    #[test]
    fn traces_have_variables_of_their_own() {
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:1");
        let found = read(&[ENDPOINT, own]).unwrap();
        assert_eq!(found.otlp.unwrap().endpoint, "http://own:1");
        let protocol = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        let errors = read(&[ENDPOINT, protocol]).unwrap_err();
        assert!(errors[0].to_string().contains(protocol.0), "{errors:?}");
        let errors = read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")]).unwrap_err();
        assert!(
            errors[0].to_string().contains("otlp, and none"),
            "{errors:?}"
        );
    }

    #[test]
    fn nothing_is_sent_where_nobody_is_named_and_it_is_said_why() {
        let off = |all: &[(&str, &str)]| read(all).unwrap().shown();
        let told = |why: &str| vec![("traces", format!("off ({why})"))];
        assert_eq!(off(&[]), told("no endpoint"));
        assert_eq!(read(&[]).unwrap().warnings.len(), 1);
        let none = ("OTEL_TRACES_EXPORTER", "none");
        assert_eq!(off(&[ENDPOINT, none]), told("OTEL_TRACES_EXPORTER"));
        let disabled = ("OTEL_SDK_DISABLED", "true");
        assert_eq!(off(&[ENDPOINT, disabled]), told("OTEL_SDK_DISABLED"));
    }
}
