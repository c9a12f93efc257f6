//! Which spans are made.

use std::net::TcpListener;

use crate::support::Sidecar;
use crate::support::collector::Collector;
use crate::{CHECKOUT, of, options, spans, traceparent, visit};

/// A checkout of each kind under a sampler: asked for by one who samples, by one who does not, by nobody. All
/// are sent when it ends, at the latest: then there are so many.
async fn visits(name: &str, collector: &Collector, sampler: &[(&str, &str)], count: usize) {
    let mut options = options(name, &collector.endpoint(), "").await;
    for (variable, value) in sampler {
        options = options.env(variable, *value);
    }
    let mut sidecar = options.start().await;
    for (kind, traceparent) in [
        ("sampled", traceparent(true)),
        ("unsampled", traceparent(false)),
        ("rootless", String::new()),
    ] {
        visit(&sidecar, &format!("{name}.{kind}"), &traceparent).await;
    }
    // What is sent at the end has a second for that.
    spans(collector, CHECKOUT, count).await;
    end(&mut sidecar).await;
}

async fn end(sidecar: &mut Sidecar) {
    sidecar.settles().await;
    sidecar.signal(nix::sys::signal::Signal::SIGTERM);
    sidecar.exited(crate::SOON).await;
}

#[tokio::test]
async fn the_sampler_decides_and_whoever_asks_where_it_is_based_on_that() {
    let collector = Collector::start().await;
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    let share = |share| ("OTEL_TRACES_SAMPLER_ARG", share);
    let mut expected = Vec::new();
    for (name, sampler, kinds) in [
        ("usual", vec![], &["sampled", "rootless"][..]),
        ("none", vec![(SAMPLER, "always_off")], &[]),
        (
            "all",
            vec![(SAMPLER, "always_on")],
            &["sampled", "unsampled", "rootless"],
        ),
        ("no_share", vec![(SAMPLER, "traceidratio"), share("0")], &[]),
        (
            "whole_share",
            vec![(SAMPLER, "traceidratio"), share("1.0")],
            &["sampled", "unsampled", "rootless"],
        ),
        (
            "asked",
            vec![(SAMPLER, "parentbased_always_off")],
            &["sampled"],
        ),
        (
            "asked_share",
            vec![(SAMPLER, "parentbased_traceidratio"), share("0.0")],
            &["sampled"],
        ),
        // The last, as a sign that all before have arrived.
        ("last", vec![], &["sampled", "rootless"]),
    ] {
        expected.extend(kinds.iter().map(|kind| format!("{name}.{kind}")));
        visits(name, &collector, &sampler, expected.len()).await;
    }
    let found = spans(&collector, CHECKOUT, expected.len()).await;
    for execution in &expected {
        of(&found, execution);
    }
}

#[tokio::test]
async fn without_being_asked_for_there_are_no_spans_and_nobody_is_connected_to() {
    for (name, variable, value) in [
        ("traces_off", "EXECPOOL_TELEMETRY__TRACES", "off"),
        ("sdk_disabled", "OTEL_SDK_DISABLED", "true"),
        ("no_exporter", "OTEL_TRACES_EXPORTER", "none"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut sidecar = options(name, &endpoint, "")
            .await
            .env(variable, value)
            .start()
            .await;
        visit(&sidecar, "run-1", &traceparent(true)).await;
        end(&mut sidecar).await;
        assert!(listener.accept().is_err(), "{variable} {value}");
    }
}
