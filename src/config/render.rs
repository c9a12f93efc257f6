//! The effective configuration, for people and for programs.

use super::knobs::{self, Reload};
use super::{Host, Loaded, Origin, Upstream};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A table: knob, effective value, who said it; and which file was read. Without secrets.
pub fn render(loaded: &Loaded) -> String {
    let rows = rows(loaded);
    let widest = |column: fn(&Row) -> &str| {
        rows.iter()
            .map(|row| column(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (path, value) = (widest(|row| &row.path), widest(|row| &row.value));
    let line = |row: &Row| format!("{:path$}  {:value$}  {}\n", row.path, row.value, row.origin);
    let table: String = rows.iter().map(line).collect();
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    let file = file.map_or("no file".to_owned(), |file| format!("the file is {file}"));
    format!("{table}\n{file}\n")
}

/// The configuration as programs read it, without secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// The file that was read; null: there is none.
    pub file: Option<PathBuf>,
    /// Every knob by its path, such as `budget.size` or `upstreams[0].url`; and by
    /// `upstreams[0] reaches` what an upstream comes to.
    pub knobs: BTreeMap<String, ShownKnob>,
    /// What is allowed and yet likely a mistake.
    pub warnings: Vec<String>,
}

/// One knob as it came out.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShownKnob {
    /// Its value as one would write it; `–` where there is none.
    pub value: String,
    /// Who said it.
    pub origin: String,
    /// How a change takes effect; null for what is no knob.
    pub reload: Option<Reload>,
}

/// The same for programs.
pub fn show(loaded: &Loaded) -> Shown {
    let knob = |row: Row| {
        let Row {
            path,
            value,
            origin,
            reload,
        } = row;
        let knob = ShownKnob {
            value,
            origin,
            reload,
        };
        (path, knob)
    };
    Shown {
        file: loaded.file.clone(),
        knobs: rows(loaded).into_iter().map(knob).collect(),
        warnings: loaded.warnings.clone(),
    }
}

struct Row {
    path: String,
    value: String,
    origin: String,
    /// None for what is no knob.
    reload: Option<Reload>,
}

fn rows(loaded: &Loaded) -> Vec<Row> {
    let mut rows = Vec::new();
    for effective in &loaded.origins.0 {
        let value = if effective.value.is_empty() {
            "–"
        } else {
            effective.value.as_str()
        };
        rows.push(Row {
            path: effective.path.clone(),
            value: value.to_owned(),
            origin: effective.origin.to_string(),
            reload: knobs::find(&effective.path).map(|knob| knob.reload),
        });
    }
    for (index, upstream) in loaded.config.upstreams.iter().enumerate() {
        let url = loaded.origins.get(&format!("upstreams[{index}].url"));
        rows.push(Row {
            path: format!("upstreams[{index}] reaches"),
            value: reaches(upstream),
            origin: url
                .map_or(Origin::Url, |url| url.origin.clone())
                .to_string(),
            reload: None,
        });
    }
    rows
}

fn reaches(upstream: &Upstream) -> String {
    let host = |host: &Host| match host {
        Host::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Host::Tcp { host, port } => format!("{host}:{port}"),
        Host::Unix { dir, port } => format!("{}/.s.PGSQL.{port}", dir.display()),
    };
    let hosts: Vec<String> = upstream.target.hosts.iter().map(host).collect();
    format!(
        "{} as {} at {} (sslmode={})",
        upstream.target.database,
        upstream.target.user,
        hosts.join(", "),
        upstream.target.tls.mode.as_str()
    )
}
