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
}

/// Answer to a [`CommandRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommandReply {
    /// Connections that were told to close.
    #[prost(uint64, tag = "1")]
    pub closed: u64,
}
