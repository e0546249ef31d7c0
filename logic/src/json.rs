//! JSON as the API takes it apart: objects and lists one level at a time, values kept as the bytes they were written in.
//! Nothing here recurses; depth is measured before anything is parsed (reliability.md, threat 34). One meaning for what
//! JSON leaves open (threat 35): duplicate keys, lone surrogates and numbers that read as infinite are refused.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use tidegate_protocol::json::{self, Unsound};

use crate::problem::Refusal;

/// Most keys of an object of ours; the largest has nine.
const KEYS_MAX: usize = 32;

const AN_OBJECT: &str = "an object";
const NOT_PHPS_LIST: &str =
    "an object {}, and not an empty list [] (PHP writes {} for (object)[] and for new stdClass)";

/// A body as text that is worth parsing: UTF-8, and not too deep.
pub fn text(body: &[u8], depth_max: usize) -> Result<&str, Refusal> {
    if json::depth(body) > depth_max {
        return Err(Refusal::JsonTooDeep { limit: depth_max });
    }
    simdutf8::compat::from_utf8(body)
        .map_err(|e| Refusal::BadJson { detail: format!("not UTF-8 at byte {}", e.valid_up_to()) })
}

/// One object's members, in order, keys distinct.
pub struct Object<'a> {
    pointer: String,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads the members of the object at `pointer`.
    pub fn read(text: &'a str, pointer: &str) -> Result<Self, Refusal> {
        let duplicate = RefCell::new(None);
        let mut parser = serde_json::Deserializer::from_str(text);
        let parsed = Members { duplicate: &duplicate }.deserialize(&mut parser).and_then(|members| {
            parser.end()?;
            Ok(members)
        });
        match parsed {
            Ok(members) => Ok(Self { pointer: pointer.to_owned(), members }),
            Err(e) => match duplicate.into_inner() {
                Some(key) if json::from_str::<&RawValue>(text).is_ok() => {
                    Err(Refusal::DuplicateKey { pointer: under(pointer, &key) })
                }
                _ => Err(fault(&e, text, pointer, AN_OBJECT)),
            },
        }
    }

    /// Takes one member out.
    pub fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let i = self.members.iter().position(|(k, _)| k == key)?;
        let (key, raw) = self.members.swap_remove(i);
        Some(Value { pointer: under(&self.pointer, &key), raw })
    }

    /// Refuses a member that is not `known`: asked when one is missing, because a misspelt one is the likely reason.
    pub fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.members.iter().find(|(name, _)| !known.contains(&name.as_ref())) {
            None => Ok(()),
            Some((name, _)) => Err(self.unknown(name, known)),
        }
    }

    fn unknown(&self, name: &str, known: &[&str]) -> Refusal {
        let pointer = under(&self.pointer, name);
        Refusal::UnknownField { pointer, name: name.chars().take(64).collect(), known: known.join(", ") }
    }

    /// The members, where any name will do.
    pub fn into_members(self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        let pointer = self.pointer;
        let value = |key: &str, raw| Value { pointer: under(&pointer, key), raw };
        self.members.into_iter().map(|(key, raw)| (key.clone(), value(&key, raw))).collect()
    }

    /// Refuses what nobody took; `known` is what could have been.
    pub fn finish(self, known: &[&str]) -> Result<(), Refusal> {
        match self.members.first() {
            None => Ok(()),
            Some((name, _)) => Err(self.unknown(name, known)),
        }
    }
}

/// One value as it was written, and where.
#[derive(Clone)]
pub struct Value<'a> {
    /// JSON pointer of the value.
    pub pointer: String,
    /// Its bytes, without white space around them.
    pub raw: &'a RawValue,
}

