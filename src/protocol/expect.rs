//! What the server still has to answer, so that it is known when a server connection is idle.
//!
//! The rules are those of the PostgreSQL documentation, chapter "Frontend/Backend Protocol", in its
//! sections "Message Flow": "Simple Query", "Extended Query", "Pipelining", "Function Call" and
//! "COPY Operations". Where they leave two possibilities the connection counts as busy until an
//! answer tells.

use std::collections::VecDeque;

use super::{backend, frontend};

/// A message to the server that is answered, or that changes how others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Query: answered by ReadyForQuery in the end.
    Query,
    /// FunctionCall: answered by ReadyForQuery in the end.
    FunctionCall,
    /// Parse, Bind, Describe, Execute or Close: each has one last answer of its own.
    Extended,
    /// Sync: answered by ReadyForQuery.
    Sync,
    /// CopyDone: ends copy-in mode.
    CopyDone,
    /// CopyFail: ends copy-in mode.
    CopyFail,
}

impl Sent {
    /// What this message is here; `None` for Flush, CopyData and Terminate, which are not answered.
    pub fn of(message: &frontend::Message<'_>) -> Option<Self> {
        use frontend::Message as M;
        Some(match message {
            M::Query { .. } => Self::Query,
            M::FunctionCall => Self::FunctionCall,
            M::Parse { .. }
            | M::Bind { .. }
            | M::Describe { .. }
            | M::Execute { .. }
            | M::Close { .. } => Self::Extended,
            M::Sync => Self::Sync,
            M::CopyDone => Self::CopyDone,
            M::CopyFail { .. } => Self::CopyFail,
            M::Flush | M::CopyData | M::Terminate => return None,
        })
    }
}

/// A message of the server's that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// ReadyForQuery.
    ReadyForQuery,
    /// ErrorResponse.
    ErrorResponse,
    /// CopyInResponse: copy-in mode begins.
    CopyInResponse,
    /// The last answer to one message of the extended protocol. Within a simple query the same
    /// messages end nothing.
    Completion,
}

impl Answer {
    /// What this message answers; `None` for those that come on the way or unasked.
    pub fn of(message: &backend::Message<'_>) -> Option<Self> {
        use backend::Message as M;
        Some(match message {
            M::ReadyForQuery { .. } => Self::ReadyForQuery,
            M::ErrorResponse { .. } => Self::ErrorResponse,
            M::CopyInResponse => Self::CopyInResponse,
            M::CommandComplete { .. } | M::Completion { .. } => Self::Completion,
            M::ParameterStatus { .. }
            | M::NoticeResponse { .. }
            | M::BackendKeyData { .. }
            | M::CopyOutResponse
            | M::CopyBothResponse
            | M::NotificationResponse { .. } => return None,
        })
    }
}

/// The server has answered what nobody asked: its connection cannot be given to anybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {0:?} that no message of the client's asked for")]
pub struct OutOfStep(pub Answer);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Query or FunctionCall.
    Round,
    Extended,
    Sync,
    /// CopyDone or CopyFail.
    CopyEnd,
}

/// A run of messages of one kind.
#[derive(Debug, Clone, Copy)]
struct Run {
    kind: Kind,
    count: usize,
}

/// What the server does with the messages behind those in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    /// It reads them. Left for `Skipping` or `Unsure` by an error in the extended protocol.
    #[default]
    Reading,
    /// It skips them up to the next Sync, which leads back to `Reading`.
    Skipping,
    /// One or the other. Left for `Reading` by Sync or by ReadyForQuery, for `Lost` by all else.
    Unsure,
    /// Nothing is known any more. Never left.
    Lost,
}

/// Copy-in mode.
#[derive(Debug, Clone, Copy)]
struct Copy {
    /// Syncs sent while it lasts: the server ignores them, unless it fails before it reads them.
    ignored: usize,
    /// Whether the server leaves the mode at a message that has been sent: CopyDone, CopyFail, or
    /// one that is not allowed here, at which it would end the session.
    ended: bool,
}

