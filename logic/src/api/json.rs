//! JSON as the API takes it apart: objects and lists one level at a time, values kept as the bytes they were written in.
//! Nothing here recurses; depth is measured before anything is parsed (reliability.md, threat 34). One meaning for what
//! JSON leaves open (threat 35): duplicate keys, lone surrogates and numbers that read as infinite are refused.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use tidegate_protocol::message::json_depth;

use crate::problem::Refusal;

/// Most keys of an object of ours; the largest has nine.
const KEYS_MAX: usize = 32;

/// A body as text that is worth parsing: UTF-8, and not too deep.
pub fn text(body: &[u8], depth_max: usize) -> Result<&str, Refusal> {
    if json_depth(body) > depth_max {
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
                Some(key) => Err(Refusal::DuplicateKey { pointer: under(pointer, &key) }),
                None => Err(fault(&e, pointer, "an object")),
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
            Some((name, _)) => Err(Refusal::UnknownField {
                pointer: under(&self.pointer, name),
                name: name.chars().take(64).collect(),
            }),
        }
    }

    /// The members, where any name will do.
    pub fn into_members(self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        let pointer = self.pointer;
        let value = |key: &str, raw| Value { pointer: under(&pointer, key), raw };
        self.members.into_iter().map(|(key, raw)| (key.clone(), value(&key, raw))).collect()
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), Refusal> {
        match self.members.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::UnknownField {
                pointer: under(&self.pointer, &name),
                name: name.chars().take(64).collect(),
            }),
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
        List { max }.deserialize(&mut parser).map_err(|e| fault(&e, &self.pointer, expected))
    }

    /// As a string.
    pub fn string(&self, expected: &'static str) -> Result<Cow<'a, str>, Refusal> {
        string(self.raw).ok_or_else(|| self.wrong(expected))
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

/// A string's text; `None` for other values, and for half surrogates.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str::<String>(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// `pointer` with one more reference token (RFC 6901 section 3), cut so that no answer echoes a whole body.
pub fn under(pointer: &str, key: &str) -> String {
    let key: String = key.chars().take(64).collect();
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn fault(error: &serde_json::Error, pointer: &str, expected: &'static str) -> Refusal {
    match error.classify() {
        Category::Data => Refusal::WrongType { pointer: pointer.to_owned(), expected },
        Category::Syntax | Category::Eof | Category::Io => Refusal::BadJson { detail: error.to_string() },
    }
}

/// Refuses what is JSON by the letter but no browser could use as meant. `text` is one well-formed JSON value.
pub fn check_meaning(text: &str, pointer: &dyn Fn() -> String) -> Result<(), Refusal> {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'"' => i = skip_string(bytes, i + 1).ok_or_else(|| Refusal::LoneSurrogate { pointer: pointer() })?,
            b'-' | b'0'..=b'9' => {
                let end = bytes[i..].iter().position(|b| !is_of_number(*b)).map_or(bytes.len(), |n| i + n);
                if reads_as_infinite(&text[i..end]) {
                    return Err(Refusal::BadNumber { pointer: pointer() });
                }
                i = end;
            }
            _ => i += 1,
        }
    }
    Ok(())
}

fn is_of_number(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Only long numbers and those with an exponent can pass 1.8e308.
fn reads_as_infinite(number: &str) -> bool {
    (number.len() > 308 || number.contains(['e', 'E'])) && number.parse::<f64>().is_ok_and(f64::is_infinite)
}

/// From after the opening quote to after the closing one; `None` at half a surrogate pair.
fn skip_string(bytes: &[u8], mut i: usize) -> Option<usize> {
    let mut high = false;
    loop {
        // Past the end only if the text were not well-formed; then there is nothing more to check.
        let Some(&b) = bytes.get(i) else { return Some(bytes.len()) };
        let unit = match (b, bytes.get(i + 1)) {
            (b'\\', Some(b'u')) => bytes.get(i + 2..i + 6).and_then(hex4),
            _ => None,
        };
        match (high, unit) {
            (false, Some(0xd800..=0xdbff)) => high = true,
            (true, Some(0xdc00..=0xdfff)) => high = false,
            (true, _) | (false, Some(0xdc00..=0xdfff)) => return None,
            (false, _) => {}
        }
        i += match (b, unit) {
            (b'"', _) => return Some(i + 1),
            (b'\\', Some(_)) => 6,
            (b'\\', None) => 2,
            _ => 1,
        };
    }
}

fn hex4(digits: &[u8]) -> Option<u16> {
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
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
            let raw = serde_json::from_str(text).expect("JSON");
            Value { pointer: String::new(), raw }.number("a whole number").ok()
        };

        let whole = ["0", "-0", "20", "20.0", "2e1", "200E-1", "4294967295", "4294967295.0"];
        assert_eq!(whole.map(read), [0, 0, 20, 20, 20, 20, u32::MAX, u32::MAX].map(Some));
        for not in ["-1", "1.5", "4294967296", "4294967296.0", "1e300", "\"5\"", "null", "[1]"] {
            assert_eq!(read(not), None, "{not}");
        }
    }
}
