//! The `data` of each frame for one client, as serde writes it and as `schema` describes it to those who write clients.
//! Only shapes; who fills them is told by the functions above. Invariants: the fields stand in the order in which they have
//! always been written, and what is absent is left out, never `null`.

use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, Value};
use utoipa::ToSchema;

/// What a client learns first (rule C-5).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Hello<'a> {
    /// This connection's id.
    pub connection: &'a str,
    /// The user, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// Name and version of the gateway.
    pub server: &'a str,
    /// The server pings after this long a silence.
    pub ping_ms: u32,
    /// Longest time that a message waits for its neighbours.
    pub merge_ms: u32,
    /// What this client may use.
    pub limits: Limits,
    /// Advice for reconnecting.
    pub reconnect: Reconnect,
    /// The server's wall clock, Unix milliseconds.
    pub time_ms: u64,
    /// When the connection's token ends, Unix milliseconds; absent where it has none that does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// What one client may use.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Limits {
    /// Largest message accepted, in bytes.
    pub message_bytes: usize,
    /// Most rooms of one connection.
    pub rooms: usize,
}

/// How a client should space its attempts to come back.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Reconnect {
    /// First delay.
    pub base_ms: u32,
    /// Longest delay.
    pub max_ms: u32,
    /// Part of each delay that is random, from 0 to 1.
    #[serde(rename = "jitter", serialize_with = "in_hundredths")]
    #[schema(value_type = f64)]
    pub jitter_percent: u8,
}

/// A share of 50 percent is written `0.50`.
fn in_hundredths<S: Serializer>(percent: &u8, to: S) -> Result<S::Ok, S::Error> {
    let text = format!("{}.{:02}", percent / 100, percent % 100);
    RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(to)
}

/// Comes back for a PING (rule L-1), with the members of the PING's own data.
#[derive(Clone, Debug, ToSchema)]
pub struct Pong {
    /// The server's wall clock, Unix milliseconds.
    pub time_ms: u64,
}

/// What has become of each room that was asked for, or was given by the business (rule R-1).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Joined<'a> {
    /// One for each.
    pub rooms: &'a [JoinedRoom<'a>],
}

/// One room's part of JOINED.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
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
        /// Why.
        error: RoomError<'a>,
    },
}

/// Why a room was not joined.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RoomError<'a> {
    /// `forbidden`, `limit` or `invalid`.
    pub code: &'static str,
    /// What to do about it, for people.
    pub message: &'a str,
}

/// A room was left (rule R-2), or the business ended the membership (rule R-5).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Left<'a> {
    /// The room.
    pub room: &'a str,
    /// `kicked`, `closed` or `blocked`; absent where the client asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

/// Who came to and left a room, as its members are told (rule P-3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PresenceNews)]
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

/// How many are in a room, over all gateways (rule P-1).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PresenceCounts<'a> {
    /// The room.
    pub room: &'a str,
    /// Connections.
    pub online: u64,
    /// Different users; one who is at two gateways counts twice.
    pub users: u64,
}

/// Who is in a room, over all gateways: a page (rule P-2).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Members<'a> {
    /// The room.
    pub room: &'a str,
    /// Rows of this page.
    pub members: Vec<Member>,
    /// Connections.
    pub online: u64,
    /// Different users; one who is at two gateways counts twice.
    pub users: u64,
    /// The room is too large for a list: these are some of its members, and there is no cursor.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub is_sample: bool,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One connection in a room.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Member {
    /// The user; absent for an anonymous connection.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub user: String,
    /// The connection's id.
    pub connection: String,
    /// Its platform, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub platform: String,
}

/// A request failed, or a message was none (rule E-1).
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Error<'a> {
    /// Stable.
    pub code: &'a str,
    /// A sentence for people; may change.
    pub message: &'a str,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The token's code, where `code` is `unauthorized`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

/// A message was taken (rules S-1, S-2).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Sent<'a> {
    /// The message's id.
    pub id: &'a str,
    /// When it was taken, Unix milliseconds.
    pub time_ms: u64,
}

/// The connection now lasts until then (rule C-6).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Refreshed {
    /// Unix milliseconds.
    pub expires_ms: u64,
}

/// Messages that will not come, in the place where they would have come (rule M-3). Of everyone's, or of this connection's
/// own, where neither `room` nor `user` is there.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Gap<'a> {
    /// Of this room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<&'a str>,
    /// Of this user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub user: bool,
    /// Number of the first one missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Number of the last one missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// How many are missing outside the numbering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// `slow` or `expired`.
    pub reason: &'a str,
}

/// A planned close is near (rule E-4).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Goaway<'a> {
    /// Such as `draining`.
    pub reason: &'a str,
    /// Come back after a delay chosen at random between the two.
    #[schema(value_type = [u32; 2], min_items = 2, max_items = 2)]
    pub reconnect_after_ms: (u32, u32),
}

/// What a business service asks of an agent (rule S-3); written by [`command`](crate::command).
#[derive(Clone, Debug, ToSchema)]
pub struct Command {
    /// What to do.
    pub command: String,
    /// Any JSON value.
    pub data: Value,
    /// How long somebody waits for the REPLY.
    pub deadline_ms: u32,
}

/// Messages of one target, in order (rule M-1); written by [`push`](crate::push). For everyone, or for this connection, where
/// neither `room` nor `user` is there.
#[derive(Clone, Debug, ToSchema)]
pub struct Push {
    /// For the members of this room.
    pub room: Option<String>,
    /// For this user.
    #[schema(required = false)]
    pub user: bool,
    /// Life of the numbering; absent, as `seq`, outside one.
    pub epoch: Option<String>,
    /// Numbers of the first and the last item.
    #[schema(value_type = Option<[u64; 2]>, min_items = 2, max_items = 2)]
    pub seq: Option<(u64, u64)>,
    /// The publishers' JSON values, byte for byte.
    pub items: Vec<Value>,
}
