//! Every knob of the table is changed while the sidecar runs, and takes effect as the table says.

use std::collections::BTreeMap;

use execpool::config::{KNOBS, Kind, Knob, Reload, UPSTREAM_KNOBS};
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid};

use super::support::{Postgres, Sidecar, eventually};
use super::{SOON, knobs, runs, told};

/// Another valid value of each knob; where there is no entry, the test fails and asks for one.
fn other_value(knob: &str) -> Option<String> {
    let value = match knob {
        "listen.dir" => "/tmp",
        "listen.port" => "6000",
        "listen.mode" => "\"0600\"",
        "listen.group" => return Some(getegid().to_string()),
        "listen.allow_uids" | "control.allow_uids" => return Some(geteuid().to_string()),
        "listen.max_sessions" => "99",
        "control.admin" => "off",
        "telemetry.listen" => "\"off\"",
        "session.idle_in_transaction.notice" => "11s",
        "session.idle_in_transaction.end" => "12m",
        "session.transaction.notice" => "61s",
        "session.transaction.end" => "13m",
        "session.leak_after" => "62s",
        "session.reclaim_leaks" => "true",
        "cleanup.idle_in_transaction" => "63s",
        "exhaustion.warning" => "0.75",
        "exhaustion.wait" => "6s",
        "exhaustion.after" => "11s",
        "exhaustion.sustained_after" => "121s",
        "listen.tcp" => "localhost:0",
        "listen.tcp_password_file" => "/etc/hosts",
        "budget.size" => "5",
        "budget.overflow" => "4",
        "budget.warm" => "3",
        "pool.size" => "4",
        "pool.overflow" => "1",
        "pool.timeout" => "7s",
        "pool.notice_after" => "1s",
        "pool.recycle" => "10m",
        "pool.idle_timeout" => "2m",
        "pool.pre_ping" => "false",
        "pool.ping_after" => "3s",
        "pool.reset" => "RESET ALL",
        "execution.max_duration" => "5m",
        "execution.idle_timeout" => "5s",
        "execution.tombstone" => "1m",
        "execution.untagged" => "session",
        "execution.grace" => "1s",
        "hold.grace" => "3s",
        "maintenance.interval" => "1m",
        "telemetry.status_log" => "1m",
        "telemetry.top_executions" => "5",
        "telemetry.traces" => "true",
        "errors.holders" => "ids",
        "shutdown.grace" => "9s",
        "reactor.kubernetes" => "off",
        "reactor.condition" | "reactor.cleanup" => "off",
        "reactor.restart" => "liveness",
        "reactor.restart_after" => "61s",
        "reactor.cooldown" => "11m",
        "reactor.max_restarts_per_hour" => "3",
        "reactor.app_probe" => "http://127.0.0.1:8080/healthz",
        "reactor.dry_run" => "true",
        "shutdown.mode" => "plain",
        "log.level" => "debug",
        "log.format" => "text",
        "name" => "other",
        "url" => "postgresql://app@127.0.0.1:1/elsewhere",
        "password_file" => "/etc/hostname",
        "password_command" => "/bin/hostname",
        "kind" => "pooler",
        "any_user" => "true",
        "connect_timeout" => "6s",
        "keepalive" => "31s",
        _ => return None,
    };
    Some(value.to_owned())
}

/// A configuration by sections, with one upstream.
struct File {
    sections: BTreeMap<String, BTreeMap<String, String>>,
    upstream: BTreeMap<String, String>,
}

impl File {
    fn new(url: &str) -> Self {
        let mut file = Self {
            sections: BTreeMap::new(),
            upstream: BTreeMap::new(),
        };
        file.set("listen.dir", "\"{dir}\"");
        file.set("telemetry.listen", "127.0.0.1:0");
        // Without it, listen.tcp is an error.
        file.set("listen.tcp_password_file", "/etc/hostname");
        file.upstream.insert("name".to_owned(), "app".to_owned());
        file.upstream.insert("url".to_owned(), format!("\"{url}\""));
        file
    }

    fn set(&mut self, path: &str, value: &str) {
        let (section, knob) = path.split_once('.').unwrap();
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(knob.to_owned(), value.to_owned());
    }

    fn yaml(&self) -> String {
        let flow = |knobs: &BTreeMap<String, String>| {
            let knobs = knobs
                .iter()
                .map(|(knob, value)| match knob.split_once('.') {
                    Some((part, knob)) => format!("{part}: {{{knob}: {value}}}"),
                    None => format!("{knob}: {value}"),
                });
            format!("{{{}}}", knobs.collect::<Vec<String>>().join(", "))
        };
        let mut yaml = format!("upstreams: [{}]\n", flow(&self.upstream));
        for (section, knobs) in &self.sections {
            yaml += &format!("{section}: {}\n", flow(knobs));
        }
        yaml
    }
}

fn has_one_choice(knob: &Knob) -> bool {
    matches!(knob.kind, Kind::Word([_]))
}

