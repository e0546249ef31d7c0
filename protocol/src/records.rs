//! Backplane records: what logic and gateway say to each other, as protobuf bodies of HTTP/2 requests.
//! All requests go logic → gateway; unknown fields pass, so the tiers upgrade one by one. `path` holds the
//! request paths. Invariant: a tag number, once released, keeps its meaning for ever.

use bytes::Bytes;

/// Request paths of the backplane; every request is a POST with one record as its body.
pub mod path {
    /// [`super::PushBatch`] → [`super::PushReply`].
    pub const PUSH: &str = "/backplane/v1/push";
    /// [`super::WaitRequest`] → [`super::WaitReply`], held until the pushes are written or time is up.
    pub const WAIT: &str = "/backplane/v1/wait";
    /// [`super::EventsRequest`] → [`super::EventsReply`], held until there is something to say.
    pub const EVENTS: &str = "/backplane/v1/events";
    /// [`super::QueryRequest`] → [`super::QueryReply`].
    pub const QUERY: &str = "/backplane/v1/query";
    /// [`super::CommandRequest`] → [`super::CommandReply`].
    pub const COMMAND: &str = "/backplane/v1/command";
}

/// Priority class of a message and what becomes of it at a slow connection's bound (architecture section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Lane {
    /// Waits for the merge window; the oldest is dropped first.
    Normal = 0,
    /// Leaves at once, with what had gathered before it; the oldest is dropped first.
    Urgent = 1,
    /// Waits for the merge window; the newest is dropped first.
    Bulk = 2,
}

/// Whom a push is for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Target {
    /// Exactly one; a record without is refused.
    #[prost(oneof = "target::To", tags = "1, 2, 3, 4")]
    pub to: Option<target::To>,
}

/// The kinds of [`Target`].
pub mod target {
    use bytes::Bytes;

    /// Whom a push is for.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
    pub enum To {
        /// Every connection; the value is always true.
        #[prost(bool, tag = "1")]
        All(bool),
        /// The members of a room.
        #[prost(string, tag = "2")]
        Room(String),
        /// Every connection of a user.
        #[prost(string, tag = "3")]
        User(String),
        /// One connection: 16 bytes, [`crate::ids::ConnectionId::to_u128`] big-endian.
        #[prost(bytes = "bytes", tag = "4")]
        Connection(Bytes),
    }
}

/// Who of the target is meant, or left out. Empty lists do not narrow.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Narrow {
    /// Only connections of these platforms.
    #[prost(string, repeated, tag = "1")]
    pub platforms: Vec<String>,
    /// Not these connections (16 bytes each).
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub except_connections: Vec<Bytes>,
    /// Not the connections of these users.
    #[prost(string, repeated, tag = "3")]
    pub except_users: Vec<String>,
}

/// One push: the same messages for each of its targets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Push {
    /// The targets this gateway may have; each gets all messages.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<Target>,
    /// JSON values, validated by logic, at least one.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub messages: Vec<Bytes>,
    /// A [`Lane`].
    #[prost(enumeration = "Lane", tag = "3")]
    pub lane: i32,
    /// Milliseconds from now after which the messages are worthless; 0: never.
    #[prost(uint32, tag = "4")]
    pub ttl_ms: u32,
    /// Who of the targets is meant.
    #[prost(message, optional, tag = "5")]
    pub narrow: Option<Narrow>,
    /// Whether the publisher waits until the messages are written: the receipt then carries a ticket.
    #[prost(bool, tag = "6")]
    pub wait_written: bool,
}

/// Pushes that waited for one gateway, in the order they were accepted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PushBatch {
    /// The logic process, a random number chosen at its start.
    #[prost(fixed64, tag = "1")]
    pub logic: u64,
    /// 1 for a logic process's first batch to a gateway epoch, then one more each. A repeated number is answered with the
    /// stored reply and not applied again.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// The gateway epoch the batch is meant for; another one answers 409 and applies nothing.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// The pushes.
    #[prost(message, repeated, tag = "4")]
    pub pushes: Vec<Push>,
}

/// How many messages were dropped, and why. A message counts once for each connection it was for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dropped {
    /// `slow`, `expired`, `closed`, `overload`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// Messages × connections.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// What became of one push at one gateway when it was accepted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Receipt {
    /// Connections the push was for.
    #[prost(uint64, tag = "1")]
    pub matched: u64,
    /// Connections it was queued for.
    #[prost(uint64, tag = "2")]
    pub queued: u64,
    /// Connections it was refused for.
    #[prost(message, repeated, tag = "3")]
    pub dropped: Vec<Dropped>,
    /// For [`WaitRequest`], when the push asked to wait; else 0.
    #[prost(uint64, tag = "4")]
    pub ticket: u64,
}

/// Answer to a [`PushBatch`]: a receipt per push, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PushReply {
    /// One per push.
    #[prost(message, repeated, tag = "1")]
    pub receipts: Vec<Receipt>,
}

/// Asks what became of pushes once their batches were written.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WaitRequest {
    /// Tickets of receipts.
    #[prost(uint64, repeated, tag = "1")]
    pub tickets: Vec<u64>,
    /// Longest wait.
    #[prost(uint32, tag = "2")]
    pub timeout_ms: u32,
}

