//! `execpool executions ID --events`: the story of an execution.

use serde_json::Value;

use super::page::{Colour, Page, count_of, cut, text_of, time, time_of};

/// How long nothing must have happened for that to be marked, in seconds.
const GAP: f64 = 2.0;

/// Where the text of a line begins, in columns.
const TEXT: usize = 20;

/// How wide a line is where there is no terminal to say so.
const WIDTH: usize = 80;

/// Writes `GET /v1/executions/{id}?events=true`. Whether its events are known.
pub(super) fn show(execution: &Value, page: &mut Page) -> bool {
    head(execution, page);
    let Some(events) = execution["events"].as_array() else {
        let why = match execution["ended_badly"] == false {
            true => {
                "It ended well: its events were not kept. Nothing was refused, forgotten or left."
            }
            false => "Its events are no longer kept: those of later executions took their room.",
        };
        page.line(why);
        return true;
    };
    page.words(&[("    OFFSET   SESSION  WHAT", Colour::Faint)]);
    if let Some(dropped @ 1..) = execution["events_dropped"].as_u64() {
        let gone = format!(
            "… {} gone; the last {} are kept …",
            many(dropped, "older event"),
            events.len()
        );
        mark(&gone, page);
    }
    // Until when something was going on.
    let mut until = None;
    for event in events {
        let offset = event["offset_seconds"].as_f64().unwrap_or_default();
        if let Some(quiet) = until.map(|until: f64| offset - until)
            && quiet >= GAP
            && !is_pause(event)
        {
            mark(&format!("… {} …", time(quiet)), page);
        }
        line(event, offset, page);
        let lasts = has_duration(event).then(|| event["seconds"].as_f64());
        let end = offset + lasts.flatten().unwrap_or_default();
        until = Some(until.map_or(end, |until| end.max(until)));
    }
    let age = ["age_seconds", "duration_seconds"];
    let age = age.iter().find_map(|name| execution[name].as_f64());
    if let (Some(age), Some(until)) = (age, until)
        && age - until >= GAP
        && text_of(execution, "state") != "ended"
    {
        mark(&format!("… {} until now …", time(age - until)), page);
    }
    true
}

/// What it is, before what happened.
fn head(execution: &Value, page: &mut Page) {
    let state = text_of(execution, "state");
    let told = match execution["reason"].as_str() {
        Some(reason) => format!("{state} ({reason})"),
        None => state.to_owned(),
    };
    let badly = match execution["ended_badly"] == true && state == "ended" {
        true => "badly",
        false => "",
    };
    page.words(&[
        (text_of(execution, "id"), Colour::Plain),
        ("generation", Colour::Faint),
        (&count_of(execution, "generation"), Colour::Faint),
        (&told, Colour::of_state(state)),
        (badly, Colour::Red),
    ]);
    let events = execution["events"].as_array();
    let began = events.and_then(|events| events.first());
    let age = ["age_seconds", "duration_seconds"].map(|name| time_of(execution, name));
    let facts = [
        format!("lasted {}", age.concat()),
        format!("{} queries", count_of(execution, "queries")),
        format!("held {}", time_of(execution, "held_seconds")),
        format!("busy {}", time_of(execution, "active_seconds")),
    ];
    page.words(&[(&facts.join(", "), Colour::Faint)]);
    if let Some(first) = began {
        let at = text_of(first, "at");
        page.words(&[
            ("the first event of these was at", Colour::Faint),
            (at, Colour::Faint),
        ]);
    }
}

fn mark(text: &str, page: &mut Page) {
    let text = format!("{}{text}", " ".repeat(TEXT));
    page.words(&[(&text, Colour::Faint)]);
}

/// One event; what has no room goes on in the next line.
fn line(event: &Value, offset: f64, page: &mut Page) {
    let (text, colour) = told(event);
    let ongoing = if event["ongoing"] == true {
        ", up to now"
    } else {
        ""
    };
    let text = format!("{text}{ongoing}");
    let session = event["session_id"].as_u64();
    let session = session.map(|id| format!("#{id}")).unwrap_or_default();
    let room = page.width().unwrap_or(WIDTH).max(TEXT + 20) - TEXT;
    let mut parts = wrapped(&text, room).into_iter();
    let first = parts.next().unwrap_or_default();
    let place = format!("{:>10}  {session:>7}", at(offset));
    page.words(&[(&place, Colour::Faint), (&first, colour)]);
    for part in parts {
        page.words(&[(&format!("{}{part}", " ".repeat(TEXT)), colour)]);
    }
    if let Some(who) = who(event) {
        mark(&cut(&who, room), page);
    }
}

