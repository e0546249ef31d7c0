//! What a client says: one JSON object a text message, `{"type": T, "id"?: N, "data"?: {…}}`, parsed into a request
//! that cannot be wrong. A superset of go-push's PING, JOIN and LEAVE. Unknown fields are ignored, an unknown type
//! is an answerable error. What the server does with a request is the gateway's business.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::{JSON_DEPTH_MAX, REQUEST_ID_BYTES_MAX};

/// A request of a client.
#[derive(Debug)]
pub struct Request<'a> {
    /// The `id` as written (a JSON number or string), to be echoed.
    pub id: Option<&'a str>,
    /// What is asked.
    pub verb: Verb<'a>,
}

/// What a client may ask.
#[derive(Debug)]
pub enum Verb<'a> {
    /// Rule L-1; the data object comes back as written.
    Ping(Option<&'a str>),
    /// Rule R-1, one room or several.
    Join(Vec<Cow<'a, str>>),
    /// Rule R-2.
    Leave(Cow<'a, str>),
}

/// Why a text message is no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not a JSON object with a string `type`.
    #[error("a message is a JSON object with a string \"type\": {0}")]
    BadJson(String),
    /// Nested deeper than anyone needs.
    #[error("JSON nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// A type nobody knows.
    #[error("unknown type {0:?}; known are PING, JOIN and LEAVE")]
    UnknownType(String),
    /// The data does not fit the type.
    #[error("{0}")]
    BadData(&'static str),
}

impl BadRequest {
    /// Stable code of the ERROR reply.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadJson(_) | Self::TooDeep => "bad_json",
            Self::UnknownType(_) => "unknown_type",
            Self::BadData(_) => "bad_data",
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct RoomsData<'a> {
    #[serde(borrow, default)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    rooms: Option<Vec<Cow<'a, str>>>,
}

/// Parses one text message. On an error the `id` is returned with it when it could be read.
///
/// # Errors
/// [`BadRequest`], to be answered with ERROR and its code.
pub fn parse(text: &str) -> Result<Request<'_>, (Option<&str>, BadRequest)> {
    if json_depth(text.as_bytes()) > JSON_DEPTH_MAX {
        return Err((None, BadRequest::TooDeep));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| (None, BadRequest::BadJson(e.to_string())))?;
    let id = envelope.id.map(RawValue::get).filter(|id| is_scalar_id(id));
    let data = envelope.data.map(RawValue::get);
    let verb = match envelope.kind.as_ref() {
        "PING" => Ok(Verb::Ping(data.filter(|d| d.starts_with('{')))),
        "JOIN" => join(data).map(Verb::Join),
        "LEAVE" => leave(data).map(Verb::Leave),
        other => Err(BadRequest::UnknownType(other.chars().take(64).collect())),
    };
    match verb {
        Ok(verb) => Ok(Request { id, verb }),
        Err(e) => Err((id, e)),
    }
}

fn is_scalar_id(id: &str) -> bool {
    id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().next().is_some_and(|b| b == b'"' || b == b'-' || b.is_ascii_digit())
}

fn join(data: Option<&str>) -> Result<Vec<Cow<'_, str>>, BadRequest> {
    const NEEDS: BadRequest = BadRequest::BadData("JOIN needs data {\"room\": name} or {\"rooms\": [names]}");
    let data: RoomsData<'_> = serde_json::from_str(data.ok_or(NEEDS)?).map_err(|_| NEEDS)?;
    match (data.room, data.rooms) {
        (Some(room), None) => Ok(vec![room]),
        (None, Some(rooms)) if !rooms.is_empty() => Ok(rooms),
        _ => Err(NEEDS),
    }
}

fn leave(data: Option<&str>) -> Result<Cow<'_, str>, BadRequest> {
    const NEEDS: BadRequest = BadRequest::BadData("LEAVE needs data {\"room\": name}");
    let data: RoomsData<'_> = serde_json::from_str(data.ok_or(NEEDS)?).map_err(|_| NEEDS)?;
    data.room.ok_or(NEEDS)
}

/// How deep arrays and objects nest, strings left out; text that is no JSON gets some number.
/// One pass without recursion, because the parser behind it skips values without counting.
#[must_use]
pub fn json_depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut bytes = text.iter();
    while let Some(&b) = bytes.next() {
        match b {
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => {
                        bytes.next();
                    }
                    Some(b'"') | None => break,
                    Some(_) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        match parse(text) {
            Ok(_) => "ok",
            Err((_, e)) => e.code(),
        }
    }

    /// go-push's README, unchanged.
    #[test]
    fn go_push_messages_are_understood() {
        assert!(matches!(
            parse(r#"{"type":"PING","data":{}}"#),
            Ok(Request { id: None, verb: Verb::Ping(Some("{}")) })
        ));
        let joined = parse(r#"{"type":"JOIN","data":{"room":"chrome-plugin"}}"#);
        assert!(matches!(joined, Ok(Request { verb: Verb::Join(rooms), .. }) if rooms == ["chrome-plugin"]));
        let left = parse(r#"{"type":"LEAVE","data":{"room":"chrome-plugin"}}"#);
        assert!(matches!(left, Ok(Request { verb: Verb::Leave(room), .. }) if room == "chrome-plugin"));
    }

    /// Rule R-1.
    #[test]
    fn join_takes_several_rooms_and_keeps_the_id() {
        let request = parse(r#"{"id":42,"type":"JOIN","data":{"rooms":["a","b\n"]},"later":1}"#);
        assert!(matches!(request, Ok(Request { id: Some("42"), verb: Verb::Join(rooms) }) if rooms == ["a", "b\n"]));
    }

    /// Rule E-1.
    #[test]
    fn each_bad_message_has_its_code() {
        assert_eq!(code("{"), "bad_json");
        assert_eq!(code("[]"), "bad_json");
        assert_eq!(code("PING"), "bad_json");
        assert_eq!(code(r#"{"type":7}"#), "bad_json");
        assert_eq!(code(r#"{"type":"PING","type":"PING"}"#), "bad_json");
        assert_eq!(code(r#"{"type":"FLY"}"#), "unknown_type");
        assert_eq!(code(r#"{"type":"JOIN"}"#), "bad_data");
        assert_eq!(code(r#"{"type":"JOIN","data":{"rooms":[]}}"#), "bad_data");
        assert_eq!(code(r#"{"type":"JOIN","data":{"room":"a","rooms":["b"]}}"#), "bad_data");
        assert_eq!(code(r#"{"type":"LEAVE","data":[]}"#), "bad_data");
    }

    #[test]
    fn the_id_comes_back_with_the_error() {
        assert!(matches!(parse(r#"{"type":"FLY","id":"x"}"#), Err((Some("\"x\""), _))));
        assert!(matches!(parse(r#"{"type":"FLY","id":{"a":1}}"#), Err((None, _))));
    }

    #[test]
    fn deep_json_is_refused_without_recursion() {
        let deep = format!(r#"{{"type":"PING","data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(code(&deep), "bad_json");
        assert_eq!(json_depth(br#"{"a":"[[[\"[[","b":[{}]}"#), 3);
    }
}
