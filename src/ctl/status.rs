//! `execpool status`.

use serde_json::Value;

use super::page::{Cell, Colour, Page, count_of, text_of, time, time_of};

/// Writes `GET /v1/status`.
pub(super) fn show(status: &Value, page: &mut Page) -> bool {
    let version = text_of(status, "version");
    let memory = status["memory"]["resident_bytes"].as_f64();
    let memory = memory.map(|bytes| format!(", {:.1} MiB", bytes / f64::from(1 << 20)));
    page.line(&format!(
        "execpool {version}, up {}{}",
        time_of(status, "uptime_seconds"),
        memory.unwrap_or_default()
    ));
    let mut rows: Vec<Vec<Cell>> = paused(status).into_iter().collect();
    rows.push(budget(&status["budget"]));
    rows.extend(limited(&status["budget"]));
    rows.extend(waits(&status["budget"]));
    rows.extend(exhaustion(&status["exhaustion"]));
    rows.extend(reactor(&status["reactor"]));
    for upstream in status["upstreams"].as_array().into_iter().flatten() {
        rows.push(database(upstream));
    }
    rows.push(executions(&status["executions"]));
    rows.push(sessions(&status["sessions"]));
    rows.extend(oldest(&status["sessions"]["oldest"]));
    rows.extend(leaks(&status["sessions"]));
    rows.extend(rates(&status["rates"]));
    rows.extend(tcp(&status["tcp"]));
    rows.extend(configuration(&status["configuration"]));
    page.table(&["", ""], rows);
    true
}

fn row(name: &str, text: impl AsRef<str>) -> Vec<Cell> {
    vec![Cell::text(name), Cell::text(text)]
}

/// A forgotten pause is an outage.
fn paused(status: &Value) -> Option<Vec<Cell>> {
    let age = time_of(status, "paused_seconds");
    let text = match status["resumes_in_seconds"].is_number() {
        true => format!(
            "for {age}, goes on in {}",
            time_of(status, "resumes_in_seconds")
        ),
        false => format!("for {age}, until execpool resume"),
    };
    let is_paused = status["paused"] == true;
    is_paused.then(|| {
        vec![
            Cell::text("paused"),
            Cell::text(text).in_colour(Colour::Red),
        ]
    })
}

fn budget(budget: &Value) -> Vec<Cell> {
    let text = format!(
        "{} of {} used, {} open, {} idle, {} connecting",
        count_of(budget, "used"),
        count_of(budget, "limit"),
        count_of(budget, "open"),
        count_of(budget, "idle"),
        count_of(budget, "connecting"),
    );
    row("budget", text)
}

fn limited(budget: &Value) -> Option<Vec<Cell>> {
    let effective = count_of(budget, "effective");
    let text = format!("the database allows {effective} for now");
    let limited = budget["limited_by_database"] == true;
    limited.then(|| vec![Cell::default(), Cell::text(text).in_colour(Colour::Red)])
}

fn waits(budget: &Value) -> Option<Vec<Cell>> {
    let waiting = budget["waiting"].as_u64().filter(|waiting| *waiting > 0)?;
    let oldest = time_of(budget, "oldest_wait_seconds");
    let text = format!("{waiting} waiting, the first for {oldest}");
    Some(vec![
        Cell::default(),
        Cell::text(text).in_colour(Colour::Yellow),
    ])
}

/// Whether connections run out, where they do: a sidecar of before says nothing of it.
fn exhaustion(exhaustion: &Value) -> Option<Vec<Cell>> {
    let state = exhaustion["state"].as_str()?;
    let mut text = format!("{state} for {}", time_of(exhaustion, "age_seconds"));
    let cause = match exhaustion["cause"].as_str() {
        Some("database_unreachable") => ": a database does not answer",
        Some("limited_by_database") => ": the database takes fewer connections than the budget",
        Some("queries") => ": most of the connections that are held run queries",
        Some("held") => ": most of the connections that are held do nothing",
        _ => "",
    };
    text.push_str(cause);
    let colour = match state {
        "healthy" => Colour::Green,
        "warning" => Colour::Yellow,
        _ => Colour::Red,
    };
    Some(vec![
        Cell::text("exhaustion"),
        Cell::text(text).in_colour(colour),
    ])
}

