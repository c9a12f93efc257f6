//! `execpool executions`.

use serde_json::Value;

use super::page::{Cell, Colour, Page, count_of, cut, share_of, sum_of, text_of, time_of};

const HEADS: [&str; 13] = [
    "ID", "GEN", "STATE", "KIND", "AGE", "LEFT", "SESSIONS", "RES", "LENT", "OPEN", "WAIT", "HELD",
    "BUSY",
];

/// The columns from which on all are shown.
const WIDE: usize = 120;

/// Those that are shown where there is less room.
const NARROW: [usize; 8] = [0, 2, 4, 5, 8, 10, 11, 12];

/// How much of a name is shown there, in characters.
const LONGEST: usize = 20;

/// Writes `GET /v1/executions`, or `GET /v1/executions/{id}`.
pub(super) fn show(list: &Value, page: &mut Page) -> bool {
    let one = std::slice::from_ref(list);
    let executions = list.as_array().map_or(one, Vec::as_slice);
    match page.width() {
        Some(width) if width < WIDE => {
            page.records(
                &NARROW.map(|at| HEADS[at]),
                executions.iter().map(narrow).collect(),
            );
        }
        _ => page.table(&HEADS, executions.iter().map(row).collect()),
    }
    true
}

/// For a terminal of 80 columns: what matters most, and a long name in full on a line of its own.
fn narrow(execution: &Value) -> (Vec<Cell>, String) {
    let id = text_of(execution, "id");
    let mut all = row(execution);
    let mut cells: Vec<Cell> = NARROW.map(|at| std::mem::take(&mut all[at])).into();
    let is_long = id.chars().count() > LONGEST;
    cells[0] = Cell::text(cut(id, LONGEST));
    (
        cells,
        if is_long {
            id.to_owned()
        } else {
            String::new()
        },
    )
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

    #[test]
    fn at_a_terminal_of_80_columns_no_line_is_longer_and_a_long_name_is_whole() {
        let id = "execution-1234567890abcdef1234567890abcdef";
        let list = json!([{
            "id": id, "generation": 12, "state": "ending", "reason": "deadline", "kind": "implicit",
            "age_seconds": 4000, "deadline_seconds": 4000, "sessions": 1000, "held_seconds": 4500,
            "hold_efficiency": 0.01, "pools": [{"lent": 100, "open": 100, "waiting": 1000}],
        }]);
        let mut page = Page::new(false).within(Some(80));
        show(&list, &mut page);
        let page = page.finish();
        assert!(
            page.lines().all(|line| line.chars().count() <= 80),
            "{page}"
        );
        assert!(page.contains(id), "{page}");
    }
}
