//! What a sidecar finds in its directory of the one before it: `restarts.json`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Of a pod in which nothing was restarted, and the first sidecar began so long ago.
pub(crate) fn of_pod_since(age: Duration) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let since = now - age;
    json!({
        "version": 1, "total": 0, "times": [], "pod_since": since.as_secs(),
        "clock": clock(now.as_secs()),
    })
}

/// This moment, where the time of day is `time`.
pub(crate) fn clock(time: u64) -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap();
    let boot = read("/proc/sys/kernel/random/boot_id");
    let up = read("/proc/uptime");
    let (up, _) = up.split_once('.').unwrap();
    json!({"time": time, "boot": boot.trim(), "up": up.parse::<u64>().unwrap()})
}
