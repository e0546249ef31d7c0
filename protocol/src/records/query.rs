//! Questions about what a gateway holds, in pages.
//! One of the parts of [`super`], whose invariants hold here.

use bytes::Bytes;

/// What a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum QueryKind {
    /// Connections, narrowed by user, room and platform.
    Connections = 0,
    /// One connection by id (`connection`).
    Connection = 1,
    /// Rooms, narrowed by name prefix (`prefix`).
    Rooms = 2,
    /// One room by name (`room`): its counts.
    Room = 3,
    /// Blocks that changed after the version in `cursor`, in the order of their changes.
    Blocks = 4,
}

/// Asks for a page of what a gateway holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryRequest {
    /// A [`QueryKind`].
    #[prost(enumeration = "QueryKind", tag = "1")]
    pub kind: i32,
    /// Only this user's, when not empty.
    #[prost(string, tag = "2")]
    pub user: String,
    /// Only members of this room, when not empty.
    #[prost(string, tag = "3")]
    pub room: String,
    /// Only this platform's, when not empty.
    #[prost(string, tag = "4")]
    pub platform: String,
    /// Only names that begin so, when not empty.
    #[prost(string, tag = "5")]
    pub prefix: String,
    /// The connection (16 bytes) of [`QueryKind::Connection`].
    #[prost(bytes = "bytes", tag = "6")]
    pub connection: Bytes,
    /// Rows after this one, from the reply before; empty at the start.
    #[prost(string, tag = "7")]
    pub cursor: String,
    /// Most rows, at most [`crate::limits::QUERY_PAGE_MAX`].
    #[prost(uint32, tag = "8")]
    pub limit: u32,
    /// Rooms of [`QueryKind::Room`] beside `room`, so that many need one question.
    #[prost(string, repeated, tag = "9")]
    pub names: Vec<String>,
}

/// One connection as lists show it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConnectionInfo {
    /// Its id (16 bytes).
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Its user, or empty.
    #[prost(string, tag = "2")]
    pub user: String,
    /// Its platform, or empty.
    #[prost(string, tag = "3")]
    pub platform: String,
    /// Its rooms.
    #[prost(string, repeated, tag = "4")]
    pub rooms: Vec<String>,
    /// Peer address, `ip:port`.
    #[prost(string, tag = "5")]
    pub address: String,
    /// Age in milliseconds.
    #[prost(uint64, tag = "6")]
    pub age_ms: u64,
    /// Milliseconds since its last sign of life.
    #[prost(uint64, tag = "7")]
    pub idle_ms: u64,
    /// Bytes waiting for it.
    #[prost(uint64, tag = "8")]
    pub pending_bytes: u64,
    /// Its device, or empty.
    #[prost(string, tag = "9")]
    pub device: String,
    /// Its attributes.
    #[prost(message, repeated, tag = "10")]
    pub attributes: Vec<super::Pair>,
    /// When it was opened, Unix milliseconds; 0 from gateways that do not say.
    #[prost(uint64, tag = "11")]
    pub since_ms: u64,
}

/// One room as lists show it, on one gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RoomInfo {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Members here.
    #[prost(uint64, tag = "2")]
    pub online: u64,
    /// Sequence number of its last flushed message here.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// The epoch that `seq` counts in.
    #[prost(string, tag = "4")]
    pub epoch: String,
    /// Different users among the members here.
    #[prost(uint64, tag = "5")]
    pub users: u64,
    /// Where members are told of comings and goings: the figures that belong to what was told last.
    #[prost(message, optional, tag = "6")]
    pub told: Option<ToldRoom>,
}

/// Counts of a room as a gateway told them last; who has come or gone since is told next.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ToldRoom {
    /// Members.
    #[prost(uint64, tag = "1")]
    pub online: u64,
    /// Different users among them.
    #[prost(uint64, tag = "2")]
    pub users: u64,
    /// Number of the item by which it told them. Whoever uses these counts must have heard that item: it says who came and went.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
}

/// A page of answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryReply {
    /// For connection queries.
    #[prost(message, repeated, tag = "1")]
    pub connections: Vec<ConnectionInfo>,
    /// For room queries, by name.
    #[prost(message, repeated, tag = "2")]
    pub rooms: Vec<RoomInfo>,
    /// Non-empty: there may be more after this.
    #[prost(string, tag = "3")]
    pub cursor: String,
    /// For [`QueryKind::Blocks`], in the order of their changes; `cursor` then is the version of the last one.
    #[prost(message, repeated, tag = "4")]
    pub blocks: Vec<super::Block>,
}
