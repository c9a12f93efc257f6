//! What the configuration promises.

mod reactor;

use super::*;
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

const URL: &str = "postgresql://app@db:5433/appdb";

fn with(file: &str, env: &[(&str, &str)]) -> Result<Loaded, Vec<ConfigError>> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    load(&Sources {
        file: Some((Path::new("/c.yaml"), file)),
        env,
        flags: vec![],
    })
}

fn good(file: &str, env: &[(&str, &str)]) -> Loaded {
    let mut all = vec![("DATABASE_URL", URL)];
    all.extend(env);
    with(file, &all).unwrap()
}

fn bad(file: &str, env: &[(&str, &str)]) -> String {
    let mut all = vec![("DATABASE_URL", URL)];
    all.extend(env);
    let errors = with(file, &all).unwrap_err();
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn target(url: &str) -> Target {
    with("", &[("DATABASE_URL", url)])
        .unwrap()
        .config
        .upstreams
        .remove(0)
        .target
}

fn url_error(url: &str) -> String {
    with("", &[("DATABASE_URL", url)]).unwrap_err()[0].to_string()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn database_url_alone_gives_every_default() {
    let config = good("", &[]).config;
    let pool = Pool {
        size: 2,
        overflow: 3,
        timeout: seconds(20),
        notice_after: seconds(5),
        recycle: seconds(1800),
        idle_timeout: seconds(300),
        pre_ping: true,
        ping_after: seconds(30),
        mode: PoolMode::Session,
        reset: "DISCARD ALL".into(),
    };
    let upstream = Upstream {
        kind: UpstreamKind::Postgres,
        name: "appdb".into(),
        target: target(URL),
        any_user: false,
        connect_timeout: seconds(5),
        keepalive: seconds(30),
        pool: pool.clone(),
    };
    let listen = Listen {
        dir: "/run/execpool".into(),
        port: 5432,
        mode: 0o660,
        group: None,
        allow_uids: None,
        max_sessions: 10000,
        tcp: None,
    };
    let expected = Config {
        listen,
        control: Control {
            allow_uids: None,
            admin: true,
        },
        upstreams: vec![upstream],
        budget: Budget {
            size: 20,
            overflow: 10,
            warm: 0,
        },
        pool,
        execution: Execution {
            max_duration: Some(seconds(1800)),
            idle_timeout: seconds(60),
            tombstone: seconds(600),
            untagged: Untagged::Shared,
            grace: Duration::ZERO,
        },
        hold: Hold { grace: seconds(2) },
        session: Session {
            idle_in_transaction: Limit {
                notice: Some(Duration::from_secs(10)),
                end: None,
            },
            transaction: Limit {
                notice: Some(Duration::from_secs(60)),
                end: None,
            },
            leak_after: Some(Duration::from_secs(60)),
            reclaim_leaks: false,
        },
        cleanup: Cleanup {
            idle_in_transaction: Duration::from_secs(60),
        },
        exhaustion: Exhaustion {
            warning: Share { thousandths: 800 },
            wait: seconds(5),
            after: seconds(10),
            sustained_after: seconds(120),
        },
        reactor: Reactor {
            kubernetes: KubernetesUse::Auto,
            condition: true,
            cleanup: true,
            restart: None,
            restart_after: seconds(60),
            cooldown: seconds(600),
            max_restarts_per_hour: 2,
            app_probe: None,
            dry_run: false,
        },
        maintenance: Maintenance {
            interval: Some(seconds(300)),
        },
        telemetry: Telemetry {
            listen: Some("[::]:9464".parse().unwrap()),
            status_log: Some(seconds(300)),
            top_executions: 0,
            traces: false,
        },
        errors: Errors {
            holders: Holders::Full,
        },
        shutdown: Shutdown {
            grace: seconds(25),
            mode: ShutdownMode::Sidecar,
        },
        log: Log {
            level: "info".into(),
            format: LogFormat::Auto,
        },
    };
    assert_eq!(config, expected);
}

#[test]
fn every_default_of_the_table_is_what_its_knob_takes() {
    for knob in KNOBS.iter().chain(UPSTREAM_KNOBS) {
        assert!(
            knob.default.is_empty() || knob.kind.parse(knob.default).is_some(),
            "{}",
            knob.path
        );
    }
}

#[test]
fn later_layers_win_and_say_so() {
    let file = "budget:\n  size: 5\n  overflow: 6\n  warm: 1\n";
    let env = [
        ("DATABASE_URL", URL),
        ("DB_MAX_OVERFLOW", "7"),
        ("EXECPOOL_BUDGET__WARM", "2"),
        ("EXECPOOL_BUDGET__SIZE", "8"),
    ];
    let loaded = load(&Sources {
        file: Some((Path::new("/c.yaml"), file)),
        env: env
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect(),
        flags: vec![("budget.size".into(), "9".into())],
    })
    .unwrap();
    assert_eq!(
        loaded.config.budget,
        Budget {
            size: 9,
            overflow: 7,
            warm: 2
        }
    );
    let origin = |path: &str| loaded.origins.get(path).unwrap().origin.clone();
    assert_eq!(origin("budget.size"), Origin::Flag("budget.size".into()));
    assert_eq!(
        origin("budget.overflow"),
        Origin::Env("DB_MAX_OVERFLOW".into())
    );
    assert_eq!(origin("pool.size"), Origin::Default);
    assert_eq!(
        good(file, &[])
            .origins
            .get("budget.overflow")
            .unwrap()
            .origin,
        Origin::File(3)
    );
}

#[test]
fn an_upstreams_pool_is_laid_over_the_global_one() {
    let file = "pool: {size: 4, timeout: 1m30s}\nupstreams:\n  - url: postgresql://a@h/one\n    pool: {overflow: 0}\n  - {name: '*', url: 'postgresql://a@h/two', any_user: true}\n";
    let config = with(file, &[("DATABASE_URL", "ignored")]).unwrap().config;
    let [one, two] = &config.upstreams[..] else {
        panic!()
    };
    assert_eq!(
        (one.name.as_str(), one.pool.size, one.pool.overflow),
        ("one", 4, 0)
    );
    assert_eq!(
        (two.name.as_str(), two.pool.overflow, two.any_user),
        ("*", 3, true)
    );
    assert_eq!(two.pool.timeout, seconds(90));
}

#[test]
fn the_environment_names_upstreams_by_number() {
    let loaded = with(
        "",
        &[
            ("EXECPOOL_UPSTREAMS__0__URL", URL),
            ("EXECPOOL_UPSTREAMS__0__POOL__SIZE", "7"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.config.upstreams[0].pool.size, 7);
}

#[test]
fn names_of_other_pools_are_understood() {
    let env = [
        ("DB_POOL_SIZE", "3"),
        ("RESOURCE_CLEANUP_INTERVAL", "60"),
        ("MAX_TASK_DURATION", "90"),
        ("LOG_RESOURCE_USAGE", "false"),
    ];
    let config = good("", &env).config;
    assert_eq!(config.budget.size, 3);
    assert_eq!(config.maintenance.interval, Some(seconds(60)));
    assert_eq!(config.execution.max_duration, Some(seconds(90)));
    assert_eq!(config.telemetry.status_log, None);
    assert!(bad("", &[("DB_MAX_OVERFLOW", "-1")]).contains("no unlimited overflow"));
}

#[test]
fn variables_that_kubernetes_injects_are_left_alone() {
    let env = [
        ("EXECPOOL_PORT", "tcp://1"),
        ("EXECPOOL_PORT_5432_TCP_ADDR", "x"),
        ("EXECPOOL_SERVICE__ODD", "x"),
    ];
    assert!(good("", &env).warnings.is_empty());
    let warnings = good("", &[("EXECPOOL_BUDGT__SIZE", "1")]).warnings;
    assert!(warnings[0].contains("did you mean budget?"), "{warnings:?}");
    assert!(bad("", &[("EXECPOOL_BUDGET__SZIE", "1")]).contains("did you mean budget.size?"));
}

#[test]
fn a_variable_with_one_underscore_is_told_and_those_of_services_are_not() {
    for (name, meant) in [
        ("EXECPOOL_BUDGET_SIZE", "EXECPOOL_BUDGET__SIZE?"),
        ("EXECPOOL_BUDGET_SZIE", "EXECPOOL_BUDGET__SIZE?"),
        ("EXECPOOL_POOL_IDLE_TIMEOUT", "EXECPOOL_POOL__IDLE_TIMEOUT?"),
        ("EXECPOOL_UPSTREAMS_0_URL", "EXECPOOL_UPSTREAMS__0__URL?"),
        (
            "EXECPOOL_UPSTREAMS_1_POOL_SIZE",
            "EXECPOOL_UPSTREAMS__1__POOL__SIZE?",
        ),
    ] {
        let loaded = good("", &[(name, "3")]);
        let told = &loaded.warnings[0];
        assert!(told.starts_with(name) && told.contains(meant), "{told}");
        assert_eq!(loaded.config.budget.size, 20);
    }
    // Services called execpool, execpool-listen, execpool-log and execpool-budget.
    for (name, value) in [
        ("EXECPOOL_PORT", "tcp://10.0.0.1:5432"),
        ("EXECPOOL_PORT_5432_TCP", "tcp://10.0.0.1:5432"),
        ("EXECPOOL_PORT_5432_TCP_PROTO", "tcp"),
        ("EXECPOOL_PORT_5432_TCP_PORT", "5432"),
        ("EXECPOOL_SERVICE_HOST", "10.0.0.1"),
        ("EXECPOOL_SERVICE_PORT", "5432"),
        ("EXECPOOL_SERVICE_PORT_METRICS", "9464"),
        ("EXECPOOL_LISTEN_PORT", "tcp://10.0.0.1:5432"),
        ("EXECPOOL_LISTEN_PORT_5432_TCP_ADDR", "10.0.0.1"),
        ("EXECPOOL_LOG_SERVICE_HOST", "10.0.0.1"),
        ("EXECPOOL_BUDGET_SERVICE_PORT", "5432"),
        ("EXECPOOL_BUDGET_PORT", "tcp://10.0.0.1:5432"),
        ("EXECPOOL_PG_BIN", "/usr/lib/postgresql/15/bin"),
        ("EXECPOOL_PYTHON", "python3"),
    ] {
        let warnings = good("", &[(name, value)]).warnings;
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
    }
}

#[test]
fn mistakes_of_yaml_are_told_in_plain_words() {
    for (file, told) in [
        (
            "pool: {pre_ping: yes}",
            "\"yes\" is not true or false; write true (file, line 1)",
        ),
        (
            "control: {admin: No}",
            "\"No\" is not true or false; write false",
        ),
        (
            "control: {admin: never}",
            "\"never\" is not true or false (file",
        ),
        (
            "budget: {size: 5, size: 6}",
            "/c.yaml:1:19: the key size is given twice in one mapping; keep one of them",
        ),
        (
            "pool: {size: 1}\nbudget: {size: 5}\npool: {overflow: 1}\n",
            "/c.yaml:3:1: the key pool is given twice",
        ),
        ("budget: [1", "/c.yaml:1:9: unclosed bracket '['"),
    ] {
        let errors = bad(file, &[]);
        assert!(errors.contains(told), "{errors}");
        assert!(!errors.contains("Options"), "{errors}");
    }
}

/// What a new file and environment change.
fn plan(file: &str, new: &str, env: &[(&str, &str)]) -> Plan {
    Plan::between(&good(file, env), &good(new, env))
}

fn told(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_plan_says_what_changes_and_what_waits_for_a_restart() {
    let changed = plan(
        "budget: {size: 5}\nlisten: {port: 1}\n",
        "budget: {size: 6}\nlisten: {port: 2, mode: 0600}\n",
        &[],
    );
    assert_eq!(
        told(&changed.applied),
        ["listen.mode: 0660 → 0600", "budget.size: 5 → 6"]
    );
    assert_eq!(told(&changed.waiting), ["listen.port: 1 → 2"]);
    assert_eq!(changed.applied[1].origin, Origin::File(1));
    assert!(plan("budget: {size: 20}", "# nothing\n\n", &[]).is_empty());
    let env = [("EXECPOOL_BUDGET__SIZE", "7")];
    assert!(plan("budget: {size: 5}", "budget: {size: 6}", &env).is_empty());
}

#[test]
fn what_all_upstreams_follow_is_one_change_and_what_is_their_own_is_theirs() {
    let two = "upstreams: [{name: a, url: postgresql://u@h/a, pool: {size: 9}}, {name: b, url: postgresql://u@h/b}]\n";
    let changed = plan(two, &format!("{two}pool: {{size: 3, overflow: 1}}"), &[]);
    assert_eq!(
        told(&changed.applied),
        ["pool.size: 2 → 3", "pool.overflow: 3 → 1"]
    );
    let other = two.replace("size: 9", "size: 8").replace("h/b", "i/b");
    let changed = plan(two, &other, &[]);
    assert_eq!(
        told(&changed.applied),
        [
            "upstreams[0].pool.size: 9 → 8",
            "upstreams[1].url: postgresql://u@h/b → postgresql://u@i/b"
        ]
    );
    assert_eq!(changed.applied[1].upstream.as_deref(), Some("b"));
}

#[test]
fn upstreams_are_the_same_by_name_wherever_they_stand() {
    let (a, b, c) = (
        "{name: a, url: postgresql://u@h/x}",
        "{name: b, url: postgresql://u@h/y}",
        "{name: c, url: postgresql://u@h/y}",
    );
    let list = |all: &[&str]| format!("upstreams: [{}]", all.join(", "));
    assert!(plan(&list(&[a, b]), &list(&[b, a]), &[]).is_empty());
    let renamed = plan(&list(&[a, b]), &list(&[c, a]), &[]);
    assert_eq!(
        told(&renamed.applied),
        [
            "upstreams[0]: nothing → postgresql://u@h/y",
            "upstreams[1]: postgresql://u@h/y → nothing"
        ]
    );
}

#[test]
fn another_password_is_a_change_that_is_not_shown() {
    let with = |word: &str| format!("upstreams: [{{name: a, url: 'postgresql://u:{word}@h/x'}}]");
    let changed = plan(&with("hunter2"), &with("hunter3"), &[]);
    assert_eq!(changed.applied.len(), 1);
    assert!(!format!("{changed:?}").contains("hunter"), "{changed:?}");
    assert!(!serde_json::to_string(&changed).unwrap().contains("hunter"));
    assert_eq!(changed.applied[0].reload, Reload::NewConnections);
}

#[test]
fn what_waits_for_a_restart_stays_as_it_runs_whatever_else_is_applied() {
    let env = [("DATABASE_URL", URL)];
    let sources = |text: &'static str| Sources {
        file: Some((Path::new("/c.yaml"), text)),
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
        flags: vec![],
    };
    let running = load(&sources("listen: {dir: /run/a@b, port: 7}")).unwrap();
    let new = sources("# moved\nlisten: {dir: /run/c, mode: 0600}\nlog: {format: text}\n");
    let Reloaded { wanted, next } = reload(&new, &running).unwrap();
    assert_eq!(wanted.config.listen.port, 5432);
    let listen = &next.config.listen;
    assert_eq!((listen.port, listen.mode), (7, 0o600));
    assert_eq!(listen.dir, Path::new("/run/a@b"));
    assert_eq!(next.config.log.format, LogFormat::Auto);
    let waiting = Plan::between(&running, &wanted).waiting;
    assert_eq!(waiting.len(), 3, "{waiting:?}");
    assert_eq!(Plan::between(&next, &wanted).waiting.len(), 3);
    assert!(Plan::between(&next, &wanted).applied.is_empty());
    // Back again, nothing waits.
    let back = sources("listen: {dir: /run/a@b, port: 7}");
    let back = reload(&back, &next).unwrap();
    assert!(Plan::between(&next, &back.wanted).waiting.is_empty());
    // What would be wrong after a restart is wrong.
    let long = sources(
        "listen: {dir: /run/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}",
    );
    assert!(reload(&long, &running).is_err());
}

#[test]
fn no_knob_of_an_upstream_takes_a_restart() {
    // Upstreams are told apart by their names, and what is pinned by its place.
    let pool = KNOBS.iter().filter(|knob| knob.path.starts_with("pool."));
    for knob in UPSTREAM_KNOBS.iter().chain(pool) {
        assert_ne!(knob.reload, Reload::Restart, "{}", knob.path);
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert!(
        bad("budgt: {size: 1}", &[])
            .contains("unknown key budgt (file, line 1): did you mean budget?")
    );
    assert!(bad("pool: {tiemout: 1s}", &[]).contains("did you mean pool.timeout?"));
    assert!(bad("upstreams: [{ulr: x}]", &[]).contains("did you mean upstreams[0].url?"));
    assert!(
        bad(
            "upstreams: [{url: 'postgres://a@b/c', pool: {sise: 1}}]",
            &[]
        )
        .contains("did you mean upstreams[0].pool.size?")
    );
    assert!(bad("budget: {sise: }", &[]).contains("did you mean budget.size?"));
}

#[test]
fn wrong_values_name_key_value_and_what_is_allowed() {
    for (file, expected) in [
        (
            "budget: {size: 0}",
            "budget.size: \"0\" is not a whole number from 1 to 1000000 (file, line 1)",
        ),
        (
            "pool: {timeout: 20}",
            "pool.timeout: \"20\" is not a duration with its unit",
        ),
        ("pool: {mode: transaction}", "not served by this version"),
        ("listen: {port: 70000}", "from 1 to 65535"),
        ("listen: {mode: 999}", "permissions in octal"),
        ("listen: {allow_uids: []}", "any, or one or more"),
        ("log: {level: inof}", "a level"),
        ("budget: {size: {a: 1}}", "one value, not a mapping"),
        ("budget: [1]", "expected a mapping"),
        ("budget: 3", "expected a mapping"),
        ("upstreams: {url: x}", "a list of upstreams"),
        (
            "budget: {size: 2, warm: 3}",
            "budget.warm: 3 is over budget.size, which is 2",
        ),
        ("upstreams: [{name: x}]", "upstreams[0].url: missing"),
        (
            "upstreams: [{url: 'postgres://a@b/c'}, {url: 'postgres://a@d/c'}]",
            "\"c\" is taken",
        ),
        (
            "upstreams: [{url: 'postgres://a:b@b/c', password_file: /x}]",
            "one of the two",
        ),
        (
            "upstreams: [{url: 'postgres://a@/c?host=/run/execpool'}]",
            "own socket",
        ),
        ("just text", "/c.yaml:1:1: expected a mapping"),
    ] {
        assert!(
            bad(file, &[]).contains(expected),
            "{file}: {}",
            bad(file, &[])
        );
    }
    assert!(bad("a:\n  b: [", &[]).starts_with("/c.yaml:"));
    let long = format!("listen: {{dir: /{}}}", "x".repeat(100));
    assert!(bad(&long, &[]).contains("at most 107"));
}

#[test]
fn log_resource_usage_ends_a_files_silence_and_keeps_its_interval() {
    let status = |file: &str| {
        good(file, &[("LOG_RESOURCE_USAGE", "true")])
            .config
            .telemetry
            .status_log
    };
    assert_eq!(status("telemetry: {status_log: off}"), Some(seconds(300)));
    assert_eq!(status("telemetry: {status_log: 1m}"), Some(seconds(60)));
}

#[test]
fn a_slip_in_an_upstreams_number_is_an_error() {
    let flags = vec![("upstreams[99999999999].url".into(), URL.into())];
    let sources = Sources {
        file: None,
        env: vec![],
        flags,
    };
    assert!(load(&sources).is_err());
    assert!(bad("'upstreams[99999999999]': {pool: {size: 1}}", &[]).contains("unknown key"));
    assert!(bad("", &[("EXECPOOL_UPSTREAMS__999__URL", URL)]).contains("from 0 to 255"));
    assert!(bad("", &[("EXECPOOL_UPSTREAMS__0", URL)]).contains("expected"));
}

#[test]
fn all_errors_are_told_at_once() {
    let errors = with("budget: {size: 0}\npool: {sise: 1}\n", &[]).unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors.contains(&ConfigError::NoUpstream));
}

#[test]
fn permissions_are_octal_however_they_are_written() {
    for text in ["0660", "660", "\"0660\"", "\"0o660\""] {
        let file = format!("listen: {{mode: {text}}}");
        let mode = with(&file, &[("DATABASE_URL", URL)]).map(|loaded| loaded.config.listen.mode);
        assert_eq!(mode, Ok(0o660), "{text}");
    }
    assert!(bad("listen: {mode: 0o660}", &[]).contains("quote it"));
    assert!(good("listen: {mode: 0666}", &[]).warnings[0].contains("0666"));
}

#[test]
fn switches_lists_and_off_are_taken_as_written() {
    let file = "control: {admin: off, allow_uids: [1, 2]}\nlisten: {allow_uids: 7}\nexecution: {max_duration: off}\nbudget:\n";
    let config = good(
        file,
        &[("EXECPOOL_LOG__LEVEL", "info,execpool::pool=debug")],
    )
    .config;
    assert_eq!(
        config.control,
        Control {
            allow_uids: Some(vec![1, 2]),
            admin: false
        }
    );
    assert_eq!(config.listen.allow_uids, Some(vec![7]));
    assert_eq!(config.execution.max_duration, None);
}

#[test]
fn a_pool_over_the_budget_is_a_warning() {
    assert!(good("pool: {size: 40}", &[]).warnings[0].contains("43"));
}

#[test]
fn durations_have_units() {
    assert_eq!(value::duration("1m30s"), Some(seconds(90)));
    assert_eq!(value::duration("250ms"), Some(Duration::from_millis(250)));
    for text in [
        "",
        "5",
        "s",
        "5x",
        "-1s",
        "1.5s",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert_eq!(value::duration(text), None, "{text}");
    }
}

#[test]
fn urls_are_read_as_libpq_reads_them() {
    let unix = |dir: &str, port| Host::Unix {
        dir: dir.into(),
        port,
    };
    let tcp = |host: &str, port| Host::Tcp {
        host: host.into(),
        port,
    };
    assert_eq!(
        target("postgresql://app@/db?host=/dir&port=99").hosts,
        [unix("/dir", 99)]
    );
    assert_eq!(
        target("postgresql://app@%2Fdir:98/db").hosts,
        [unix("/dir", 98)]
    );
    assert_eq!(target("postgresql:///db?host=/dir&user=u").user, "u");
    assert_eq!(target("postgres://u@[::1]:7/db").hosts, [tcp("::1", 7)]);
    assert_eq!(target("postgres://u@[::1]/db").hosts, [tcp("::1", 5432)]);
    assert_eq!(
        target("postgres://u@a:1,b/db").hosts,
        [tcp("a", 1), tcp("b", 5432)]
    );
    assert_eq!(
        target("postgres:///db?user=u&host=a,b&port=6").hosts,
        [tcp("a", 6), tcp("b", 6)]
    );
    assert_eq!(target("postgres://u@a").database, "u");
    assert_eq!(target("postgres://u@a/x%20y").database, "x y");
    let full =
        target("postgres://u:p%40%2F@a/d?options=-c%20x%3D1&application_name=z&sslmode=disable");
    assert_eq!(full.password, PasswordSource::Given(Secret::new("p@/")));
    assert_eq!(
        full.parameters,
        [
            ("options".into(), "-c x=1".into()),
            ("application_name".into(), "z".to_owned())
        ]
    );
    assert_eq!(full.tls.mode, SslMode::Disable);
}

#[test]
fn knobs_in_the_url_yield_to_those_outside() {
    let url = "postgresql://a@h/d?connect_timeout=9&keepalives_idle=8";
    let env = [
        ("EXECPOOL_UPSTREAMS__0__URL", url),
        ("EXECPOOL_UPSTREAMS__0__KEEPALIVE", "7s"),
    ];
    let loaded = with("", &env).unwrap();
    assert_eq!(loaded.config.upstreams[0].connect_timeout, seconds(9));
    assert_eq!(loaded.config.upstreams[0].keepalive, seconds(7));
    assert_eq!(
        loaded
            .origins
            .get("upstreams[0].connect_timeout")
            .unwrap()
            .origin,
        Origin::Url
    );
}

#[test]
fn urls_that_cannot_be_used_say_why() {
    for (url, expected) in [
        ("mysql://a@b/c", "must begin with"),
        ("postgresql+asyncpg://a@b/c", "driver's suffix"),
        ("postgres://b/c", "no user"),
        ("postgres://a@/c", "no host"),
        ("postgres://a@b:0/c", "port"),
        ("postgres://a@b:99999/c", "port"),
        ("postgres://a@[::1/c", "brackets"),
        ("postgres://a@b/c%zz", "%25"),
        (
            "postgres://a@b/c?sslmode=verify-full",
            "sslmode=verify-full needs sslrootcert",
        ),
        (
            "postgres://a@b/c?sslmod=disable",
            "nearest known one is sslmode",
        ),
        ("postgres://a@b/c?sslcrl=x", "sslcrl is not served"),
        ("postgres://a@b/c?sslcert=x", "belong together"),
        ("postgres://a@b/c?sslmode=on", "must be disable, allow"),
        (
            "postgres://a@b/c?sslnegotiation=direct",
            "require, verify-ca",
        ),
        (
            "postgres://a@b/c?sslrootcert=system&sslmode=require",
            "verify-full with sslrootcert=system",
        ),
        (
            "postgres://a@b/c?ssl_min_protocol_version=TLSv1",
            "TLSv1.2 or TLSv1.3",
        ),
        ("postgres://a@b/c?target_session_attrs=master", "any"),
        (
            "postgres://a@b/c?load_balance_hosts=random",
            "load_balance_hosts must be disable",
        ),
        ("postgres://a@b/c?host=a,b,c&port=1,2", "number of ports"),
        ("postgres://a@b/c?host", "without a value"),
    ] {
        assert!(
            url_error(url).contains(expected),
            "{url}: {}",
            url_error(url)
        );
    }
}

#[test]
fn what_a_url_lacks_comes_from_the_environment() {
    let env = [
        ("DATABASE_URL", "postgres:///"),
        ("PGUSER", "u"),
        ("PGHOST", "h"),
        ("PGPORT", "9"),
        ("PGPASSWORD", "w"),
    ];
    let target = with("", &env).unwrap().config.upstreams.remove(0).target;
    assert_eq!(
        target.hosts,
        [Host::Tcp {
            host: "h".into(),
            port: 9
        }]
    );
    assert_eq!((target.user.as_str(), target.database.as_str()), ("u", "u"));
    assert_eq!(target.password, PasswordSource::Given(Secret::new("w")));
}

#[test]
fn a_command_is_a_list_or_a_text_and_shows_its_program_alone() {
    for said in [
        "[/bin/token, --user, 'a b']",
        "\"/bin/token --user 'a b'\"",
        "\"/bin/token  --user a\\\\ b\"",
    ] {
        let yaml = format!("upstreams: [{{url: 'postgres://a@b/c', password_command: {said}}}]");
        let loaded = good(&yaml, &[]);
        let words = ["/bin/token", "--user", "a b"].map(str::to_owned);
        let password = &loaded.config.upstreams[0].target.password;
        assert_eq!(*password, PasswordSource::Command(words.to_vec()), "{said}");
        let shown = loaded.origins.get("upstreams[0].password_command").unwrap();
        assert_eq!(shown.value, "/bin/token …");
    }
    for (wrong, why) in [
        ("\"/bin/token 'x\"", "is not a list of a program"),
        ("\"  \"", "is not a list of a program"),
        ("['', x]", "is not a list of a program"),
        ("{a: b}", "not a mapping"),
        ("[[a]]", "a list of plain values"),
    ] {
        let yaml = format!("upstreams: [{{url: 'postgres://a@b/c', password_command: {wrong}}}]");
        let errors = with(&yaml, &[]).unwrap_err();
        let told = errors[0].to_string();
        assert!(
            told.contains(why) && !told.contains("token"),
            "{wrong}: {told}"
        );
    }
}

#[test]
fn a_password_comes_from_one_place() {
    let places = [
        ("url", "url: 'postgres://a:b@b/c'"),
        ("password_file", "password_file: /x"),
        ("password_command", "password_command: /x"),
    ];
    for (at, (first, one)) in places.iter().enumerate() {
        for (second, other) in &places[at + 1..] {
            let url = if *first == "url" {
                ""
            } else {
                ", url: 'postgres://a@b/c'"
            };
            let yaml = format!("upstreams: [{{{one}, {other}{url}}}]");
            let errors = with(&yaml, &[]).unwrap_err();
            let told = format!(
                "upstreams[0].{second}: the {first} gives a password as well; keep one of the two"
            );
            assert_eq!(errors[0].to_string(), told);
        }
    }
    let env = [("PGPASSWORD", "w")];
    let yaml = "upstreams: [{url: 'postgres://a@b/c', password_command: /x}]";
    let command = PasswordSource::Command(vec!["/x".to_owned()]);
    assert_eq!(
        good(yaml, &env).config.upstreams[0].target.password,
        command
    );
}

#[test]
fn a_pooler_is_told_what_it_does_not_use() {
    let yaml = "upstreams: [{url: 'postgres://a@b/c', kind: pooler, pool: {reset: RESET ALL}}]\nbudget: {warm: 1}";
    let loaded = good(yaml, &[]);
    assert_eq!(loaded.config.upstreams[0].kind, UpstreamKind::Pooler);
    let told = loaded.warnings.join("\n");
    assert!(
        told.contains("pool.reset") && told.contains("budget.warm"),
        "{told}"
    );
}

#[test]
fn the_rendering_shows_value_and_origin() {
    let loaded = good("budget: {size: 7}", &[]);
    let line = render(&loaded)
        .lines()
        .find(|line| line.starts_with("budget.size "))
        .unwrap()
        .to_owned();
    assert!(
        line.contains(" 7 ") && line.ends_with("file, line 1"),
        "{line}"
    );
    assert!(render(&loaded).contains("appdb as app at db:5433"));
    let word = good("", &[("PGPASSWORD", "w")]);
    let password = word.origins.get("upstreams[0].password").unwrap();
    assert_eq!(password.origin, Origin::Env("PGPASSWORD".into()));
    assert_eq!(show(&loaded).knobs["budget.size"].value, "7");
}

#[test]
fn the_documentation_has_the_table_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- knobs: begin -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- knobs: end -->").unwrap();
    let fresh = format!(
        "{before}<!-- knobs: begin -->\n{}<!-- knobs: end -->{after}",
        knobs_markdown()
    );
    if std::env::var_os("EXECPOOL_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    } else {
        assert!(
            text == fresh,
            "docs/configuration.md is old; regenerate: EXECPOOL_BLESS=1 cargo test --lib config"
        );
    }
}

#[test]
fn a_broken_file_shows_no_password() {
    for file in [
        "upstreams: [{url: 'postgres://a:ZQX@b/c'",
        "upstreams:\n  - url: !!int postgres://a:ZQX@b/c\n",
        "upstreams:\n  - url: postgres://a:ZQX@b/c\n    url: postgres://a:ZQX@b/d\n",
        "upstreams:\n  - url: \"postgres://a:ZQX\\q@b/c\"\n",
        "upstreams:\n  - password: ZQX\n",
        "upstreams:\n  - url: *ZQY\n  - url: postgres://a:ZQX@b/c: d: e\n",
        "postgres://a:ZQX@b/c",
        "? [postgres://a:ZQX@b/c]\n: 1\n",
        "postgres://a:ZQX@b/c: 1\n",
    ] {
        let errors = with(file, &[("DATABASE_URL", URL)]).unwrap_err();
        let shown =
            format!("{errors:?}") + &errors.iter().map(ToString::to_string).collect::<String>();
        assert!(!shown.contains("ZQX"), "{file}: {shown}");
    }
}

/// Knobs with three values each.
const KNOB_SETS: [(&str, [&str; 3]); 6] = [
    ("budget.size", ["20", "5", "6"]),
    ("pool.timeout", ["20s", "1s", "2s"]),
    ("listen.port", ["5432", "1", "2"]),
    ("log.format", ["auto", "json", "text"]),
    ("upstreams[0].keepalive", ["30s", "1s", "2s"]),
    ("control.allow_uids", ["any", "1", "1,2"]),
];

proptest! {
    #[test]
    fn a_plan_has_each_knob_that_differs_once_and_leads_there(
        old in proptest::collection::vec((0..KNOB_SETS.len(), 0..3usize), 0..6),
        new in proptest::collection::vec((0..KNOB_SETS.len(), 0..3usize), 0..6),
    ) {
        let load = |chosen: &[(usize, usize)]| {
            let flags = chosen.iter().map(|(knob, value)| {
                let (path, values) = KNOB_SETS[*knob];
                (path.to_owned(), values[*value].to_owned())
            });
            let url = [("upstreams[0].url".to_owned(), URL.to_owned())];
            let flags = flags.chain(url).collect();
            load(&Sources { file: None, env: vec![], flags }).unwrap()
        };
        let (old, new) = (load(&old), load(&new));
        let plan = Plan::between(&old, &new);
        prop_assert_eq!(plan.is_empty(), old.config == new.config);
        for effective in &new.origins.0 {
            let differs = old.origins.get(&effective.path).unwrap().value != effective.value;
            let all = plan.applied.iter().chain(&plan.waiting);
            let own: Vec<_> = all.filter(|change| change.path == effective.path).collect();
            let follows = effective.path.starts_with("upstreams[0].pool.");
            prop_assert_eq!(own.len(), usize::from(differs && !follows), "{}", effective.path);
        }
        for change in &plan.waiting {
            prop_assert_eq!(change.reload, Reload::Restart);
        }
        prop_assert!(Plan::between(&new, &new).is_empty());
    }

    #[test]
    fn no_output_shows_a_password(word in "[A-Za-z0-9/?#@:=&%+!]{0,6}", before in "[a-z]{0,3}", template in 0usize..9) {
        // The mark survives splitting at any special character around it.
        let secret = format!("{word}ZQX{word}");
        let url = match template {
            0 => format!("postgresql://app:{secret}@db/app"),
            1 => format!("postgresql://app:{secret}@db:bad/app"),
            2 => format!("postgresql://app@db/app?password={secret}"),
            3 => format!("postgresql://app:{secret}@db/app?sslmode=require"),
            4 => format!("{before}://app:{secret}@db/app"),
            5 => format!("postgresql://app:{secret}@db/app?{before}=1"),
            6 => format!("postgresql://:{secret}@/"),
            7 => format!("postgresql://app:{secret}/app"),
            _ => format!("postgresql://app@db/app?sslpassword={secret}"),
        };
        for env in [
            vec![("DATABASE_URL", url.as_str())],
            vec![("DATABASE_URL", URL), ("PGPASSWORD", secret.as_str())],
            vec![("DATABASE_URL", URL), ("EXECPOOL_BUDGET__SIZE", url.as_str())],
            vec![("DATABASE_URL", URL), ("EXECPOOL_UPSTREAMS__0__PASSWORD", secret.as_str())],
        ] {
            let shown = match with("", &env) {
                Ok(loaded) => format!("{loaded:?}{}{}", render(&loaded), serde_json::to_string(&show(&loaded)).unwrap()),
                Err(errors) => format!("{errors:?}{}", errors.iter().map(ToString::to_string).collect::<String>()),
            };
            prop_assert!(!shown.contains("ZQX"), "{shown}");
        }
    }
}

#[test]
fn a_share_is_a_fraction_to_a_thousandth_above_nothing_and_at_most_all() {
    let warning = |text: &str| {
        let file = format!("exhaustion: {{warning: {text}}}");
        good(&file, &[]).config.exhaustion.warning.thousandths
    };
    for (text, thousandths) in [("1", 1000), ("0.8", 800), ("0.925", 925), ("\"0.001\"", 1)] {
        assert_eq!(warning(text), thousandths, "{text}");
    }
    for text in [
        "0", "0.0", "1.001", "2", "-0.5", "80%", ".", "0.", "0.8005", "\"\"",
    ] {
        let file = format!("exhaustion: {{warning: {text}}}");
        let told = bad(&file, &[]);
        assert!(
            told.contains("a share above 0 and at most 1"),
            "{text}: {told}"
        );
    }
    assert!(bad("exhaustion: {after: 0s}", &[]).contains("exhaustion.after"));
}
