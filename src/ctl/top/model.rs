//! What is shown, and how input changes it. Nothing here knows a terminal or a socket: an input comes
//! in, a command may come out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::client;
use super::act::{Action, works};
use super::keys::Key;
use super::look::{Execution, Look, Session};
use super::order::{ByExecution, BySession, List, Order, wants_execution, wants_session};
use super::screen;

/// How many events are kept.
const EVENTS: usize = 500;

/// How long a note is shown.
const NOTE: Duration = Duration::from_secs(10);

/// The longest filter, in characters.
const LONGEST_FILTER: usize = 200;

/// What has happened outside.
#[derive(Debug)]
pub(super) enum Input {
    Key(Key),
    /// The terminal has another size: columns and rows.
    Resized(u16, u16),
    /// An answer to a look, or why there is none.
    Looked(Box<Result<Look, String>>),
    /// Something has happened.
    Event(EventLine),
    /// What has come of an action, and whether all is well.
    Acted(bool, String),
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    /// Give the terminal to the shell.
    Suspend,
    /// Paint everything anew.
    Repaint,
    /// Look again at once.
    Look,
    Act(Action),
}

/// A pane that keys go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Executions,
    Sessions,
    Events,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// Everything.
    All,
    /// One execution. Left to everything.
    Execution { id: String, generation: u64 },
    /// One session. Left to where it was chosen.
    Session { id: u64, from: Box<View> },
}

/// What keys mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// They move and command.
    Browse,
    /// They are typed into the filter. Left by Enter and Esc.
    Filter,
    /// They answer a question. Left by any key.
    Confirm(Action),
    /// Left by any key.
    Help,
}

/// Whether execpool answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// The last look was answered.
    Answers,
    /// It was not.
    Silent { why: String },
}

/// An event on one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EventLine {
    /// The time of day.
    pub(super) at: String,
    pub(super) name: String,
    pub(super) rest: String,
    pub(super) execution: String,
}

/// What is said in the last line for a while.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) well: bool,
    pub(super) text: String,
    at: Instant,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    /// The last answer, and when it came.
    pub(super) seen: Option<(Look, Instant)>,
    pub(super) link: Link,
    /// The last comes last.
    pub(super) events: VecDeque<EventLine>,
    pub(super) focus: Pane,
    pub(super) view: View,
    pub(super) executions: List<ByExecution, (String, u64)>,
    pub(super) sessions: List<BySession, u64>,
    /// How many of the last events are scrolled away.
    pub(super) back: usize,
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// Whether the picture stands still.
    pub(super) paused: bool,
    note: Option<Note>,
    /// Columns and rows.
    pub(super) size: (u16, u16),
    pub(super) interval: Duration,
}

impl Model {
    pub(super) fn new(interval: Duration, size: (u16, u16)) -> Self {
        Self {
            seen: None,
            link: Link::Answers,
            events: VecDeque::new(),
            focus: Pane::Executions,
            view: View::All,
            executions: List::default(),
            sessions: List::default(),
            back: 0,
            filter: String::new(),
            mode: Mode::Browse,
            paused: false,
            note: None,
            size,
            interval,
        }
    }

    /// What is asked for the next look.
    pub(super) fn question(&self) -> String {
        let of = self.execution_in_view().map(|(id, _)| id.to_owned());
        let include = Some("executions,sessions".to_owned());
        client::path("/v1/status", [("include", include), ("execution", of)])
            // A comma need not be encoded, and reads better in a log.
            .replace("%2C", ",")
    }

    /// The execution that is looked at, if it is one.
    pub(super) fn execution_in_view(&self) -> Option<(&str, u64)> {
        let mut view = &self.view;
        loop {
            match view {
                View::All => return None,
                View::Execution { id, generation } => return Some((id, *generation)),
                View::Session { from, .. } => view = from,
            }
        }
    }

    /// The executions that are shown, in order.
    pub(super) fn shown_executions(&self) -> Vec<&Execution> {
        let all = self
            .seen
            .iter()
            .flat_map(|(look, _)| &look.included.executions.listed);
        let wanted = all.filter(|one| wants_execution(&self.filter, one));
        self.executions.sorted(wanted.collect())
    }

    /// The sessions that are shown, in order.
    pub(super) fn shown_sessions(&self) -> Vec<&Session> {
        let of = self.execution_in_view().map(|(id, _)| id);
        let all = self
            .seen
            .iter()
            .flat_map(|(look, _)| &look.included.sessions.listed);
        let wanted = all
            .filter(|one| of.is_none_or(|id| one.execution == id))
            .filter(|one| wants_session(&self.filter, one));
        self.sessions.sorted(wanted.collect())
    }

    fn execution_keys(&self) -> Vec<(String, u64)> {
        let rows = self.shown_executions().into_iter();
        rows.map(|one| (one.id.clone(), one.generation)).collect()
    }

    fn session_keys(&self) -> Vec<u64> {
        self.shown_sessions().iter().map(|one| one.id).collect()
    }