/// What is done about exhaustion: a line of what is configured and has been done, and one for each thing that is
/// under way, or in the way. A sidecar of before says nothing of it.
fn reactor(reactor: &Value) -> Vec<Vec<Cell>> {
    let Some(mode) = reactor["restart"].as_str() else {
        return Vec::new();
    };
    let cleanup = match reactor["cleanup"] == true {
        true => "on",
        false => "off",
    };
    let api = text_of(&reactor["kubernetes"], "state");
    let mut text = format!("cleanup {cleanup}, restart {mode}, Kubernetes' API {api}");
    if reactor["dry_run"] == true {
        text.push_str(", dry run: it is only told");
    }
    if reactor["restarts"].as_u64() > Some(0) {
        let many = count_of(reactor, "restarts_last_hour");
        let most = count_of(reactor, "max_restarts_per_hour");
        let last = text_of(reactor, "last_restart");
        text.push_str(&format!(
            "; {many} of {most} restarts in an hour, the last at {last}"
        ));
    }
    if reactor["cooldown_left_seconds"].is_number() {
        let left = time_of(reactor, "cooldown_left_seconds");
        text.push_str(&format!(", none for {left} more"));
    }
    let mut rows = vec![row("reactor", text)];
    let mut more = |text: String, colour| {
        rows.push(vec![Cell::default(), Cell::text(text).in_colour(colour)]);
    };
    let pending = &reactor["pending"];
    if pending.is_object() {
        let sessions = pending["sessions"].as_u64();
        let left = sessions.map(|left| format!(", {left} sessions of before are left"));
        let (mode, age) = (text_of(pending, "mode"), time_of(pending, "age_seconds"));
        let left = left.unwrap_or_default();
        more(
            format!("restart by {mode} under way for {age}{left}"),
            Colour::Red,
        );
    }
    let refused = &reactor["refused"];
    if refused.is_object() {
        let (action, age) = (text_of(refused, "action"), time_of(refused, "age_seconds"));
        let why = text_of(refused, "why");
        more(format!("no {action} {age} ago: {why}"), Colour::Yellow);
    }
    let kubernetes = &reactor["kubernetes"];
    if kubernetes["state"] == "away" {
        let age = time_of(kubernetes, "away_seconds");
        let why = text_of(kubernetes, "why");
        more(
            format!("Kubernetes' API is away for {age}: {why}"),
            Colour::Yellow,
        );
    }
    rows
}

fn database(upstream: &Value) -> Vec<Cell> {
    let name = text_of(upstream, "name");
    let ago = upstream["checked_seconds_ago"].as_f64();
    let ago = ago
        .map(|ago| format!(", {} ago", time(ago)))
        .unwrap_or_default();
    let (text, colour) = match upstream["reachable"].as_bool() {
        Some(true) => {
            let latency = time_of(upstream, "latency_seconds");
            (format!("{name}: answered in {latency}{ago}"), Colour::Green)
        }
        Some(false) => {
            let error = text_of(upstream, "error");
            // It names its upstream as well.
            let named = format!("upstream {name}: ");
            let error = error.strip_prefix(&named).unwrap_or(error);
            (format!("{name}: no answer{ago}: {error}"), Colour::Red)
        }
        None => (format!("{name}: not asked yet"), Colour::Plain),
    };
    vec![Cell::text("upstream"), Cell::text(text).in_colour(colour)]
}

fn executions(counts: &Value) -> Vec<Cell> {
    let mut text = format!(
        "{} active, {} ending",
        count_of(counts, "active"),
        count_of(counts, "ending")
    );
    let ended = above_zero(&counts["ended"], |_| true);
    if !ended.is_empty() {
        text.push_str(&format!("; ended: {ended}"));
    }
    row("executions", text)
}

