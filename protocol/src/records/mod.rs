//! Backplane records: what logic and gateway say to each other, as protobuf bodies of HTTP/2 requests.
//! All requests go logic → gateway; unknown fields pass, so the tiers upgrade one by one. `path` holds the
//! request paths. Invariant: a tag number, once released, keeps its meaning for ever.

mod command;
mod events;
mod push;
mod query;
mod uplink;

pub use command::{Block, Claim, CommandReply, CommandRequest, DeviceRule, Move, Newcomer};
pub use events::{EventsReply, EventsRequest, GatewayInfo, Interest, InterestKind, PlatformCount, Rest};
pub use push::{
    Dropped, Lane, Narrow, Outcome, Push, PushBatch, PushReply, Receipt, Target, WaitReply, WaitRequest, target,
};
pub use query::{ConnectionInfo, QueryKind, QueryReply, QueryRequest, RoomInfo, ToldRoom};
pub use uplink::{
    Answer, Answers, Ask, AskKind, Connect, Declined, Event, Grants, Item, Pair, Reply, Route, Send, Sender, Sent,
    Tally, Told, UplinkReply, UplinkRequest, Verdict, Wants, answer, item,
};

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
    /// [`super::UplinkRequest`] → [`super::UplinkReply`], held until a client says something.
    pub const UPLINK: &str = "/backplane/v1/uplink";
    /// [`super::Answers`] → nothing.
    pub const ANSWERS: &str = "/backplane/v1/answers";
}
