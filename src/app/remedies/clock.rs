//! The clocks of the machine, as Linux tells them.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use crate::reactor::{Moment, Step, Up};

/// How long the machine has been up, in seconds, suspension included.
const UPTIME: &str = "/proc/uptime";

/// Another text at each start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The longest such text that is believed, in bytes.
const LONGEST: usize = 64;

/// How long the reading of both clocks may take; each tells whole seconds.
const TOGETHER: Duration = Duration::from_millis(500);

/// How often they are read at most.
const READINGS: u32 = 5;

/// What time it is, and by how much it was set meanwhile.
#[derive(Debug)]
pub(super) struct Clock {
    begun: Instant,
    /// What was known when it was last found to be set, or at first.
    before: Moment,
}

impl Clock {
    /// Begins now.
    pub(super) fn start() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            before: since(begun),
        }
    }

    /// What time it is, and by how much it was set since this was last asked; none where it was not, or nobody knows.
    pub(super) fn look(&mut self) -> (SystemTime, Option<Step>) {
        let now = since(self.begun);
        let step = now.set_since(&self.before).filter(|step| step.is_set());
        let time = now.time;
        if step.is_some() {
            self.before = now;
        }
        (time, step)
    }
}

/// This moment, as this process has it: where the machine does not tell how long it is up, the process does for
/// itself.
fn since(begun: Instant) -> Moment {
    let mut now = moment();
    now.up.get_or_insert_with(|| Up {
        boot: String::new(),
        since: begun.elapsed(),
    });
    now
}

/// This moment. Blocks for as long as reading from `/proc` takes.
pub(super) fn moment() -> Moment {
    let moment = || Moment {
        time: SystemTime::now(),
        up: up(),
    };
    together(moment, Instant::now)
}

/// What is read, again where that took so long that its two clocks are not those of one moment: a thread that stood
/// still between them would take that for a clock that was set.
fn together(read: impl Fn() -> Moment, now: impl Fn() -> Instant) -> Moment {
    for _ in 1..READINGS {
        let begun = now();
        let moment = read();
        if now() - begun < TOGETHER {
            return moment;
        }
    }
    read()
}

fn up() -> Option<Up> {
    let boot = fs::read_to_string(BOOT).ok()?.trim().to_owned();
    let uptime = fs::read_to_string(UPTIME).ok()?;
    let seconds: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    let is_good = !boot.is_empty() && boot.len() <= LONGEST;
    is_good.then_some(Up { boot, since })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_was_not_set() {
        let mut clock = Clock::start();
        assert!(clock.before.up.is_some(), "{clock:?}");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(clock.look().1, None);
    }

    #[test]
    fn that_it_was_set_is_told_once() {
        let mut clock = Clock::start();
        clock.before.time -= Duration::from_secs(3600);
        let (_, step) = clock.look();
        let by = step.unwrap().seconds();
        assert!((3500..3700).contains(&by), "{by}");
        assert_eq!(clock.look().1, None);
    }

    #[test]
    fn clocks_that_were_not_read_at_once_are_read_again() {
        let (begun, reads) = (Instant::now(), Cell::new(0));
        // The first two readings stand still for two seconds.
        let read = || {
            reads.set(reads.get() + 1);
            moment()
        };
        let now = || begun + Duration::from_secs(2) * reads.get().min(2);
        together(read, now);
        assert_eq!(reads.get(), 3);
        reads.set(0);
        together(read, || begun + Duration::from_secs(2) * reads.get());
        assert_eq!(reads.get(), READINGS, "it comes to an end");
    }
}