fn sessions(counts: &Value) -> Vec<Cell> {
    let no_states = ["total", "opened", "closed", "panics", "leak_suspects"];
    let is_state = |name: &str| !no_states.contains(&name);
    let mut text = count_of(counts, "total");
    let states = above_zero(counts, is_state);
    if !states.is_empty() {
        text.push_str(&format!(": {states}"));
    }
    text.push_str(&format!("; {} since the start", count_of(counts, "opened")));
    let refused = above_zero(&counts["refused"], |_| true);
    if !refused.is_empty() {
        text.push_str(&format!("; refused: {refused}"));
    }
    row("sessions", text)
}

/// The session of each state that has stood there for longest, where that says something.
fn oldest(oldest: &Value) -> Option<Vec<Cell>> {
    let states = ["waiting", "active", "idle_in_transaction", "idle"];
    let known = states.iter().filter(|state| oldest[**state].is_object());
    let texts: Vec<String> = known
        .map(|state| {
            let session = &oldest[*state];
            let age = time_of(session, "state_age_seconds");
            format!("{state} {age} (session {})", count_of(session, "id"))
        })
        .collect();
    (!texts.is_empty()).then(|| row("oldest", texts.join(", ")))
}

/// Who seems to be forgotten, where anybody ever was.
fn leaks(sessions: &Value) -> Option<Vec<Cell>> {
    let leaks = &sessions["leaks"];
    leaks["suspect"].as_u64().filter(|ever| *ever > 0)?;
    let now = count_of(sessions, "leak_suspects");
    let text = format!(
        "{now} suspects now; {} ever: {} recovered, {} reclaimed, {} ended",
        count_of(leaks, "suspect"),
        count_of(leaks, "recovered"),
        count_of(leaks, "reclaimed"),
        count_of(leaks, "ended"),
    );
    let colour = match now == "0" {
        true => Colour::Plain,
        false => Colour::Yellow,
    };
    Some(vec![
        Cell::text("leaks"),
        Cell::text(text).in_colour(colour),
    ])
}

/// How fast sessions and executions come and go.
fn rates(rates: &Value) -> Option<Vec<Cell>> {
    let rate = |name: &str| rates[name].as_f64();
    let text = format!(
        "sessions +{:.1} −{:.1}, executions +{:.1} −{:.1} a second",
        rate("sessions_opened_per_second")?,
        rate("sessions_closed_per_second")?,
        rate("executions_begun_per_second")?,
        rate("executions_ended_per_second")?,
    );
    Some(row("rates", text))
}

/// Where clients come in over TCP.
fn tcp(addresses: &Value) -> Option<Vec<Cell>> {
    let addresses = addresses.as_array()?.iter().filter_map(Value::as_str);
    let texts: Vec<&str> = addresses.collect();
    (!texts.is_empty()).then(|| row("tcp", texts.join(", ")))
}

/// Where what runs is not what is configured.
fn configuration(configuration: &Value) -> Vec<Vec<Cell>> {
    let texts = |key: &str| {
        let list = configuration[key].as_array().into_iter().flatten();
        let texts: Vec<&str> = list.filter_map(Value::as_str).collect();
        texts.join("; ")
    };
    let (refused, waiting) = (texts("refused"), texts("waiting_for_restart"));
    let shown = [
        (refused, "refused, what runs stays", Colour::Red),
        (waiting, "wait for a restart", Colour::Yellow),
    ];
    let shown = shown.into_iter().filter(|(text, ..)| !text.is_empty());
    shown
        .map(|(text, what, colour)| {
            let text = Cell::text(format!("{what}: {text}")).in_colour(colour);
            vec![Cell::text("config"), text]
        })
        .collect()
}

