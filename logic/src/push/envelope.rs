//! From the JSON of one push to a [`Push`] that cannot be wrong. Every refusal names the place by JSON pointer and
//! every limit by its key. Messages stay the publisher's bytes: slices of the body, never copied.

use std::borrow::Cow;

use ahash::HashSet;
use bytes::Bytes;
use serde_json::value::RawValue;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::limits::{is_valid_name, is_valid_platform};
use tidegate_protocol::records::Lane;

use crate::config::{HttpConfig, LimitsConfig};
use crate::json::{self, Object, Value};
use crate::problem::Refusal;
use crate::push::{Key, Narrow, Push, To, Wait};
use crate::settings::Current;

const NAME: &str = "a name of 1 to 128 bytes without control characters";
const ID: &str = "a connection id of 26 characters, as HELLO gives it";
const PLATFORM: &str = "a platform of 1 to 32 characters a-z, 0-9, _ or -";
const FIELDS: &[&str] = &["to", "messages", "message", "lane", "ttl_ms", "dedupe", "wait", "timeout_ms"];
/// As many attributes as a token may give a connection, and their bytes.
pub const ATTRIBUTES_MAX: usize = 16;
/// Of one, name and value.
pub const ATTRIBUTE_BYTES_MAX: usize = 1_024;
/// Whom a push is for, and what narrows that.
const TARGET_FIELDS: &[&str] =
    &["all", "room", "rooms", "user", "users", "connection", "connections", "platform", "attributes", "except"];
/// The first so many, of which there must be one.
const KINDS: usize = 7;
const TARGETS: &str = "an object with exactly one of all, room, rooms, user, users, connection, connections";

/// What bounds a push.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// Sizes and counts.
    pub limits: &'a LimitsConfig,
    /// Waits.
    pub http: &'a HttpConfig,
}

impl<'a> Bounds<'a> {
    /// Those of a request.
    #[must_use]
    pub fn of(current: &'a Current) -> Self {
        Self { limits: &current.limits, http: &current.http }
    }
}

/// Reads one push. `body` holds nothing else.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(body: &Bytes, bounds: Bounds<'_>) -> Result<Push, Refusal> {
    let text = json::text(body, bounds.limits.json_depth)?;
    read_text(text, "", body, bounds)
}

/// As [`read`], for text within `body` at `pointer` that is known to be shallow.
pub fn read_text(text: &str, pointer: &str, body: &Bytes, bounds: Bounds<'_>) -> Result<Push, Refusal> {
    let mut push = Object::read(text, pointer)?;
    let Some(to) = push.take("to") else {
        push.only(FIELDS)?;
        return Err(missing(pointer, "to"));
    };
    let (to, narrow) = targets(&to, bounds.limits)?;
    let messages = match (push.take("messages"), push.take("message")) {
        (Some(list), None) => messages(&list, body, bounds.limits)?,
        (None, Some(one)) => vec![message(one.raw, &|| one.pointer.clone(), body, bounds.limits)?],
        (None, None) => {
            push.only(FIELDS)?;
            return Err(missing(pointer, "messages (a list) or message (one)"));
        }
        (Some(_), Some(one)) => return Err(bad(&one, "left out when messages is given")),
    };
    let lane = push.take("lane").map_or(Ok(Lane::Normal), |v| lane(&v))?;
    let ttl_ms = push.take("ttl_ms").map_or(Ok(0), |v| v.number("a whole number of milliseconds, 0 to 4294967295"))?;
    let dedupe = push.take("dedupe").map(|v| name(v.raw, &|| v.pointer.clone())).transpose()?;
    let dedupe = dedupe.map(|name| Key { owner: None, name: name.into_owned() });
    let wait = wait(push.take("wait"), push.take("timeout_ms"), bounds.http)?;
    push.finish(FIELDS)?;
    Ok(Push { to, narrow, messages, lane, ttl_ms, dedupe, wait })
}

/// The messages of a list that stands alone (go-push's `items`).
///
/// # Errors
/// As [`read`].
pub fn items(body: &Bytes, limits: &LimitsConfig) -> Result<Vec<Bytes>, Refusal> {
    let text = json::text(body, limits.json_depth)?;
    let raw: &RawValue =
        tidegate_protocol::json::from_str(text).map_err(|e| Refusal::BadJson { detail: format!("items: {e}") })?;
    messages(&Value { pointer: "/items".into(), raw }, body, limits)
}

fn missing(pointer: &str, name: &'static str) -> Refusal {
    Refusal::MissingField { pointer: pointer.to_owned(), name }
}

fn bad(value: &Value<'_>, expected: impl Into<String>) -> Refusal {
    Refusal::BadValue { pointer: value.pointer.clone(), expected: expected.into() }
}

