//! JSON objects of tokens, read strictly: a name that stands there twice is a fault and not the last one's victory, so that
//! no two readers of a token see different claims. Values stay raw until the claim they belong to is known.
//! One of the parts of [`super`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidegate_protocol::json;
use tidegate_protocol::limits::JSON_DEPTH_MAX;

/// An object's members in order; no name occurs twice, however it is escaped.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Object<'a> {
    /// Reads a whole text as one object.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        // Nothing of a token is passed on as it is written, so its numbers and texts are judged claim by claim.
        if json::depth(text) > JSON_DEPTH_MAX {
            return None;
        }
        json::from_slice(text).ok()
    }

    /// The raw value of a member.
    pub(super) fn find(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// The members in order.
    pub(super) fn into_members(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.members
    }
}

/// A value that is a string.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// A value that is a list of strings.
pub(super) fn texts(value: &RawValue) -> Option<Vec<Cow<'_, str>>> {
    let texts = json::from_str::<Vec<Text<'_>>>(value.get()).ok()?;
    Some(texts.into_iter().map(|text| text.0).collect())
}

/// A value that is a number of seconds since 1970, whole or not (RFC 7519 section 2, `NumericDate`).
pub(super) fn seconds(value: &RawValue) -> Option<f64> {
    json::from_str::<f64>(value.get()).ok().filter(|s| s.is_finite() && *s >= 0.0)
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            members.push((name, value));
        }
        Ok(Object { members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_twice_is_no_object_however_it_is_escaped() {
        assert!(Object::parse(br#"{"sub":"a","exp":1}"#).is_some());
        assert!(Object::parse(br#"{"sub":"a","sub":"a"}"#).is_none());
        assert!(Object::parse(br#"{"sub":"a","s\u0075b":"b"}"#).is_none());
        assert!(Object::parse(br#"[{"sub":"a"}]"#).is_none());
        assert!(Object::parse(br#"{"sub":"a"} {}"#).is_none());
        assert!(Object::parse(format!(r#"{{"x":{}{}}}"#, "[".repeat(70), "]".repeat(70)).as_bytes()).is_none());
    }

    #[test]
    fn only_numbers_are_times() {
        let at = |value: &str| {
            Object::parse(format!(r#"{{"exp":{value}}}"#).as_bytes()).map(|o| o.find("exp").and_then(seconds))
        };
        assert_eq!(at("5"), Some(Some(5.0)));
        assert_eq!(at("5.5"), Some(Some(5.5)));
        for wrong in [r#""5""#, r#""never""#, "null", "true", "[5]", "-1", "{}", "1e999"] {
            assert!(matches!(at(wrong), None | Some(None)), "{wrong}");
        }
    }
}
