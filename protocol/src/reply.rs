//! Everything a gateway says to one client besides PUSH: HELLO, PONG, JOINED, LEFT, ERROR, GAP, GOAWAY.
//! Each function appends one JSON text to a buffer; framing is `ws::frame`. These are per connection and rare,
//! so they are built on demand; what goes to many is in `push`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::value::RawValue;

/// A request's `id` as the client wrote it (a JSON number or string), echoed byte for byte.
pub type RequestId<'a> = Option<&'a str>;

/// What a client learns first (rule C-5).
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// This connection's id.
    pub connection: &'a str,
    /// The user, when known.
    pub user: Option<&'a str>,
    /// Name and version of the gateway.
    pub server: &'a str,
    /// The server pings after this long a silence.
    pub ping_ms: u32,
    /// Longest merge window.
    pub merge_ms: u32,
    /// Largest message accepted, in bytes.
    pub message_bytes: usize,
    /// Most rooms of one connection.
    pub rooms: usize,
    /// Advice for reconnecting: first and longest delay, share of it that is random.
    pub reconnect: Reconnect,
    /// The server's wall clock, Unix milliseconds.
    pub time_ms: u64,
    /// When its token ends, Unix milliseconds; none: it has none that does.
    pub expires_ms: Option<u64>,
}

/// How a client should space its attempts to come back.
#[derive(Clone, Copy, Debug)]
pub struct Reconnect {
    /// First delay.
    pub base_ms: u32,
    /// Longest delay.
    pub max_ms: u32,
    /// Part of each delay that is random, in percent.
    pub jitter_percent: u8,
}

/// Writes `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail, and a str is always valid JSON text.
    let _ = serde_json::to_writer(out, text);
}