fn value_of(knob: &Knob) -> String {
    let value = other_value(knob.path);
    value.unwrap_or_else(|| {
        let path = knob.path;
        panic!("say another valid value of {path} in tests/reload/every_knob.rs")
    })
}

/// Changes a file of the running sidecar to this one, and asserts that the one change in it has the
/// effect that the table says.
async fn takes_effect(sidecar: &Sidecar, file: &File, knob: &Knob, path: &str, shown: &str) {
    let before = sidecar.get("/v1/config").await["knobs"][path]["value"].clone();
    let changes = sidecar.reload(&file.yaml()).await;
    let config = sidecar.get("/v1/config").await;
    let now = &config["knobs"][path]["value"];
    let what = format!("{path}: {changes}");
    let (applied, waiting) = match knob.reload {
        Reload::Restart => {
            assert_eq!(now, &before, "{what}");
            (vec![], vec![path.to_owned()])
        }
        _ => {
            assert_eq!(now, shown, "{what}");
            (vec![path.to_owned()], vec![])
        }
    };
    assert_eq!(knobs(&changes["applied"]), applied, "{what}");
    assert_eq!(knobs(&changes["waiting_for_restart"]), waiting, "{what}");
    assert_eq!(knobs(&config["waiting_for_restart"]), waiting, "{what}");
    let list = [&changes["applied"], &changes["waiting_for_restart"]];
    let change = list.iter().find_map(|list| list.get(0)).unwrap();
    assert_eq!(change["reload"], knob.reload.as_str(), "{what}");
    assert_eq!(
        config["knobs"][path]["reload"],
        knob.reload.as_str(),
        "{what}"
    );
    eventually(SOON, &format!("the log tells of {path}"), async || {
        let lines = told(sidecar, &format!("{path}: "));
        if lines > 0 { Ok(()) } else { Err(lines) }
    })
    .await;
}

#[tokio::test]
async fn every_knob_of_the_table_takes_effect_as_the_table_says() {
    let database = Postgres::shared().database("every_knob").await;
    let url = database.url();
    let plain = File::new(&url).yaml();
    let sidecar = Sidecar::start(plain.clone()).await;
    let mut session = sidecar.session("app", "there").await;
    for knob in KNOBS.iter().filter(|knob| !has_one_choice(knob)) {
        let value = value_of(knob);
        let mut file = File::new(&url);
        file.set(knob.path, &value);
        let shown = value.trim_matches('"');
        takes_effect(&sidecar, &file, knob, knob.path, shown).await;
        if knob.path == "control.admin" {
            // The route is closed now.
            sidecar.configure(&plain);
            sidecar.signal(Signal::SIGHUP);
            runs(&sidecar, "control.admin", knob.default).await;
        }
        sidecar.reload(&plain).await;
        assert_eq!(session.ask("SELECT 1").await, "1", "after {}", knob.path);
    }
}

#[tokio::test]
async fn every_knob_of_an_upstream_takes_effect_as_the_table_says() {
    let database = Postgres::shared().database("every_upstream_knob").await;
    let url = database.url();
    let plain = File::new(&url).yaml();
    let sidecar = Sidecar::start(plain.clone()).await;
    let mut session = sidecar.session("app", "there").await;
    for knob in UPSTREAM_KNOBS.iter().filter(|knob| knob.path != "name") {
        let value = value_of(knob);
        let mut file = File::new(&url);
        file.upstream.insert(knob.path.to_owned(), value.clone());
        let path = format!("upstreams[0].{}", knob.path);
        takes_effect(&sidecar, &file, knob, &path, &value).await;
        sidecar.reload(&plain).await;
        assert_eq!(session.ask("SELECT 1").await, "1", "after {}", knob.path);
    }
    let pool = KNOBS.iter().filter(|knob| knob.path.starts_with("pool."));
    for knob in pool.filter(|knob| !has_one_choice(knob)) {
        let value = value_of(knob);
        let own = knob.path.strip_prefix("pool.").unwrap();
        let mut file = File::new(&url);
        file.upstream
            .insert("pool".to_owned(), format!("{{{own}: {value}}}"));
        let path = format!("upstreams[0].{}", knob.path);
        takes_effect(&sidecar, &file, knob, &path, &value).await;
        sidecar.reload(&plain).await;
        assert_eq!(session.ask("SELECT 1").await, "1", "after {}", knob.path);
    }
    // Another name is another upstream.
    let mut file = File::new(&url);
    file.upstream
        .insert("name".to_owned(), value_of(&UPSTREAM_KNOBS[0]));
    let changes = sidecar.reload(&file.yaml()).await;
    assert_eq!(UPSTREAM_KNOBS[0].path, "name");
    assert_eq!(knobs(&changes["applied"]), ["upstreams[0]", "upstreams[0]"]);
    for change in changes["applied"].as_array().unwrap() {
        assert_eq!(change["reload"], UPSTREAM_KNOBS[0].reload.as_str());
    }
    assert_eq!(session.ask("SELECT 1").await, "1");
}
