//! What a check has found.

use serde::Serialize;

use crate::ctl::page::{Cell, Colour};

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::ctl) struct Finding {
    /// The check.
    check: &'static str,
    /// How it went.
    outcome: Outcome,
    /// What was seen.
    detail: String,
    /// What to do; null where nothing is to be done.
    hint: Option<String>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// As it should.
    Ok,
    /// To be looked at.
    Warning,
    /// Something is wrong.
    Failed,
}

impl Finding {
    pub(in crate::ctl) fn is_failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }

    /// For the table.
    pub(super) fn row(&self) -> Vec<Cell> {
        let (word, colour) = match self.outcome {
            Outcome::Ok => ("ok", Colour::Green),
            Outcome::Warning => ("warning", Colour::Yellow),
            Outcome::Failed => ("FAILED", Colour::Red),
        };
        let text = match &self.hint {
            Some(hint) => format!("{}. {hint}", self.detail.trim_end_matches('.')),
            None => self.detail.clone(),
        };
        vec![
            Cell::text(word).in_colour(colour),
            Cell::text(self.check),
            Cell::text(text),
        ]
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.note(check, Outcome::Ok, detail.into(), None);
    }

    pub(super) fn warning(
        &mut self,
        check: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.note(check, Outcome::Warning, detail.into(), Some(hint.into()));
    }

    pub(super) fn failed(
        &mut self,
        check: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.note(check, Outcome::Failed, detail.into(), Some(hint.into()));
    }

    fn note(
        &mut self,
        check: &'static str,
        outcome: Outcome,
        detail: String,
        hint: Option<String>,
    ) {
        self.0.push(Finding {
            check,
            outcome,
            detail,
            hint,
        });
    }

    /// All of it, in order.
    pub(super) fn all(self) -> Vec<Finding> {
        self.0
    }
}
