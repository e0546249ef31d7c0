//! Pushes: whom they are for, what became of them, and waits for those that must be written.
//! One of the parts of [`super`], whose invariants hold here.

use bytes::Bytes;

/// Priority class of a message and what becomes of it at a slow connection's bound (architecture section 5).
/// Ordered by what gives way: a lane never displaces a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Lane {
    /// Waits for the merge window; the oldest is dropped first.
    Normal = 0,
    /// Leaves at once, with what had gathered before it; the oldest is dropped first.
    Urgent = 1,
    /// Waits for the merge window; the newest is dropped first.
    Bulk = 2,
}

impl Lane {
    /// All, from the one that gives way first to the one that gives way last; not the order of the numbers on the wire.
    pub const ALL: [Self; 3] = [Self::Bulk, Self::Normal, Self::Urgent];

    fn rank(self) -> u8 {
        match self {
            Self::Bulk => 0,
            Self::Normal => 1,
            Self::Urgent => 2,
        }
    }
}

impl Ord for Lane {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Lane {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
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
    /// Only connections with all of these attributes.
    #[prost(message, repeated, tag = "4")]
    pub attributes: Vec<super::Pair>,
}

/// One push: the same messages for each of its targets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Push {
    /// The targets this gateway may have; each gets all messages.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<Target>,
    /// JSON values, validated by logic, at least one; or none, and `control` instead.
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
    /// The text of a whole server message (COMMAND, PRESENCE…) that goes out as it is, outside windows and numbering, when
    /// not empty.
    #[prost(bytes = "bytes", tag = "7")]
    pub control: Bytes,
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
    /// The connections that a ready-made message for users was sent to (16 bytes each), so that logic knows who has it; empty when
    /// a user has too many to name, and for everything else.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub connections: Vec<Bytes>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_lanes_is_the_order_in_which_they_give_way() {
        assert!(Lane::Bulk < Lane::Normal && Lane::Normal < Lane::Urgent);
        assert!(Lane::ALL.is_sorted());
    }
}
