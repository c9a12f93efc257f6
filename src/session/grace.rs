//! How long a running query may go on when its session is told to end.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Who gives a grace, and may cut it short.
#[derive(Debug, Default)]
pub struct GraceGiver {
    until: watch::Sender<Option<Instant>>,
}

impl GraceGiver {
    /// A grace of so long from now on. One that was given before gets shorter by this, for all who
    /// have it, and never longer.
    pub fn give(&self, grace: Duration) -> Grace {
        let now = Instant::now();
        // What no clock can tell is none.
        let until = now.checked_add(grace).unwrap_or(now);
        self.until.send_if_modified(|known| {
            let sooner = known.is_none_or(|known| until < known);
            if sooner {
                *known = Some(until);
            }
            sooner
        });
        Grace(self.until.subscribe())
    }
}

/// A grace that was given.
#[derive(Debug, Clone)]
pub struct Grace(watch::Receiver<Option<Instant>>);

impl Grace {
    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        GraceGiver::default().give(Duration::ZERO)
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.borrow().is_none_or(|until| until <= Instant::now())
    }

    /// Waits until it is over. Cancel safe.
    pub async fn over(&self) {
        let mut told = self.0.clone();
        loop {
            let until = *told.borrow_and_update();
            let Some(until) = until else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => return,
                // Once its giver is gone it stays as it is.
                Ok(()) = told.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_grace_is_cut_short_for_all_who_have_it_and_never_prolonged() {
        let giver = GraceGiver::default();
        let first = giver.give(Duration::from_secs(3600));
        assert!(!first.is_over());
        let prolonged = giver.give(Duration::from_secs(7200));
        let begun = tokio::time::Instant::now();
        let ((), cut) = tokio::join!(first.over(), async { giver.give(Duration::from_secs(5)) });
        drop(giver);
        prolonged.over().await;
        cut.over().await;
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test]
    async fn none_is_over_at_once() {
        let none = Grace::none();
        assert!(none.is_over());
        none.over().await;
    }
}
