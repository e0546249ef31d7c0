//! JSON from outside, read one way at every border. [`check`] refuses what is JSON by the letter but spoils a text for strict
//! readers, so that raw values can be passed on as they were written; [`from_str`] and [`from_slice`] read into a type and
//! take an object only where its members have names, each once ([`Objects`]). [`write_string`] is the one way back.
//! Knows nothing of what the values mean. Invariants: nothing here recurses over a text, and [`check`] allocates nothing.

mod objects;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use objects::{EMPTY_LIST, Objects, is_of_empty_list};

/// What makes a text unsound, though it may be JSON by the letter (RFC 8259 leaves these to the reader).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// Arrays and objects within each other.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// Section 6: readers make infinity of it, or fail.
    #[error("a number that reads as infinite")]
    Number,
    /// Section 8.2: no UTF-8 can hold it.
    #[error("half a surrogate pair in a string or name")]
    Surrogate,
}

/// For `deserialize_with` of a member that may be absent: a value that is there counts, `null` included.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads a type from a whole text, objects by their members' names only.
///
/// # Errors
/// As `serde_json::from_str`, and for an array where an object belongs.
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Objects::new(&mut parser))?;
    parser.end()?;
    Ok(value)
}

/// As [`from_str`], for bytes that may not be UTF-8.
///
/// # Errors
/// As [`from_str`].
pub fn from_slice<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(Objects::new(&mut parser))?;
    parser.end()?;
    Ok(value)
}

/// Writes `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail, and a str is always valid JSON text.
    let _ = serde_json::to_writer(out, text);
}

/// Whether every strict reader can take the values of this text as they are meant: finite numbers, whole characters, no more
/// than `depth_max` levels. One pass; of a text that is no JSON it may say anything, which is for a parser to refuse.
///
/// # Errors
/// The first thing that is unsound.
pub fn check(text: &[u8], depth_max: usize) -> Result<(), Unsound> {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = after_string(text, at + 1).ok_or(Unsound::Surrogate)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return Err(Unsound::TooDeep(depth_max));
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => at = after_number(text, at).ok_or(Unsound::Number)?,
            _ => at += 1,
        }
    }
    Ok(())
}

/// How deep arrays and objects nest, strings left out; text that is no JSON gets some number.
#[must_use]
pub fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0usize, 0usize, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => loop {
                match text.get(at) {
                    Some(b'\\') => at += 2,
                    Some(b'"') | None => break at += 1,
                    Some(_) => at += plain(&text[at..]),
                }
            },
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// From after the opening quote to after the closing one, or past the end; none at half a surrogate pair.
fn after_string(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at) {
            Some(b'\\') if text.get(at + 1) != Some(&b'u') => at += 2,
            Some(b'\\') => {
                at += match unit(text, at) {
                    Some(0xd800..=0xdbff) if matches!(unit(text, at + 6), Some(0xdc00..=0xdfff)) => 12,
                    Some(0xd800..=0xdfff) => return None,
                    _ => 6,
                }
            }
            // The end of a text that is no JSON is as good.
            Some(b'"') | None => return Some(at + 1),
            Some(_) => at += plain(&text[at..]),
        }
    }
}

/// Bytes before the first quote or backslash, eight at a time.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // Of a word the lowest byte that is zero has its highest bit set, and none below it has (Mycroft).
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, _) = text.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return n * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let rest = words.len() * 8;
    rest + text[rest..].iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(text.len() - rest)
}

/// The UTF-16 unit that an escape `\uXXXX` at this place stands for.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let [b'\\', b'u', digits @ ..] = text.get(at..at + 6)? else { return None };
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
}

/// The place after a number; none when it reads as infinite.
fn after_number(text: &[u8], start: usize) -> Option<usize> {
    let mut exponent = None;
    let mut at = start;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'e' | b'E' => exponent = Some(at),
            b'0'..=b'9' | b'-' | b'+' | b'.' => {}
            _ => break,
        }
        at += 1;
    }
    // 1.8e308 takes 309 digits, or an exponent: fewer than 200 digits before one of at most two stay below 1e299.
    let may_be_infinite = at - start > 200 || exponent.is_some_and(|exponent| at - exponent > 3);
    let is_infinite = || {
        let number = std::str::from_utf8(&text[start..at]).ok()?.parse::<f64>().ok()?;
        Some(number.is_infinite())
    };
    (!(may_be_infinite && is_infinite() == Some(true))).then_some(at)
}
