//! Who tells all that: the resource of every metric and span.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_semantic_conventions::resource::{
    SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION,
};
use percent_encoding::percent_decode_str;

use super::environment::{DOWNWARD, Environment};

/// The name of the service where nobody gives another.
const NAME: &str = "execpool";

/// The process as a resource: `service.*`, `telemetry.sdk.*`, and `k8s.*` where the downward API tells
/// them. `OTEL_RESOURCE_ATTRIBUTES` wins over these, `OTEL_SERVICE_NAME` over all. One process asks
/// once, as `service.instance.id` is random where there is no pod.
#[must_use]
pub fn resource(environment: &Environment) -> Resource {
    let downward = DOWNWARD.iter().filter_map(|(variable, attribute)| {
        let value = environment.get(variable)?;
        Some(KeyValue::new(*attribute, value.to_owned()))
    });
    let instance = environment.get("POD_UID").map(str::to_owned);
    let service = [
        KeyValue::new(SERVICE_NAME, NAME),
        KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        KeyValue::new(SERVICE_INSTANCE_ID, instance.unwrap_or_else(random_uuid)),
    ];
    // What is wrong in it was said when the variables were looked at.
    let given = attributes(environment).unwrap_or_default();
    let given = given
        .into_iter()
        .map(|(key, value)| KeyValue::new(key, value));
    let name = environment.get("OTEL_SERVICE_NAME");
    let name = name.map(|name| KeyValue::new(SERVICE_NAME, name.to_owned()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(service)
        .with_attributes(downward)
        .with_attributes(given)
        .with_attributes(name)
        .build()
}

/// `OTEL_RESOURCE_ATTRIBUTES`: `key=value` pairs with commas between them, percent-encoded where
/// they have to be.
///
/// # Errors
/// The pair that is none; all of the variable is left aside then, as the specification says.
pub(super) fn attributes(environment: &Environment) -> Result<Vec<(String, String)>, String> {
    let Some(text) = environment.get("OTEL_RESOURCE_ATTRIBUTES") else {
        return Ok(Vec::new());
    };
    let pairs = text.split(',').map(str::trim);
    let pairs = pairs.filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or(pair)?;
            let key = decoded(key).filter(|key| !key.is_empty()).ok_or(pair)?;
            Ok((key, decoded(value).ok_or(pair)?))
        })
        .collect::<Result<_, &str>>()
        .map_err(str::to_owned)
}

fn decoded(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text.trim()).decode_utf8();
    decoded.ok().map(std::borrow::Cow::into_owned)
}

/// A random UUID (version 4); of zeros where the system has no random numbers.
fn random_uuid() -> String {
    let mut bytes = [0; 16];
    // Without them instances can't be told apart, and all else works.
    let _ = getrandom::fill(&mut bytes);
    let bits = u128::from_be_bytes(bytes);
    let bits = bits & !(0xf000 << 64) & !(0xc000 << 48) | 0x4000 << 64 | 0x8000 << 48;
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::Key;

    fn of(all: &[(&str, &str)]) -> Resource {
        let owned = all
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        resource(&Environment::new(&owned.collect::<Vec<_>>()))
    }

    fn told(resource: &Resource, key: &'static str) -> String {
        let value = resource.get(&Key::from_static_str(key));
        value.map(|value| value.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_pod_is_told_and_the_standard_variables_win() {
        let found = of(&[
            ("POD_NAME", "agents-0"),
            ("POD_NAMESPACE", "prod"),
            ("POD_UID", "8f1c"),
            ("NODE_NAME", "n1"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=b,team=a%2Cb, k8s.node.name = n2 ",
            ),
            ("OTEL_SERVICE_NAME", "c"),
        ]);
        for (key, value) in [
            ("service.name", "c"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", "8f1c"),
            ("k8s.pod.name", "agents-0"),
            ("k8s.namespace.name", "prod"),
            ("k8s.pod.uid", "8f1c"),
            ("k8s.node.name", "n2"),
            ("k8s.container.name", ""),
            ("team", "a,b"),
            ("telemetry.sdk.language", "rust"),
        ] {
            assert_eq!(told(&found, key), value, "{key}");
        }
    }

    #[test]
    fn without_a_pod_each_process_is_another_instance() {
        let (one, other) = (of(&[]), of(&[]));
        let id = told(&one, "service.instance.id");
        assert_ne!(id, told(&other, "service.instance.id"));
        assert!(id.len() == 36 && id.as_bytes()[14] == b'4', "{id}");
        assert!(
            matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
            "{id}"
        );
        assert_eq!(told(&one, "service.name"), "execpool");
    }

    #[test]
    fn attributes_with_one_that_is_none_are_left_aside() {
        let found = of(&[("OTEL_RESOURCE_ATTRIBUTES", "team=a,nonsense")]);
        assert_eq!(told(&found, "team"), "");
    }
}