/// What became of one waited-for push.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// The ticket.
    #[prost(uint64, tag = "1")]
    pub ticket: u64,
    /// Whether every connection's share has been handed to the kernel, queued behind a slow peer, or dropped.
    #[prost(bool, tag = "2")]
    pub is_done: bool,
    /// Connections whose share the kernel took whole.
    #[prost(uint64, tag = "3")]
    pub written: u64,
    /// Connections whose share still waits for a slow peer.
    #[prost(uint64, tag = "4")]
    pub pending: u64,
    /// Connections whose share was dropped.
    #[prost(message, repeated, tag = "5")]
    pub dropped: Vec<Dropped>,
}

/// Answer to a [`WaitRequest`]; an unknown ticket is left out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WaitReply {
    /// One per known ticket.
    #[prost(message, repeated, tag = "1")]
    pub outcomes: Vec<Outcome>,
}

/// Asks for what happened after `cursor`; thereby acknowledges everything up to it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventsRequest {
    /// The logic process.
    #[prost(fixed64, tag = "1")]
    pub logic: u64,
    /// The gateway epoch the cursor belongs to; 0 at first.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Last event applied; 0 asks for a snapshot.
    #[prost(uint64, tag = "3")]
    pub cursor: u64,
    /// Opaque position within a snapshot, from the reply before; empty at its start.
    #[prost(string, tag = "4")]
    pub page: String,
    /// How long the gateway may hold the request when nothing happens.
    #[prost(uint32, tag = "5")]
    pub hold_ms: u32,
    /// What the rest of the fleet can take, as far as this logic node knows; absent when it knows of no other gateway.
    #[prost(message, optional, tag = "6")]
    pub rest: Option<Rest>,
}

/// What the other gateways can take from one that leaves.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Rest {
    /// Connections a second: the sum of their `accept_spare`, shared among the gateways that are leaving.
    #[prost(uint32, tag = "1")]
    pub accept_spare: u32,
    /// Gateways in that sum.
    #[prost(uint32, tag = "2")]
    pub gateways: u32,
}

/// What a name in an interest delta names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum InterestKind {
    /// A room with at least one member here.
    Room = 0,
    /// A user with at least one connection here.
    User = 1,
}

/// A room or user became present (0 → 1) or absent (1 → 0) at a gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Interest {
    /// An [`InterestKind`].
    #[prost(enumeration = "InterestKind", tag = "1")]
    pub kind: i32,
    /// The room or user.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Whether it is present now.
    #[prost(bool, tag = "3")]
    pub is_present: bool,
}

/// Answer to an [`EventsRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventsReply {
    /// The gateway's epoch: its start in Unix milliseconds. A new one voids all that was known of it.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Ask with this next.
    #[prost(uint64, tag = "2")]
    pub cursor: u64,
    /// The first page of a snapshot: forget what was known of this gateway, then apply.
    #[prost(bool, tag = "3")]
    pub is_snapshot: bool,
    /// Non-empty: the snapshot goes on; ask with this page and the same cursor. Until it is complete, send everything.
    #[prost(string, tag = "4")]
    pub page: String,
    /// To be applied in order; the last word on a name counts.
    #[prost(message, repeated, tag = "5")]
    pub interest: Vec<Interest>,
    /// The gateway's own account of itself.
    #[prost(message, optional, tag = "6")]
    pub gateway: Option<GatewayInfo>,
}

/// A gateway's account of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewayInfo {
    /// Configured or derived name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The gateway part of its connection ids.
    #[prost(uint32, tag = "2")]
    pub id: u32,
    /// The epoch part of its connection ids.
    #[prost(uint32, tag = "3")]
    pub id_epoch: u32,
    /// Open connections.
    #[prost(uint64, tag = "4")]
    pub connections: u64,
    /// Rooms with members.
    #[prost(uint64, tag = "5")]
    pub rooms: u64,
    /// Users with connections.
    #[prost(uint64, tag = "6")]
    pub users: u64,
    /// Whether it is leaving.
    #[prost(bool, tag = "7")]
    pub is_draining: bool,
    /// Version of the program.
    #[prost(string, tag = "8")]
    pub version: String,
    /// Most connections it takes.
    #[prost(uint64, tag = "9")]
    pub connections_max: u64,
    /// Messages × connections queued, written and dropped since its start; and those waiting now.
    #[prost(uint64, tag = "10")]
    pub messages_queued: u64,
    /// See `messages_queued`.
    #[prost(uint64, tag = "11")]
    pub messages_written: u64,
    /// See `messages_queued`.
    #[prost(uint64, tag = "12")]
    pub messages_dropped: u64,
    /// See `messages_queued`.
    #[prost(uint64, tag = "13")]
    pub messages_pending: u64,
    /// Frames handed to sockets since the start.
    #[prost(uint64, tag = "14")]
    pub frames_written: u64,
    /// Frames encoded since the start.
    #[prost(uint64, tag = "15")]
    pub frames_encoded: u64,
    /// The merge window of the target "everyone" right now, in milliseconds.
    #[prost(uint32, tag = "16")]
    pub window_ms: u32,
    /// Connections a second that it could take beside those it takes now; absent from gateways that do not count them.
    #[prost(uint32, optional, tag = "17")]
    pub accept_spare: Option<u32>,
}

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
}

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
}

/// Answer to a [`CommandRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommandReply {
    /// Connections that were told to close.
    #[prost(uint64, tag = "1")]
    pub closed: u64,
}
