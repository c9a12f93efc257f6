//! What a new configuration changes of the one that runs. Values alone: nothing is applied here.

use super::knobs::{self, Reload};
use super::{Effective, Loaded, Origin, PasswordSource, Upstream};
use schemars::JsonSchema;
use serde::Serialize;

/// What stands for a value that must not be seen.
const SECRET: &str = "given, not shown";

/// One knob that has another value. The values contain no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Change {
    /// The knob, such as `budget.size`; an upstream's by its place in the new configuration, or
    /// `upstreams[1]` for one that is new or gone.
    #[serde(rename = "knob")]
    pub path: String,
    /// The name of the upstream, where it is an upstream's.
    pub upstream: Option<String>,
    /// What it is; empty: nothing.
    pub old: String,
    /// What it shall be; empty: nothing.
    pub new: String,
    /// Who says so.
    pub origin: Origin,
    /// How it takes effect.
    pub reload: Reload,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &str| match value {
            "" => "nothing".to_owned(),
            value => value.to_owned(),
        };
        let (old, new) = (shown(&self.old), shown(&self.new));
        write!(f, "{}: {old} → {new}", self.path)
    }
}

/// All that a new configuration changes, by whether it can be done while execpool runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Plan {
    /// What takes effect.
    pub applied: Vec<Change>,
    /// What waits for a restart.
    #[serde(rename = "waiting_for_restart")]
    pub waiting: Vec<Change>,
}

impl Plan {
    /// From the configuration that runs to the one that is wanted. Upstreams are the same where
    /// their names are; one that is renamed is gone, and another is new.
    #[must_use]
    pub fn between(running: &Loaded, wanted: &Loaded) -> Self {
        let mut changes = global(running, wanted);
        let old = &running.config.upstreams;
        for (at, upstream) in wanted.config.upstreams.iter().enumerate() {
            match old.iter().position(|other| other.name == upstream.name) {
                Some(before) => changes.extend(changed(running, before, wanted, at)),
                None => changes.push(appeared(wanted, at)),
            }
        }
        let stays = |name: &str| {
            let mut wanted = wanted.config.upstreams.iter();
            wanted.any(|other| other.name == name)
        };
        let gone = old.iter().enumerate();
        let gone = gone.filter(|(_, upstream)| !stays(&upstream.name));
        changes.extend(gone.map(|(at, _)| disappeared(running, at)));
        let (waiting, applied) = changes
            .into_iter()
            .partition(|change| change.reload == Reload::Restart);
        Self { applied, waiting }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.waiting.is_empty()
    }
}

impl Upstream {
    /// Whether server connections that were opened for `self` serve `other` as well: whether they
    /// lead to the same place, in the same way, and are looked after alike.
    #[must_use]
    pub fn has_connections_like(&self, other: &Self) -> bool {
        // Whatever is not set aside here counts, what will be added later too.
        let mut same = self.clone();
        same.name.clone_from(&other.name);
        same.any_user = other.any_user;
        same.pool.size = other.pool.size;
        same.pool.overflow = other.pool.overflow;
        same.pool.timeout = other.pool.timeout;
        same.pool.notice_after = other.pool.notice_after;
        same.pool.mode = other.pool.mode;
        same == *other
    }
}

fn global(running: &Loaded, wanted: &Loaded) -> Vec<Change> {
    let knobs = wanted.origins.0.iter();
    knobs
        .filter(|knob| !knob.path.starts_with("upstreams["))
        .filter_map(|knob| {
            let known = knobs::find(&knob.path)?;
            let reload = known.reload;
            let old = running.origins.get(&knob.path);
            // What waits for a restart is compared as it was written, as it is kept so.
            let same = match reload {
                Reload::Restart => running.raw(known) == wanted.raw(known),
                _ => old.is_some_and(|old| old.value == knob.value),
            };
            (!same).then(|| Change {
                path: knob.path.clone(),
                upstream: None,
                old: old.map(|old| old.value.clone()).unwrap_or_default(),
                new: knob.value.clone(),
                origin: knob.origin.clone(),
                reload,
            })
        })
        .collect()
}

