//! Snapshots of what is painted.

use std::time::Duration;

use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::json;

use super::super::keys::Key;
use super::super::model::Input;
use super::super::samples::{Shown, exhausted, status};
use super::*;

const NARROW: (u16, u16) = (80, 24);
const BIG: (u16, u16) = (160, 50);

fn painted(shown: &Shown, palette: Palette) -> Buffer {
    let (columns, lines) = shown.model.size;
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    let now = shown.now;
    let frame = terminal.draw(|frame| draw(&shown.model, now, palette, frame));
    frame.unwrap().buffer.clone()
}

/// The text of a picture, without blanks at the ends of lines.
fn text(shown: &Shown) -> String {
    text_of(&painted(shown, Palette::Mono))
}

fn text_of(buffer: &Buffer) -> String {
    let lines = (0..buffer.area.height).map(|y| {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // What is wide covers the next cell.
            x += width(symbol).max(1) as u16;
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where each style of a picture is, in the order of reading.
fn styles(buffer: &Buffer) -> String {
    let mut told = String::new();
    for y in 0..buffer.area.height {
        let mut x = 0;
        while x < buffer.area.width {
            let cell = &buffer[(x, y)];
            let mut run = String::new();
            while x < buffer.area.width && buffer[(x, y)].style() == cell.style() {
                run.push_str(buffer[(x, y)].symbol());
                x += 1;
            }
            let run = run.trim();
            let is_plain = cell.fg == Color::Reset && cell.modifier.is_empty();
            if !is_plain && !run.is_empty() && !run.starts_with('─') {
                let modifier = format!("{:?}", cell.modifier);
                told.push_str(&format!("{y:>2} {:?} {modifier}: {run}\n", cell.fg));
            }
        }
    }
    told
}

#[test]
fn a_narrow_terminal_shows_what_matters_most() {
    assert_snapshot!(text(&Shown::over(status(), NARROW)));
}

#[test]
fn a_wide_terminal_shows_more_columns() {
    assert_snapshot!(text(&Shown::over(status(), BIG)));
}

#[test]
fn colours_tell_what_words_tell_too() {
    let shown = Shown::over(exhausted(), NARROW);
    assert_snapshot!("exhausted", text(&shown));
    assert_snapshot!(
        "exhausted_in_colours",
        styles(&painted(&shown, Palette::Many))
    );
    let mono = painted(&shown, Palette::Mono);
    let is_colourless =
        |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
    assert!(mono.content().iter().all(is_colourless));
}

#[test]
fn no_colour_is_one_that_a_light_or_a_dark_background_hides() {
    for status in [status(), exhausted()] {
        let shown = Shown::over(status, BIG);
        for palette in [Palette::Eight, Palette::Many] {
            for cell in painted(&shown, palette).content() {
                assert_eq!(cell.bg, Color::Reset);
                let can_be_read = match cell.fg {
                    Color::Reset | Color::Green | Color::Magenta | Color::Red => true,
                    Color::Indexed(tone) => [28, 130, 160, 244].contains(&tone),
                    _ => false,
                };
                assert!(can_be_read, "{:?}", cell.fg);
            }
        }
    }
}

#[test]
fn nothing_at_all_is_a_picture_as_well() {
    let mut shown = Shown::over(json!({}), NARROW);
    assert_snapshot!(text(&shown));
    shown.presses(&[Key::Down, Key::Enter, Key::Tab, Key::Enter]);
    shown.types("eKcjkgGsS");
    text(&shown);
}

#[test]
fn an_execution_is_looked_at_closer() {
    let mut shown = Shown::over(status(), NARROW);
    shown.presses(&[Key::Enter]);
    assert_snapshot!(text(&shown));
}

#[test]
fn a_session_is_looked_at_closer() {
    let mut shown = Shown::over(status(), NARROW);
    shown.presses(&[Key::Tab, Key::Down, Key::Enter]);
    assert_snapshot!(text(&shown));
}

#[test]
fn a_question_names_what_would_happen() {
    let mut shown = Shown::over(status(), NARROW);
    shown.types("e");
    assert_snapshot!(text(&shown));
}

#[test]
fn a_filter_is_seen_while_it_is_typed() {
    let mut shown = Shown::over(status(), NARROW);
    shown.types("/agent-2");
    assert_snapshot!(text(&shown));
}

#[test]
fn the_help_tells_every_key() {
    let mut shown = Shown::over(status(), NARROW);
    shown.types("?");
    assert_snapshot!(text(&shown));
}

#[test]
fn without_an_answer_the_last_picture_stays_grey_with_its_age() {
    let mut shown = Shown::over(status(), NARROW);
    shown.now += Duration::from_secs(42);
    let why = "no execpool at /run/execpool/control.sock: No such file".to_owned();
    shown.takes(Input::Looked(Box::new(Err(why))));
    assert_snapshot!("no_answer", text(&shown));
    assert_snapshot!(
        "no_answer_in_colours",
        styles(&painted(&shown, Palette::Many))
    );
    shown.looks(status());
    assert!(!text(&shown).contains("NO ANSWER"));
}

#[test]
fn a_small_terminal_shows_one_pane_and_a_tiny_one_a_sentence() {
    let mut shown = Shown::over(status(), (60, 10));
    assert_snapshot!("small", text(&shown));
    shown.presses(&[Key::Tab]);
    assert!(text(&shown).contains("▶ Sessions"), "{}", text(&shown));
    shown.takes(Input::Resized(30, 5));
    assert_snapshot!("tiny", text(&shown));
}

#[test]
fn every_size_is_painted_without_a_panic() {
    for (columns, lines) in [
        (0, 0),
        (1, 1),
        (60, 9),
        (59, 10),
        (61, 11),
        (80, 17),
        (110, 18),
        (400, 100),
    ] {
        for keys in ["", "?", "e", "/x"] {
            let mut shown = Shown::over(exhausted(), (columns, lines));
            shown.types(keys);
            text(&shown);
            shown.presses(&[Key::Esc, Key::Esc, Key::Tab, Key::Enter]);
            text(&shown);
        }
    }
}

#[test]
fn clients_texts_are_tame_and_take_the_columns_that_they_take() {
    let mut evil = status();
    for session in evil["included"]["sessions"]["listed"]
        .as_array_mut()
        .unwrap()
    {
        session["caller"] = json!("日本語\x1b[2J\u{202e}evil\r\n");
        session["label"] = json!("\x07\u{9b}31m");
        session["statement"] = json!("SELECT '👩‍💻'\t\x1b]0;title\x07");
    }
    evil["included"]["executions"]["listed"][0]["labels"] = json!({"\x1b[m": "日本語".repeat(99)});
    for size in [NARROW, BIG] {
        let mut shown = Shown::over(evil.clone(), size);
        for keys in [&[][..], &[Key::Tab], &[Key::Enter]] {
            shown.presses(keys);
            let picture = text(&shown);
            assert!(picture.contains("日本語?[2J?evil"), "{picture}");
            let obeyed = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!picture.contains(obeyed), "{picture:?}");
            assert!(
                picture.lines().all(|line| width(line) <= size.0.into()),
                "{picture}"
            );
        }
    }
}
