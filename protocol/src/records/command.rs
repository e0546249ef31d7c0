//! Orders to a gateway that concern connections, rooms and users.
//! One of the parts of [`super`], whose invariants hold here.

use bytes::Bytes;

/// Closes connections.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommandRequest {
    /// These connections (16 bytes each).
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub close_connections: Vec<Bytes>,
    /// All connections of this user, when not empty.
    #[prost(string, tag = "2")]
    pub close_user: String,
    /// Close code, 3000 to 4999.
    #[prost(uint32, tag = "3")]
    pub code: u32,
    /// Close reason, at most 123 bytes.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// Users to be put into rooms or taken out, with all their connections.
    #[prost(message, repeated, tag = "5")]
    pub moves: Vec<Move>,
    /// A room that all its members leave, when not empty.
    #[prost(string, tag = "6")]
    pub close_room: String,
    /// Blocks set or lifted; of two about the same, the later one counts.
    #[prost(message, repeated, tag = "7")]
    pub blocks: Vec<Block>,
    /// A connection that has come at another gateway, whose user may have one of its kind: who loses here is closed.
    #[prost(message, optional, tag = "8")]
    pub newcomer: Option<Newcomer>,
}

/// A connection whose user may have one on its platform, or on its device where both name one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Newcomer {
    /// Its id (16 bytes).
    #[prost(bytes = "bytes", tag = "1")]
    pub connection: Bytes,
    /// Its user.
    #[prost(string, tag = "2")]
    pub user: String,
    /// Its platform, or empty.
    #[prost(string, tag = "3")]
    pub platform: String,
    /// Its device, or empty.
    #[prost(string, tag = "4")]
    pub device: String,
    /// Who stays, and since when it is there.
    #[prost(message, optional, tag = "5")]
    pub claim: Option<Claim>,
}

/// What a connection claims against others of its user.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Claim {
    /// A [`DeviceRule`].
    #[prost(enumeration = "DeviceRule", tag = "1")]
    pub rule: i32,
    /// When it was opened, Unix milliseconds by its gateway's clock; the same each time it is told.
    #[prost(uint64, tag = "2")]
    pub since_ms: u64,
}

/// Which of two connections stays. Of two as old the one with the larger id counts as newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum DeviceRule {
    /// The newer one.
    KeepNewest = 0,
    /// The older one.
    RefuseNewer = 1,
}

/// Puts a user's connections into a room or takes them out.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Move {
    /// The user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The room.
    #[prost(string, tag = "2")]
    pub room: String,
    /// Into the room; else out of it.
    #[prost(bool, tag = "3")]
    pub is_in: bool,
    /// One word for LEFT, when out of it.
    #[prost(string, tag = "4")]
    pub reason: String,
}

/// A user who is not to be let in for a time, or not into one room.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Block {
    /// The user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The room; empty: everything.
    #[prost(string, tag = "2")]
    pub room: String,
    /// Until when, Unix milliseconds; of a lifted block, until when that must be remembered.
    #[prost(uint64, tag = "3")]
    pub until_ms: u64,
    /// When it was set or lifted, Unix milliseconds.
    #[prost(uint64, tag = "4")]
    pub set_ms: u64,
    /// Why, for those who look it up.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// Whether it was lifted.
    #[prost(bool, tag = "6")]
    pub is_lifted: bool,
}

impl DeviceRule {
    /// Why the one that loses is closed; also the code by which a newcomer is refused.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::KeepNewest => "replaced",
            Self::RefuseNewer => "device_present",
        }
    }
}

/// Answer to a [`CommandRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommandReply {
    /// Connections that were told to close.
    #[prost(uint64, tag = "1")]
    pub closed: u64,
    /// Connections that were put into a room or taken out of one, by moves, blocks and closed rooms.
    #[prost(uint64, tag = "2")]
    pub moved: u64,
    /// Connections that were where they should be already.
    #[prost(uint64, tag = "3")]
    pub unmoved: u64,
    /// Connections that could not be put into the room, because of a limit or a block.
    #[prost(uint64, tag = "4")]
    pub refused: u64,
    /// Connections here that win against the newcomer, so that it has to go.
    #[prost(uint64, tag = "5")]
    pub stronger: u64,
}
