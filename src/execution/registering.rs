//! Registering what an execution has beside its server connections, and releasing it.

use std::time::{Duration, Instant};

use crate::events::{Event, Seconds, Text, Unsaid};
use crate::protocol::startup::ExecutionId;
use crate::story::{What, Word};

use super::executions::Inner;
use super::resources::Full;
use super::{Executions, Registered, ResourceCounts, ResourceId, ResourceKind};

impl Inner {
    /// When time has something to do next.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let expiry = self.resources.next_expiry();
        self.registry.next_turn().into_iter().chain(expiry).min()
    }
}

impl Executions {
    /// Registers a resource of an active execution; none if it is not active. Resources keep no
    /// execution alive.
    ///
    /// # Errors
    /// It has as many as it may have.
    pub fn register(
        &self,
        id: &ExecutionId,
        kind: ResourceKind,
        name: String,
        ttl: Option<Duration>,
    ) -> Option<Result<Registered, Full>> {
        let mut inner = self.inner.lock();
        let number = inner.registry.find(id)?;
        let now = Instant::now();
        let registered = inner.resources.register(number, kind, name, ttl, now);
        if registered.is_ok() {
            let kind = Word::of(kind.as_str());
            inner.tell(number, What::ResourceRegistered { kind, count: 1 }, now);
        }
        self.rescheduled(&mut inner);
        Some(registered)
    }

    /// Releases a resource of an execution that is active or ending; false if there is none of that
    /// number; none if there is no such execution.
    pub fn release(&self, id: &ExecutionId, resource: ResourceId) -> Option<bool> {
        let mut inner = self.inner.lock();
        let (active, ending) = (inner.registry.find(id), inner.registry.ending(id));
        if active.is_none() && ending.is_none() {
            return None;
        }
        // A number is given once: it can only be of one of them.
        let mut numbers = active.into_iter().chain(ending);
        let of = numbers.find(|number| inner.resources.release(*number, resource));
        if let Some(number) = of {
            let released = What::ResourceReleased { count: 1 };
            inner.tell(number, released, Instant::now());
        }
        Some(of.is_some())
    }

    /// What is registered with the active execution of that name, or else with the one that is ending.
    #[must_use]
    pub fn resources_of(&self, id: &ExecutionId) -> Vec<Registered> {
        let inner = self.inner.lock();
        let active = inner.registry.find(id);
        let number = active.or_else(|| inner.registry.ending(id));
        let of = |number| inner.resources.of(number, Instant::now());
        number.map(of).unwrap_or_default()
    }

    /// How many resources are registered over all executions, and how many have ever expired.
    #[must_use]
    pub fn resources(&self) -> (ResourceCounts, u64) {
        let inner = self.inner.lock();
        (inner.resources.counts(), inner.resources.expired())
    }

    /// Forgets those whose time is over, and says so.
    pub(super) fn expire_resources(&self, now: Instant) {
        let mut inner = self.inner.lock();
        let gone = inner.resources.expire(now);
        for (number, one) in &gone {
            let kind = Word::of(one.kind.as_str());
            inner.tell(*number, What::ResourceExpired { kind, count: 1 }, now);
        }
        let id = |number| inner.registry.get(number).map(|run| run.id.clone());
        let gone: Vec<_> = gone.into_iter().map(|(at, one)| (id(at), one)).collect();
        drop(inner);
        for (id, one) in gone {
            let id = id.as_ref().map(ExecutionId::as_str);
            let event = Event::ResourceExpired {
                execution_id: id.map(Text::name),
                kind: Text::word(one.kind.as_str()),
                name: Text::sentence(&one.name),
                age_seconds: Seconds(one.age),
                unsaid: 0,
            };
            if let Some(unsaid) = self.events().line(event.name(), id) {
                log_expired(&event, id, &one, unsaid);
            }
            self.events().tell(event);
        }
    }
}

fn log_expired(event: &Event, id: Option<&str>, one: &Registered, unsaid: Unsaid) {
    tracing::info!(
        event = event.name(),
        execution_id = id,
        kind = one.kind.as_str(),
        name = one.name,
        age_seconds = one.age.as_secs_f64(),
        unsaid,
        "a resource was not released within its ttl, and is forgotten"
    );
}
