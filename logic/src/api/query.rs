//! Names and values in paths, query strings and forms: percent-decoded, strict, each used at most once.
//! Invariant: what comes out is UTF-8, and nothing unknown is passed over in silence.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use tidegate_protocol::limits::{is_valid_name, is_valid_platform};

use crate::problem::Refusal;

/// Most pairs of a query string or form; ours have five.
const PAIRS_MAX: usize = 32;

const PAIRS: &str = "few pairs, each name once";

/// Why a text is no pairs.
#[derive(PartialEq, Eq)]
enum Wrong {
    Escape,
    Pairs,
}

/// `name=value` pairs that nobody has taken yet.
pub struct Pairs {
    pairs: Vec<(String, String)>,
    /// What was asked for, for who sends something else.
    known: Vec<&'static str>,
}

impl Pairs {
    /// Reads a query string; `None` is an empty one.
    pub fn of_query(query: Option<&str>) -> Result<Self, Refusal> {
        Self::read(query.unwrap_or_default()).map_err(|wrong| match wrong {
            Wrong::Escape => Refusal::BadEscape { place: "query string" },
            Wrong::Pairs => Refusal::BadParameter { name: "the query string", expected: PAIRS.into() },
        })
    }

    /// Reads an `application/x-www-form-urlencoded` body.
    pub fn of_form(body: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|_| Wrong::Escape);
        text.and_then(Self::read).map_err(|wrong| {
            let expected = if wrong == Wrong::Pairs { PAIRS } else { "percent-encoded UTF-8" };
            Refusal::BadForm { detail: format!("the form must be {expected}") }
        })
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode_form(name), decode_form(value));
            let (Some(name), Some(value)) = (name, value) else { return Err(Wrong::Escape) };
            if pairs.len() == PAIRS_MAX || pairs.iter().any(|(n, _)| *n == name) {
                return Err(Wrong::Pairs);
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs, known: Vec::new() })
    }

    /// Takes one value out.
    pub fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let i = self.pairs.iter().position(|(n, _)| n == name)?;
        Some(self.pairs.swap_remove(i).1)
    }

    /// Takes a room or user name out.
    pub fn take_name(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        self.take_checked(name, is_valid_name, "a name of 1 to 128 bytes without control characters")
    }

    /// Takes a platform out.
    pub fn take_platform(&mut self) -> Result<Option<String>, Refusal> {
        self.take_checked("platform", is_valid_platform, "1 to 32 characters a-z, 0-9, _ or -")
    }

    /// Takes a number within bounds out.
    pub fn take_number(&mut self, name: &'static str, min: u32, max: u32) -> Result<Option<u32>, Refusal> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match text.parse() {
            Ok(n) if (min..=max).contains(&n) => Ok(Some(n)),
            _ => Err(Refusal::BadParameter { name, expected: format!("a whole number from {min} to {max}") }),
        }
    }

    fn take_checked(
        &mut self,
        name: &'static str,
        is_valid: fn(&str) -> bool,
        expected: &str,
    ) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            Some(value) if !is_valid(&value) => Err(Refusal::BadParameter { name, expected: expected.into() }),
            value => Ok(value),
        }
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), Refusal> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let known = self.known.join(", ");
                Err(Refusal::UnknownParameter { name: name.chars().take(64).collect(), known })
            }
        }
    }
}

fn decode_form(text: &str) -> Option<String> {
    decode(&text.replace('+', " "))
}

/// Percent-decoded text; `None` where a `%` begins no escape, or when what comes out is not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut after_each = text.split('%').skip(1).map(str::as_bytes);
    if !after_each.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit)) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded_once() {
        let mut pairs = Pairs::of_query(Some("room=a%2Fb+%E2%82%AC&user=%2541&&flag")).expect("well-formed");

        assert_eq!(pairs.take("room").as_deref(), Some("a/b €"));
        assert_eq!(pairs.take("user").as_deref(), Some("%41"));
        assert_eq!(pairs.take("flag").as_deref(), Some(""));
        assert_eq!(pairs.finish(), Ok(()));
    }

    #[test]
    fn what_is_unknown_twice_or_no_text_is_refused() {
        assert!(matches!(Pairs::of_query(Some("a=1")).map(Pairs::finish), Ok(Err(Refusal::UnknownParameter { .. }))));
        assert!(Pairs::of_query(Some("a=1&a=2")).is_err());
        for bad in ["a=%ff", "a=%zz", "a=%", "a=%4", "%g0=1", "a=100%&b=1", "a=%%41"] {
            assert!(matches!(Pairs::of_query(Some(bad)), Err(Refusal::BadEscape { .. })), "{bad}");
        }
        assert!(Pairs::of_form(b"a=\xff").is_err());
        assert!(Pairs::of_form(b"a=1&").is_ok());
    }

    #[test]
    fn numbers_keep_their_bounds() {
        let take = |q| Pairs::of_query(Some(q)).and_then(|mut p| p.take_number("limit", 1, 1000));
        assert_eq!(take("limit=1000"), Ok(Some(1000)));
        assert_eq!(take(""), Ok(None));
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=1e3", "limit="] {
            assert!(take(bad).is_err(), "{bad}");
        }
    }
}
