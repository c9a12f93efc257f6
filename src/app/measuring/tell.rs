//! What is told of a look: each metric with its value, for each of its attributes' values.

use crate::budget::State as Exhaustion;
use crate::config::Config;
use crate::control::Room;
use crate::execution::{Reason, ResourceKind};
use crate::metrics::catalogue as of;
use crate::metrics::words::{
    Action, ConnectionState, DatabaseConnections, ExecutionState, HeldState, Outcome, Pin,
    SessionState,
};
use crate::metrics::{Class, Close, Origin, Phase, Reading, Value};
use crate::session::{Leak, State};

use super::look::Look;

/// The classes of failures that are expected of a phase: told from the start, so that the first of them
/// is seen as a growth.
const EXPECTED: [(Phase, &str); 9] = [
    (Phase::Connect, "08"),
    (Phase::Connect, "53"),
    (Phase::Connect, "57"),
    (Phase::Auth, "28"),
    (Phase::Reset, "08"),
    (Phase::Ping, "08"),
    (Phase::Relay, "08"),
    (Phase::Relay, "53"),
    (Phase::Relay, "57"),
];

/// What instruments tell of `look`; `rooms` are the databases that have answered, `exhaustion` is how
/// short of connections the pod is.
pub(super) fn reading(
    look: &Look,
    rooms: &[Room],
    exhaustion: Exhaustion,
    config: &Config,
) -> Reading {
    let mut reading = Reading::at(look.at);
    let level = exhaustion.level() as f64;
    reading.put(&of::EXHAUSTION_STATE, level, &[]);
    budget(&mut reading, look);
    for (name, flow, timeouts) in &look.upstreams {
        let is_configured = config.upstreams.iter().any(|one| *one.name == **name);
        // One that is no longer configured is told until nothing of it is left.
        if is_configured || flow.counts.open() > 0 || flow.waiting > 0 {
            let told = (flow, *timeouts);
            upstream(&mut reading, name, told, look);
        }
    }
    executions(&mut reading, look);
    sessions(&mut reading, look);
    counters(&mut reading, look);
    database(&mut reading, rooms);
    for kind in ResourceKind::ALL {
        let count = look.resources.of(kind) as f64;
        reading.put(&of::RESOURCE_COUNT, count, &[Value::Word(kind.as_str())]);
    }
    for large in &look.largest {
        let id = &[Value::Name(large.id.as_str())];
        reading.put(&of::EXECUTION_CONNECTIONS, large.connections as f64, id);
        reading.put(&of::EXECUTION_HELD, large.held.as_secs_f64(), id);
    }
    reading
}

fn budget(reading: &mut Reading, look: &Look) {
    let budget = &look.budget;
    for (metric, count) in [
        (&of::BUDGET_LIMIT, budget.limit()),
        (&of::BUDGET_EFFECTIVE, budget.effective()),
        (&of::BUDGET_USED, look.sessions.bound()),
        (&of::BUDGET_OPEN, budget.open()),
        (&of::BUDGET_RESERVE, look.reserve),
        (&of::BUDGET_WAITING, look.queue.waiting),
    ] {
        reading.put(metric, count as f64, &[]);
    }
    let oldest = look.queue.oldest.as_secs_f64();
    reading.put(&of::BUDGET_OLDEST_WAIT, oldest, &[]);
}

fn upstream(
    reading: &mut Reading,
    name: &str,
    (flow, timeouts): (&crate::pool::Flow, u64),
    look: &Look,
) {
    let pool = Value::Name(name);
    for (state, count) in [
        (ConnectionState::Idle, flow.counts.idle),
        (ConnectionState::Used, flow.counts.lent),
    ] {
        let attributes = &[pool, Value::Word(state.as_str())];
        reading.put(&of::CONNECTION_COUNT, count as f64, attributes);
    }
    for (metric, count) in [
        (&of::CONNECTION_IDLE_MAX, look.budget.size() as u64),
        (&of::CONNECTION_IDLE_MIN, 0),
        (&of::CONNECTION_MAX, look.budget.limit() as u64),
        (&of::CONNECTION_PENDING, flow.waiting as u64),
        (&of::CONNECTION_TIMEOUTS, timeouts),
    ] {
        reading.put(metric, count as f64, &[pool]);
    }
}