    /// Which of the executions that are shown is chosen.
    pub(super) fn chosen_execution(&self) -> Option<usize> {
        self.executions.chosen(&self.execution_keys())
    }

    /// Which of the sessions that are shown is chosen.
    pub(super) fn chosen_session(&self) -> Option<usize> {
        self.sessions.chosen(&self.session_keys())
    }

    /// The execution that is looked at, as it is now; none if it has gone.
    pub(super) fn execution(&self) -> Option<&Execution> {
        let (id, generation) = self.execution_in_view()?;
        let (look, _) = self.seen.as_ref()?;
        let mut all = look.included.executions.listed.iter();
        all.find(|one| one.id == id && one.generation == generation)
    }

    /// A session, as it is now; none if it has gone.
    pub(super) fn session(&self, id: u64) -> Option<&Session> {
        let (look, _) = self.seen.as_ref()?;
        look.included
            .sessions
            .listed
            .iter()
            .find(|one| one.id == id)
    }

    /// What is to be said in the last line.
    pub(super) fn note(&self, now: Instant) -> Option<&Note> {
        let note = self.note.as_ref();
        note.filter(|note| now.saturating_duration_since(note.at) < NOTE)
    }

    fn say(&mut self, well: bool, text: impl Into<String>, at: Instant) {
        let text = text.into();
        self.note = Some(Note { well, text, at });
    }

    /// Takes what has happened; answers what is to be done.
    pub(super) fn take(&mut self, input: Input, now: Instant) -> Option<Command> {
        match input {
            Input::Key(key) => return self.key(key, now),
            Input::Resized(columns, rows) => self.size = (columns, rows),
            Input::Looked(looked) => self.looked(*looked, now),
            Input::Event(event) => {
                if self.events.len() == EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(event);
                if self.back > 0 {
                    self.back = (self.back + 1).min(EVENTS - 1);
                }
            }
            Input::Acted(well, text) => {
                self.say(well, text, now);
                return Some(Command::Look);
            }
        }
        None
    }

    fn looked(&mut self, looked: Result<Look, String>, now: Instant) {
        match looked {
            Ok(look) => {
                self.link = Link::Answers;
                self.seen = Some((look, now));
                let (executions, sessions) = (self.execution_keys(), self.session_keys());
                self.executions.settle(executions);
                self.sessions.settle(sessions);
            }
            Err(why) => self.link = Link::Silent { why },
        }
    }

