//! The loop of the full screen: it waits for keys, answers, events and signals, and paints. It wakes up
//! for nothing else.

use std::io;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::super::client::Client;
use super::super::error::CtlError;
use super::act::Action;
use super::display::Display;
use super::feed;
use super::keys::Key;
use super::look::Look;
use super::model::{Command, Input, Link, Model};
use super::paint::Palette;

/// How long an answer to a look may take: a status comes in milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long what was asked for may take: an execution is given its grace.
const ACT: Duration = Duration::from_secs(120);

/// The least time between two looks, however much happens.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// The least time between two pictures that no key has asked for.
const BETWEEN_PICTURES: Duration = Duration::from_millis(100);

/// How much input is kept for the loop.
const INPUTS: usize = 256;

/// Shows a running execpool until somebody has seen enough. Its first answer must come; later ones are
/// waited for.
///
/// # Errors
/// There is no first answer.
pub(super) async fn run(
    client: Client,
    interval: Duration,
    palette: Palette,
) -> Result<io::Result<()>, CtlError> {
    let mut model = Model::new(interval.max(BETWEEN_LOOKS), (0, 0));
    let first = client.ask("GET", &model.question(), None, PATIENCE).await?;
    let first = read(first);
    model.take(Input::Looked(Box::new(first)), Instant::now());
    Ok(shown(client, model, palette).await)
}

async fn shown(client: Client, mut model: Model, palette: Palette) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let mut display = Display::take(palette)?;
    model.size = display.size()?;
    let (tell, mut told) = channel(INPUTS);
    listen(tell.clone());
    tokio::spawn(feed::follow(client.clone(), tell.clone()));
    let mut clock = Clock::new(Instant::now());
    loop {
        let now = Instant::now();
        if clock.is_picture_due(now) {
            display.paint(&mut model)?;
            clock.painted(now);
        }
        if clock.is_look_due(&model, now) {
            look(&client, &model, tell.clone());
            clock.looks(now);
        }
        let inputs = tokio::select! {
            inputs = some(&mut told) => inputs,
            () = tokio::time::sleep_until(clock.next(&model).into()) => continue,
            happened = signals.next() => match happened {
                Happened::Ended => return Ok(()),
                Happened::Continued => {
                    display.resume()?;
                    clock.paint_at_once();
                    continue;
                }
            },
        };
        for input in inputs {
            clock.takes(&input);
            match model.take(input, Instant::now()) {
                None => {}
                Some(Command::Quit) => return Ok(()),
                Some(Command::Suspend) => display.suspend()?,
                Some(Command::Repaint) => display.repaint()?,
                Some(Command::Look) => clock.look_soon(),
                Some(Command::Act(action)) => act(&client, action, tell.clone()),
            }
        }
    }
}

/// What has come, as much as there is.
async fn some(told: &mut Receiver<Input>) -> Vec<Input> {
    let mut inputs = Vec::new();
    // There is always a sender: the loop's own.
    told.recv_many(&mut inputs, INPUTS).await;
    inputs
}

/// Reads keys on a thread of its own, which ends with the process or its terminal.
fn listen(tell: Sender<Input>) {
    std::thread::spawn(move || {
        loop {
            let input = match event::read() {
                Ok(Event::Key(key)) => Key::of(key).map(Input::Key),
                Ok(Event::Resize(columns, rows)) => Some(Input::Resized(columns, rows)),
                Ok(_) => None,
                // Without keys it could not be ended otherwise.
                Err(_) => {
                    let _ = tell.blocking_send(Input::Key(Key::Ctrl('c')));
                    return;
                }
            };
            if let Some(input) = input
                && tell.blocking_send(input).is_err()
            {
                return;
            }
        }
    });
}

/// Looks, and tells the answer.
fn look(client: &Client, model: &Model, tell: Sender<Input>) {
    let (client, question) = (client.clone(), model.question());
    tokio::spawn(async move {
        let answer = client.ask("GET", &question, None, PATIENCE).await;
        let looked = answer.map_err(|error| error.to_string()).and_then(read);
        let _ = tell.send(Input::Looked(Box::new(looked))).await;
    });
}

fn read(answer: serde_json::Value) -> Result<Look, String> {
    Look::read(answer).map_err(|error| format!("its answer is no status: {error}"))
}

/// Does what was confirmed, and tells what has come of it.
fn act(client: &Client, action: Action, tell: Sender<Input>) {
    let client = client.clone();
    tokio::spawn(async move {
        let (method, path) = action.request();
        let acted = match client.ask(method, &path, None, ACT).await {
            Ok(answer) => action.told(&answer),
            Err(error) => (false, format!("{error}. {}", error.hint())),
        };
        let _ = tell.send(Input::Acted(acted.0, acted.1)).await;
    });
}

/// When to look and when to paint.
struct Clock {
    /// When the last look began, and whether it has been answered.
    looked: Instant,
    is_answered: bool,
    /// Whether something has happened since then.
    is_news: bool,
    /// Whether somebody has asked for another since then.
    is_asked: bool,
    painted: Instant,
    /// Since when there is something to paint, and whether a key asked for it.
    picture: Picture,
}

