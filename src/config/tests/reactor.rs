//! The reactor's knobs.

use super::*;

#[test]
fn a_probe_of_the_app_is_within_the_pod() {
    let probe = |text: &str| {
        let file = format!("reactor: {{app_probe: {text:?}}}");
        good(&file, &[]).config.reactor.app_probe.unwrap()
    };
    let http = |at, path: &str| AppProbe::Http {
        at,
        path: path.to_owned(),
    };
    let at = |text: &str| Loopback::Address(text.parse().unwrap());
    for (text, expected) in [
        (
            "http://127.0.0.1:8080/healthz",
            http(at("127.0.0.1:8080"), "/healthz"),
        ),
        (":8080/healthz", http(Loopback::Localhost(8080), "/healthz")),
        (":8080", http(Loopback::Localhost(8080), "/")),
        (
            "http://localhost/live?full=1",
            http(Loopback::Localhost(80), "/live?full=1"),
        ),
        ("http://[::1]:8080/", http(at("[::1]:8080"), "/")),
        (
            "tcp://127.0.0.1:8080",
            AppProbe::Tcp {
                at: at("127.0.0.1:8080"),
            },
        ),
        (
            "tcp://:8080",
            AppProbe::Tcp {
                at: Loopback::Localhost(8080),
            },
        ),
    ] {
        assert_eq!(probe(text), expected, "{text}");
    }
    for text in [
        "http://10.0.0.7:8080/healthz",
        "http://app:8080/healthz",
        "https://127.0.0.1:8080/healthz",
        "127.0.0.1:8080/healthz",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:8080/healthz",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:8080/a b",
        "http://127.0.0.1:8080/a#b",
        "http://user@127.0.0.1:8080/",
        "/healthz",
        "off",
    ] {
        let said = bad(&format!("reactor: {{app_probe: {text:?}}}"), &[]);
        assert!(
            said.contains("reactor.app_probe: ") && said.contains("on the loopback"),
            "{text}: {said}"
        );
    }
}

#[test]
fn a_probe_is_written_as_it_is_read() {
    for (text, written) in [
        (
            "http://127.0.0.1:8080/healthz",
            "http://127.0.0.1:8080/healthz",
        ),
        (":8080/healthz", "http://localhost:8080/healthz"),
        ("tcp://:8080", "tcp://localhost:8080"),
    ] {
        let probe = AppProbe::parse(text).unwrap();
        assert_eq!(probe.to_string(), written);
        assert_eq!(AppProbe::parse(written), Some(probe));
    }
}

#[test]
fn a_probe_of_any_loopback_is_tried_at_both() {
    let tried = |text: &str| {
        let probe = AppProbe::parse(text).unwrap();
        let addresses = probe.addresses().map(|at| at.to_string());
        addresses.collect::<Vec<_>>()
    };
    assert_eq!(tried(":80"), ["127.0.0.1:80", "[::1]:80"]);
    assert_eq!(tried("tcp://[::1]:80"), ["[::1]:80"]);
}

#[test]
fn each_way_to_restart_has_its_word() {
    for way in Restart::ALL {
        let file = format!("reactor: {{restart: {}}}", way.as_str());
        assert_eq!(good(&file, &[]).config.reactor.restart, Some(way));
    }
    let said = bad("reactor: {restart: reboot}", &[]);
    let allowed = "is not one of off, liveness, exit-code, evict, rollout";
    assert!(said.contains(allowed), "{said}");
}

#[test]
fn a_template_may_write_off_as_false() {
    let file = "reactor: {kubernetes: false, restart: false}";
    let reactor = good(file, &[]).config.reactor;
    assert_eq!(reactor.kubernetes, KubernetesUse::Off);
    assert_eq!(reactor.restart, None);
    let reactor = good("reactor: {kubernetes: true}", &[]).config.reactor;
    assert_eq!(reactor.kubernetes, KubernetesUse::On);
    // There is no such word among these.
    assert!(bad("reactor: {restart: true}", &[]).contains("reactor.restart"));
    assert!(bad("execution: {untagged: false}", &[]).contains("execution.untagged"));
}

#[test]
fn a_restart_that_could_never_be_is_refused() {
    for way in ["evict", "rollout"] {
        let file = format!("reactor: {{restart: {way}, kubernetes: off}}");
        let said = bad(&file, &[]);
        assert!(said.contains("write liveness or exit-code"), "{said}");
        assert!(said.contains(way), "{said}");
    }
    for way in ["off", "liveness", "exit-code"] {
        good(
            &format!("reactor: {{restart: {way}, kubernetes: off}}"),
            &[],
        );
    }
    let said = bad(
        "reactor: {restart: liveness}\ntelemetry: {listen: off}",
        &[],
    );
    assert!(said.contains("telemetry.listen"), "{said}");
    good(
        "reactor: {restart: exit-code}\ntelemetry: {listen: off}",
        &[],
    );
    assert!(bad("reactor: {max_restarts_per_hour: 0}", &[]).contains("from 1 to 60"));
}

#[test]
fn a_probe_that_asks_execpool_itself_is_refused() {
    let said = bad("reactor: {app_probe: ':9464/livez/app'}", &[]);
    assert!(said.contains("execpool's own telemetry.listen"), "{said}");
    let loaded = good(
        "reactor: {app_probe: ':8080/'}\ntelemetry: {listen: off}",
        &[],
    );
    let warned = "reactor.app_probe is not asked: telemetry.listen is off";
    assert_eq!(loaded.warnings, [warned]);
}
