//! What is asked is in these files.

use std::path::{Path, PathBuf};

use super::board::{Dashboard, Expression};
use super::rules;

/// Where a page or a file of the repository is.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn dashboards() -> [Dashboard; 2] {
    ["execpool-pod", "execpool-fleet"].map(|uid| {
        let json = text(&format!("deploy/grafana/dashboards/{uid}.json"));
        Dashboard::new(uid, serde_json::from_str(&json).unwrap())
    })
}

/// All that dashboards, recording rules and alerts ask.
pub(crate) fn expressions() -> Vec<Expression> {
    let boards = dashboards();
    let of_boards = boards.iter().flat_map(Dashboard::expressions);
    of_boards.chain(rules::expressions()).collect()
}
