//! The password of an upstream, as it is now.

mod command;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::config::{PasswordSource, Secret};

pub use command::Failure;

/// How long what a command has printed is taken for the password.
const FRESH: Duration = Duration::from_secs(60);

/// How long a command is left alone after it has failed, where an earlier password may still do.
const PAUSE: Duration = Duration::from_secs(5);

/// What is younger and was refused is not refused for its age: the command would print it again.
const YOUNG: Duration = Duration::from_secs(1);

/// The password of one upstream. Clones share what its command has printed.
///
/// Two are equal if they look at the same place.
#[derive(Debug, Clone)]
pub struct Password(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: PasswordSource,
    /// Who holds it runs the command, and the others wait for what it prints.
    printed: Mutex<Printed>,
}

/// What a command has printed.
#[derive(Debug, Default)]
struct Printed {
    last: Option<Print>,
    /// The last run, if it failed, and when.
    failed: Option<(Instant, Arc<PasswordError>)>,
}

#[derive(Debug)]
struct Print {
    secret: Secret,
    at: Instant,
}

/// An upstream's password can't be had.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file can't be read, or is not UTF-8.
    #[error("cannot read the password file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("the password file {} is empty", .0.display())]
    Empty(PathBuf),
    /// The command prints none. Its arguments, and what it says, are not shown: see the log.
    #[error("the password_command {program:?} {failure}")]
    Command {
        /// Its program.
        program: String,
        /// What went wrong.
        failure: Failure,
    },
    /// The process ends.
    #[error("execpool is shutting down")]
    Stopping,
}

impl PasswordError {
    /// What to do, as a sentence of its own.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::Empty(_) => {
                "Put the password into the upstream's password_file."
            }
            Self::Stopping => "Connect again when it is back.",
            Self::Command { .. } => {
                "Run the upstream's password_command by hand where execpool runs; its log has what the command said."
            }
        }
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Eq for Password {}

impl Password {
    /// Looks at this place. Nothing is read or run yet.
    #[must_use]
    pub fn new(source: PasswordSource) -> Self {
        Self(Arc::new(Shared {
            source,
            printed: Mutex::default(),
        }))
    }

    /// Whether it looks there.
    #[must_use]
    pub fn is_of(&self, source: &PasswordSource) -> bool {
        self.0.source == *source
    }

    /// The password as it is now: a file is read anew, less one newline at its end; a command is run
    /// once a minute, whoever asks, and if it fails the password that it gave before is tried.
    ///
    /// Cancel safe: a command that runs goes on for the next who asks.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn get(&self) -> Result<Option<Secret>, Arc<PasswordError>> {
        match &self.0.source {
            PasswordSource::None => Ok(None),
            PasswordSource::Given(secret) => Ok(Some(secret.clone())),
            PasswordSource::File(path) => Ok(Some(read_file(path)?)),
            PasswordSource::Command(words) => {
                let (arrived, words) = (Instant::now(), words.clone());
                let asked = self.run(move |shared| async move {
                    shared.printed.lock().await.now(&words, arrived).await
                });
                asked.await.map(Some)
            }
        }
    }

    /// Another password than the one that a server has refused, if the place has another by now.
    ///
    /// Cancel safe, as [`Password::get`].
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn other_than(&self, refused: &Secret) -> Result<Option<Secret>, Arc<PasswordError>> {
        let now = match &self.0.source {
            PasswordSource::None | PasswordSource::Given(_) => return Ok(None),
            PasswordSource::File(path) => read_file(path)?,
            PasswordSource::Command(words) => {
                let (refused, words) = (refused.clone(), words.clone());
                let asked = self.run(move |shared| async move {
                    shared.printed.lock().await.other(&words, refused).await
                });
                asked.await?
            }
        };
        Ok((now != *refused).then_some(now))
    }

    /// In a task of its own: who asked may lose his patience before a slow command has ended, and
    /// the next one would begin it again.
    async fn run<A>(&self, ask: impl FnOnce(Arc<Shared>) -> A) -> Result<Secret, Arc<PasswordError>>
    where
        A: Future<Output = Result<Secret, Arc<PasswordError>>> + Send + 'static,
    {
        let asked = tokio::spawn(ask(Arc::clone(&self.0))).await;
        asked.unwrap_or_else(|_| Err(Arc::new(PasswordError::Stopping)))
    }
}

impl Printed {
    /// What was printed within the last minute, or is now; `arrived` is when it was asked for.
    async fn now(
        &mut self,
        words: &[String],
        arrived: Instant,
    ) -> Result<Secret, Arc<PasswordError>> {
        if let Some(last) = &self.last
            && !self.is_due(last)
        {
            return Ok(last.secret.clone());
        }
        if let Some((at, error)) = &self.failed
            && *at >= arrived
        {
            // It was run while we waited for our turn.
            return Err(Arc::clone(error));
        }
        match (self.again(words).await, &self.last) {
            // The server will say whether it is too old.
            (Err(_), Some(last)) => Ok(last.secret.clone()),
            (answer, _) => answer,
        }
    }

