//! `execpool executions`.

use serde_json::Value;

use super::page::{Cell, Colour, Page, count_of, share_of, sum_of, text_of, time_of};

const HEADS: [&str; 13] = [
    "ID", "GEN", "STATE", "KIND", "AGE", "LEFT", "SESSIONS", "RES", "LENT", "OPEN", "WAIT", "HELD",
    "BUSY",
];

/// Writes `GET /v1/executions`.
pub(super) fn show(list: &Value, page: &mut Page) -> bool {
    let executions = list.as_array().map(Vec::as_slice).unwrap_or_default();
    page.table(&HEADS, executions.iter().map(row).collect());
    true
}

fn row(execution: &Value) -> Vec<Cell> {
    let state = text_of(execution, "state");
    let told = match execution["reason"].as_str() {
        Some(reason) => format!("{state} ({reason})"),
        None => state.to_owned(),
    };
    // One that has ended has the time that it lasted.
    let age = ["age_seconds", "duration_seconds"].map(|name| time_of(execution, name));
    let pools = execution["pools"].as_array();
    let sum = |name: &str| {
        let counts = |pools: &Vec<Value>| pools.iter().filter_map(|pool| pool[name].as_u64()).sum();
        let sum: Option<u64> = pools.map(counts);
        Cell::number(sum.map(|sum| sum.to_string()).unwrap_or_default())
    };
    // Of one that has ended, those that were left.
    let resources = ["resources", "resources_left"];
    let resources = resources.iter().find_map(|name| sum_of(execution, name));
    vec![
        Cell::text(text_of(execution, "id")),
        Cell::number(count_of(execution, "generation")),
        Cell::text(told).in_colour(Colour::of_state(state)),
        Cell::text(text_of(execution, "kind")),
        Cell::number(age.concat()),
        Cell::number(time_of(execution, "deadline_seconds")),
        Cell::number(count_of(execution, "sessions")),
        Cell::number(resources.map(|sum| sum.to_string()).unwrap_or_default()),
        sum("lent"),
        sum("open"),
        sum("waiting"),
        Cell::number(time_of(execution, "held_seconds")),
        Cell::number(share_of(execution, "hold_efficiency")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_living_and_the_ended_share_a_table() {
        let list = json!([
            {"id": "shared", "generation": 1, "state": "active", "kind": "shared",
                "reason": null, "age_seconds": 123, "deadline_seconds": null, "sessions": 2,
                "resources": {"browser": 2, "http": 1}, "held_seconds": 10, "hold_efficiency": 0.256,
                "pools": [{"lent": 1, "open": 2, "waiting": 0}, {"lent": 1, "open": 1,
                    "waiting": 4}]},
            {"id": "run", "generation": 2, "state": "ended", "reason": "deadline",
                "duration_seconds": 61, "held_seconds": 0.5, "hold_efficiency": null},
        ]);
        let mut page = Page::new(false);
        show(&list, &mut page);
        let page = page.finish();
        let lines: Vec<Vec<&str>> = page
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            [
                "shared", "1", "active", "shared", "2m03s", "2", "3", "2", "3", "4", "10s", "26%"
            ]
        );
        assert_eq!(
            lines[2],
            ["run", "2", "ended", "(deadline)", "1m01s", "500ms"]
        );
    }
}
