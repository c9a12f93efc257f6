//! The startup parameter `options`: command-line switches for the server's session.
//!
//! The server splits the text at white space, where a backslash takes the next byte as it is, and
//! reads the words as getopt does: `-c name=value`, `-cname=value`, `--name=value`, and flags may
//! stand together before one that takes a value (`-ec name=value`).

use super::StartupError;
use super::naming::{Named, Setting, from_application_name};

/// The server's switches that take a value, either in the same word or as the next.
const TAKE_A_VALUE: &[u8] = b"-BCDcdfhkNprStvW";

/// A word: as it stands in the text, and without its escapes.
struct Word<'a> {
    raw: &'a [u8],
    plain: Vec<u8>,
}

/// Takes the settings that are ours out of `options` and gives back what the server shall see:
/// untouched where nothing of it is ours, else the remaining words with one space between them,
/// each escaped as it was.
pub(super) fn strip(options: &[u8], named: &mut Named) -> Result<Vec<u8>, StartupError> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut touched = false;
    let mut words = split(options).into_iter();
    while let Some(word) = words.next() {
        kept.push(word.raw.to_vec());
        if word.plain == b"--" {
            // Behind it the server reads no switch.
            kept.extend(words.map(|word| word.raw.to_vec()));
            break;
        }
        let Some(at) = value_switch(&word.plain) else {
            continue;
        };
        let (inside, next) = match &word.plain[at + 1..] {
            [] => (Vec::new(), words.next()),
            inside => (inside.to_vec(), None),
        };
        kept.extend(next.as_ref().map(|next| next.raw.to_vec()));
        let assignment = next.as_ref().map_or(&inside, |next| &next.plain);
        let fate = match word.plain[at] {
            b'c' | b'-' => judge(assignment, named)?,
            _ => Fate::Kept,
        };
        if fate == Fate::Kept {
            continue;
        }
        touched = true;
        kept.truncate(kept.len() - 1 - usize::from(next.is_some()));
        match fate {
            Fate::Rewritten(assignment) if next.is_some() => {
                kept.push(word.raw.to_vec());
                kept.push(escape(&assignment));
            }
            Fate::Rewritten(assignment) => {
                kept.push(escape(&[&word.plain[..=at], &assignment].concat()));
            }
            // Flags that stood in the same word.
            _ if at > 1 => kept.push(escape(&word.plain[..at])),
            _ => {}
        }
    }
    Ok(if touched {
        kept.join(&b' ')
    } else {
        options.to_vec()
    })
}

/// Where in a word of switches the one stands that takes a value.
fn value_switch(word: &[u8]) -> Option<usize> {
    (word.first() == Some(&b'-'))
        .then(|| (1..word.len()).find(|&at| TAKE_A_VALUE.contains(&word[at])))?
}

/// What becomes of one `name=value`.
#[derive(PartialEq)]
enum Fate {
    Kept,
    Dropped,
    Rewritten(Vec<u8>),
}

/// Takes note of an assignment that is ours. The server reads `-` in a name as `_`.
fn judge(assignment: &[u8], named: &mut Named) -> Result<Fate, StartupError> {
    let equals = assignment.iter().position(|&b| b == b'=');
    let (name, value) = assignment.split_at(equals.unwrap_or(assignment.len()));
    let name = String::from_utf8_lossy(name).replace('-', "_");
    if Setting::is_ours(&name) {
        let setting = Setting::find(&name)?;
        let value = value.get(1..).ok_or(StartupError::NoValue(setting))?;
        named.set(setting, value);
        return Ok(Fate::Dropped);
    }
    if !name.eq_ignore_ascii_case("application_name") {
        return Ok(Fate::Kept);
    }
    Ok(match from_application_name(value.get(1..)) {
        None => Fate::Kept,
        Some((id, rest)) => {
            named.in_application_name = Some(id);
            match rest.is_empty() {
                true => Fate::Dropped,
                false => Fate::Rewritten([b"application_name=", &rest[..]].concat()),
            }
        }
    })
}

/// Splits at white space as the server does.
fn split(options: &[u8]) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < options.len() {
        if is_space(options[at]) {
            at += 1;
            continue;
        }
        let start = at;
        let mut plain = Vec::new();
        while at < options.len() && !is_space(options[at]) {
            at += usize::from(options[at] == b'\\');
            plain.extend(options.get(at));
            at += 1;
        }
        at = at.min(options.len());
        words.push(Word {
            raw: &options[start..at],
            plain,
        });
    }
    words
}

/// Puts a backslash before what would split or escape.
fn escape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    for &b in word {
        if is_space(b) || b == b'\\' {
            out.push(b'\\');
        }
        out.push(b);
    }
    out
}

