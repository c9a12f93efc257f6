//! What the process costs, and what its log lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry_semantic_conventions::metric::{PROCESS_CPU_TIME, PROCESS_MEMORY_USAGE};

use crate::metrics::{cpu_seconds, open_descriptors, resident_bytes};

/// Its name in most dashboards; the conventions are about to call it
/// `process.unix.file_descriptor.count`.
const PROCESS_OPEN_FILE_DESCRIPTOR_COUNT: &str = "process.open_file_descriptor.count";

/// Lines that the log had no room for, ever.
#[derive(Debug, Clone, Default)]
pub struct DroppedLines(Arc<AtomicU64>);

impl DroppedLines {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// One more.
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Shows all of it, as it is when it is looked at.
pub(super) fn observe(meter: &Meter, dropped: DroppedLines) {
    let modes = ["user", "system"].map(|mode| [KeyValue::new("cpu.mode", mode)]);
    meter
        .f64_observable_counter(PROCESS_CPU_TIME)
        .with_unit("s")
        .with_description("CPU time that the sidecar took")
        .with_callback(move |observer| {
            for (seconds, mode) in cpu_seconds().into_iter().flatten().zip(&modes) {
                observer.observe(seconds, mode);
            }
        })
        .build();
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    meter
        .i64_observable_up_down_counter(PROCESS_MEMORY_USAGE)
        .with_unit("By")
        .with_description("Resident memory of the sidecar")
        .with_callback(move |observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(number(bytes), &[]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter(PROCESS_OPEN_FILE_DESCRIPTOR_COUNT)
        .with_unit("{file_descriptor}")
        .with_description("Files and sockets that the sidecar has open")
        .with_callback(move |observer| {
            if let Some(count) = open_descriptors() {
                observer.observe(number(count), &[]);
            }
        })
        .build();
    meter
        .u64_observable_counter("execpool.log.dropped")
        .with_unit("{record}")
        .with_description("Lines of the log that nobody read in time")
        .with_callback(move |observer| observer.observe(dropped.count(), &[]))
        .build();
}
