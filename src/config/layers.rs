//! File, environment and flags, laid over each other; later wins.

use super::knobs::{self, KNOBS, UPSTREAM_KNOBS};
use super::nearest::{distance, nearest};
use super::url::redact;
use super::{ConfigError, Kind, Origin, yaml};
use std::collections::BTreeMap;
use std::path::Path;

/// Everything that is said from outside.
pub struct Sources<'a> {
    /// The file's path and content.
    pub file: Option<(&'a Path, &'a str)>,
    /// The environment; what is not ours in it is left alone.
    pub env: Vec<(String, String)>,
    /// Paths of knobs and their values, such as `budget.size` and `20`.
    pub flags: Vec<(String, String)>,
}

/// What was said, by path.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) said: BTreeMap<String, (String, Origin)>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
    /// How many upstreams are spoken of.
    pub(super) upstreams: usize,
}

impl Layer {
    /// Reads all sources.
    pub(super) fn read(sources: &Sources<'_>) -> Self {
        let mut layer = Self::default();
        if let Some((path, text)) = sources.file {
            yaml::read(path, text, &mut layer);
        }
        for (name, value) in &sources.env {
            layer.seed(name, value);
        }
        for (name, value) in &sources.env {
            layer.variable(name, value);
        }
        for (path, value) in &sources.flags {
            layer.set(path, value, Origin::Flag(path.clone()));
        }
        layer
    }

    /// Notes a value, or that there is no such knob.
    pub(super) fn set(&mut self, path: &str, text: &str, origin: Origin) {
        if knobs::find(path).is_some() {
            self.count_upstream(path);
            self.said
                .insert(path.to_owned(), (text.trim().to_owned(), origin));
        } else if self.is_section(path) || path == "upstreams" {
            self.shape(
                path,
                "a mapping of knobs (a list of them for upstreams)",
                origin,
            );
        } else {
            self.unknown(path, origin);
        }
    }

    /// The same for a list.
    pub(super) fn set_list(&mut self, path: &str, items: &[&str], origin: Origin) {
        match knobs::find(path).map(|knob| knob.kind) {
            Some(Kind::Command) => match shlex::try_join(items.iter().copied()) {
                Ok(line) => self.set(path, &line, origin),
                Err(_) => self.shape(path, "words without a zero byte", origin),
            },
            Some(Kind::Uids) | None => self.set(path, &items.join(","), origin),
            Some(_) => self.shape(path, "one value, not a list", origin),
        }
    }

    pub(super) fn shape(&mut self, key: &str, expected: &'static str, origin: Origin) {
        self.errors.push(ConfigError::Shape {
            key: redact(key),
            expected,
            origin,
        });
    }

    /// A mapping where there is a knob, or nothing.
    pub(super) fn not_a_section(&mut self, path: &str, origin: Origin) {
        match path {
            "upstreams" => self.shape(path, "a list of upstreams", origin),
            _ if knobs::find(path).is_some() => {
                self.shape(path, "one value, not a mapping", origin)
            }
            _ => self.unknown(path, origin),
        }
    }

    /// Whether knobs lie below the path.
    pub(super) fn is_section(&mut self, path: &str) -> bool {
        match path
            .strip_prefix("upstreams[")
            .and_then(|rest| rest.split_once(']'))
        {
            Some((index, below)) => {
                let known = matches!(below, "" | ".pool") && knobs::upstream_index(index).is_some();
                if let (true, Some(index)) = (known, knobs::upstream_index(index)) {
                    self.upstreams = self.upstreams.max(index.saturating_add(1));
                }
                known
            }
            None => knobs::is_section(path),
        }
    }

    /// Whether the path is a knob or a section: an empty one says nothing, and is no error.
    pub(super) fn is_known_prefix(&mut self, path: &str) -> bool {
        path == "upstreams" || self.is_section(path) || knobs::find(path).is_some()
    }

    /// Notes that there is no such knob.
    pub(super) fn unknown(&mut self, path: &str, origin: Origin) {
        let found = match knobs::upstream_part(path) {
            Some((index, rest)) => {
                let below = UPSTREAM_KNOBS
                    .iter()
                    .chain(KNOBS.iter().filter(|knob| knob.path.starts_with("pool.")));
                nearest(rest, below.map(|knob| knob.path))
                    .map(|name| format!("upstreams[{index}].{name}"))
            }
            None => match path.split_once('.') {
                None => nearest(path, knobs::sections()).map(str::to_owned),
                Some((section, _)) => {
                    let inside = |knob: &&knobs::Knob| knob.path.split('.').next() == Some(section);
                    let same: Vec<&str> =
                        KNOBS.iter().filter(inside).map(|knob| knob.path).collect();
                    let all = if same.is_empty() {
                        KNOBS.iter().map(|knob| knob.path).collect()
                    } else {
                        same
                    };
                    nearest(path, all).map(str::to_owned)
                }
            },
        };
        self.errors.push(ConfigError::UnknownKey {
            key: redact(path),
            origin,
            nearest: found,
        });
    }