fn targets(value: &Value<'_>, limits: &LimitsConfig) -> Result<(To, Narrow), Refusal> {
    let mut object = value.object()?;
    let mut kinds = Vec::new();
    for key in &TARGET_FIELDS[..KINDS] {
        kinds.extend(object.take(key).map(|v| (key, v)));
    }
    let (Some((kind, target)), None) = (kinds.first(), kinds.get(1)) else {
        return Err(bad(value, TARGETS));
    };
    let to = match **kind {
        "all" if target.is_true() => To::All,
        "all" => return Err(bad(target, "true")),
        "room" => To::Rooms(vec![owned_name(target)?]),
        "user" => To::Users(vec![owned_name(target)?]),
        "connection" => To::Connections(vec![id(target.raw, &|| target.pointer.clone())?]),
        "rooms" => To::Rooms(names(target, limits)?),
        "users" => To::Users(names(target, limits)?),
        _ => To::Connections(ids(target, limits)?),
    };
    let mut narrow = Narrow::default();
    if let Some(platforms) = object.take("platform") {
        narrow.platforms = list(&platforms, limits, PLATFORM, |raw, at| {
            let name = json::text_of(raw, at, PLATFORM)?;
            if is_valid_platform(&name) { Ok(name.into_owned()) } else { Err(invalid(at, PLATFORM)) }
        })?;
    }
    if let Some(attributes) = object.take("attributes") {
        narrow.attributes = self::attributes(&attributes)?;
    }
    if let Some(except) = object.take("except") {
        let mut except = except.object()?;
        narrow.except_connections = except.take("connections").map_or(Ok(Vec::new()), |v| ids(&v, limits))?;
        narrow.except_users = except.take("users").map_or(Ok(Vec::new()), |v| names(&v, limits))?;
        except.finish(&["connections", "users"])?;
    }
    object.finish(TARGET_FIELDS)?;
    let left_out = narrow.except_connections.len() + narrow.except_users.len();
    if count(&to) + left_out > limits.targets {
        return Err(Refusal::TooManyTargets { pointer: value.pointer.clone(), limit: limits.targets });
    }
    Ok((to, narrow))
}

/// `{"lang": "de"}`: all of them must hold.
fn attributes(value: &Value<'_>) -> Result<Vec<(String, String)>, Refusal> {
    let members = value.object()?.into_members();
    if members.is_empty() || members.len() > ATTRIBUTES_MAX {
        return Err(bad(value, format!("an object with 1 to {ATTRIBUTES_MAX} members")));
    }
    let read = |(name, value): (Cow<'_, str>, Value<'_>)| {
        let text = value.string("a string")?.into_owned();
        if name.len() + text.len() > ATTRIBUTE_BYTES_MAX {
            return Err(bad(&value, format!("at most {ATTRIBUTE_BYTES_MAX} bytes with its name")));
        }
        Ok((name.into_owned(), text))
    };
    members.into_iter().map(read).collect()
}

fn count(to: &To) -> usize {
    match to {
        To::All => 1,
        To::Rooms(names) | To::Users(names) => names.len(),
        To::Connections(ids) => ids.len(),
    }
}

/// A list of targets: not empty, bounded, each element read, none kept twice.
fn list<'a, T: std::hash::Hash + Eq + Clone>(
    value: &Value<'a>,
    limits: &LimitsConfig,
    expected: &'static str,
    read: impl Fn(&'a RawValue, &dyn Fn() -> String) -> Result<T, Refusal>,
) -> Result<Vec<T>, Refusal> {
    let raws = value
        .list(limits.targets, "a list")?
        .ok_or_else(|| Refusal::TooManyTargets { pointer: value.pointer.clone(), limit: limits.targets })?;
    if raws.is_empty() {
        return Err(bad(value, format!("a list with at least one {}", expected.trim_start_matches("a "))));
    }
    let mut seen = HashSet::default();
    let mut out = Vec::with_capacity(raws.len());
    for (i, raw) in raws.into_iter().enumerate() {
        let item = read(raw, &|| format!("{}/{i}", value.pointer))?;
        if seen.insert(item.clone()) {
            out.push(item);
        }
    }
    Ok(out)
}

fn names(value: &Value<'_>, limits: &LimitsConfig) -> Result<Vec<String>, Refusal> {
    list(value, limits, NAME, |raw, at| name(raw, at).map(Cow::into_owned))
}

fn ids(value: &Value<'_>, limits: &LimitsConfig) -> Result<Vec<ConnectionId>, Refusal> {
    list(value, limits, ID, id)
}

