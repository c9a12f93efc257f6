//! Taking the terminal, and giving it back: at the end, for a while, and after a panic.

use std::io::{self, stdout};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::DefaultTerminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};

use super::model::Model;
use super::paint::Palette;
use super::screen;

/// The terminal, as ours. Given back when this is dropped, and by a panic before it is told.
pub(super) struct Display {
    terminal: DefaultTerminal,
    palette: Palette,
}

impl Display {
    /// Takes it: raw, and another screen than that of the shell.
    ///
    /// # Errors
    /// There is none, or it has gone.
    pub(super) fn take(palette: Palette) -> io::Result<Self> {
        let taken = ratatui::try_init();
        if taken.is_err() {
            // Half of it may have been done.
            let _ = ratatui::try_restore();
        }
        Ok(Self {
            terminal: taken?,
            palette,
        })
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// It has gone.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Paints what has changed.
    ///
    /// # Errors
    /// It has gone.
    pub(super) fn paint(&mut self, model: &mut Model) -> io::Result<()> {
        let palette = self.palette;
        self.terminal.draw(|frame| {
            // The size that is painted, whatever was told before.
            model.size = (frame.area().width, frame.area().height);
            screen::draw(model, Instant::now(), palette, frame);
        })?;
        Ok(())
    }

    /// Gives it to the shell, and stops; goes on when the shell says so, with everything painted anew.
    ///
    /// # Errors
    /// It has gone.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        // The whole job, as Ctrl-Z does it.
        kill(Pid::from_raw(0), Signal::SIGTSTP)?;
        self.resume()
    }

    /// Takes it again, after somebody else had it.
    ///
    /// # Errors
    /// It has gone.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        self.repaint()
    }

    /// Paints everything anew the next time.
    ///
    /// # Errors
    /// It has gone.
    pub(super) fn repaint(&mut self) -> io::Result<()> {
        // Not terminal.clear(): it asks the terminal where its cursor is, and the answer would come
        // among the keys.
        execute!(stdout(), Clear(ClearType::All))?;
        self.terminal = DefaultTerminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        // If it has gone, there is nobody to tell.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}