    fn count_upstream(&mut self, path: &str) {
        if let Some((index, _)) = knobs::upstream_part(path) {
            self.upstreams = self.upstreams.max(index.saturating_add(1));
        }
    }

    /// The names that applications with a pool of their own use already.
    fn seed(&mut self, name: &str, value: &str) {
        let value = value.trim();
        if value.is_empty() {
            return;
        }
        let seconds = || {
            if value.bytes().all(|b| b.is_ascii_digit()) {
                format!("{value}s")
            } else {
                value.to_owned()
            }
        };
        let (path, text) = match name {
            "DB_POOL_SIZE" => ("budget.size", value.to_owned()),
            "DB_MAX_OVERFLOW" => ("budget.overflow", value.to_owned()),
            "RESOURCE_CLEANUP_INTERVAL" => ("maintenance.interval", seconds()),
            "MAX_TASK_DURATION" => ("execution.max_duration", seconds()),
            "LOG_RESOURCE_USAGE" => match value.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => match self.said.get("telemetry.status_log") {
                    Some((text, _)) if text == "off" => {
                        let default =
                            knobs::find("telemetry.status_log").map_or("", |knob| knob.default);
                        ("telemetry.status_log", default.to_owned())
                    }
                    _ => return,
                },
                "false" | "0" | "no" | "off" => ("telemetry.status_log", "off".to_owned()),
                _ => {
                    return self.errors.push(ConfigError::Invalid {
                        key: "telemetry.status_log".into(),
                        value: redact(value),
                        allowed: Kind::Switch.allowed(),
                        origin: Origin::Env(name.to_owned()),
                    });
                }
            },
            _ => return,
        };
        self.set(path, &text, Origin::Env(name.to_owned()));
    }

    /// `EXECPOOL_BUDGET__SIZE`; without `__` or a known section it is somebody else's.
    fn variable(&mut self, name: &str, value: &str) {
        let Some(rest) = name.strip_prefix("EXECPOOL_") else {
            return;
        };
        let Some(parts) = Some(rest).filter(|rest| rest.contains("__")) else {
            if let Some(meant) = one_underscore(rest, value) {
                self.warnings.push(format!(
                    "{name} is ignored: parts are joined by two underscores; did you mean EXECPOOL_{meant}?"
                ));
            }
            return;
        };
        let parts: Vec<String> = parts.split("__").map(str::to_ascii_lowercase).collect();
        // Splitting gives at least one part.
        let section = parts.first().map_or("", String::as_str);
        let sections = knobs::sections();
        if !sections.contains(&section) {
            if let Some(near) =
                nearest(section, sections).filter(|near| distance(section, near) <= 2)
            {
                self.warnings.push(format!(
                    "{name} is ignored: there is no section {section}; did you mean {near}?"
                ));
            }
            return;
        }
        let origin = Origin::Env(name.to_owned());
        if section != "upstreams" {
            return self.set(&parts.join("."), value, origin);
        }
        match parts.get(1).and_then(|index| knobs::upstream_index(index)) {
            Some(index) => {
                let mut path = format!("upstreams[{index}]");
                for part in parts.iter().skip(2) {
                    path.push('.');
                    path.push_str(part);
                }
                self.set(&path, value, origin);
            }
            _ => self.shape(
                "upstreams",
                "a number from 0 to 255 and a knob, as in EXECPOOL_UPSTREAMS__0__URL",
                origin,
            ),
        }
    }
}

/// The variable that is meant by one whose parts are joined by one underscore, such as
/// `BUDGET_SIZE`, if it names a knob or nearly does. Kubernetes' own, of Services with such names,
/// mean none: the port of one is an address, and all others are much longer than any knob.
fn one_underscore(rest: &str, value: &str) -> Option<String> {
    let is_services = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    if is_services || rest.contains("SERVICE_") {
        return None;
    }
    let rest = rest.to_ascii_lowercase();
    let upstream = rest.strip_prefix("upstreams_").and_then(|rest| {
        let (index, own) = rest.split_once('_')?;
        Some((knobs::upstream_index(index)?, own))
    });
    let (before, word) = match upstream {
        Some((index, own)) => (format!("upstreams__{index}__"), own),
        None => (String::new(), rest.as_str()),
    };
    let all: Vec<&str> = match upstream {
        Some(_) => {
            let pool = KNOBS.iter().filter(|knob| knob.path.starts_with("pool."));
            UPSTREAM_KNOBS
                .iter()
                .chain(pool)
                .map(|knob| knob.path)
                .collect()
        }
        None => KNOBS.iter().map(|knob| knob.path).collect(),
    };
    let far = |path: &&str| distance(word, &path.replace('.', "_"));
    let meant = all.into_iter().min_by_key(far)?;
    // A slip of one letter in a short word makes another word.
    let allowed = usize::from(word.len() > 6);
    let is_near = far(&meant) <= allowed;
    is_near.then(|| format!("{before}{}", meant.replace('.', "__")).to_ascii_uppercase())
}
