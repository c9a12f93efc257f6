//! Whether connections run out: a look at the data plane every second, and what is done about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::budget::{Exhaustion, State};
use crate::config::Running;
use crate::control::Control;
use crate::events::{Event, Events, Seconds, Text};
use crate::execution::Remote;
use crate::reactor::{Action, Change, History, Policy, Snapshot, decide};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// How often the databases are asked while somebody waits long for a connection.
const ASK: Duration = Duration::from_secs(5);

/// Looks until the data plane ends; how it stands is told to `shown`.
pub(super) async fn run(
    remote: Remote,
    control: Arc<Control>,
    running: watch::Receiver<Arc<Running>>,
    shown: watch::Sender<Exhaustion>,
) {
    let mut history = History::new(Instant::now());
    let mut asked = Instant::now();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let policy = {
            let config = &running.borrow().loaded.config;
            Policy::of(&config.exhaustion, &config.reactor, Duration::ZERO)
        };
        let silent = control.silent();
        let look = remote
            .ask(move |executions| {
                let now = Instant::now();
                (Snapshot::of(executions, &silent, now), now)
            })
            .await;
        let Ok((snapshot, now)) = look else {
            return;
        };
        let actions = decide(&history, &snapshot, &policy, now);
        history.record(&snapshot, &policy, now, &actions);
        shown.send_if_modified(|known| {
            let is_news = *known != history.exhaustion();
            *known = history.exhaustion();
            is_news
        });
        for action in &actions {
            // The rungs above the first are decided, and still done by nobody.
            if let Action::Tell(change) = action {
                tell(change, &snapshot, remote.events());
            }
        }
        for (of, unsaid) in remote.events().lines_left_out() {
            tracing::info!(
                event = "log.left_out",
                of,
                unsaid,
                "lines of the log were left out, as they came too fast"
            );
        }
        let is_long = snapshot.oldest_wait > policy.wait / 2;
        let is_bad = history.exhaustion().state >= State::Exhausted;
        if (is_long || is_bad) && now.saturating_duration_since(asked) >= ASK {
            control.look_sooner();
            asked = now;
        }
    }
}

/// The log line and the event of a change.
fn tell(change: &Change, snapshot: &Snapshot, events: &Events) {
    let holder = snapshot.holder.as_ref();
    let event = Event::ExhaustionChanged {
        from: Text::name(change.from.as_str()),
        state: Text::name(change.to.as_str()),
        cause: Text::name(change.cause.as_str()),
        used: snapshot.used as u64,
        limit: snapshot.limit as u64,
        waiting: snapshot.waiting as u64,
        oldest_wait_seconds: Seconds(snapshot.oldest_wait),
        holder: holder.map(|holder| Text::name(&holder.execution)),
        holder_caller: holder
            .and_then(|holder| holder.caller.as_deref())
            .map(Text::sentence),
        held_seconds: holder.map(|holder| Seconds(holder.held)),
    };
    // Once for each level, as that is no value but part of what a line is made of.
    macro_rules! log {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                event = event.name(),
                from = change.from.as_str(),
                state = change.to.as_str(),
                cause = change.cause.as_str(),
                used = snapshot.used,
                limit = snapshot.limit,
                waiting = snapshot.waiting,
                oldest_wait_seconds = snapshot.oldest_wait.as_secs_f64(),
                holder = holder.map(|holder| holder.execution.as_str()),
                holder_caller = holder.and_then(|holder| holder.caller.as_deref()),
                held_seconds = holder.map(|holder| holder.held.as_secs_f64()),
                $message
            )
        };
    }
    match (change.to, change.to < change.from) {
        (State::Sustained, _) => {
            log!(
                error,
                "server connections have run out, and it does not pass"
            )
        }
        (State::Exhausted, _) => log!(
            warn,
            "server connections have run out: who needs one waits long, or in vain"
        ),
        (State::Warning, false) => log!(warn, "server connections run short"),
        (State::Warning, true) => log!(
            info,
            "nobody waits for a server connection any more, but they are short"
        ),
        (State::Healthy, _) => log!(info, "there are server connections again"),
    }
    events.tell(event);
}
