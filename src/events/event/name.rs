//! What is asked of an event: its name, whom it is about, and how often it may be told.

use super::{Event, Text};

/// The names of all events.
pub const NAMES: &[&str] = &[
    "start",
    "ready",
    "drain",
    "shutdown",
    "pause",
    "resume",
    "reconnect",
    "execution.began",
    "execution.adopted",
    "execution.deadline_near",
    "execution.ended",
    "execution.resources_left",
    "resource.expired",
    "execution.leftovers",
    "checkout.refused",
    "checkout.failed",
    "session.limit",
    "session.leak_suspect",
    "session.leak_recovered",
    "session.reclaimed",
    "session.cancelled",
    "session.ended",
    "cleanup",
    "monitor.no_answer",
    "monitor.answer",
    "database.away",
    "database.back",
    "database.limited",
    "database.limit_raised",
    "exhaustion.changed",
    "reactor.cleanup",
    "reactor.restart",
    "reactor.restart_over",
    "reactor.refused",
    "configuration.reloaded",
    "configuration.refused",
];

impl Event {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Ready { .. } => "ready",
            Self::Drain {} => "drain",
            Self::Shutdown { .. } => "shutdown",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Reconnect { .. } => "reconnect",
            Self::ExecutionBegan { .. } => "execution.began",
            Self::ExecutionAdopted { .. } => "execution.adopted",
            Self::ExecutionDeadlineNear { .. } => "execution.deadline_near",
            Self::ExecutionEnded { .. } => "execution.ended",
            Self::ExecutionResourcesLeft { .. } => "execution.resources_left",
            Self::ResourceExpired { .. } => "resource.expired",
            Self::ExecutionLeftovers { .. } => "execution.leftovers",
            Self::CheckoutRefused { .. } => "checkout.refused",
            Self::CheckoutFailed { .. } => "checkout.failed",
            Self::SessionLimit { .. } => "session.limit",
            Self::SessionLeakSuspect { .. } => "session.leak_suspect",
            Self::SessionLeakRecovered { .. } => "session.leak_recovered",
            Self::SessionReclaimed { .. } => "session.reclaimed",
            Self::SessionCancelled { .. } => "session.cancelled",
            Self::SessionEnded { .. } => "session.ended",
            Self::Cleanup { .. } => "cleanup",
            Self::MonitorNoAnswer { .. } => "monitor.no_answer",
            Self::MonitorAnswer { .. } => "monitor.answer",
            Self::DatabaseAway { .. } => "database.away",
            Self::DatabaseBack { .. } => "database.back",
            Self::DatabaseLimited { .. } => "database.limited",
            Self::DatabaseLimitRaised { .. } => "database.limit_raised",
            Self::ExhaustionChanged { .. } => "exhaustion.changed",
            Self::ReactorCleanup { .. } => "reactor.cleanup",
            Self::ReactorRestart { .. } => "reactor.restart",
            Self::ReactorRestartOver { .. } => "reactor.restart_over",
            Self::ReactorRefused { .. } => "reactor.refused",
            Self::ConfigurationReloaded { .. } => "configuration.reloaded",
            Self::ConfigurationRefused { .. } => "configuration.refused",
        }
    }

    /// The execution that it is about.
    #[must_use]
    pub fn execution(&self) -> Option<&Text> {
        match self {
            Self::ExecutionBegan { execution_id, .. }
            | Self::ExecutionAdopted { execution_id, .. }
            | Self::ExecutionDeadlineNear { execution_id, .. }
            | Self::ExecutionEnded { execution_id, .. }
            | Self::ExecutionResourcesLeft { execution_id, .. }
            | Self::ExecutionLeftovers { execution_id, .. }
            | Self::CheckoutRefused { execution_id, .. }
            | Self::CheckoutFailed { execution_id, .. }
            | Self::SessionLimit { execution_id, .. }
            | Self::SessionLeakSuspect { execution_id, .. }
            | Self::SessionLeakRecovered { execution_id, .. }
            | Self::SessionReclaimed { execution_id, .. }
            | Self::SessionCancelled { execution_id, .. }
            | Self::SessionEnded { execution_id, .. } => Some(execution_id),
            Self::ResourceExpired { execution_id, .. } | Self::Cleanup { execution_id, .. } => {
                execution_id.as_ref()
            }
            _ => None,
        }
    }

    /// How many of its like were not told before it: of events that an app may cause at any rate.
    pub(in crate::events) fn unsaid(&mut self) -> Option<&mut u64> {
        match self {
            Self::CheckoutRefused { unsaid, .. }
            | Self::CheckoutFailed { unsaid, .. }
            | Self::SessionLimit { unsaid, .. }
            | Self::SessionLeakSuspect { unsaid, .. }
            | Self::SessionLeakRecovered { unsaid, .. }
            | Self::SessionReclaimed { unsaid, .. }
            | Self::SessionCancelled { unsaid, .. }
            | Self::SessionEnded { unsaid, .. }
            | Self::ResourceExpired { unsaid, .. } => Some(unsaid),
            _ => None,
        }
    }

    /// Whether it is told once for each execution meanwhile: all of them say the same.
    pub(in crate::events) fn is_spared_by_execution(&self) -> bool {
        matches!(
            self,
            Self::CheckoutRefused { .. } | Self::CheckoutFailed { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_sent_by_its_one_name() {
        let samples = Event::samples();
        let names: Vec<&str> = samples.iter().map(Event::name).collect();
        assert_eq!(names, NAMES);
        for sample in samples {
            let json = serde_json::to_value(&sample).unwrap();
            assert_eq!(json["event"], sample.name());
            let execution = sample.execution().map(Text::as_str);
            assert_eq!(json["execution_id"].as_str(), execution);
        }
    }
}
