//! The query string of a request.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::config::duration;

use super::problem::{Kind, Problem, near, repeated};

/// What a duration looks like, to follow "is not".
pub(super) const DURATION: &str = "a duration with its unit, such as 250ms, 20s or 1m30s";

/// The parameters of a query string, each known and at most once there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads a query string of which these parameters are known.
    ///
    /// # Errors
    /// One is unknown, comes twice, or is no UTF-8.
    pub(super) fn parse(text: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for part in text
            .unwrap_or("")
            .split('&')
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decoded(name)?;
            let Some(name) = known.iter().find(|one| **one == name) else {
                return Err(unknown(&name, known));
            };
            if found.iter().any(|(seen, _)| seen == name) {
                return Err(wrong(format!("{name} is there twice"), "Say it once."));
            }
            found.push((name, decoded(value)?));
        }
        Ok(Self(found))
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter();
        found.find_map(|(known, value)| (*known == name).then_some(value.as_str()))
    }

    /// A parameter that is a duration.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let parse = |text: &str| {
            duration(text).ok_or_else(|| {
                let detail = format!("{name}={} is not {DURATION}", repeated(text));
                wrong(detail, format!("Say for example {name}=20s."))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A parameter that is true or false; false if it is not there, true if it has no value.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(wrong(
                format!("{name}={} is not true or false", repeated(other)),
                format!("Say {name}=true or {name}=false."),
            )),
        }
    }
}

/// A parameter that is wrong.
pub(super) fn wrong(detail: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem::new(Kind::InvalidParameter, detail, hint)
}

fn unknown(name: &str, known: &[&'static str]) -> Problem {
    let detail = format!("there is no parameter {}", repeated(name));
    let hint = match near(name, known, 1).first() {
        None => "This route takes no parameters.".to_owned(),
        Some(nearest) => format!("Did you mean {nearest}? Known: {}.", known.join(", ")),
    };
    wrong(detail, hint)
}

/// A part of a query string: `%XX`, and `+` for a blank, as forms write it.
fn decoded(part: &str) -> Result<String, Problem> {
    let part = part.replace('+', " ");
    let text = percent_decode_str(&part).decode_utf8();
    text.map(std::borrow::Cow::into_owned).map_err(|_| {
        wrong(
            "a parameter is not UTF-8",
            "Encode it as UTF-8, each byte as %XX.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["reason", "grace", "ended"];

    #[test]
    fn parameters_are_decoded_and_may_be_absent() {
        let query = Query::parse(Some("reason=a%20b+c%26&grace=1m30s&ended"), KNOWN).unwrap();
        assert_eq!(query.get("reason"), Some("a b c&"));
        assert_eq!(query.duration("grace"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(query.flag("ended"), Ok(true));
        let none = Query::parse(None, KNOWN).unwrap();
        assert_eq!((none.get("reason"), none.flag("ended")), (None, Ok(false)));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        for (text, told) in [
            ("graze=1s", "Did you mean grace?"),
            ("grace=1s&grace=2s", "grace is there twice"),
            ("reason=%ff", "not UTF-8"),
        ] {
            let problem = Query::parse(Some(text), KNOWN).unwrap_err();
            assert!(format!("{problem:?}").contains(told), "{problem:?}");
        }
        let query = Query::parse(Some("grace=20&ended=yes"), KNOWN).unwrap();
        let grace = query.duration("grace").unwrap_err();
        assert!(grace.to_string().contains("such as 250ms"), "{grace}");
        assert!(query.flag("ended").is_err());
    }
}