impl<'a> Value<'a> {
    /// As an object.
    pub fn object(&self) -> Result<Object<'a>, Refusal> {
        Object::read(self.raw.get(), &self.pointer)
    }

    /// As a list of at most `max` values; `None` when there are more.
    pub fn list(&self, max: usize, expected: &'static str) -> Result<Option<Vec<&'a RawValue>>, Refusal> {
        let mut parser = serde_json::Deserializer::from_str(self.raw.get());
        List { max }.deserialize(&mut parser).map_err(|e| fault(&e, self.raw.get(), &self.pointer, expected))
    }

    /// As a string.
    pub fn string(&self, expected: &'static str) -> Result<Cow<'a, str>, Refusal> {
        text_of(self.raw, &|| self.pointer.clone(), expected)
    }

    /// As a whole number, however it is written: JSON does not tell 20 from 20.0 and 2e1, and some writers know no integers.
    pub fn number(&self, expected: &'static str) -> Result<u32, Refusal> {
        let text = self.raw.get();
        text.parse().ok().or_else(|| whole(text)).ok_or_else(|| self.wrong(expected))
    }

    /// Whether it is `true`.
    pub fn is_true(&self) -> bool {
        self.raw.get() == "true"
    }

    /// It should have been something else.
    pub fn wrong(&self, expected: &'static str) -> Refusal {
        Refusal::WrongType { pointer: self.pointer.clone(), expected }
    }
}

fn whole(text: &str) -> Option<u32> {
    let number: f64 = text.parse().ok()?;
    let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    // Exact: every u32 is an f64.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within u32 and whole")]
    is_whole.then_some(number as u32)
}

/// A string's text, or why there is none.
pub fn text_of<'a>(
    raw: &'a RawValue,
    at: &dyn Fn() -> String,
    expected: &'static str,
) -> Result<Cow<'a, str>, Refusal> {
    string(raw).ok_or_else(|| {
        let text = raw.get();
        // Ids are numbers in most databases, and names are strings here.
        let is_number = text.len() <= 32 && text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        match is_number {
            true => Refusal::NumberForText { pointer: at(), number: text.to_owned() },
            false => Refusal::WrongType { pointer: at(), expected },
        }
    })
}

/// A string's text; `None` for other values, and for half surrogates.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return json::from_str::<String>(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// `pointer` with one more reference token (RFC 6901 section 3), cut so that no answer echoes a whole body.
pub fn under(pointer: &str, key: &str) -> String {
    let key: String = key.chars().take(64).collect();
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn fault(error: &serde_json::Error, text: &str, pointer: &str, expected: &'static str) -> Refusal {
    if error.classify() != Category::Data {
        return Refusal::BadJson { detail: error.to_string() };
    }
    // The reader stopped at the first thing that was not as expected: what follows it may be no JSON at all.
    match json::from_str::<&RawValue>(text) {
        Err(error) => Refusal::BadJson { detail: error.to_string() },
        Ok(raw) if expected == AN_OBJECT && is_empty_list(raw) => {
            Refusal::WrongType { pointer: pointer.to_owned(), expected: NOT_PHPS_LIST }
        }
        Ok(_) => Refusal::WrongType { pointer: pointer.to_owned(), expected },
    }
}

fn is_empty_list(raw: &RawValue) -> bool {
    raw.get().strip_prefix('[').is_some_and(|rest| rest.trim_ascii() == "]")
}

/// Refuses what strict readers would not take, so that it can be passed on as it was written. Its depth is known.
pub fn check_meaning(text: &str, pointer: &dyn Fn() -> String) -> Result<(), Refusal> {
    json::check(text.as_bytes(), usize::MAX).map_err(|unsound| match unsound {
        Unsound::TooDeep(limit) => Refusal::JsonTooDeep { limit },
        Unsound::Number => Refusal::BadNumber { pointer: pointer() },
        Unsound::Surrogate => Refusal::LoneSurrogate { pointer: pointer() },
    })
}

struct Members<'c> {
    duplicate: &'c RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Self::Value = Vec::new();
        while let Some((key, value)) = map.next_entry::<Name<'de>, &RawValue>()? {
            if members.iter().any(|(k, _)| *k == key.0) {
                *self.duplicate.borrow_mut() = Some(key.0.into_owned());
                return Err(A::Error::custom("duplicate key"));
            }
            if members.len() == KEYS_MAX {
                return Err(A::Error::custom("too many keys"));
            }
            members.push((key.0, value));
        }
        Ok(members)
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct List {
    max: usize,
}

impl<'de> DeserializeSeed<'de> for List {
    type Value = Option<Vec<&'de RawValue>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if values.len() < self.max {
                values.push(value);
            } else {
                // The rest is read (it must be JSON) but not kept.
                while seq.next_element::<&RawValue>()?.is_some() {}
                return Ok(None);
            }
        }
        Ok(Some(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let read = |text: &str| {
            let raw = json::from_str(text).expect("JSON");
            Value { pointer: String::new(), raw }.number("a whole number").ok()
        };

        let whole = ["0", "-0", "20", "20.0", "2e1", "200E-1", "4294967295", "4294967295.0"];
        assert_eq!(whole.map(read), [0, 0, 20, 20, 20, 20, u32::MAX, u32::MAX].map(Some));
        for not in ["-1", "1.5", "4294967296", "4294967296.0", "1e300", "\"5\"", "null", "[1]"] {
            assert_eq!(read(not), None, "{not}");
        }
    }
}
