//! The log over any output: see `tests/telemetry.rs` for that of a process.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use serde_json::Value;

use super::queue::CAPACITY;
use super::*;

/// Passes each write on.
struct Lines(Sender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(bytes.to_owned());
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits at each write until it is let through, or for ever.
struct Gated(Receiver<()>, Lines);

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let opened = self.0.recv();
        opened.map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `events` leaves in the log.
fn logged(shape: Shape, level: &str, events: impl FnOnce()) -> Vec<String> {
    let (sender, receiver) = channel();
    let (dispatch, guard) = log_to(Lines(sender), shape, level).unwrap();
    tracing::dispatcher::with_default(&dispatch, events);
    drop(guard);
    texts(&receiver)
}

fn texts(receiver: &Receiver<Vec<u8>>) -> Vec<String> {
    let lines = receiver.try_iter();
    lines.map(|line| String::from_utf8(line).unwrap()).collect()
}

#[test]
fn a_line_of_json_is_one_flat_object() {
    let lines = logged(Shape::Json, "info", || {
        tracing::info!(execution = "a \"b\"\n", count = 3, "text");
        tracing::debug!("below the level");
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].matches('\n').count(), 1);
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(timestamp.len() >= 20 && timestamp.ends_with('Z'), "{line}");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], "execpool::telemetry::log::tests");
    assert_eq!(line["message"], "text");
    assert_eq!(line["execution"], "a \"b\"\n");
    assert_eq!(line["count"], 3);
    assert_eq!(line.as_object().unwrap().len(), 6, "{line}");
}

#[test]
fn text_is_coloured_only_where_that_was_decided() {
    for coloured in [false, true] {
        let shape = Shape::Text { coloured };
        let lines = logged(shape, "info", || tracing::info!(count = 3, "text"));
        assert!(lines[0].contains("text"), "{lines:?}");
        assert_eq!(lines[0].contains('\x1b'), coloured, "{lines:?}");
    }
}

#[test]
fn colours_need_a_terminal_and_no_color_forbids_them() {
    let text = |coloured| Shape::Text { coloured };
    for (format, is_terminal, no_color, shape) in [
        (LogFormat::Auto, true, false, text(true)),
        (LogFormat::Auto, true, true, text(false)),
        (LogFormat::Auto, false, false, Shape::Json),
        (LogFormat::Text, false, false, text(false)),
        (LogFormat::Text, true, false, text(true)),
        (LogFormat::Json, true, false, Shape::Json),
    ] {
        assert_eq!(Shape::of(format, is_terminal, no_color), shape);
    }
}

#[test]
fn an_output_that_blocks_for_ever_blocks_neither_logging_nor_the_end() {
    let (_gate, closed) = channel();
    let output = Gated(closed, Lines(channel().0));
    let (dispatch, guard) = log_to(output, Shape::Json, "info").unwrap();
    let start = Instant::now();
    tracing::dispatcher::with_default(&dispatch, || {
        for number in 0..5 * CAPACITY {
            tracing::info!(number, "text");
        }
    });
    // It is never let through; all else is a busy machine's.
    assert!(start.elapsed() < 30 * FLUSH, "{:?}", start.elapsed());
    let start = Instant::now();
    drop(guard);
    assert!(start.elapsed() < 30 * FLUSH, "{:?}", start.elapsed());
}

#[test]
fn every_line_is_written_in_order_or_counted_as_dropped() {
    let (gate, opened) = channel();
    let (sender, receiver) = channel();
    let (dispatch, guard) = log_to(Gated(opened, Lines(sender)), Shape::Json, "info").unwrap();
    let sent = 4 * CAPACITY;
    tracing::dispatcher::with_default(&dispatch, || {
        for number in 0..sent {
            tracing::info!(number, "text");
        }
    });
    for _ in 0..=sent {
        gate.send(()).unwrap();
    }
    drop(guard);

    let (mut next, mut dropped) = (0, 0);
    for line in texts(&receiver) {
        let line: Value = serde_json::from_str(&line).unwrap();
        if let Some(count) = line["dropped"].as_u64() {
            assert_eq!(line["level"], "WARN");
            assert_eq!(line["target"], "execpool::telemetry::log");
            dropped += count;
        } else {
            assert_eq!(line["number"], next, "dropped lines are the last ones");
            next += 1;
        }
    }
    assert!(dropped >= 2 * CAPACITY as u64, "{dropped}");
    assert_eq!(next + dropped, sent as u64);
}

#[test]
fn a_descriptor_that_takes_little_or_nothing_now_gets_the_whole_line() {
    struct Reluctant(Lines, bool);
    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.write(&bytes[..bytes.len().min(100)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (sender, receiver) = channel();
    let output = Reluctant(Lines(sender), false);
    let (dispatch, guard) = log_to(output, Shape::Json, "info").unwrap();
    tracing::dispatcher::with_default(&dispatch, || tracing::info!(pad = "x".repeat(150), "text"));
    drop(guard);
    let line = texts(&receiver);
    assert!(line.len() > 1);
    let line: Value = serde_json::from_str(&line.concat()).unwrap();
    assert_eq!(line["message"], "text");
}

#[test]
fn a_level_that_is_no_filter_is_told() {
    let error = log_to(io::sink(), Shape::Json, "execpool=loud").unwrap_err();
    assert!(error.to_string().starts_with("log.level"), "{error}");
}
