//! News of a gateway: interest, and its account of itself. Held requests; a cursor acknowledges what came before it.
//! One of the parts of [`super`], whose invariants hold here.

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
    /// Connections by platform; those without one are left out.
    #[prost(message, repeated, tag = "18")]
    pub platforms: Vec<PlatformCount>,
    /// Version of its blocks: grows with each change of them.
    #[prost(uint64, tag = "19")]
    pub blocks: u64,
    /// Whether it lets nobody in any more: the last step before a gateway that leaves is empty for good.
    #[prost(bool, tag = "20")]
    pub is_closed: bool,
}

/// How many connections a platform has.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PlatformCount {
    /// The platform.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its open connections.
    #[prost(uint64, tag = "2")]
    pub connections: u64,
}
