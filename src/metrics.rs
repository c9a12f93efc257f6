//! What is measured, by which names, and how it is told; nothing here knows what it is that is measured.
//!
//! | module | gives |
//! |---|---|
//! | [`catalogue`] | every instrument: name, kind, unit, attributes, description |
//! | [`words`] | the closed sets of words that attributes take |
//! | [`counters`] | what is counted and belongs to nothing else |
//! | [`reading`] | what was read at one moment, and the instruments that tell it |
//! | [`timings`] | how long things take |
//! | [`markdown`] | the tables of the documentation |

pub mod catalogue;
pub mod counters;
pub mod markdown;
pub mod reading;
pub mod timings;
pub mod words;

pub use counters::Counters;
pub use opentelemetry::metrics::Meter;
pub use reading::{Last, Reading, Value};
pub use timings::{Histograms, Measured, Operations, Timings};
pub use words::{Class, Close, Code, Origin, Phase};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Resident memory, in bytes, as the kernel tells it; none where it does not.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// CPU time that the process has taken, in seconds: in its own code, and in the kernel on its behalf;
/// none where the kernel does not tell.
#[must_use]
pub fn cpu_seconds() -> Option<[f64; 2]> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some([usage.user_time(), usage.system_time()].map(seconds))
}

/// How many descriptors the process has open; none where the kernel does not tell.
#[must_use]
pub fn open_descriptors() -> Option<u64> {
    const PLACE: &str = "/proc/self/fd";
    // Linux 6.2 and newer tell the number as the size, and all is read otherwise.
    match std::fs::metadata(PLACE).ok()?.len() {
        0 => {
            let all = std::fs::read_dir(PLACE).ok()?.count() as u64;
            // One was for reading them.
            Some(all.saturating_sub(1))
        }
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory() {
        assert!(resident_bytes().unwrap() > 100_000);
    }

    #[test]
    fn a_process_takes_time() {
        let before = cpu_seconds().unwrap();
        while cpu_seconds().unwrap() == before {}
        let after = cpu_seconds().unwrap();
        assert!(
            before.iter().sum::<f64>() < after.iter().sum(),
            "{before:?} {after:?}"
        );
    }

    #[test]
    fn an_open_file_is_a_descriptor_more() {
        let before = open_descriptors().unwrap();
        // Other tests open and close theirs at the same time.
        let many: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null")).collect();
        assert!(open_descriptors().unwrap() >= before + 100);
        drop(many);
    }
}