fn executions(reading: &mut Reading, look: &Look) {
    let counts = &look.executions;
    for (state, count) in [
        (ExecutionState::Active, counts.active),
        (ExecutionState::Ending, counts.ending),
    ] {
        let state = &[Value::Word(state.as_str())];
        reading.put(&of::EXECUTION_COUNT, count as f64, state);
    }
    for reason in Reason::ALL {
        let count = counts.ended[reason as usize] as f64;
        reading.put(&of::EXECUTION_ENDED, count, &[Value::Word(reason.as_str())]);
    }
}

fn sessions(reading: &mut Reading, look: &Look) {
    let counts = &look.sessions;
    for counted in SessionState::ALL {
        let all = State::ALL.into_iter();
        let states: Vec<State> = all.filter(|state| state.counted() == counted).collect();
        let count: usize = states.iter().map(|state| counts.of(*state)).sum();
        let oldest = states
            .iter()
            .filter_map(|state| look.oldest[*state as usize])
            .max();
        let state = &[Value::Word(counted.as_str())];
        reading.put(&of::SESSION_COUNT, count as f64, state);
        let oldest = oldest.unwrap_or_default().as_secs_f64();
        reading.put(&of::SESSION_OLDEST, oldest, state);
    }
    reading.put(&of::SESSION_OPENED, counts.opened as f64, &[]);
    for reason in Close::ALL {
        let count = counts.closed_by[reason as usize] as f64;
        reading.put(&of::SESSION_CLOSED, count, &[Value::Word(reason.as_str())]);
    }
    for kind in Leak::ALL {
        let count = counts.leaks[kind as usize] as f64;
        reading.put(&of::SESSION_LEAKS, count, &[Value::Word(kind.as_str())]);
    }
    for state in HeldState::ALL {
        let held = look.held[state as usize].as_secs_f64();
        reading.put(&of::CHECKOUT_HELD, held, &[Value::Word(state.as_str())]);
    }
}

fn counters(reading: &mut Reading, look: &Look) {
    for phase in Phase::ALL {
        for class in Class::WORDS.iter().map(|word| Class::of(word)) {
            let count = look.counters.failures(phase, class);
            if count > 0 || EXPECTED.contains(&(phase, class.as_str())) {
                let attributes = &[Value::Word(phase.as_str()), Value::Word(class.as_str())];
                reading.put(&of::SERVER_ERRORS, count as f64, attributes);
            }
        }
    }
    for origin in Origin::ALL {
        let count = look.counters.cancels(origin) as f64;
        reading.put(&of::CANCELS, count, &[Value::Word(origin.as_str())]);
    }
    for reason in Pin::ALL {
        reading.put(&of::PINS, 0.0, &[Value::Word(reason.as_str())]);
    }
    for action in Action::ALL {
        for outcome in Outcome::ALL {
            let count = look.counters.actions(action, outcome) as f64;
            let attributes = &[Value::Word(action.as_str()), Value::Word(outcome.as_str())];
            reading.put(&of::REACTOR_ACTIONS, count, attributes);
        }
    }
}

/// Of several databases the one with least room: that is what a new connection may fail at.
fn database(reading: &mut Reading, rooms: &[Room]) {
    let Some(room) = rooms.iter().min_by_key(|room| room.left) else {
        return;
    };
    for (kind, count) in [
        (DatabaseConnections::Max, room.max),
        (DatabaseConnections::Ours, room.ours),
        (DatabaseConnections::Others, room.others),
    ] {
        let kind = &[Value::Word(kind.as_str())];
        reading.put(&of::DATABASE_CONNECTIONS, f64::from(count), kind);
    }
}
