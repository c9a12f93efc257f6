//! The table of knobs, for the documentation.

use super::{KNOBS, Knob, UPSTREAM_KNOBS};

/// The table of `docs/configuration.md`.
pub fn knobs_markdown() -> String {
    let mut text = String::from(
        "| knob | default | takes | a change reaches | meaning |\n|---|---|---|---|---|\n",
    );
    for knob in KNOBS {
        text.push_str(&row("", knob));
    }
    for knob in UPSTREAM_KNOBS {
        text.push_str(&row("upstreams[].", knob));
    }
    text.push_str("| `upstreams[].pool.…` | the global `pool.…` | the same | the same | any `pool` knob, for this upstream |\n");
    text
}

fn row(before: &str, knob: &Knob) -> String {
    let default = if knob.default.is_empty() {
        "–".to_owned()
    } else {
        format!("`{}`", knob.default)
    };
    format!(
        "| `{before}{}` | {default} | {} | {} | {} |\n",
        knob.path,
        knob.kind.allowed(),
        knob.reload.as_str(),
        knob.meaning
    )
}