/// The ordered queue of what the server still has to answer. It allocates only while it grows.
#[derive(Debug, Default)]
pub struct Expectations {
    /// The first run is what the server works on or will work on next. Never begins with CopyEnd,
    /// which the server ignores outside copy-in mode.
    queue: VecDeque<Run>,
    /// ReadyForQuery that comes before the queue's answers: for certain.
    least: usize,
    /// The same, at most. Above `least` where it depends on when a COPY failed.
    most: usize,
    mode: Mode,
    copy: Option<Copy>,
    /// Whether a batch of the extended protocol has begun that no Sync has ended.
    unsynced: bool,
}

impl Expectations {
    /// Notes that a message goes to the server.
    pub fn sent(&mut self, message: Sent) {
        let kind = match message {
            Sent::Query | Sent::FunctionCall => Kind::Round,
            Sent::Extended => Kind::Extended,
            Sent::Sync => Kind::Sync,
            Sent::CopyDone | Sent::CopyFail => Kind::CopyEnd,
        };
        match (kind, &mut self.copy) {
            (Kind::Sync, Some(copy)) if !copy.ended => return copy.ignored += 1,
            (Kind::CopyEnd, Some(copy)) if !copy.ended => return copy.ended = true,
            (Kind::Round | Kind::Extended, Some(copy)) => copy.ended = true,
            _ => {}
        }
        match (self.mode, kind) {
            (Mode::Lost, _) | (_, Kind::CopyEnd) if self.queue.is_empty() => return,
            (Mode::Skipping, Kind::Round | Kind::Extended | Kind::CopyEnd) => return,
            (Mode::Unsure, Kind::Round | Kind::Extended) => return self.lose(),
            (Mode::Skipping | Mode::Unsure, Kind::Sync) => self.mode = Mode::Reading,
            _ => {}
        }
        match kind {
            Kind::Extended => self.unsynced = true,
            Kind::Sync | Kind::Round => self.unsynced = false,
            Kind::CopyEnd => {}
        }
        match self.queue.back_mut() {
            Some(run) if run.kind == kind => run.count += 1,
            _ => self.queue.push_back(Run { kind, count: 1 }),
        }
        self.settle();
    }

    /// Notes an answer of the server's.
    ///
    /// # Errors
    /// When nothing that was sent has this answer. An ErrorResponse may always come.
    pub fn answered(&mut self, answer: Answer) -> Result<(), OutOfStep> {
        if self.mode == Mode::Lost {
            return Ok(());
        }
        if self.most > 0 {
            match answer {
                Answer::ReadyForQuery => {
                    self.most -= 1;
                    self.least = self.least.saturating_sub(1);
                    if self.mode == Mode::Unsure {
                        self.mode = Mode::Reading;
                    }
                    return Ok(());
                }
                Answer::ErrorResponse if self.least > 0 || self.queue.is_empty() => return Ok(()),
                _ if self.least > 0 => return Err(OutOfStep(answer)),
                // Something behind the doubtful ones is answered: they have come or never will.
                _ => self.most = 0,
            }
        }
        let front = self.queue.front().map(|run| run.kind);
        match (answer, front) {
            (Answer::ReadyForQuery, Some(Kind::Round | Kind::Sync)) => {
                self.copy = None;
                self.pop();
            }
            (Answer::ErrorResponse, Some(kind)) => self.failed(kind),
            (Answer::CopyInResponse, Some(Kind::Round | Kind::Extended)) => {
                self.copy_in();
            }
            (Answer::Completion, Some(kind @ (Kind::Round | Kind::Extended))) => {
                self.copy = None;
                if kind == Kind::Extended {
                    self.pop();
                }
            }
            (Answer::ErrorResponse, None) => {}
            (answer, _) => return Err(OutOfStep(answer)),
        }
        Ok(())
    }

    /// Whether the server has answered everything and waits for a new round. Also false while that
    /// cannot be told, so that a connection that stays busy is closed and not given on.
    pub fn is_idle(&self) -> bool {
        self.mode == Mode::Reading && self.queue.is_empty() && self.most == 0 && !self.unsynced
    }

    /// How many ReadyForQuery are still to come, as far as is known.
    pub fn outstanding(&self) -> usize {
        let rounds = |run: &Run| match run.kind {
            Kind::Round | Kind::Sync => run.count,
            Kind::Extended | Kind::CopyEnd => 0,
        };
        self.least + self.queue.iter().map(rounds).sum::<usize>()
    }

