//! The configuration is read anew: at SIGHUP, when the control API is asked to, and when the file
//! says something else.
//!
//! A file is applied when two looks have found the same in it, so that one that is being written is
//! not taken by half. What is wrong is said once, and what runs stays as it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::config::{Change, Loaded, Plan, Reloaded, Running};
use crate::control::configuration::{Asking, Outcome};
use crate::events::{Event, Text};

use super::source::{Look, Source};
use super::stage::Stage;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Reads the configuration anew and has it applied.
pub(super) struct Reloader {
    source: Source,
    stage: Stage,
    running: watch::Sender<Arc<Running>>,
    /// What the sources said when they were last good.
    wanted: Loaded,
    /// What was last dealt with, whatever came of it.
    last: Look,
    /// Something else that was seen once.
    candidate: Option<Look>,
}

/// Who wants the configuration to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// SIGHUP, or a request: whatever comes of it is said.
    Asked,
    /// The file is another: what is wrong is said where it is something new.
    Seen,
}

impl Reloader {
    /// Where what `look` said is applied already.
    pub(super) fn new(
        (source, look): (Source, Look),
        stage: Stage,
        running: watch::Sender<Arc<Running>>,
    ) -> Self {
        let wanted = running.borrow().loaded.clone();
        Self {
            source,
            stage,
            running,
            wanted,
            last: look,
            candidate: None,
        }
    }

    /// Runs for ever, and answers who asks.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asking>) {
        let mut hangup = hangup();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = received(&mut hangup) => {
                    let look = self.look();
                    let _ = self.reload(look, Trigger::Asked).await;
                }
                Some(answer) = asked.recv() => {
                    let look = self.look();
                    let outcome = self.reload(look, Trigger::Asked).await;
                    // Who asked may have gone.
                    let _ = answer.send(outcome);
                }
                _ = looks.tick() => self.tick().await,
            }
        }
    }

    /// Looks at the file; it is dealt with where it is another than the last, for the second time.
    async fn tick(&mut self) {
        let look = self.look();
        if look == self.last {
            self.candidate = None;
        } else if self.candidate.as_ref() == Some(&look) {
            let _ = self.reload(look, Trigger::Seen).await;
        } else {
            self.candidate = Some(look);
        }
    }

    fn look(&self) -> Look {
        not_gone(self.source.look(), &self.last, &self.source.file)
    }

    async fn reload(&mut self, look: Look, trigger: Trigger) -> Outcome {
        let before = Arc::clone(&self.running.borrow());
        let read = self.source.reload(&look, &before.loaded);
        self.last = look;
        self.candidate = None;
        let applied = match read {
            Ok(reloaded) => self.apply(&before, reloaded).await,
            Err(errors) => Err(errors),
        };
        match applied {
            Ok(plan) => Ok(plan),
            Err(errors) => {
                if trigger == Trigger::Asked || errors != before.refused {
                    let problems = errors.join("; ");
                    let event = Event::ConfigurationRefused {
                        problems: Text::sentence(&problems),
                    };
                    tracing::error!(
                        event = event.name(),
                        problems,
                        "the configuration is refused; what runs stays as it is"
                    );
                    self.stage.common.remote.events().tell(event);
                }
                self.publish(Running {
                    refused: errors.clone(),
                    ..(*before).clone()
                });
                Err(errors)
            }
        }
    }

    async fn apply(&mut self, before: &Running, new: Reloaded) -> Result<Plan, Vec<String>> {
        let Reloaded { wanted, next } = new;
        let plan = Plan::between(&before.loaded, &wanted);
        // The origins of values may be others where the values are the same.
        let is_other = before.loaded.config != next.config;
        if is_other {
            let applied = self.stage.apply(&before.loaded.config, &next.config).await;
            applied.map_err(|why| vec![why])?;
        }
        let event = event(&plan);
        if tell(&plan, before, &self.wanted, &wanted, event.name()) {
            self.stage.common.remote.events().tell(event);
        }
        self.publish(Running {
            loaded: next,
            waiting: plan.waiting.clone(),
            refused: Vec::new(),
            reloads: before.reloads + u64::from(is_other),
        });
        self.wanted = wanted;
        Ok(plan)
    }

    fn publish(&self, running: Running) {
        self.running.send_replace(Arc::new(running));
    }
}

/// A file that was there and is gone is no empty one.
fn not_gone(look: Look, last: &Look, file: &Path) -> Look {
    match (look, last) {
        (Look::Nothing, Look::Text(_) | Look::Unreadable(_)) => {
            Look::Unreadable(format!("cannot read {}: it is gone", file.display()))
        }
        (look, _) => look,
    }
}

fn list(changes: &[Change]) -> String {
    let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// The event of a configuration that was read anew.
fn event(plan: &Plan) -> Event {
    let all = [plan.applied.as_slice(), &plan.waiting].concat();
    Event::ConfigurationReloaded {
        applied: plan.applied.len() as u64,
        waiting_for_restart: plan.waiting.len() as u64,
        changes: Text::sentence(&list(&all)),
    }
}

/// Says what has changed, and, once for each change, what waits for a restart; whether there was
/// anything to say.
fn tell(
    plan: &Plan,
    before: &Running,
    wanted_before: &Loaded,
    wanted: &Loaded,
    event: &'static str,
) -> bool {
    let is_good_again = plan.applied.is_empty() && !before.refused.is_empty();
    if is_good_again {
        tracing::info!(event, "the configuration is good again, and is what runs");
    } else if !plan.applied.is_empty() {
        let changes = list(&plan.applied);
        tracing::info!(event, changes, "the configuration is applied");
    }
    let new = Plan::between(wanted_before, wanted).waiting;
    let is_new = |change: &&Change| new.iter().any(|new| new.path == change.path);
    let waiting: Vec<Change> = plan.waiting.iter().filter(is_new).cloned().collect();
    if !waiting.is_empty() {
        let changes = list(&waiting);
        tracing::warn!(
            event,
            changes,
            "this change of the configuration takes a restart"
        );
    }
    for warning in &wanted.warnings {
        if !wanted_before.warnings.contains(warning) {
            tracing::warn!(event = "configuration.warning", "{warning}");
        }
    }
    is_good_again || !plan.applied.is_empty() || !waiting.is_empty()
}

/// SIGHUP, which would end the process if nobody listened to it.
fn hangup() -> Option<Signal> {
    match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::error!(event = "signals.failed", %error, "cannot listen to SIGHUP");
            None
        }
    }
}

async fn received(hangup: &mut Option<Signal>) {
    let heard = match hangup {
        Some(hangup) => hangup.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_need_not_be_there_and_was_is_missed_until_it_is_back() {
        let seen = |look, last| not_gone(look, last, Path::new("/c.yaml"));
        let text = Look::Text("budget: {size: 5}".to_owned());
        assert_eq!(seen(Look::Nothing, &Look::Nothing), Look::Nothing);
        let gone = seen(Look::Nothing, &text);
        assert!(matches!(&gone, Look::Unreadable(why) if why.contains("/c.yaml")));
        assert_eq!(seen(Look::Nothing, &gone), gone);
        assert_eq!(seen(text.clone(), &gone), text);
    }
}
