//! A pseudo-terminal: a program runs in it, keys are typed, and the screen is read as a person sees it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::pty::{Winsize, openpty};

use super::wait::{SOON, eventually};

/// A terminal with a program in it. Dropping it hangs up, which ends the program.
pub(crate) struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Screen>>,
    child: Child,
}

/// What is to be seen.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    cells: Vec<Vec<char>>,
    x: usize,
    y: usize,
    /// Whether it is the screen of a program rather than that of the shell.
    pub(crate) is_alternate: bool,
    pub(crate) hides_cursor: bool,
}

impl Terminal {
    /// Runs a program in a terminal of so many columns and lines, which is the one that controls it.
    pub(crate) fn run(
        size: (u16, u16),
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let (columns, lines) = size;
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        let slave = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program)
            .args(args)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .env_remove("COLORTERM")
            .envs(env.iter().copied())
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("setsid starts");
        drop(pty.slave);
        let screen = Arc::new(Mutex::new(Screen {
            cells: vec![vec![' '; columns.into()]; lines.into()],
            ..Screen::default()
        }));
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a descriptor");
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            let mut rest = Vec::new();
            // An error says that the program has left.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                rest.extend_from_slice(&bytes[..count]);
                let taken = seen.lock().unwrap().take(&rest);
                rest.drain(..taken);
            }
        });
        Self {
            keyboard,
            screen,
            child,
        }
    }

    /// Types.
    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("it takes keys");
    }

    /// What is to be seen.
    pub(crate) fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap()
    }

    /// Waits until all of these texts are to be seen, and none of those.
    pub(crate) async fn shows(&self, texts: &[&str], not: &[&str]) -> String {
        let claim = format!("it shows {texts:?} without {not:?}");
        eventually(SOON, &claim, async || {
            let text = self.screen().text();
            let all = texts.iter().all(|part| text.contains(part));
            let none = !not.iter().any(|part| text.contains(part));
            if all && none {
                Ok(text)
            } else {
                Err(Shown(text))
            }
        })
        .await
    }

    /// Waits until the screen of the shell is back as it should be, with this on it.
    pub(crate) async fn is_given_back(&self, text: &str) {
        self.shows(&[text], &[]).await;
        let screen = self.screen();
        assert!(!screen.is_alternate, "{}", screen.text());
        assert!(!screen.hides_cursor, "{}", screen.text());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A screen, readable in a failed test.
struct Shown(String);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n{}", self.0)
    }
}

impl Screen {
    /// Its lines, without blanks at their ends.
    pub(crate) fn text(&self) -> String {
        let lines = self
            .cells
            .iter()
            .map(|line| line.iter().collect::<String>());
        let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// Takes what a program has written; how many bytes of it. A sequence that has not come to its end
    /// is left.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(length) = self.one(&bytes[at..]) {
            at += length;
        }
        at
    }

    /// The first character or sequence; none if it is not there as a whole.
    fn one(&mut self, bytes: &[u8]) -> Option<usize> {
        match bytes {
            [0x1b, b'[', rest @ ..] => {
                let end = rest.iter().position(|byte| (0x40..0x7f).contains(byte))?;
                self.sequence(&rest[..end], rest[end]);
                Some(end + 3)
            }
            [0x1b, b']', rest @ ..] => rest.iter().position(|byte| *byte == 7).map(|end| end + 3),
            [0x1b, b'(' | b')', _, ..] => Some(3),
            [0x1b, b'(' | b')'] | [0x1b] | [] => None,
            [0x1b, _, ..] => Some(2),
            [first, ..] => {
                let length = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    0xc0.. => 2,
                    _ => 1,
                };
                let char = std::str::from_utf8(bytes.get(..length)?)
                    .ok()?
                    .chars()
                    .next()?;
                self.char(char);
                Some(length)
            }
        }
    }

    fn char(&mut self, char: char) {
        let (columns, lines) = (self.cells[0].len(), self.cells.len());
        match char {
            '\r' => self.x = 0,
            '\x08' => self.x = self.x.saturating_sub(1),
            '\n' => {
                self.y += 1;
                if self.y == lines {
                    self.y -= 1;
                    self.cells.remove(0);
                    self.cells.push(vec![' '; columns]);
                }
            }
            char if char.is_control() => {}
            char => {
                if self.x == columns {
                    self.char('\r');
                    self.char('\n');
                }
                self.cells[self.y][self.x] = char;
                self.x += 1;
            }
        }
    }

    fn sequence(&mut self, arguments: &[u8], verb: u8) {
        let arguments = std::str::from_utf8(arguments).unwrap_or_default();
        let numbers: Vec<usize> = arguments
            .split(';')
            .map(|it| it.parse().unwrap_or(0))
            .collect();
        let (columns, lines) = (self.cells[0].len(), self.cells.len());
        match (verb, arguments) {
            (b'H' | b'f', _) => {
                let number = |at: usize| numbers.get(at).copied().unwrap_or(0).max(1) - 1;
                (self.y, self.x) = (number(0).min(lines - 1), number(1).min(columns - 1));
            }
            (b'A', _) => self.y = self.y.saturating_sub(numbers[0].max(1)),
            (b'C', _) => self.x = (self.x + numbers[0].max(1)).min(columns - 1),
            (b'D', _) => self.x = self.x.saturating_sub(numbers[0].max(1)),
            (b'J', "2") => self.cells = vec![vec![' '; columns]; lines],
            (b'K' | b'J', "" | "0") => self.cells[self.y][self.x..].fill(' '),
            (b'h', "?1049") | (b'l', "?1049") => {
                self.is_alternate = verb == b'h';
                self.cells = vec![vec![' '; columns]; lines];
            }
            (b'l', "?25") => self.hides_cursor = true,
            (b'h', "?25") => self.hides_cursor = false,
            _ => {}
        }
    }
}