    /// Whether the server waits for a COPY's rows and their end has not been sent.
    pub fn in_copy(&self) -> bool {
        self.copy.is_some_and(|copy| !copy.ended)
    }

    /// "COPY Operations": until CopyDone or CopyFail the server ignores Sync.
    fn copy_in(&mut self) {
        let mut copy = Copy {
            ignored: 0,
            // More of the same kind, right behind it, is not allowed in the mode.
            ended: self.queue.front().is_some_and(|run| run.count > 1),
        };
        while !copy.ended {
            let Some(run) = self.queue.get_mut(1) else {
                break;
            };
            match run.kind {
                Kind::Sync => {
                    copy.ignored += run.count;
                    self.queue.remove(1);
                    continue;
                }
                Kind::CopyEnd if run.count == 1 => {
                    self.queue.remove(1);
                }
                Kind::CopyEnd => run.count -= 1,
                Kind::Round | Kind::Extended => {}
            }
            copy.ended = true;
        }
        // An ignored Sync has ended no batch.
        let mut last = self.queue.iter().rev();
        let last = last.find(|run| run.kind != Kind::CopyEnd);
        self.unsynced = last.is_some_and(|run| run.kind == Kind::Extended);
        self.copy = Some(copy);
    }

    /// An error while the server worked on a message of this kind.
    fn failed(&mut self, kind: Kind) {
        let ignored = self.copy.take().map_or(0, |copy| copy.ignored);
        match (kind, ignored) {
            // "Extended Query": the server skips everything up to the next Sync.
            (Kind::Extended, 0) => {
                self.mode = Mode::Skipping;
                while let Some(run) = self.queue.front() {
                    if run.kind == Kind::Sync {
                        self.mode = Mode::Reading;
                        break;
                    }
                    self.queue.pop_front();
                }
            }
            // Each ignored Sync was read before the failure, or after it and is answered.
            (Kind::Extended, ignored) => {
                self.most = ignored;
                self.pop();
                match self.queue.front() {
                    // A Sync behind them ends the skipping in any case.
                    _ if self.least > 0 => {}
                    Some(_) => self.lose(),
                    None => self.mode = Mode::Unsure,
                }
            }
            (Kind::Round, ignored) if ignored > 0 => {
                self.pop();
                (self.least, self.most) = (self.least + 1, self.most + 1 + ignored);
                self.settle();
            }
            // ReadyForQuery follows.
            (Kind::Round | Kind::Sync | Kind::CopyEnd, _) => {}
        }
    }

    /// Takes one message off the queue's front.
    fn pop(&mut self) {
        if let Some(run) = self.queue.front_mut() {
            run.count -= 1;
            if run.count == 0 {
                self.queue.pop_front();
            }
        }
        self.settle();
    }

    /// Takes off the front what is not worked on by itself: copy-in's end outside of it, and Syncs
    /// behind doubtful ones.
    fn settle(&mut self) {
        while let Some(run) = self.queue.front() {
            match run.kind {
                Kind::CopyEnd => {}
                Kind::Sync if self.most > 0 => {
                    self.least += run.count;
                    self.most += run.count;
                }
                _ => break,
            }
            self.queue.pop_front();
        }
    }