/// `2 deleted, 1 deadline`: the counts that are not zero.
fn above_zero(counts: &Value, wanted: impl Fn(&str) -> bool) -> String {
    let counts = counts.as_object().into_iter().flatten();
    let some = counts.filter(|(name, count)| wanted(name) && count.as_u64() > Some(0));
    let texts: Vec<String> = some
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_told_in_a_few_lines() {
        let status = json!({
            "version": "1.2.3", "uptime_seconds": 123.4, "paused": true, "paused_seconds": 61,
             "memory": {"resident_bytes": 8_388_608},
            "budget": {"size": 20, "limit": 30, "effective": 12, "used": 2, "open": 5, "idle": 3,
                "connecting": 0, "waiting": 4, "oldest_wait_seconds": 2.5,
                "limited_by_database": true},
            "reactor": {"restart": "liveness", "cleanup": true, "dry_run": false, "restarts": 3,
                "restarts_last_hour": 1, "max_restarts_per_hour": 2,
                "last_restart": "2026-11-28T10:00:00Z", "cooldown_left_seconds": 62,
                "pending": {"mode": "liveness", "age_seconds": 3, "sessions": 2},
                "refused": {"action": "cleanup", "guard": "queries", "why": "the database is slow",
                    "age_seconds": 90},
                "kubernetes": {"state": "away", "why": "403", "away_seconds": 5}},
            "upstreams": [
                {"name": "app", "reachable": true, "latency_seconds": 0.002,
                    "checked_seconds_ago": 3.2, "error": null},
                {"name": "log", "reachable": false, "checked_seconds_ago": 3.2, "error": "upstream log: away"},
                {"name": "new", "reachable": null, "checked_seconds_ago": null},
            ],
            "executions": {"active": 3, "ending": 0, "ended": {"deleted": 2, "idle": 0}},
            "sessions": {"total": 3, "idle": 2, "active": 1, "waiting": 0, "opened": 9,
                "closed": 6, "refused": {"untagged": 2}, "panics": 0, "leak_suspects": 1,
                "leaks": {"suspect": 4, "recovered": 2, "reclaimed": 0, "ended": 1},
                "oldest": {"idle": {"id": 7, "execution": "run", "state_age_seconds": 62},
                    "active": null}},
            "rates": {"over_seconds": 60, "sessions_opened_per_second": 0.25,
                "sessions_closed_per_second": 0.0, "executions_begun_per_second": 2.0,
                "executions_ended_per_second": 1.96},
            "tcp": ["127.0.0.1:6432", "[::1]:6432"],
            "configuration": {"reloads": 2, "waiting_for_restart": ["listen.port", "log.format"],
                "refused": []},
        });
        let mut page = Page::new(false);
        show(&status, &mut page);
        assert_eq!(
            page.finish(),
            "execpool 1.2.3, up 2m03s, 8.0 MiB\n\
             paused      for 1m01s, until execpool resume\n\
             budget      2 of 30 used, 5 open, 3 idle, 0 connecting\n\
             \u{20}           the database allows 12 for now\n\
             \u{20}           4 waiting, the first for 2s\n\
             reactor     cleanup on, restart liveness, Kubernetes' API away; 1 of 2 restarts in an hour, the last at \
             2026-11-28T10:00:00Z, none for 1m02s more\n\
             \u{20}           restart by liveness under way for 3s, 2 sessions of before are left\n\
             \u{20}           no cleanup 1m30s ago: the database is slow\n\
             \u{20}           Kubernetes' API is away for 5s: 403\n\
             upstream    app: answered in 2ms, 3s ago\n\
             upstream    log: no answer, 3s ago: away\n\
             upstream    new: not asked yet\n\
             executions  3 active, 0 ending; ended: 2 deleted\n\
             sessions    3: 1 active, 2 idle; 9 since the start; refused: 2 untagged\n\
             oldest      idle 1m02s (session 7)\n\
             leaks       1 suspects now; 4 ever: 2 recovered, 0 reclaimed, 1 ended\n\
             rates       sessions +0.2 −0.0, executions +2.0 −2.0 a second\n\
             tcp         127.0.0.1:6432, [::1]:6432\n\
             config      wait for a restart: listen.port; log.format\n"
        );
    }
}
