//! What is told about the inside.
//!
//! | module | gives |
//! |---|---|
//! | [`log`] | events as lines on standard error, and never a wait for who reads them |
//! | [`probes`] | the read-only port: whether it turns, is started, is ready; and `/metrics` |
//! | [`app_probe`] | the app's own probe, asked on its behalf |
//! | [`environment`] | the variables that OpenTelemetry and Kubernetes define |
//! | [`standard`] | what they ask for, checked |
//! | `resource` | who tells all that |
//! | [`exports`] | one provider of metrics for OTLP and `/metrics`, and its end |
//! | [`traces`] | spans, for who makes them |
//! | `otlp` `sender` | the connection to a collector; a batch's way on it |
//! | `exporter` `spans` | what sends metrics, and spans |
//! | `deliveries` | whether they arrive: counted, and said when it changes |
//! | [`scrape`] | all metrics as Prometheus reads them |
//! | `process` | what the process costs, and what its log lost |

pub mod app_probe;
mod deliveries;
pub mod environment;
mod exporter;
pub mod exports;
pub mod log;
mod otlp;
pub mod probes;
mod process;
mod resource;
pub mod scrape;
mod sender;
mod spans;
pub mod standard;
pub mod traces;

pub use environment::{Environment, Signal};
pub use exports::{ExportError, Exports};
pub use log::{LogError, LogGuard, init, install_panic_hook};
pub use process::DroppedLines;
pub use resource::resource;
pub use traces::{Parent, Span, Traces};