fn open(out: &mut Vec<u8>, kind: &str, id: RequestId<'_>) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    if let Some(id) = id {
        out.extend_from_slice(br#","id":"#);
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(br#","data":{"#);
}

/// HELLO (rule C-5).
pub fn hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    open(out, "HELLO", None);
    out.extend_from_slice(br#""connection":"#);
    write_string(out, hello.connection);
    if let Some(user) = hello.user {
        out.extend_from_slice(br#","user":"#);
        write_string(out, user);
    }
    out.extend_from_slice(br#","server":"#);
    write_string(out, hello.server);
    let r = hello.reconnect;
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        concat!(
            r#","ping_ms":{},"merge_ms":{},"limits":{{"message_bytes":{},"rooms":{}}},"#,
            r#""reconnect":{{"base_ms":{},"max_ms":{},"jitter":{}.{:02}}},"time_ms":{}"#
        ),
        hello.ping_ms,
        hello.merge_ms,
        hello.message_bytes,
        hello.rooms,
        r.base_ms,
        r.max_ms,
        r.jitter_percent / 100,
        r.jitter_percent % 100,
        hello.time_ms
    );
    if let Some(expires_ms) = hello.expires_ms {
        let _ = write!(out, r#","expires_ms":{expires_ms}"#);
    }
    out.extend_from_slice(b"}}");
}

/// PONG: the PING's data comes back beside the server's time (rule L-1), but for a `time_ms` of its own, which would stand there
/// twice. `echo` is a JSON object or absent.
pub fn pong(out: &mut Vec<u8>, id: RequestId<'_>, echo: Option<&str>, time_ms: u64) {
    open(out, "PONG", id);
    out.extend_from_slice(format!(r#""time_ms":{time_ms}"#).as_bytes());
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
    let members: BTreeMap<Cow<'_, str>, &RawValue> = crate::json::from_str(echo).unwrap_or_default();
    for (name, value) in members.iter().filter(|(name, _)| *name != "time_ms") {
        out.push(b',');
        write_string(out, name);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
}

/// One room's part of a JOINED reply.
#[derive(Clone, Debug)]
pub enum JoinedRoom<'a> {
    /// Joined: members now, and where the numbering stands.
    Joined {
        /// The room.
        room: &'a str,
        /// Members at this gateway.
        online: u64,
        /// Life of the numbering.
        epoch: &'a str,
        /// Number of the last message before the join.
        seq: u64,
    },
    /// Refused.
    Refused {
        /// The room.
        room: &'a str,
        /// `forbidden`, `limit` or `invalid`.
        code: &'static str,
        /// What to do about it.
        message: &'a str,
    },
}

/// JOINED (rule R-1).
pub fn joined(out: &mut Vec<u8>, id: RequestId<'_>, rooms: &[JoinedRoom<'_>]) {
    open(out, "JOINED", id);
    out.extend_from_slice(br#""rooms":["#);
    for (i, room) in rooms.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"room":"#);
        match room {
            JoinedRoom::Joined { room, online, epoch, seq } => {
                write_string(out, room);
                out.extend_from_slice(format!(r#","online":{online},"epoch":"#).as_bytes());
                write_string(out, epoch);
                out.extend_from_slice(format!(r#","seq":{seq}}}"#).as_bytes());
            }
            JoinedRoom::Refused { room, code, message } => {
                write_string(out, room);
                out.extend_from_slice(format!(r#","error":{{"code":"{code}","message":"#).as_bytes());
                write_string(out, message);
                out.extend_from_slice(b"}}");
            }
        }
    }
    out.extend_from_slice(b"]}}");
}

/// LEFT (rule R-2).
pub fn left(out: &mut Vec<u8>, id: RequestId<'_>, room: &str) {
    open(out, "LEFT", id);
    out.extend_from_slice(br#""room":"#);
    write_string(out, room);
    out.extend_from_slice(b"}}");
}

/// LEFT that nobody asked for (rule R-5). `reason` is `kicked`, `closed` or `blocked`.
pub fn left_because(out: &mut Vec<u8>, room: &str, reason: &str) {
    open(out, "LEFT", None);
    out.extend_from_slice(br#""room":"#);
    write_string(out, room);
    out.extend_from_slice(br#","reason":"#);
    write_string(out, reason);
    out.extend_from_slice(b"}}");
}

/// Who came to and left a room, as its members are told (rule P-3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence<'a> {
    /// The room.
    pub room: &'a str,
    /// Connections that came since the last frame.
    pub joined: u64,
    /// Connections that went since the last frame.
    pub left: u64,
    /// Members now.
    pub online: u64,
    /// Different users among them.
    pub users: u64,
    /// A few of the users who came.
    pub sample: &'a [String],
}

/// PRESENCE that nobody asked for (rule P-3).
pub fn presence(out: &mut Vec<u8>, presence: &Presence<'_>) {
    open(out, "PRESENCE", None);
    out.extend_from_slice(br#""room":"#);
    write_string(out, presence.room);
    let Presence { joined, left, online, users, .. } = presence;
    let counts = format!(r#","joined":{joined},"left":{left},"online":{online},"users":{users},"sample":["#);
    out.extend_from_slice(counts.as_bytes());
    for (i, name) in presence.sample.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(out, name);
    }
    out.extend_from_slice(b"]}}");
}

/// ERROR (rule E-1).
pub fn error(out: &mut Vec<u8>, id: RequestId<'_>, code: &str, message: &str, is_retryable: bool) {
    open(out, "ERROR", id);
    out.extend_from_slice(br#""code":"#);
    write_string(out, code);
    out.extend_from_slice(br#","message":"#);
    write_string(out, message);
    out.extend_from_slice(format!(r#","retryable":{is_retryable}}}}}"#).as_bytes());
}

/// ERROR with advice when to try again, in milliseconds.
pub fn error_after(
    out: &mut Vec<u8>,
    id: RequestId<'_>,
    code: &str,
    message: &str,
    is_retryable: bool,
    retry_after_ms: Option<u32>,
) {
    error(out, id, code, message, is_retryable);
    if let Some(ms) = retry_after_ms {
        // The two braces that end `data` and the message.
        out.truncate(out.len() - 2);
        out.extend_from_slice(format!(r#","retry_after_ms":{ms}}}}}"#).as_bytes());
    }
}

/// SENT (rules S-1, S-2): the message's id and when it was taken.
pub fn sent(out: &mut Vec<u8>, id: RequestId<'_>, message: &str, time_ms: u64) {
    open(out, "SENT", id);
    out.extend_from_slice(br#""id":"#);
    write_string(out, message);
    out.extend_from_slice(format!(r#","time_ms":{time_ms}}}}}"#).as_bytes());
}

/// A reply of type `kind` whose `data` is made elsewhere: `data` is the text of a JSON object.
pub fn told(out: &mut Vec<u8>, kind: &str, id: RequestId<'_>, data: &[u8]) {
    open(out, kind, id);
    out.truncate(out.len() - 1);
    out.extend_from_slice(data);
    out.push(b'}');
}

/// ERROR `unauthorized`, with the token's code as `reason` (rule C-4).
pub fn unauthorized(out: &mut Vec<u8>, id: RequestId<'_>, reason: &'static str, message: &str) {
    open(out, "ERROR", id);
    out.extend_from_slice(br#""code":"unauthorized","message":"#);
    write_string(out, message);
    out.extend_from_slice(format!(r#","retryable":false,"reason":"{reason}"}}}}"#).as_bytes());
}

/// REFRESHED (rule C-6): the connection now lasts until then, Unix milliseconds.
pub fn refreshed(out: &mut Vec<u8>, id: RequestId<'_>, expires_ms: u64) {
    open(out, "REFRESHED", id);
    out.extend_from_slice(format!(r#""expires_ms":{expires_ms}}}}}"#).as_bytes());
}

/// Whose messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapSubject<'a> {
    /// Those for everyone.
    All,
    /// Those of a room.
    Room(&'a str),
    /// Those for this user.
    User,
    /// Those for this connection alone, or outside a numbering.
    Connection,
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
pub fn gap(out: &mut Vec<u8>, subject: GapSubject<'_>, missing: Missing, reason: &str) {
    open(out, "GAP", None);
    match subject {
        GapSubject::All | GapSubject::Connection => {}
        GapSubject::Room(room) => {
            out.extend_from_slice(br#""room":"#);
            write_string(out, room);
            out.push(b',');
        }
        GapSubject::User => out.extend_from_slice(br#""user":true,"#),
    }
    match missing {
        Missing::Range { from, to } => out.extend_from_slice(format!(r#""from":{from},"to":{to},"#).as_bytes()),
        Missing::Count(n) => out.extend_from_slice(format!(r#""missed":{n},"#).as_bytes()),
    }
    out.extend_from_slice(br#""reason":"#);
    write_string(out, reason);
    out.extend_from_slice(b"}}");
}

/// GOAWAY (rule E-4): a planned close is near; come back after a delay chosen at random between the two.
pub fn goaway(out: &mut Vec<u8>, reason: &str, reconnect_after_ms: (u32, u32)) {
    open(out, "GOAWAY", None);
    out.extend_from_slice(br#""reason":"#);
    write_string(out, reason);
    out.extend_from_slice(
        format!(r#","reconnect_after_ms":[{},{}]}}}}"#, reconnect_after_ms.0, reconnect_after_ms.1).as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(write: impl FnOnce(&mut Vec<u8>)) -> serde_json::Value {
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
            message_bytes: 65_536,
            rooms: 100,
            reconnect,
            time_ms: 1,
            expires_ms: Some(2),
        };

        let value = json(|out| hello(out, &hello_text));

        assert_eq!(value["data"]["user"], "u\n");
        assert_eq!(value["data"]["limits"]["rooms"], 100);
        assert_eq!(value["data"]["reconnect"]["jitter"], 0.5);
        assert_eq!((&value["data"]["time_ms"], &value["data"]["expires_ms"]), (&1.into(), &2.into()));
        let unlimited = Hello { expires_ms: None, ..hello_text };
        assert!(json(|out| hello(out, &unlimited))["data"].get("expires_ms").is_none());
    }

    /// Rule L-1.
    #[test]
    fn pong_echoes_the_pings_data() {
        assert_eq!(json(|out| pong(out, Some("7"), Some(r#" {"a":[1]} "#), 5))["data"]["a"][0], 1);
        assert_eq!(json(|out| pong(out, None, Some("{ }"), 5))["data"]["time_ms"], 5);
        assert_eq!(json(|out| pong(out, None, None, 5))["data"]["time_ms"], 5);
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
                JoinedRoom::Refused { room: name, code: "invalid", message: name },
            ];
            let value = json(|out| joined(out, Some("\"x\""), &rooms));
            assert_eq!(value["id"], "x");
            assert_eq!(value["data"]["rooms"][0]["room"], name);
            assert_eq!(value["data"]["rooms"][1]["error"]["code"], "invalid");
            assert_eq!(json(|out| left(out, None, name))["data"]["room"], name);
            assert_eq!(json(|out| left_because(out, name, "closed"))["data"]["room"], name);
            let sample = [name.to_owned(), name.to_owned()];
            let frame = Presence { room: name, joined: 2, sample: &sample, ..Presence::default() };
            assert_eq!(json(|out| presence(out, &frame))["data"]["sample"][1], name);
            let missing = Missing::Range { from: 3, to: 4 };
            assert_eq!(json(|out| gap(out, GapSubject::Room(name), missing, "slow"))["data"]["to"], 4);
            assert_eq!(json(|out| gap(out, GapSubject::User, Missing::Count(2), "slow"))["data"]["missed"], 2);
            assert_eq!(json(|out| error(out, None, "bad_json", name, false))["data"]["message"], name);
            assert_eq!(json(|out| goaway(out, name, (0, 9)))["data"]["reconnect_after_ms"][1], 9);
            let error = json(|out| error_after(out, Some("1"), "rate", name, true, Some(70)));
            assert_eq!((&error["data"]["retry_after_ms"], &error["data"]["message"]), (&70.into(), &name.into()));
            assert_eq!(json(|out| sent(out, None, name, 5))["data"]["id"], name);
            assert_eq!(json(|out| told(out, "PRESENCE", Some("2"), br#"{"online":3}"#))["data"]["online"], 3);
            assert_eq!(
                json(|out| unauthorized(out, Some("1"), "token_expired", name))["data"]["reason"],
                "token_expired"
            );
            assert_eq!(json(|out| refreshed(out, Some("1"), 5_000))["data"]["expires_ms"], 5_000);
        }
    }
}