    /// What is printed now that `refused` was refused; the same, if it is young.
    async fn other(
        &mut self,
        words: &[String],
        refused: Secret,
    ) -> Result<Secret, Arc<PasswordError>> {
        match &self.last {
            Some(last) if last.secret != refused => Ok(last.secret.clone()),
            Some(last) if last.at.elapsed() < YOUNG => Ok(refused),
            _ => self.again(words).await,
        }
    }

    /// Whether it is time to run the command again.
    fn is_due(&self, last: &Print) -> bool {
        let has_failed = |(at, _): &(Instant, _)| at.elapsed() < PAUSE;
        last.at.elapsed() >= FRESH && !self.failed.as_ref().is_some_and(has_failed)
    }

    /// Runs the command.
    async fn again(&mut self, words: &[String]) -> Result<Secret, Arc<PasswordError>> {
        match command::run(words).await {
            Ok(secret) => {
                self.failed = None;
                self.last = Some(Print {
                    secret: secret.clone(),
                    at: Instant::now(),
                });
                Ok(secret)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.failed = Some((Instant::now(), Arc::clone(&error)));
                Err(error)
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, PasswordError> {
    let text = std::fs::read_to_string(path).map_err(|source| PasswordError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match line(&text) {
        "" => Err(PasswordError::Empty(path.to_owned())),
        line => Ok(Secret::new(line)),
    }
}

/// Without the newline that editors and `echo` put at the end.
fn line(text: &str) -> &str {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(password: &Password) -> String {
        match password.get().await {
            Ok(secret) => secret.unwrap().expose().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let password = Password::new(PasswordSource::File(path.clone()));
        assert!(shown(&password).await.contains("cannot read"));
        for word in ["one\n", "two", "three\r\n"] {
            std::fs::write(&path, word).unwrap();
            assert_eq!(shown(&password).await, word.trim());
        }
        let (old, now) = (Secret::new("two"), Secret::new("three"));
        assert_eq!(password.other_than(&old).await.unwrap(), Some(now.clone()));
        assert_eq!(password.other_than(&now).await.unwrap(), None);
        std::fs::write(&path, "\n").unwrap();
        assert!(shown(&password).await.contains("is empty"));
    }

    /// A command that counts its runs, and what it does then.
    fn counting(dir: &Path, then: &str) -> Password {
        let script = format!(
            "cd '{}'; echo >> runs; n=$(wc -l < runs); {then}",
            dir.display()
        );
        let words = ["/bin/sh", "-c", &script];
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Password::new(PasswordSource::Command(words))
    }

    fn runs(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("runs")).map_or(0, |text| text.lines().count())
    }

    #[tokio::test]
    async fn a_command_is_run_once_for_all_who_ask_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let password = counting(dir.path(), "sleep 0.2; echo token$n");
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let password = password.clone();
                tokio::spawn(async move { shown(&password).await })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), "token1");
        }
        assert_eq!(shown(&password).await, "token1", "for a minute");
        assert_eq!(runs(dir.path()), 1);
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_once_and_a_young_one_is_not() {
        let mut tries = 0..20;
        let (dir, password, first) = loop {
            assert!(tries.next().is_some(), "no machine is so busy");
            let dir = tempfile::tempdir().unwrap();
            let password = counting(dir.path(), "echo token$n");
            let begun = Instant::now();
            let first = password.get().await.unwrap().unwrap();
            let other = password.other_than(&first).await.unwrap();
            // What took longer than that is young no more.
            if begun.elapsed() < YOUNG {
                assert_eq!(other, None, "young");
                break (dir, password, first);
            }
        };
        assert_eq!(runs(dir.path()), 1);
        tokio::time::sleep(YOUNG).await;
        let second = password.other_than(&first).await.unwrap().unwrap();
        assert_eq!(second.expose(), "token2");
        // Another connect was refused with the first as well: it gets what there is.
        assert_eq!(password.other_than(&first).await.unwrap(), Some(second));
        assert_eq!(runs(dir.path()), 2);
    }

    #[tokio::test]
    async fn a_failed_run_is_the_answer_for_all_who_waited_and_the_next_runs_again() {
        let dir = tempfile::tempdir().unwrap();
        let password = counting(dir.path(), "sleep 0.2; test $n -gt 1 && echo token$n");
        let asked: Vec<_> = (0..5)
            .map(|_| {
                let password = password.clone();
                tokio::spawn(async move { shown(&password).await })
            })
            .collect();
        for answer in asked {
            let answer = answer.await.unwrap();
            assert!(answer.contains("failed with exit status 1"), "{answer}");
        }
        assert_eq!(runs(dir.path()), 1);
        assert_eq!(shown(&password).await, "token2");
    }

    #[tokio::test]
    async fn a_command_that_fails_later_leaves_what_it_gave_before() {
        let dir = tempfile::tempdir().unwrap();
        let password = counting(dir.path(), "test $n = 1 && echo token1");
        assert_eq!(shown(&password).await, "token1");
        {
            let mut printed = password.0.printed.lock().await;
            let last = printed.last.as_mut().unwrap();
            last.at = last.at.checked_sub(FRESH).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(shown(&password).await, "token1");
        }
        assert_eq!(runs(dir.path()), 2, "it is left alone for a while");
        let refused = password.other_than(&Secret::new("token1")).await;
        assert!(refused.is_err(), "it is run, and fails");
    }
}
