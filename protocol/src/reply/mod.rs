//! Everything a gateway says to one client besides PUSH: HELLO, PONG, JOINED, LEFT, ERROR, GAP, GOAWAY.
//! Each function appends one JSON text to a buffer; framing is `ws::frame`. These are per connection and rare, so serde makes
//! them of the shapes in [`data`]; what goes to many is in `push`. Invariant: a text is JSON whatever names it is made of.

mod data;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::json::{self, write_string};
use crate::push::Whom;

pub use data::{
    Command, Error, Gap, Goaway, Hello, Joined, JoinedRoom, Left, Limits, Member, Members, Pong, Presence,
    PresenceCounts, Push, Reconnect, Refreshed, RoomError, Sent,
};

/// A request's `id` as the client wrote it (a JSON number or string), echoed byte for byte.
pub type RequestId<'a> = Option<&'a str>;

/// Everything up to the data.
fn open(out: &mut Vec<u8>, kind: &str, id: RequestId<'_>) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    if let Some(id) = id {
        out.extend_from_slice(br#","id":"#);
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(br#","data":"#);
}

fn write(out: &mut Vec<u8>, kind: &str, id: RequestId<'_>, data: &impl Serialize) {
    open(out, kind, id);
    // Writing to a vector cannot fail, and the shapes hold names, numbers and nothing that serde refuses.
    let _ = serde_json::to_writer(&mut *out, data);
    out.push(b'}');
}

/// HELLO (rule C-5).
pub fn hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    write(out, "HELLO", None, hello);
}

/// PONG: the PING's data comes back beside the server's time (rule L-1), but for a `time_ms` of its own, which would stand there
/// twice. `echo` is a JSON object or absent.
pub fn pong(out: &mut Vec<u8>, id: RequestId<'_>, echo: Option<&str>, time_ms: u64) {
    open(out, "PONG", id);
    out.extend_from_slice(format!(r#"{{"time_ms":{time_ms}"#).as_bytes());
    if echo.is_some_and(|echo| echo.contains("time_ms") || echo.contains('\\')) {
        echo_members(out, echo.unwrap_or_default());
    } else {
        let inner = echo.map(str::trim).and_then(|e| e.strip_prefix('{')).and_then(|e| e.strip_suffix('}'));
        if let Some(inner) = inner.map(str::trim).filter(|inner| !inner.is_empty()) {
            out.push(b',');
            out.extend_from_slice(inner.as_bytes());
        }
    }
    out.extend_from_slice(b"}}");
}

/// The members of a PING's data one by one, as they were written, without one that has the name of ours.
fn echo_members(out: &mut Vec<u8>, echo: &str) {
    let members: BTreeMap<Cow<'_, str>, &RawValue> = json::from_str(echo).unwrap_or_default();
    for (name, value) in members.iter().filter(|(name, _)| *name != "time_ms") {
        out.push(b',');
        write_string(out, name);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
}

/// JOINED (rule R-1).
pub fn joined(out: &mut Vec<u8>, id: RequestId<'_>, rooms: &[JoinedRoom<'_>]) {
    write(out, "JOINED", id, &Joined { rooms });
}

/// LEFT (rule R-2).
pub fn left(out: &mut Vec<u8>, id: RequestId<'_>, room: &str) {
    write(out, "LEFT", id, &Left { room, reason: None });
}

/// LEFT that nobody asked for (rule R-5). `reason` is `kicked`, `closed` or `blocked`.
pub fn left_because(out: &mut Vec<u8>, room: &str, reason: &str) {
    write(out, "LEFT", None, &Left { room, reason: Some(reason) });
}

/// PRESENCE that nobody asked for (rule P-3).
pub fn presence(out: &mut Vec<u8>, presence: &Presence<'_>) {
    write(out, "PRESENCE", None, presence);
}

/// ERROR (rule E-1).
pub fn error(out: &mut Vec<u8>, id: RequestId<'_>, code: &str, message: &str, is_retryable: bool) {
    error_with(out, id, &Error { code, message, retryable: is_retryable, reason: None, retry_after_ms: None });
}

/// ERROR with whatever else it says.
pub fn error_with(out: &mut Vec<u8>, id: RequestId<'_>, error: &Error<'_>) {
    write(out, "ERROR", id, error);
}

/// SENT (rules S-1, S-2): the message's id and when it was taken.
pub fn sent(out: &mut Vec<u8>, id: RequestId<'_>, message: &str, time_ms: u64) {
    write(out, "SENT", id, &Sent { id: message, time_ms });
}

/// A reply of type `kind` whose `data` is made elsewhere: `data` is the text of a JSON object.
pub fn told(out: &mut Vec<u8>, kind: &str, id: RequestId<'_>, data: &[u8]) {
    open(out, kind, id);
    out.extend_from_slice(data);
    out.push(b'}');
}

/// ERROR `unauthorized`, with the token's code as `reason` (rule C-4).
pub fn unauthorized(out: &mut Vec<u8>, id: RequestId<'_>, reason: &'static str, message: &str) {
    let error = Error { code: "unauthorized", message, retryable: false, reason: Some(reason), retry_after_ms: None };
    error_with(out, id, &error);
}

/// REFRESHED (rule C-6): the connection now lasts until then, Unix milliseconds.
pub fn refreshed(out: &mut Vec<u8>, id: RequestId<'_>, expires_ms: u64) {
    write(out, "REFRESHED", id, &Refreshed { expires_ms });
}

/// What is missing (rule M-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// These numbers, both included.
    Range {
        /// First missing.
        from: u64,
        /// Last missing.
        to: u64,
    },
    /// That many messages outside the numbering.
    Count(u64),
}

/// GAP (rule M-3). `reason` is `slow`, `expired` or `history`.
pub fn gap(out: &mut Vec<u8>, whom: Whom<'_>, missing: Missing, reason: &str) {
    let (room, user) = match whom {
        Whom::All | Whom::Connection => (None, false),
        Whom::Room(room) => (Some(room), false),
        Whom::User => (None, true),
    };
    let (from, to, missed) = match missing {
        Missing::Range { from, to } => (Some(from), Some(to), None),
        Missing::Count(count) => (None, None, Some(count)),
    };
    write(out, "GAP", None, &Gap { room, user, from, to, missed, reason });
}

/// GOAWAY (rule E-4): a planned close is near; come back after a delay chosen at random between the two.
pub fn goaway(out: &mut Vec<u8>, reason: &str, reconnect_after_ms: (u32, u32)) {
    write(out, "GOAWAY", None, &Goaway { reason, reconnect_after_ms });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(write: impl FnOnce(&mut Vec<u8>)) -> serde_json::Value {
        let mut out = Vec::new();
        write(&mut out);
        match serde_json::from_slice(&out) {
            Ok(value) => value,
            Err(e) => panic!("{e}: {}", String::from_utf8_lossy(&out)),
        }
    }

    /// Rule C-5.
    #[test]
    fn hello_names_everything_a_client_needs() {
        let reconnect = Reconnect { base_ms: 500, max_ms: 20_000, jitter_percent: 50 };
        let hello_text = Hello {
            connection: "c",
            user: Some("u\n"),
            server: "g/0.1",
            ping_ms: 25_000,
            merge_ms: 1000,
            limits: Limits { message_bytes: 65_536, rooms: 100 },
            reconnect,
            time_ms: 1,
            expires_ms: Some(2),
        };

        let value = value_of(|out| hello(out, &hello_text));

        assert_eq!(value["data"]["user"], "u\n");
        assert_eq!(value["data"]["limits"]["rooms"], 100);
        assert_eq!(value["data"]["reconnect"]["jitter"], 0.5);
        assert_eq!((&value["data"]["time_ms"], &value["data"]["expires_ms"]), (&1.into(), &2.into()));
        let unlimited = Hello { expires_ms: None, ..hello_text };
        assert!(value_of(|out| hello(out, &unlimited))["data"].get("expires_ms").is_none());
    }

    /// Rule L-1.
    #[test]
    fn pong_echoes_the_pings_data() {
        assert_eq!(value_of(|out| pong(out, Some("7"), Some(r#" {"a":[1]} "#), 5))["data"]["a"][0], 1);
        assert_eq!(value_of(|out| pong(out, None, Some("{ }"), 5))["data"]["time_ms"], 5);
        assert_eq!(value_of(|out| pong(out, None, None, 5))["data"]["time_ms"], 5);
    }

    #[test]
    fn pong_has_one_time_whatever_the_ping_called_its_own() {
        for name in ["time_ms", r"time\u005fms"] {
            let mut out = Vec::new();

            pong(&mut out, None, Some(&format!(r#"{{"{name}":[7], "t":{{"time_ms":1}} }}"#)), 5);

            let text = String::from_utf8(out).expect("JSON is UTF-8");
            assert_eq!(text, r#"{"type":"PONG","data":{"time_ms":5,"t":{"time_ms":1}}}"#);
        }
    }

    /// Rules R-1, R-2, M-3, E-1, E-4.
    #[test]
    fn replies_are_valid_json_whatever_the_names() {
        for name in ["r", "\"\\", "ü\u{2028}", "{}"] {
            let rooms = [
                JoinedRoom::Joined { room: name, online: 3, epoch: "e", seq: 9 },
                JoinedRoom::Refused { room: name, error: RoomError { code: "invalid", message: name } },
            ];
            let value = value_of(|out| joined(out, Some("\"x\""), &rooms));
            assert_eq!(value["id"], "x");
            assert_eq!(value["data"]["rooms"][0]["room"], name);
            assert_eq!(value["data"]["rooms"][1]["error"]["code"], "invalid");
            assert_eq!(value_of(|out| left(out, None, name))["data"]["room"], name);
            assert_eq!(value_of(|out| left_because(out, name, "closed"))["data"]["room"], name);
            let sample = [name.to_owned(), name.to_owned()];
            let frame = Presence { room: name, joined: 2, sample: &sample, ..Presence::default() };
            assert_eq!(value_of(|out| presence(out, &frame))["data"]["sample"][1], name);
            let missing = Missing::Range { from: 3, to: 4 };
            assert_eq!(value_of(|out| gap(out, Whom::Room(name), missing, "slow"))["data"]["to"], 4);
            assert_eq!(value_of(|out| gap(out, Whom::User, Missing::Count(2), "slow"))["data"]["missed"], 2);
            assert_eq!(value_of(|out| error(out, None, "bad_json", name, false))["data"]["message"], name);
            assert_eq!(value_of(|out| goaway(out, name, (0, 9)))["data"]["reconnect_after_ms"][1], 9);
            let rate = Error { code: "rate", message: name, retryable: true, reason: None, retry_after_ms: Some(70) };
            let error = value_of(|out| error_with(out, Some("1"), &rate));
            assert_eq!((&error["data"]["retry_after_ms"], &error["data"]["message"]), (&70.into(), &name.into()));
            assert_eq!(value_of(|out| sent(out, None, name, 5))["data"]["id"], name);
            assert_eq!(value_of(|out| told(out, "PRESENCE", Some("2"), br#"{"online":3}"#))["data"]["online"], 3);
            assert_eq!(
                value_of(|out| unauthorized(out, Some("1"), "token_expired", name))["data"]["reason"],
                "token_expired"
            );
            assert_eq!(value_of(|out| refreshed(out, Some("1"), 5_000))["data"]["expires_ms"], 5_000);
        }
    }
}
