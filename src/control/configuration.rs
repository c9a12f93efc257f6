//! `GET /v1/config` and `POST /v1/reload`. Reading and applying is done by whoever hands in the
//! [`Configuration`].

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Plan, Running};

use super::Control;
use super::problem::{Kind, Problem};
use super::query::Query;
use super::router::{Answer, Asked, json};
use super::types::ConfigurationStatus;

/// What a reload came to: what it changes, or all that is wrong.
pub type Outcome = Result<Plan, Vec<String>>;

/// Who asks for a reload.
pub type Asking = oneshot::Sender<Outcome>;

/// How the configuration is seen and read anew.
#[derive(Debug, Clone)]
pub struct Configuration {
    seen: Option<(watch::Receiver<Arc<Running>>, mpsc::Sender<Asking>)>,
}

impl Configuration {
    /// Nobody can see it.
    #[must_use]
    pub fn unseen() -> Self {
        Self { seen: None }
    }

    /// It is seen in `running`, and read anew by whoever is at the other end of `ask`.
    #[must_use]
    pub fn new(running: watch::Receiver<Arc<Running>>, ask: mpsc::Sender<Asking>) -> Self {
        Self {
            seen: Some((running, ask)),
        }
    }

    pub(super) fn status(&self) -> Option<ConfigurationStatus> {
        let (running, _) = self.seen.as_ref()?;
        let running = Arc::clone(&running.borrow());
        let waiting = running.waiting.iter();
        Some(ConfigurationStatus {
            reloads: running.reloads,
            waiting_for_restart: waiting.map(|change| change.path.clone()).collect(),
            refused: running.refused.clone(),
        })
    }

    fn seen(&self) -> Result<&(watch::Receiver<Arc<Running>>, mpsc::Sender<Asking>), Problem> {
        let hint = "Ask the process that was started with one.";
        self.seen
            .as_ref()
            .ok_or_else(|| Problem::new(Kind::Internal, "there is no configuration here", hint))
    }
}

pub(super) fn get(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let (running, _) = control.configuration.seen()?;
    let running = Arc::clone(&running.borrow());
    json(StatusCode::OK, &running.shown())
}

pub(super) async fn reload(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let (_, ask) = control.configuration.seen()?;
    let (tell, told) = oneshot::channel();
    let gone = || Problem::from(crate::execution::Gone);
    ask.send(tell).await.map_err(|_| gone())?;
    match told.await.map_err(|_| gone())? {
        Ok(outcome) => json(StatusCode::OK, &outcome),
        Err(errors) => Err(Problem::invalid_configuration(errors)),
    }
}
