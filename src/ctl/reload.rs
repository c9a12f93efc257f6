//! `execpool reload`.

use serde_json::Value;

use super::page::{Page, text_of};

/// Writes the answer of `POST /v1/reload`.
pub(super) fn show(reloaded: &Value, page: &mut Page) -> bool {
    let applied = changes(&reloaded["applied"]);
    let waiting = changes(&reloaded["waiting_for_restart"]);
    if applied.is_empty() && waiting.is_empty() {
        page.line("Nothing has changed.");
    }
    for change in applied {
        let (what, reach) = (line(change), text_of(change, "reload"));
        page.line(&format!("{what} ({reach})"));
    }
    for change in waiting {
        page.line(&format!("{}: this takes a restart", line(change)));
    }
    true
}

fn changes(list: &Value) -> Vec<&Value> {
    list.as_array().into_iter().flatten().collect()
}

fn line(change: &Value) -> String {
    let of = match change["upstream"].as_str() {
        Some(upstream) => format!(" of {upstream}"),
        None => String::new(),
    };
    let value = |key| match text_of(change, key) {
        "" => "–".to_owned(),
        text => text.to_owned(),
    };
    let (knob, old, new) = (text_of(change, "knob"), value("old"), value("new"));
    format!("{knob}{of}: {old} → {new}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_change_is_a_line_and_what_waits_says_so() {
        let reloaded = json!({
            "applied": [
                {"knob": "budget.size", "upstream": null, "old": "20", "new": "5", "reload": "at once"},
                {"knob": "upstreams[1]", "upstream": "log", "old": "", "new": "postgresql://a@b/log",
                    "reload": "new sessions"},
            ],
            "waiting_for_restart": [
                {"knob": "listen.port", "upstream": null, "old": "5432", "new": "6000", "reload": "restart"},
            ],
        });
        let mut page = Page::new(false);
        assert!(show(&reloaded, &mut page));
        assert_eq!(
            page.finish(),
            "budget.size: 20 → 5 (at once)\n\
             upstreams[1] of log: – → postgresql://a@b/log (new sessions)\n\
             listen.port: 5432 → 6000: this takes a restart\n"
        );
        let mut page = Page::new(false);
        show(
            &json!({"applied": [], "waiting_for_restart": []}),
            &mut page,
        );
        assert_eq!(page.finish(), "Nothing has changed.\n");
    }
}
