//! The push engine. This file is a push that cannot be wrong: what `envelope` makes of a text and `route` splits among gateways.
//! Parts: `engine` (the walk), `caller` and `reach` (who pushes, and to whom they may), `dedupe` (what was done before), `receipt`
//! (what became of it).
//! Invariants of a push: at least one message and one target; every name is valid; no target twice.

mod caller;
pub mod dedupe;
mod engine;
pub mod envelope;
mod reach;
pub mod receipt;
pub mod route;

pub use self::caller::{Caller, CallerId};
pub use self::engine::{Engine, Outcome, Request, Walking};
pub use self::reach::Reach;

use bytes::Bytes;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::Lane;

/// One push, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// Whom it is for.
    pub to: To,
    /// Who of them is meant.
    pub narrow: Narrow,
    /// JSON values as the publisher wrote them; slices of the request's body.
    pub messages: Vec<Bytes>,
    /// How it is queued.
    pub lane: Lane,
    /// Milliseconds after which it is worthless; 0: never.
    pub ttl_ms: u32,
    /// By what the same push is known if it is asked for again.
    pub dedupe: Option<Key>,
    /// What the answer waits for.
    pub wait: Wait,
}

/// A name that whoever asks for a push gives it: a publisher's `dedupe`, a client's `nonce`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Whose it is, where one caller speaks for many: each has names of its own, and at most as many as leave room for others.
    pub owner: Option<String>,
    /// The name.
    pub name: String,
}

/// Whom a push is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Every connection.
    All,
    /// Members of these rooms.
    Rooms(Vec<String>),
    /// Connections of these users.
    Users(Vec<String>),
    /// These connections.
    Connections(Vec<ConnectionId>),
}

/// Who of the targets is meant; empty lists do not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    /// Only these platforms.
    pub platforms: Vec<String>,
    /// Not these connections.
    pub except_connections: Vec<ConnectionId>,
    /// Not these users' connections.
    pub except_users: Vec<String>,
    /// Only connections with all of these attributes: names and values, each name once.
    pub attributes: Vec<(String, String)>,
}

/// What the answer to a push waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The gateways have queued it.
    Accepted,
    /// It is written, or time is up.
    Written {
        /// Longest wait.
        timeout_ms: u32,
    },
}
