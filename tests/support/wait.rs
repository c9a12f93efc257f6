//! Waiting for something to become true.

use std::fmt::Debug;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);

/// How long a test waits for what must come. It ends a test that fails and says nothing of speed: a
/// machine that is busy with other tests stands still for seconds at a time.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Asks `probe` every 10 ms until it answers `Ok`, and returns that. Panics if it
/// has not within `within`, with `claim` and the last `Err` seen.
///
/// ```ignore
/// eventually(SOON, "the execution has ended", async || {
///     match sidecar.control("GET", "/v1/executions/a", None).await {
///         (404, _) => Ok(()),
///         other => Err(other),
///     }
/// })
/// .await;
/// ```
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(
    within: Duration,
    claim: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            // A probe that hangs must not hide which claim it was for.
            let left = within.saturating_sub(start.elapsed()) + Duration::from_secs(5);
            let seen = tokio::time::timeout(left, probe()).await;
            match seen {
                Ok(Ok(value)) => return value,
                Ok(Err(_)) if start.elapsed() < within => tokio::time::sleep(INTERVAL).await,
                Ok(Err(last)) => {
                    panic!("{caller}: not within {within:?}: {claim}; last seen: {last:?}")
                }
                Err(_) => panic!("{caller}: not within {within:?}: {claim}; the probe hangs"),
            }
        }
    }
}