    fn lose(&mut self) {
        self.mode = Mode::Lost;
        self.queue.clear();
        self.copy = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message to the model server, with what becomes of it there.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Say {
        Query(Fate),
        Extended(Fate),
        Sync,
        CopyData { fails: bool },
        CopyEnd,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fate {
        Done,
        Fails,
        CopyIn,
        /// Copy-in mode begins, and an error ends it before a message is read.
        CopyInFails,
    }

    /// Interprets messages one by one as the documentation says.
    #[derive(Debug, Default)]
    struct Server {
        skipping: bool,
        copy: Option<Kind>,
        unsynced: bool,
        dead: bool,
    }

    impl Server {
        fn read(&mut self, say: Say) -> Vec<Answer> {
            use Answer::*;
            if let Some(by) = self.copy {
                return match say {
                    Say::Sync | Say::CopyData { fails: false } => vec![],
                    Say::CopyData { fails: true } => {
                        self.copy = None;
                        self.error(by)
                    }
                    Say::CopyEnd => {
                        self.copy = None;
                        match by {
                            Kind::Round => vec![Completion, ReadyForQuery],
                            _ => vec![Completion],
                        }
                    }
                    Say::Query(_) | Say::Extended(_) => {
                        self.dead = true;
                        vec![]
                    }
                };
            }
            match say {
                Say::Sync => {
                    (self.skipping, self.unsynced) = (false, false);
                    vec![ReadyForQuery]
                }
                Say::CopyData { .. } | Say::CopyEnd => vec![],
                _ if self.skipping => vec![],
                Say::Query(fate) => {
                    self.unsynced = false;
                    match fate {
                        Fate::Done => vec![Completion, Completion, ReadyForQuery],
                        fate => self.begin(Kind::Round, fate),
                    }
                }
                Say::Extended(fate) => {
                    self.unsynced = true;
                    match fate {
                        Fate::Done => vec![Completion],
                        fate => self.begin(Kind::Extended, fate),
                    }
                }
            }
        }

        fn begin(&mut self, kind: Kind, fate: Fate) -> Vec<Answer> {
            let mut answers = match fate {
                Fate::Fails => vec![],
                _ => vec![Answer::CopyInResponse],
            };
            match fate {
                Fate::CopyIn => self.copy = Some(kind),
                _ => answers.extend(self.error(kind)),
            }
            answers
        }

        fn error(&mut self, by: Kind) -> Vec<Answer> {
            if by == Kind::Round {
                return vec![Answer::ErrorResponse, Answer::ReadyForQuery];
            }
            self.skipping = true;
            vec![Answer::ErrorResponse]
        }
    }

    /// Both sides, with messages on their way between them.
    #[derive(Default)]
    struct Play {
        server: Server,
        expectations: Expectations,
        on_the_way: VecDeque<Say>,
    }

    impl Play {
        fn say(&mut self, say: Say) {
            let sent = match say {
                Say::Query(_) => Some(Sent::Query),
                Say::Extended(_) => Some(Sent::Extended),
                Say::Sync => Some(Sent::Sync),
                Say::CopyData { .. } => None,
                Say::CopyEnd => Some(Sent::CopyDone),
            };
            sent.into_iter()
                .for_each(|sent| self.expectations.sent(sent));
            self.on_the_way.push_back(say);
            self.check();
        }

        fn serve(&mut self) {
            let Some(say) = self.on_the_way.pop_front() else {
                return;
            };
            if self.server.dead {
                return;
            }
            for answer in self.server.read(say) {
                self.expectations.answered(answer).unwrap();
            }
            self.check();
        }

        fn check(&self) {
            let copying = |say: &Say| matches!(say, Say::CopyData { .. } | Say::CopyEnd);
            let server = &self.server;
            let idle = self.on_the_way.iter().all(copying)
                && !server.skipping
                && !server.unsynced
                && server.copy.is_none();
            if !server.dead && self.expectations.is_idle() {
                assert!(idle, "idle too early: {server:?} {:?}", self.on_the_way);
            }
        }
    }

    fn say() -> impl Strategy<Value = Say> {
        let fate = prop_oneof![
            4 => Just(Fate::Done), 1 => Just(Fate::Fails),
            3 => Just(Fate::CopyIn), 1 => Just(Fate::CopyInFails)
        ];
        prop_oneof![
            1 => fate.clone().prop_map(Say::Query),
            3 => fate.prop_map(Say::Extended),
            3 => Just(Say::Sync),
            1 => any::<bool>().prop_map(|fails| Say::CopyData { fails }),
            2 => Just(Say::CopyEnd),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn never_idle_before_the_server_and_idle_after_one_more_round(
            script in prop::collection::vec((say(), 0usize..4), 0..24)
        ) {
            let mut play = Play::default();
            for (say, serve) in script {
                play.say(say);
                (0..serve).for_each(|_| play.serve());
            }
            let done = Say::Extended(Fate::Done);
            while !play.on_the_way.is_empty() {
                play.serve();
            }
            for say in [Say::CopyEnd, Say::Sync, done, Say::Sync] {
                play.say(say);
                play.serve();
            }
            let lost = play.expectations.mode == Mode::Lost;
            prop_assert!(play.server.dead || lost || play.expectations.is_idle());
        }
    }
}
