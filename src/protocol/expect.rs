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
            (Mode::Lost, _) => return,
            (_, Kind::CopyEnd) if self.queue.is_empty() => return,
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
                        // An ignored Sync was not ignored: it has ended the failed batch.
                        self.mode = Mode::Reading;
                        self.unsynced = false;
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

    /// Whether the server can answer all that was sent without one message more of the client's. False
    /// where that cannot be told.
    pub fn needs_no_more(&self) -> bool {
        self.mode == Mode::Reading && !self.unsynced && !self.in_copy()
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
    use Answer::{Completion, CopyInResponse, ErrorResponse, ReadyForQuery};
    use proptest::prelude::*;

    fn after(sent: &[Sent], answers: &[Answer]) -> Expectations {
        let mut expectations = Expectations::default();
        sent.iter().for_each(|&sent| expectations.sent(sent));
        then(&mut expectations, answers);
        expectations
    }

    /// The connection stays busy up to the last of these answers.
    fn then(expectations: &mut Expectations, answers: &[Answer]) {
        for &answer in answers {
            assert!(!expectations.is_idle(), "idle before {answer:?}");
            expectations.answered(answer).unwrap();
        }
    }

    #[test]
    fn each_query_function_call_and_sync_is_one_round() {
        assert!(after(&[], &[]).is_idle());
        let mut three = after(
            &[Sent::Query, Sent::FunctionCall, Sent::Sync],
            &[Completion, Completion, ReadyForQuery, Completion],
        );
        assert_eq!(three.outstanding(), 2);
        then(&mut three, &[ReadyForQuery, ReadyForQuery]);
        assert!(three.is_idle());
        assert_eq!(three.outstanding(), 0);
    }

    #[test]
    fn an_answered_batch_without_sync_is_not_idle() {
        let mut batch = after(&[Sent::Extended], &[Completion]);
        assert!(!batch.is_idle());
        batch.sent(Sent::Sync);
        then(&mut batch, &[ReadyForQuery]);
        assert!(batch.is_idle());
    }

    #[test]
    fn an_error_in_a_batch_skips_to_sync_and_takes_a_query_with_it() {
        use Sent::{Extended, Query, Sync};
        let sent = [Extended, Extended, Query, Sync, Query];
        let mut skipped = after(&sent, &[Completion, ErrorResponse]);
        assert_eq!(skipped.outstanding(), 2);
        then(&mut skipped, &[ReadyForQuery, Completion, ReadyForQuery]);
        assert!(skipped.is_idle());

        let mut later = after(&[Extended], &[ErrorResponse]);
        later.sent(Query);
        assert_eq!(later.outstanding(), 0);
        assert!(!later.is_idle());
        later.sent(Sync);
        then(&mut later, &[ReadyForQuery]);
        assert!(later.is_idle());
    }

    #[test]
    fn an_error_in_a_query_skips_nothing() {
        let sent = [Sent::Query, Sent::Query];
        let answers = [ErrorResponse, ReadyForQuery, Completion, ReadyForQuery];
        assert!(after(&sent, &answers).is_idle());
    }

    #[test]
    fn syncs_between_execute_and_copy_done_expect_nothing() {
        use Sent::{CopyDone, Extended, Sync};
        let mut copy = after(&[Extended, Sync], &[CopyInResponse]);
        assert!(copy.in_copy());
        assert_eq!(copy.outstanding(), 0);
        for sent in [Sync, CopyDone, Sync] {
            copy.sent(sent);
        }
        assert!(!copy.in_copy());
        then(&mut copy, &[Completion, ReadyForQuery]);
        assert!(copy.is_idle());

        // The client need not wait for CopyInResponse.
        let sent = [Extended, Sync, CopyDone, Sync];
        let answers = [CopyInResponse, Completion, ReadyForQuery];
        assert!(after(&sent, &answers).is_idle());
    }

    #[test]
    fn a_copy_of_a_simple_query_is_part_of_its_round() {
        let mut copy = after(&[Sent::Query], &[CopyInResponse]);
        assert!(copy.in_copy());
        copy.sent(Sent::CopyFail);
        then(&mut copy, &[ErrorResponse, ReadyForQuery]);
        assert!(copy.is_idle());
    }

    #[test]
    fn a_copy_the_server_ends_leaves_its_end_ignored() {
        for sent in [Sent::CopyDone, Sent::CopyFail] {
            let mut copy = after(&[Sent::Query], &[CopyInResponse, ErrorResponse]);
            assert!(!copy.in_copy());
            copy.sent(sent);
            then(&mut copy, &[ReadyForQuery]);
            assert!(copy.is_idle());
        }
    }

    #[test]
    fn a_sync_the_failed_copy_may_have_ignored_keeps_busy_until_an_answer_tells() {
        use Sent::{CopyDone, Extended, Sync};
        let sent = [Extended, Sync, CopyDone, Sync];
        // Nobody can see which of the two Syncs this ReadyForQuery answers.
        let answers = [CopyInResponse, ErrorResponse, ReadyForQuery];
        let mut one = after(&sent, &answers);
        assert!(!one.is_idle());
        one.sent(Sent::Query);
        then(&mut one, &[Completion, ReadyForQuery]);
        assert!(one.is_idle());

        let mut both = after(&sent, &answers);
        then(&mut both, &[ReadyForQuery]);
        assert!(both.is_idle());
    }

    #[test]
    fn an_answer_nobody_asked_for_is_out_of_step() {
        for answer in [ReadyForQuery, CopyInResponse, Completion] {
            let answered = Expectations::default().answered(answer);
            assert_eq!(answered, Err(OutOfStep(answer)));
        }
        // The server may end a session at any time.
        assert_eq!(Expectations::default().answered(ErrorResponse), Ok(()));
        let mut batch = after(&[Sent::Extended], &[]);
        let answered = batch.answered(ReadyForQuery);
        assert_eq!(answered, Err(OutOfStep(ReadyForQuery)));
    }

    #[test]
    fn a_long_pipeline_is_a_short_queue() {
        let sent = [Sent::Extended; 4_000];
        let mut pipeline = after(&sent, &[]);
        pipeline.sent(Sent::Sync);
        assert_eq!(pipeline.queue.len(), 2);
    }

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
            if server.dead {
                return;
            }
            if self.expectations.is_idle() {
                assert!(idle, "idle too early: {server:?} {:?}", self.on_the_way);
            } else if idle {
                let ours = &self.expectations;
                assert!(ours.most > 0 || ours.mode == Mode::Lost, "busy: {ours:?}");
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
        fn idle_with_the_server_never_before_it_and_never_long_after(
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