/// Whether there is something to paint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picture {
    /// No. Left by any input.
    Painted,
    /// Yes, within a while. Left by painting.
    Later,
    /// Yes, at once: somebody has pressed a key. Left by painting.
    Now,
}

impl Clock {
    fn new(now: Instant) -> Self {
        Self {
            looked: now,
            is_answered: true,
            is_news: false,
            is_asked: false,
            painted: now,
            picture: Picture::Now,
        }
    }

    fn takes(&mut self, input: &Input) {
        match input {
            Input::Key(_) | Input::Resized(..) => self.picture = Picture::Now,
            Input::Event(_) => self.is_news = true,
            Input::Looked(_) => self.is_answered = true,
            Input::Acted(..) => {}
        }
        if self.picture == Picture::Painted {
            self.picture = Picture::Later;
        }
    }

    fn paint_at_once(&mut self) {
        self.picture = Picture::Now;
    }

    fn look_soon(&mut self) {
        self.is_asked = true;
    }

    fn painted(&mut self, now: Instant) {
        self.painted = now;
        self.picture = Picture::Painted;
    }

    fn looks(&mut self, now: Instant) {
        self.looked = now;
        self.is_answered = false;
        self.is_news = false;
        self.is_asked = false;
    }

    /// When the next look is due; none while one is under way, or while the picture stands still and
    /// nobody asks for another.
    fn look(&self, model: &Model) -> Option<Instant> {
        // Who is silent is not asked more often because much happened before.
        let is_sooner = self.is_news && model.link == Link::Answers;
        let after = if is_sooner {
            BETWEEN_LOOKS
        } else {
            model.interval
        };
        (self.is_answered && !model.paused).then(|| self.looked + after)
    }

    fn is_look_due(&self, model: &Model, now: Instant) -> bool {
        self.look(model).is_some_and(|due| due <= now)
    }

    fn picture(&self) -> Option<Instant> {
        match self.picture {
            Picture::Painted => None,
            Picture::Later => Some(self.painted + BETWEEN_PICTURES),
            Picture::Now => Some(self.painted),
        }
    }

    fn is_picture_due(&self, now: Instant) -> bool {
        self.picture().is_some_and(|due| due <= now)
    }

    /// When something is due; in an hour if nothing is.
    fn next(&self, model: &Model) -> Instant {
        let due = [self.look(model), self.picture()].into_iter().flatten();
        due.min()
            .unwrap_or_else(|| self.looked + Duration::from_secs(3600))
    }
}

/// The signals that are answered.
struct Signals {
    end: [Signal; 3],
    continued: Signal,
}

/// What a signal says.
enum Happened {
    /// It is to end.
    Ended,
    /// It was stopped, and goes on.
    Continued,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let end = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
        ];
        // SIGCONT has no name there.
        let continued = SignalKind::from_raw(nix::sys::signal::Signal::SIGCONT as i32);
        Ok(Self {
            end,
            continued: signal(continued)?,
        })
    }

    /// Waits for the next one. Cancel safe.
    async fn next(&mut self) -> Happened {
        let [terminate, hangup, interrupt] = &mut self.end;
        tokio::select! {
            _ = terminate.recv() => Happened::Ended,
            _ = hangup.recv() => Happened::Ended,
            _ = interrupt.recv() => Happened::Ended,
            _ = self.continued.recv() => Happened::Continued,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Input {
        Input::Event(super::super::model::EventLine::default())
    }

    #[test]
    fn what_happens_brings_the_next_look_forward_but_not_too_near() {
        let start = Instant::now();
        let model = Model::new(Duration::from_secs(5), (80, 24));
        let mut clock = Clock::new(start);
        clock.looks(start);
        assert_eq!(clock.look(&model), None, "one is under way");
        clock.takes(&Input::Looked(Box::new(Ok(Look::default()))));
        assert_eq!(clock.look(&model), Some(start + Duration::from_secs(5)));
        for _ in 0..1000 {
            clock.takes(&event());
        }
        assert_eq!(clock.look(&model), Some(start + BETWEEN_LOOKS));
    }

    #[test]
    fn a_key_is_seen_at_once_and_a_storm_of_events_ten_times_a_second() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.painted(start);
        assert_eq!(clock.picture(), None, "nothing is painted for nothing");
        clock.takes(&event());
        assert_eq!(clock.picture(), Some(start + BETWEEN_PICTURES));
        clock.takes(&Input::Key(Key::Down));
        assert!(clock.is_picture_due(start));
        clock.takes(&event());
        assert!(clock.is_picture_due(start));
    }

    #[test]
    fn a_paused_picture_asks_nothing() {
        let start = Instant::now();
        let mut model = Model::new(Duration::from_secs(1), (80, 24));
        model.take(Input::Key(Key::Char('p')), start);
        let mut clock = Clock::new(start);
        clock.takes(&event());
        assert_eq!(clock.look(&model), None);
        model.take(Input::Key(Key::Char('p')), start);
        assert!(clock.look(&model).is_some());
    }
}