/// White space as C's `isspace` has it, vertical tab and form feed included.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::startup::Naming;
    use proptest::prelude::*;

    fn stripped(options: &str) -> (String, Naming) {
        let mut named = Named::default();
        let kept = strip(options.as_bytes(), &mut named).unwrap();
        (
            String::from_utf8(kept).unwrap(),
            Naming::choose(Named::default(), named).unwrap(),
        )
    }

    fn id(naming: &Naming) -> &str {
        naming.execution_id.as_ref().unwrap().as_str()
    }

    #[test]
    fn every_way_to_write_a_setting_is_understood_and_taken_out() {
        for written in [
            "-c execpool.execution_id=a1",
            "-cexecpool.execution_id=a1",
            "--execpool.execution_id=a1",
            "--execpool.execution-id=a1",
            "-c ExecPool.EXECUTION_ID=a1",
            "\t-c  \n execpool.execution_id=a1 ",
            "-c execpool\\.execution_id=\\a1",
        ] {
            let (kept, naming) = stripped(written);
            assert_eq!((kept.as_str(), id(&naming)), ("", "a1"), "{written}");
            let (kept, naming) =
                stripped(&format!("-e -c geqo=off {written} --enable-seqscan=off"));
            assert_eq!(
                (kept.as_str(), id(&naming)),
                ("-e -c geqo=off --enable-seqscan=off", "a1"),
                "{written}"
            );
        }
        let (kept, naming) = stripped("-ec execpool.execution_id=a1 -F");
        assert_eq!((kept.as_str(), id(&naming)), ("-e -F", "a1"));
    }

    #[test]
    fn what_is_not_ours_keeps_its_escapes() {
        let (kept, naming) = stripped(
            "-c search_path=a\\ b\\\\c  -c execpool.caller=x.py:3\\ main -S 64 -c TimeZone=UTC\\",
        );
        assert_eq!(kept, "-c search_path=a\\ b\\\\c -S 64 -c TimeZone=UTC\\");
        assert_eq!(naming.caller.as_deref(), Some("x.py:3 main"));
    }

    #[test]
    fn options_without_anything_of_ours_are_untouched() {
        for options in [
            "",
            "  -c  a=b ",
            "-d 3\\",
            "-c",
            "--",
            "x -- -c execpool.caller=y",
            "-c nonsense",
        ] {
            assert_eq!(stripped(options), (options.to_owned(), Naming::default()));
        }
    }

    #[test]
    fn the_value_of_another_switch_is_not_mistaken_for_a_setting() {
        for options in ["-S -c execpool.label=x", "-d --execpool.label=x"] {
            let mut named = Named::default();
            let kept = strip(options.as_bytes(), &mut named).unwrap();
            assert_eq!(kept, options.as_bytes());
        }
    }

    #[test]
    fn application_name_in_the_options_names_the_execution_too() {
        let (kept, naming) = stripped("-c application_name=execpool:a1:my\\ tool -c geqo=off");
        assert_eq!(
            (kept.as_str(), id(&naming)),
            ("-c application_name=my\\ tool -c geqo=off", "a1")
        );
        assert_eq!(
            stripped("-ecapplication_name=execpool:a1:b").0,
            "-ecapplication_name=b"
        );
        let (kept, naming) = stripped("--application-name=execpool:a1");
        assert_eq!((kept.as_str(), id(&naming)), ("", "a1"));
        assert_eq!(
            stripped("-c application_name=psql").0,
            "-c application_name=psql"
        );
    }

    #[test]
    fn the_last_of_two_counts_as_in_the_server() {
        let (kept, naming) = stripped("-c execpool.label=one -c execpool.label=two");
        assert_eq!((kept.as_str(), naming.label.as_deref()), ("", Some("two")));
    }

    #[test]
    fn an_unknown_setting_of_ours_or_one_without_value_is_an_error() {
        let strip = |options: &str| strip(options.as_bytes(), &mut Named::default()).unwrap_err();
        assert_eq!(
            strip("-c execpool.exec_id=1"),
            StartupError::UnknownSetting {
                name: "execpool.exec_id".into()
            }
        );
        assert_eq!(
            strip("-c execpool.label"),
            StartupError::NoValue(Setting::Label)
        );
    }

    proptest! {
        #[test]
        fn escaped_words_split_into_themselves(words: Vec<Vec<u8>>) {
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let text = words.iter().map(|word| escape(word)).collect::<Vec<_>>().join(&b' ');
            let again: Vec<_> = split(&text).into_iter().map(|word| word.plain).collect();
            prop_assert_eq!(again, words);
        }

        #[test]
        fn a_setting_between_any_words_is_taken_out_and_nothing_else(
            before in prop::collection::vec("[a-z]{1,5}=[a-z \\\\]{0,6}", 0..4),
            after in prop::collection::vec("[a-z]{1,5}=[a-z \\\\]{0,6}", 0..4),
        ) {
            let write = |words: &[String]| -> Vec<String> {
                words.iter().map(|w| format!("-c {}", String::from_utf8(escape(w.as_bytes())).unwrap())).collect()
            };
            let own = "-c execpool.label=x".to_owned();
            let with = [write(&before), vec![own], write(&after)].concat().join(" ");
            let without = [write(&before), write(&after)].concat().join(" ");
            let (kept, naming) = stripped(&with);
            prop_assert_eq!(kept, without);
            prop_assert_eq!(naming.label.as_deref(), Some("x"));
        }

        #[test]
        fn any_options_are_read_without_a_panic(options: Vec<u8>) {
            let _ = strip(&options, &mut Named::default());
        }
    }
}