/// `+0.012s` up to a minute, then `+2m10s`.
fn at(offset: f64) -> String {
    match offset < 60.0 {
        true => format!("+{offset:.3}s"),
        false => format!("+{}", time(offset)),
    }
}

/// Text in lines of at most so many characters, cut between words where that can be.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(cut(word, room)),
        }
    }
    lines
}

/// Who a session is, where it is told.
fn who(event: &Value) -> Option<String> {
    let mut parts = Vec::new();
    for (name, word) in [
        ("caller", ""),
        ("label", "label "),
        ("application_name", "application "),
    ] {
        if let Some(text) = event[name].as_str() {
            parts.push(format!("{word}{text}"));
        }
    }
    if let Some(pid) = event["peer_pid"].as_i64() {
        parts.push(format!("process {pid}"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Whether nothing was asked meanwhile: such a time is told by the event itself.
fn is_pause(event: &Value) -> bool {
    matches!(
        text_of(event, "event"),
        "session.idle" | "session.idle_in_transaction"
    )
}

/// Whether its `seconds` begin with it.
fn has_duration(event: &Value) -> bool {
    is_pause(event)
        || matches!(
            text_of(event, "event"),
            "session.queries" | "execution.sessions_gone"
        )
}

fn many(count: u64, what: &str) -> String {
    let end = match count {
        1 => "",
        _ if what.ends_with("query") => {
            return format!("{count} {}ies", what.trim_end_matches('y'));
        }
        _ => "s",
    };
    format!("{count} {what}{end}")
}

fn number(event: &Value, name: &str) -> u64 {
    event[name].as_u64().unwrap_or_default()
}

fn told(event: &Value) -> (String, Colour) {
    let name = text_of(event, "event");
    match name.starts_with("execution.") || name.starts_with("resource.") {
        true => of_the_whole(name, event),
        false => of_a_session(name, event),
    }
}

fn of_the_whole(name: &str, event: &Value) -> (String, Colour) {
    let count = number(event, "count");
    let deadline = match event["deadline_seconds"].is_null() {
        true => "no deadline".to_owned(),
        false => format!("deadline in {}", time_of(event, "deadline_seconds")),
    };
    let last = match event["seconds"].is_null() {
        true => String::new(),
        false => format!(", the last {} later", time_of(event, "seconds")),
    };
    let kind = text_of(event, "kind");
    let reason = text_of(event, "reason");
    let (text, colour) = match name {
        "execution.began" => (format!("began ({kind}), {deadline}"), Colour::Plain),
        "execution.adopted" => (format!("adopted: explicit now, {deadline}"), Colour::Plain),
        "execution.heartbeat" => (format!("{}{last}", many(count, "heartbeat")), Colour::Faint),
        "execution.hold_opened" => (
            format!("hold opened ({} open)", number(event, "holds")),
            Colour::Plain,
        ),
        "execution.hold_closed" => (
            format!("hold closed ({} open)", number(event, "holds")),
            Colour::Yellow,
        ),
        "execution.deadline_near" => (
            format!("{deadline}: {} told", many(count, "session")),
            Colour::Yellow,
        ),
        "execution.ending" => (format!("is ending: {reason}"), Colour::Yellow),
        "execution.sessions_gone" => (
            format!("{} gone{last}", many(count, "session")),
            Colour::Plain,
        ),
        "execution.forced" => (
            format!("{} ended by force", many(count, "backend")),
            Colour::Red,
        ),
        "execution.ended" => match number(event, "leftovers") {
            0 => (format!("ended: {reason}"), Colour::Plain),
            left => (
                format!("ended: {reason}, with {} left", many(left, "backend")),
                Colour::Red,
            ),
        },
        "execution.resources_left" => (
            format!(
                "{} not released: the app is to close them",
                many(count, "resource")
            ),
            Colour::Yellow,
        ),
        "resource.registered" => (format!("registered {count} × {kind}"), Colour::Plain),
        "resource.released" => (
            format!("released {}", many(count, "resource")),
            Colour::Plain,
        ),
        "resource.expired" => (
            format!("{count} × {kind} not released in time"),
            Colour::Yellow,
        ),
        _ => (name.to_owned(), Colour::Plain),
    };
    (text, colour)
}

fn of_a_session(name: &str, event: &Value) -> (String, Colour) {
    let waited = time_of(event, "waited_seconds");
    let lasted = time_of(event, "seconds");
    let (limit, code) = (text_of(event, "limit"), text_of(event, "sqlstate"));
    let pid = count_of(event, "server_pid");
    match name {
        "session.joined" => ("joined".to_owned(), Colour::Plain),
        "checkout.waiting" => (format!("waits: {}", waits_for(limit)), Colour::Yellow),
        "checkout.notice" => (
            format!(
                "was told that it waits, after {waited}: {}",
                waits_for(limit)
            ),
            Colour::Yellow,
        ),
        "checkout.refused" => (
            format!("REFUSED {code} after {waited}: {}", waits_for(limit)),
            Colour::Red,
        ),
        "checkout.failed" => (
            format!("NO CONNECTION {code} after {waited}: the dial failed"),
            Colour::Red,
        ),
        "checkout.ready" => (
            format!("backend {pid} at hand after {waited}"),
            Colour::Plain,
        ),
        "checkout.lent" => (format!("got backend {pid} after {waited}"), Colour::Green),
        "checkout.returned" => {
            let held = time_of(event, "held_seconds");
            match text_of(event, "how") {
                "clean" => (format!("gave it back after {held}"), Colour::Green),
                "rolled_back" => (
                    format!("gave it back after {held} with an open transaction: rolled back"),
                    Colour::Yellow,
                ),
                "reset_failed" => (
                    format!("gave it back after {held}: it could not be reset, and was closed"),
                    Colour::Yellow,
                ),
                _ => (
                    format!("its connection was closed after {held}"),
                    Colour::Yellow,
                ),
            }
        }
        "session.queries" => {
            let queries = many(number(event, "queries"), "query");
            let class = match event["class"].as_str() {
                Some(class) => format!(", with errors of class {class}"),
                None => String::new(),
            };
            let busy = time_of(event, "active_seconds");
            (
                format!("{queries} in {lasted}, busy {busy}{class}"),
                Colour::Plain,
            )
        }
        "session.errors" => {
            let errors = many(number(event, "count"), "error");
            (
                format!("{errors} of the server, the last {code}"),
                Colour::Red,
            )
        }
        "session.transaction_began" => ("a long transaction began".to_owned(), Colour::Plain),
        "session.transaction_ended" => (
            format!("that transaction ended, after {lasted}"),
            Colour::Plain,
        ),
        "session.idle" => (
            format!("… {lasted} idle with a connection …"),
            Colour::Faint,
        ),
        "session.idle_in_transaction" => {
            (format!("… {lasted} idle in transaction …"), Colour::Yellow)
        }
        "session.limit" => {
            let what = match limit.ends_with(".end") {
                true => "ENDED",
                false => "was told",
            };
            let knob = limit.trim_end_matches(".end").trim_end_matches(".notice");
            (format!("{what}: {knob} for {lasted}"), Colour::Red)
        }
        "session.leak_suspect" => (
            format!("suspected of being forgotten: asked nothing for {lasted}"),
            Colour::Yellow,
        ),
        "session.leak_recovered" => (
            format!("asks again after {lasted}: not forgotten"),
            Colour::Green,
        ),
        "session.reclaimed" => ("ENDED by a cleanup, to make room".to_owned(), Colour::Red),
        "session.dismissed" => ("ENDED on request".to_owned(), Colour::Red),
        "session.cancelled" => (
            format!("cancelled: {}", by(text_of(event, "origin"))),
            Colour::Yellow,
        ),
        "session.left" => {
            let queries = many(number(event, "queries"), "query");
            let held = time_of(event, "held_seconds");
            (
                format!("left: {queries}, held a connection for {held}"),
                Colour::Faint,
            )
        }
        _ => (name.to_owned(), Colour::Plain),
    }
}

fn waits_for(limit: &str) -> &str {
    match limit {
        "pool" => "the execution's pool is full",
        "budget" => "the pod's budget is full",
        "database" => "the database takes no more connections",
        "paused" => "an operator has paused everything",
        "away" => "the database is away",
        "dialling" => "a connection is being opened",
        other => other,
    }
}

fn by(origin: &str) -> &str {
    match origin {
        "client" => "by its client",
        "request" => "through the control API",
        "disconnect" => "its client has gone",
        "ended" => "it was ended",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn drawn(execution: &Value, width: Option<usize>) -> String {
        let mut page = Page::new(false).within(width);
        assert!(show(execution, &mut page));
        page.finish()
    }

    fn hung() -> Value {
        json!({
            "id": "run-1", "generation": 1, "state": "active", "reason": null, "age_seconds": 200,
            "queries": 34, "held_seconds": 199, "active_seconds": 0.9, "events_dropped": 3,
            "events": [
                {"at": "2026-11-24T22:15:30.000Z", "offset_seconds": 0, "event": "execution.began",
                    "kind": "implicit", "deadline_seconds": 1800},
                {"at": "2026-11-24T22:15:30.012Z", "offset_seconds": 0.012, "event": "session.joined",
                    "session_id": 12, "caller": "agent.py:7 run < main.py:1 main", "peer_pid": 4711},
                {"at": "2026-11-24T22:15:30.045Z", "offset_seconds": 0.045, "event": "checkout.lent",
                    "session_id": 12, "server_pid": 777, "waited_seconds": 0.032},
                {"at": "2026-11-24T22:15:30.045Z", "offset_seconds": 0.045, "event": "session.queries",
                    "session_id": 12, "queries": 34, "seconds": 1.2, "active_seconds": 0.9},
                {"at": "2026-11-24T22:15:31.245Z", "offset_seconds": 1.245, "ongoing": true,
                    "event": "session.idle_in_transaction", "session_id": 12, "seconds": 130.4},
                {"at": "2026-11-24T22:16:31.245Z", "offset_seconds": 61.3, "session_id": 13,
                    "event": "checkout.refused", "sqlstate": "53300", "limit": "pool",
                    "waited_seconds": 20},
            ],
        })
    }

    #[test]
    fn a_story_reads_like_one() {
        let drawn = drawn(&hung(), None);
        let wanted = "\
run-1 generation 1 active
lasted 3m20s, 34 queries, held 3m19s, busy 900ms
the first event of these was at 2026-11-24T22:15:30.000Z
    OFFSET   SESSION  WHAT
                    … 3 older events gone; the last 6 are kept …
   +0.000s          began (implicit), deadline in 30m00s
   +0.012s      #12 joined
                    agent.py:7 run < main.py:1 main, process 4711
   +0.045s      #12 got backend 777 after 32ms
   +0.045s      #12 34 queries in 1s, busy 900ms
   +1.245s      #12 … 2m10s idle in transaction …, up to now
    +1m01s      #13 REFUSED 53300 after 20s: the execution's pool is full
                    … 1m08s until now …
";
        assert_eq!(drawn, wanted);
    }

    #[test]
    fn in_80_columns_no_line_is_longer() {
        let mut story = hung();
        story["events"][1]["caller"] = "x".repeat(200).into();
        story["events"][5]["limit"] = "session.idle_in_transaction.end ".repeat(6).into();
        let drawn = drawn(&story, Some(80));
        let longest = drawn.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{drawn}");
    }

    #[test]
    fn one_that_ended_well_says_why_there_is_nothing() {
        let ended = json!({"id": "a", "state": "ended", "reason": "idle", "ended_badly": false});
        assert!(drawn(&ended, None).contains("ended well"));
        let gone = json!({"id": "a", "state": "ended", "reason": "deadline", "ended_badly": true});
        assert!(drawn(&gone, None).contains("no longer kept"));
    }
}