fn invalid(at: &dyn Fn() -> String, expected: &str) -> Refusal {
    Refusal::BadValue { pointer: at(), expected: expected.to_owned() }
}

fn owned_name(value: &Value<'_>) -> Result<String, Refusal> {
    name(value.raw, &|| value.pointer.clone()).map(Cow::into_owned)
}

fn name<'a>(raw: &'a RawValue, at: &dyn Fn() -> String) -> Result<Cow<'a, str>, Refusal> {
    let name = json::text_of(raw, at, NAME)?;
    if is_valid_name(&name) { Ok(name) } else { Err(invalid(at, NAME)) }
}

fn id(raw: &RawValue, at: &dyn Fn() -> String) -> Result<ConnectionId, Refusal> {
    let text = json::text_of(raw, at, ID)?;
    text.parse().map_err(|_| invalid(at, ID))
}

fn messages(value: &Value<'_>, body: &Bytes, limits: &LimitsConfig) -> Result<Vec<Bytes>, Refusal> {
    let raws = value
        .list(limits.messages, "a list of messages")?
        .ok_or_else(|| Refusal::TooManyMessages { pointer: value.pointer.clone(), limit: limits.messages })?;
    if raws.is_empty() {
        return Err(bad(value, "a list with at least one message"));
    }
    let read = |(i, raw): (usize, &RawValue)| message(raw, &|| format!("{}/{i}", value.pointer), body, limits);
    raws.into_iter().enumerate().map(read).collect()
}

