//! One trace, from an agent's own span to what its connection waited for.

use std::path::Path;
use std::process::Command;

use crate::support::collector::Collector;
use crate::support::{guard, tools};
use crate::{CHECKOUT, EXECUTION, lasted, of, options, seconds, spans};

const DRIVERS: [&str; 3] = ["psycopg", "sqlalchemy", "asyncpg"];

#[tokio::test]
async fn checkouts_are_part_of_the_agents_own_trace_and_tell_what_it_did() {
    let collector = Collector::start().await;
    let sidecar = options("joined", &collector.endpoint(), "")
        .await
        .start()
        .await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut agent = Command::new(tools::python());
    agent
        .arg(root.join("tests/drivers/agent.py"))
        .arg(root.join("docs/app-developers.md"))
        .arg(sidecar.dir())
        .arg(collector.endpoint());
    tokio::task::spawn_blocking(move || guard::run(&mut agent))
        .await
        .unwrap();
    let checkouts = spans(&collector, CHECKOUT, DRIVERS.len()).await;
    for driver in DRIVERS {
        let path = format!("/v1/executions/run-{driver}");
        sidecar.control("DELETE", &path, None).await;
    }
    let executions = spans(&collector, EXECUTION, DRIVERS.len()).await;
    let run = &spans(&collector, "run", 1).await[0];
    for driver in DRIVERS {
        let way = &spans(&collector, &format!("{driver}_way"), 1).await[0];
        assert_eq!(way.parent_span_id, run.span_id);
        let execution = format!("run-{driver}");
        let (checkout, execution) = (of(&checkouts, &execution), of(&executions, &execution));
        for ours in [checkout, execution] {
            assert_eq!(ours.trace_id, run.trace_id, "{driver}");
            assert_eq!(ours.parent_span_id, way.span_id, "{driver}");
            assert_eq!(ours.resource["service.name"], "execpool");
        }
        assert!(way.start <= checkout.start && checkout.start < checkout.end);
        // asyncpg asks nothing when it connects.
        assert!(execution.start <= checkout.start && checkout.end <= execution.end);
        assert!(checkout.start < way.end, "{driver}");
        // What it did, each in its place. All of it together is the whole time.
        for (name, least) in [("active", 0.4), ("idle_in_transaction", 0.6), ("idle", 0.2)] {
            let told = seconds(checkout, &format!("execpool.checkout.{name}"));
            assert!(told >= least, "{driver}: {name} {told}");
        }
        let parts = ["wait", "active", "idle_in_transaction", "idle"]
            .map(|name| seconds(checkout, &format!("execpool.checkout.{name}")));
        let sum: f64 = parts.iter().sum();
        assert!(
            (lasted(checkout) - sum).abs() < 0.001,
            "{parts:?} {checkout:#?}"
        );
        assert_eq!(checkout.attributes["execpool.checkout.outcome"], "returned");
        assert_eq!(execution.attributes["execpool.execution.reason"], "deleted");
    }
}
