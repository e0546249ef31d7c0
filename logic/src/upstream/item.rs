//! What goes upstream: a message that a client has sent to a route, or an event of a connection's life; and the line of
//! NDJSON that a sink gets of it. Invariant: the line is one line, and its `id` is the item's for ever.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_protocol::ids::ConnectionId;

/// One thing for a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamItem {
    /// A ULID's text; a repeat has the same.
    pub id: String,
    /// A message or an event.
    pub what: What,
    /// Whose it is; empty when nobody has named themselves.
    pub user: String,
    /// The connection; none for what is of a user.
    pub connection: Option<ConnectionId>,
    /// Empty when not known.
    pub platform: String,
    /// Empty when not known.
    pub device: String,
    /// The gateway's name.
    pub gateway: String,
    /// When it was said or happened, Unix milliseconds.
    pub time_ms: u64,
    /// A JSON value without line breaks outside of strings, as the protocol's parser leaves it; empty: null.
    pub data: Bytes,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A client has sent it.
    Message {
        /// Such as `robot/login`.
        route: String,
        /// The client's mark against repeats, or empty.
        nonce: String,
    },
    /// It happened.
    Event {
        /// One of [`crate::config::EVENT_KINDS`].
        kind: String,
    },
}

/// The line as JSON; absent is left out.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    device: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    gateway: &'a str,
    time_ms: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    nonce: &'a str,
    data: &'a RawValue,
}

impl UpstreamItem {
    /// The line without its end. None when `data` is not JSON.
    #[must_use]
    pub fn line(&self) -> Option<Vec<u8>> {
        let text = if self.data.is_empty() { "null" } else { std::str::from_utf8(&self.data).ok()? };
        let flat;
        // Between tokens JSON allows line breaks; within strings they are escaped, so every raw one is between tokens.
        let text = if text.contains(['\n', '\r']) {
            flat = text.replace(['\n', '\r'], " ");
            &flat
        } else {
            text
        };
        let (kind, route, event, nonce) = match &self.what {
            What::Message { route, nonce } => ("message", Some(route.as_str()), None, nonce.as_str()),
            What::Event { kind } => ("event", None, Some(kind.as_str()), ""),
        };
        let line = Line {
            id: &self.id,
            kind,
            route,
            event,
            user: &self.user,
            connection: self.connection.map(|id| id.to_string()),
            platform: &self.platform,
            device: &self.device,
            gateway: &self.gateway,
            time_ms: self.time_ms,
            nonce,
            data: tidegate_protocol::json::from_str(text).ok()?,
        };
        serde_json::to_vec(&line).ok()
    }

    /// What keeps its order: the user, or a nameless connection.
    #[must_use]
    pub fn shard(&self) -> u32 {
        match self.connection {
            Some(id) if self.user.is_empty() => shard_of(id.to_string().as_bytes()),
            _ => shard_of(self.user.as_bytes()),
        }
    }
}

/// FNV-1a: the same on every machine and in every release, since spools remember it.
fn shard_of(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message of a user, by number.
    pub fn message(user: &str, n: usize) -> UpstreamItem {
        UpstreamItem {
            id: format!("{n:026}"),
            what: What::Message { route: "robot/say".into(), nonce: String::new() },
            user: user.into(),
            connection: None,
            platform: "web".into(),
            device: String::new(),
            gateway: "g1".into(),
            time_ms: 1_700_000_000_000,
            data: Bytes::from(format!("{{\"n\":{n}}}")),
        }
    }

    #[test]
    fn a_message_is_one_line_with_what_is_known() {
        let mut item = message("alice", 7);
        item.data = Bytes::from_static(b"{\n\"a\":\r\n\"x\\ny\"}");

        let line = String::from_utf8(item.line().expect("JSON")).expect("UTF-8");

        assert!(!line.contains(['\n', '\r']), "{line}");
        assert_eq!(
            line,
            "{\"id\":\"00000000000000000000000007\",\"kind\":\"message\",\"route\":\"robot/say\",\"user\":\"alice\",\
             \"platform\":\"web\",\"gateway\":\"g1\",\"time_ms\":1700000000000,\"data\":{ \"a\":  \"x\\ny\"}}"
        );
    }

    #[test]
    fn data_that_is_not_json_makes_no_line() {
        let mut item = message("alice", 7);
        item.data = Bytes::from_static(b"{");
        assert_eq!(item.line(), None);
        item.data = Bytes::from_static(b"1}{\"id\":2");
        assert_eq!(item.line(), None);
    }

    #[test]
    fn the_shard_is_the_users_wherever_they_connect() {
        let (mut one, mut other) = (message("alice", 1), message("alice", 2));
        one.gateway = "g1".into();
        other.gateway = "g2".into();

        assert_eq!(one.shard(), other.shard());
        assert_eq!(one.shard(), 2_267_157_479, "spools remember it");
        assert_ne!(one.shard(), message("bob", 1).shard());
    }
}