    fn key(&mut self, key: Key, now: Instant) -> Option<Command> {
        match key {
            Key::Ctrl('c') => return Some(Command::Quit),
            Key::Ctrl('z') => return Some(Command::Suspend),
            Key::Ctrl('l') => return Some(Command::Repaint),
            _ => {}
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key, now),
            Mode::Help => None,
            Mode::Confirm(action) => self.confirm(action, key, now),
            Mode::Filter => {
                self.type_filter(key);
                None
            }
        }
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Enter => return,
            Key::Esc => {
                self.filter.clear();
                return;
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Ctrl('u') => self.filter.clear(),
            Key::Char(char) if self.filter.chars().count() < LONGEST_FILTER => {
                self.filter.push(char);
            }
            _ => {}
        }
        self.executions.reset();
        self.sessions.reset();
        self.mode = Mode::Filter;
    }

    /// An answer to a question: `y`, or no.
    fn confirm(&mut self, action: Action, key: Key, now: Instant) -> Option<Command> {
        if !matches!(key, Key::Char('y' | 'Y')) {
            self.say(true, "Left as it is.", now);
            return None;
        }
        let possible = self.seen.as_ref();
        if possible.is_some_and(|(look, _)| action.is_possible(look)) {
            self.say(true, "Asked for; waiting for the answer.", now);
            return Some(Command::Act(action));
        }
        self.say(false, "It has gone, or come to its end, meanwhile.", now);
        None
    }

    fn browse(&mut self, key: Key, now: Instant) -> Option<Command> {
        match key {
            Key::Char('q') => return Some(Command::Quit),
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('r') => return Some(Command::Look),
            Key::Char('p') => {
                self.paused = !self.paused;
                return (!self.paused).then_some(Command::Look);
            }
            Key::Char('s') => self.sort(),
            Key::Char('S') => self.turn(),
            Key::Char('e' | 'K' | 'c') => self.ask(key, now),
            Key::Tab => self.focus = self.neighbour(true),
            Key::BackTab => self.focus = self.neighbour(false),
            Key::Enter => return self.enter(),
            Key::Esc => return self.back(),
            _ => self.go(key),
        }
        None
    }

    /// The panes that can be chosen: of one execution, its sessions and the events.
    fn panes(&self) -> &'static [Pane] {
        match self.view {
            View::All => &[Pane::Executions, Pane::Sessions, Pane::Events],
            View::Execution { .. } => &[Pane::Sessions, Pane::Events],
            View::Session { .. } => &[Pane::Events],
        }
    }

    fn neighbour(&self, next: bool) -> Pane {
        let panes = self.panes();
        let at = panes
            .iter()
            .position(|pane| *pane == self.focus)
            .unwrap_or(0);
        let step = if next { 1 } else { panes.len() - 1 };
        panes
            .get((at + step) % panes.len())
            .copied()
            .unwrap_or(self.focus)
    }

    fn sort(&mut self) {
        match self.focus {
            Pane::Executions => self.executions.by = self.executions.by.next(),
            Pane::Sessions => self.sessions.by = self.sessions.by.next(),
            Pane::Events => {}
        }
    }

    fn turn(&mut self) {
        match self.focus {
            Pane::Executions => self.executions.reversed = !self.executions.reversed,
            Pane::Sessions => self.sessions.reversed = !self.sessions.reversed,
            Pane::Events => {}
        }
    }

    /// Moves within the pane.
    fn go(&mut self, key: Key) {
        let page = isize::from(screen::rows(self, self.focus).max(1).cast_signed());
        let by = match key {
            Key::Up | Key::Char('k') => -1,
            Key::Down | Key::Char('j') => 1,
            Key::PageUp | Key::Ctrl('b') => -page,
            Key::PageDown | Key::Ctrl('f') => page,
            Key::Home | Key::Char('g') => isize::MIN + 1,
            Key::End | Key::Char('G') => isize::MAX,
            _ => return,
        };
        match self.focus {
            Pane::Executions => {
                let keys = self.execution_keys();
                self.executions.step(keys, by);
                if by < -page {
                    self.executions.reset();
                }
            }
            Pane::Sessions => {
                let keys = self.session_keys();
                self.sessions.step(keys, by);
                if by < -page {
                    self.sessions.reset();
                }
            }
            Pane::Events => {
                let most = self.events.len().saturating_sub(1);
                self.back = self
                    .back
                    .saturating_add_signed(by.saturating_neg())
                    .min(most);
            }
        }
    }

    /// Looks closer at what is chosen.
    fn enter(&mut self) -> Option<Command> {
        let view = match self.focus {
            Pane::Executions => {
                let rows = self.shown_executions();
                let one = rows.get(self.chosen_execution()?)?;
                View::Execution {
                    id: one.id.clone(),
                    generation: one.generation,
                }
            }
            Pane::Sessions => View::Session {
                id: self.shown_sessions().get(self.chosen_session()?)?.id,
                from: Box::new(self.view.clone()),
            },
            Pane::Events => return None,
        };
        self.show(view);
        Some(Command::Look)
    }

    /// From where one looks closer; from everything, to all of it.
    fn back(&mut self) -> Option<Command> {
        match std::mem::replace(&mut self.view, View::All) {
            View::All => {
                self.filter.clear();
                return None;
            }
            View::Execution { .. } => {
                self.show(View::All);
                self.focus = Pane::Executions;
            }
            View::Session { from, .. } => {
                self.view = *from;
                self.focus = Pane::Sessions;
            }
        }
        Some(Command::Look)
    }

    fn show(&mut self, view: View) {
        if !matches!(view, View::Session { .. }) {
            self.sessions.reset();
        }
        self.view = view;
        self.focus = self.panes().first().copied().unwrap_or(Pane::Events);
    }

    /// Puts the question before something is ended or cancelled.
    fn ask(&mut self, key: Key, now: Instant) {
        let action = match key {
            Key::Char('e') => self.target_execution(),
            Key::Char('K') => self
                .target_session()
                .map(|one| Action::EndSession { id: one.id }),
            _ => match self.target_session() {
                Some(one) if !works(one) => {
                    let text = format!("Session {} runs nothing: it is {}.", one.id, one.state);
                    return self.say(false, text, now);
                }
                one => one.map(|one| Action::Cancel { id: one.id }),
            },
        };
        match action {
            Some(action) => self.mode = Mode::Confirm(action),
            None => self.say(false, "Choose one first: Tab goes to the sessions.", now),
        }
    }

    fn target_execution(&self) -> Option<Action> {
        let of_session = || {
            let one = self.target_session()?;
            let (look, _) = self.seen.as_ref()?;
            let mut all = look.included.executions.listed.iter();
            all.find(|execution| execution.id == one.execution)
        };
        let one = match (&self.view, self.focus) {
            (View::Execution { .. }, _) => self.execution(),
            (View::All, Pane::Executions) => {
                let at = self.chosen_execution()?;
                self.shown_executions().get(at).copied()
            }
            _ => of_session(),
        }?;
        Some(Action::EndExecution {
            id: one.id.clone(),
            generation: one.generation,
        })
    }

    fn target_session(&self) -> Option<&Session> {
        match (&self.view, self.focus) {
            (View::Session { id, .. }, _) => self.session(*id),
            (_, Pane::Sessions) => {
                let at = self.chosen_session()?;
                self.shown_sessions().get(at).copied()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