fn message(raw: &RawValue, at: &dyn Fn() -> String, body: &Bytes, limits: &LimitsConfig) -> Result<Bytes, Refusal> {
    let text = raw.get();
    if text.len() > limits.message_bytes {
        return Err(Refusal::MessageTooLarge { pointer: at(), bytes: text.len(), limit: limits.message_bytes });
    }
    json::check_meaning(text, at)?;
    // A slice keeps its whole body alive while it waits for a gateway: worth it only for a large part of it.
    if text.len() < body.len() / 2 {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    Ok(body.slice_ref(text.as_bytes()))
}

fn lane(value: &Value<'_>) -> Result<Lane, Refusal> {
    const LANES: &str = "\"normal\", \"urgent\" or \"bulk\"";
    match value.string(LANES)?.as_ref() {
        "normal" => Ok(Lane::Normal),
        "urgent" => Ok(Lane::Urgent),
        "bulk" => Ok(Lane::Bulk),
        _ => Err(bad(value, LANES)),
    }
}

fn wait(wait: Option<Value<'_>>, timeout: Option<Value<'_>>, http: &HttpConfig) -> Result<Wait, Refusal> {
    const WAITS: &str = "\"accepted\" or \"written\"";
    let is_written = match &wait {
        None => false,
        Some(value) => match value.string(WAITS)?.as_ref() {
            "accepted" => false,
            "written" => true,
            _ => return Err(bad(value, WAITS)),
        },
    };
    let timeout_ms = match &timeout {
        None => http.wait_ms,
        Some(value) if !is_written => return Err(bad(value, "left out unless wait is \"written\"")),
        Some(value) => match value.number("a whole number of milliseconds")? {
            ms if (1..=http.wait_ms_max).contains(&ms) => ms,
            _ => return Err(bad(value, format!("1 to {} (logic.http.wait_ms_max)", http.wait_ms_max))),
        },
    };
    Ok(if is_written { Wait::Written { timeout_ms } } else { Wait::Accepted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(message: &[u8]) -> Result<Bytes, Refusal> {
        let body = Bytes::from([br#"{"to":{"all":true},"message":"#, message, b"}"].concat());
        let bounds = Bounds { limits: &LimitsConfig::default(), http: &HttpConfig::default() };
        read(&body, bounds).map(|push| push.messages[0].clone())
    }

    #[test]
    fn attributes_narrow_within_their_bounds() {
        let parse = |attributes: &str| {
            let body = Bytes::from(format!(r#"{{"to":{{"all":true,"attributes":{attributes}}},"message":1}}"#));
            let bounds = Bounds { limits: &LimitsConfig::default(), http: &HttpConfig::default() };
            read(&body, bounds).map(|push| push.narrow.attributes).map_err(|refusal| refusal.rules().code)
        };
        let pairs = |n: usize| {
            let all: Vec<String> = (0..n).map(|i| format!(r#""a{i}":"v""#)).collect();
            format!("{{{}}}", all.join(","))
        };

        assert_eq!(parse(r#"{"lang":"de"}"#), Ok(vec![("lang".into(), "de".into())]));
        assert_eq!(parse(&pairs(ATTRIBUTES_MAX)).map(|a| a.len()), Ok(ATTRIBUTES_MAX));
        assert_eq!(parse(&pairs(ATTRIBUTES_MAX + 1)), Err("bad_value"));
        assert_eq!(parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(ATTRIBUTE_BYTES_MAX))), Err("bad_value"));
        assert_eq!(parse("{}"), Err("bad_value"));
        assert_eq!(parse(r#"{"lang":7}"#), Err("wrong_type"));
        assert_eq!(parse(r#"{"lang":"de","lang":"en"}"#), Err("duplicate_key"));
    }

    // In the manner of JSONTestSuite: what every reader must take and what none may.
    #[rustfmt::skip]
    const YES: &[&str] = &[
        "null", "true", "false", "0", "-0", "1", "-1", "1.5", "1e5", "1E+5", "1e-5", "0e1",
        "123456789012345678901234567890", "\"\"", "\"a\"", "\"\\u0000\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\u{7f}\"", "\"\u{2028}\"", "\"\u{10ffff}\"", "\"\\ud834\\udd1e\"", "\"\\\\ud800\"", "[]", "[ ]", "[1,2]",
        "[[[]]]", "{}", "{ \"a\" : 1 }", "{\"\":0}", "{\"a\":{\"a\":{}}}", " \t\r\n1 \t\r\n", "[\n1\n,\n2\n]",
        "{\"a\":1,\"a\":2}", "1.7976931348623157e308",
    ];
    #[rustfmt::skip]
    const NO: &[&str] = &[
        "", " ", "nul", "True", "NaN", "-NaN", "Infinity", "-Infinity", "+1", ".5", "1.", "1.e5", "01", "-01", "1e",
        "1e+", "0x1", "1_000", "--1", "- 1", "'a'", "\"", "\"a", "\"\\x41\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"",
        "\"\t\"", "\"\0\"", "\"\\", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\ud800\\ud800\"", "[",
        "]", "[1", "[1,]", "[,1]", "[1 2]", "[1,,2]", "{", "{1:1}", "{a:1}", "{\"a\"}", "{\"a\":}", "{\"a\" 1}",
        "{\"a\":1,}", "{,}", "{\"a\":1 \"b\":2}", "[}", "{]", "1 2", "/**/1", "1//", "\u{feff}1", "1e309", "[1e400]",
        "-1e309", "undefined", "1,", "1}{",
    ];

    #[test]
    fn messages_are_json_by_the_letter() {
        for text in YES {
            let message = parse(text.as_bytes());
            assert_eq!(message.as_deref(), Ok(text.trim_ascii().as_bytes()), "{text}");
        }
        for text in NO {
            let status = parse(text.as_bytes()).map_err(|refusal| refusal.rules().status.as_u16());
            assert_eq!(status, Err(400), "{text}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_is_bad_json_whatever_it_begins_with() {
        let read = |body: &'static str| {
            let bounds = Bounds { limits: &LimitsConfig::default(), http: &HttpConfig::default() };
            read(&Bytes::from_static(body.as_bytes()), bounds).expect_err("no push")
        };

        let told = |body| serde_json::to_string(&read(body).document()).expect("a problem is JSON");

        for body in ["[1 true]", "[1", "\"a", "1 2", "[] {}", "{\"to\":1,\"to\":2", "{\"to\":1,\"to\":2} x"] {
            let refusal = read(body);
            assert_eq!((refusal.rules().code, refusal.rules().status.as_u16()), ("bad_json", 400), "{body}");
        }
        for body in ["[1, true]", "1", "\"a\"", "null", "[]"] {
            assert_eq!(read(body).rules().code, "wrong_type", "{body}");
        }
        for body in ["[]", " [ ] ", r#"{"to":[],"message":1}"#, r#"{"to":{"all":true,"except":[]},"message":1}"#] {
            assert!(told(body).contains("new stdClass"), "{body}");
        }
        assert!(!told("[1]").contains("PHP"));
    }

    proptest! {
        /// No bytes make the parser panic, and what it takes as a message every reader takes.
        #[test]
        fn what_is_taken_is_json(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(taken) = parse(&message) {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&taken).is_ok());
            }
        }

        /// The same near the grammar, where random bytes seldom get.
        #[test]
        fn what_is_taken_near_the_grammar_is_json(message in r#"([\[\]{},:]|"[a\\u0-9d]{0,6}"|-?[0-9.eE+]{1,4}|null| ){0,12}"#) {
            let whole = serde_json::from_str::<serde_json::Value>(&message);
            match parse(message.as_bytes()) {
                Ok(_) => prop_assert!(whole.is_ok(), "{message}"),
                Err(_) => prop_assert!(whole.is_err(), "{message}"),
            }
        }
    }
}