/// What differs of an upstream that stays.
fn changed(running: &Loaded, before: usize, wanted: &Loaded, at: usize) -> Vec<Change> {
    let (was, is) = (
        &running.config.upstreams[before],
        &wanted.config.upstreams[at],
    );
    let mut changes: Vec<Change> = words(running, before, wanted, at)
        .into_iter()
        .filter(|word| {
            let old = value_of(running, before, word);
            old != value_of(wanted, at, word)
                // What follows the global knob before and after is told there.
                && !(follows(running, before, word) && follows(wanted, at, word))
        })
        .map(|word| {
            let path = format!("upstreams[{at}].{word}");
            let origin = wanted.origins.get(&path);
            Change {
                upstream: Some(is.name.clone()),
                old: value_of(running, before, word).to_owned(),
                new: value_of(wanted, at, word).to_owned(),
                origin: origin.map_or(Origin::Default, |knob| knob.origin.clone()),
                // `password` is no knob: it is part of where connections lead.
                reload: knobs::find(&path).map_or(Reload::NewConnections, |knob| knob.reload),
                path,
            }
        })
        .collect();
    let told = |words: &[&str]| {
        let ends = |change: &Change| words.iter().any(|word| change.path.ends_with(word));
        changes.iter().any(ends)
    };
    if was.target != is.target
        && !told(&[
            "].url",
            "].password",
            "].password_file",
            "].password_command",
        ])
    {
        // What differs is not shown: a password in the URL, or the arguments of a command.
        let word = match &is.target.password {
            PasswordSource::Command(_) if was.target.password != is.target.password => {
                "password_command"
            }
            _ => "url",
        };
        let path = format!("upstreams[{at}].{word}");
        let origin = wanted.origins.get(&path);
        changes.push(Change {
            upstream: Some(is.name.clone()),
            old: SECRET.to_owned(),
            new: SECRET.to_owned(),
            origin: origin.map_or(Origin::Default, |knob| knob.origin.clone()),
            reload: Reload::NewConnections,
            path,
        });
    }
    changes
}

/// The words behind `upstreams[…].`, of both.
fn words<'a>(running: &'a Loaded, before: usize, wanted: &'a Loaded, at: usize) -> Vec<&'a str> {
    let mut words: Vec<&str> = own(wanted, at).map(|(word, _)| word).collect();
    for (word, _) in own(running, before) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    // Upstreams are the same by their names, whoever said them.
    words.retain(|word| *word != "name");
    words
}

fn own(loaded: &Loaded, at: usize) -> impl Iterator<Item = (&str, &Effective)> {
    let knobs = loaded.origins.0.iter();
    knobs.filter_map(move |knob| {
        let (index, word) = knobs::upstream_part(&knob.path)?;
        (index == at).then_some((word, knob))
    })
}

fn value_of<'a>(loaded: &'a Loaded, at: usize, word: &str) -> &'a str {
    let mut own = own(loaded, at);
    let found = own.find(|(own, _)| *own == word);
    found.map_or("", |(_, knob)| knob.value.as_str())
}

/// Whether an upstream's knob has nothing of its own to say.
fn follows(loaded: &Loaded, at: usize, word: &str) -> bool {
    let global = loaded.origins.get(word);
    let mut own = own(loaded, at);
    let found = own.find(|(own, _)| *own == word).map(|(_, knob)| knob);
    global
        .zip(found)
        .is_some_and(|(global, own)| global.value == own.value && global.origin == own.origin)
}

fn appeared(wanted: &Loaded, at: usize) -> Change {
    let url = wanted.origins.get(&format!("upstreams[{at}].url"));
    Change {
        path: format!("upstreams[{at}]"),
        upstream: Some(wanted.config.upstreams[at].name.clone()),
        old: String::new(),
        new: url.map(|url| url.value.clone()).unwrap_or_default(),
        origin: url.map_or(Origin::Default, |url| url.origin.clone()),
        reload: Reload::NewSessions,
    }
}

fn disappeared(running: &Loaded, at: usize) -> Change {
    let gone = appeared(running, at);
    Change {
        old: gone.new,
        new: String::new(),
        ..gone
    }
}
