//! What clients say, on its way up: items that a gateway hands to a logic node in answers to a held request, and what logic
//! answers to them. An item is kept by the gateway until it is answered, and handed to another logic node if the first is
//! gone; its `id` stays the same, so that whoever is behind can drop repeats.
//! One of the parts of [`super`], whose invariants hold here.

use bytes::Bytes;

/// Asks for what clients have said; thereby says that everything up to `taken` has arrived.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UplinkRequest {
    /// The logic process, a random number chosen at its start.
    #[prost(fixed64, tag = "1")]
    pub logic: u64,
    /// The gateway epoch that `taken` belongs to; another one is answered with the gateway's and no items.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Number of the last item that has arrived; 0 at first.
    #[prost(uint64, tag = "3")]
    pub taken: u64,
    /// How long the gateway may hold the request while nothing is said.
    #[prost(uint32, tag = "4")]
    pub hold_ms: u32,
    /// What this logic node wants to hear beyond what clients say.
    #[prost(message, optional, tag = "5")]
    pub wants: Option<Wants>,
}

/// What a logic node wants to hear.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Wants {
    /// Kinds of events, as [`Event::kind`] names them.
    #[prost(string, repeated, tag = "1")]
    pub events: Vec<String>,
    /// Whether each stranger is to be asked about before it is let in ([`item::What::Connect`]).
    #[prost(bool, tag = "2")]
    pub connects: bool,
    /// Request headers of strangers that the question carries, in lower case.
    #[prost(string, repeated, tag = "3")]
    pub headers: Vec<String>,
    /// Whether it judges between a user's connections at several gateways ([`item::What::Device`]).
    #[prost(bool, tag = "4")]
    pub devices: bool,
    /// Whether the logic node has this gateway on its list no longer. Once all that listen say so, the gateway drains.
    #[prost(bool, tag = "5")]
    pub is_delisted: bool,
}

/// Answer to an [`UplinkRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct UplinkReply {
    /// The gateway's epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// In order of their numbers, which only grow.
    #[prost(message, repeated, tag = "2")]
    pub items: Vec<Item>,
}

/// One thing said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Item {
    /// Its number at this gateway.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Its name for ever: a ULID's text.
    #[prost(string, tag = "2")]
    pub id: String,
    /// When it was said, Unix milliseconds.
    #[prost(uint64, tag = "3")]
    pub time_ms: u64,
    /// Who said it, or whom it is about.
    #[prost(message, optional, tag = "4")]
    pub from: Option<Sender>,
    /// Exactly one; an item without is answered as refused.
    #[prost(oneof = "item::What", tags = "5, 6, 7, 8, 9, 10, 11, 12")]
    pub what: Option<item::What>,
}

/// The kinds of [`Item`].
pub mod item {
    /// What is said.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum What {
        /// To other clients (rule S-1).
        #[prost(message, tag = "5")]
        Send(super::Send),
        /// To a business service (rule S-2).
        #[prost(message, tag = "6")]
        Route(super::Route),
        /// An agent's answer to a command (rule S-3).
        #[prost(message, tag = "7")]
        Reply(super::Reply),
        /// A question that only all gateways together can answer.
        #[prost(message, tag = "8")]
        Ask(super::Ask),
        /// Something happened to a connection.
        #[prost(message, tag = "9")]
        Event(super::Event),
        /// Who came to and left a room since the last tick.
        #[prost(message, tag = "10")]
        Tally(super::Tally),
        /// May this stranger come in?
        #[prost(message, tag = "11")]
        Connect(super::Connect),
        /// Which of its user's connections at other gateways have to go for this one, or must it go itself?
        #[prost(message, tag = "12")]
        Device(super::super::Claim),
    }
}

/// A connection, as those behind the gateway know it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sender {
    /// Its id (16 bytes); empty for a stranger.
    #[prost(bytes = "bytes", tag = "1")]
    pub connection: Bytes,
    /// Its user, or empty.
    #[prost(string, tag = "2")]
    pub user: String,
    /// Its platform, or empty.
    #[prost(string, tag = "3")]
    pub platform: String,
    /// Its device, or empty.
    #[prost(string, tag = "4")]
    pub device: String,
    /// The client's address, `ip:port`, or empty when it is not known.
    #[prost(string, tag = "5")]
    pub address: String,
    /// Its attributes.
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<Pair>,
}

/// A name and its value.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Pair {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A message for other clients.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Send {
    /// For whom; the gateway has checked that the sender may.
    #[prost(message, optional, tag = "1")]
    pub to: Option<super::Target>,
    /// A JSON value.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    /// The client's own mark against repeats, or empty.
    #[prost(string, tag = "3")]
    pub nonce: String,
    /// Whether the sender's own connection is left out.
    #[prost(bool, tag = "4")]
    pub skip_self: bool,
}

/// A message for a business service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Route {
    /// Such as `robot/Login`.
    #[prost(string, tag = "1")]
    pub route: String,
    /// A JSON value.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    /// The client's own mark against repeats, or empty.
    #[prost(string, tag = "3")]
    pub nonce: String,
}

/// An agent's answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The command's id.
    #[prost(string, tag = "1")]
    pub command: String,
    /// A JSON value; of an error, the error.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    /// Whether it is an error.
    #[prost(bool, tag = "3")]
    pub is_error: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum AskKind {
    /// How many are in a room.
    Presence = 0,
    /// Who is in a room, in pages.
    Members = 1,
}

/// A client's question; answered with [`Told`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ask {
    /// An [`AskKind`].
    #[prost(enumeration = "AskKind", tag = "1")]
    pub kind: i32,
    /// The room; the gateway has checked that the client may ask.
    #[prost(string, tag = "2")]
    pub room: String,
    /// From the answer before; empty at the start.
    #[prost(string, tag = "3")]
    pub cursor: String,
    /// Most rows; 0: as many as is usual.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
}

/// Something that happened to a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// `connected`, `disconnected`, `joined`, `left`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Which room, of `joined` and `left`.
    #[prost(string, tag = "2")]
    pub room: String,
    /// Close code, of `disconnected`; 1006 when there was none.
    #[prost(uint32, tag = "3")]
    pub code: u32,
    /// One word why, of `disconnected` and `left`.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// How long it lasted, of `disconnected`.
    #[prost(uint64, tag = "5")]
    pub duration_ms: u64,
}

/// A room's comings and goings at one gateway since its last tally.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tally {
    /// The room.
    #[prost(string, tag = "1")]
    pub room: String,
    /// Connections that came.
    #[prost(uint64, tag = "2")]
    pub joined: u64,
    /// Connections that went.
    #[prost(uint64, tag = "3")]
    pub left: u64,
    /// Members here now.
    #[prost(uint64, tag = "4")]
    pub online: u64,
    /// Different users among them.
    #[prost(uint64, tag = "5")]
    pub users: u64,
    /// A few of the users who came.
    #[prost(string, repeated, tag = "6")]
    pub sample: Vec<String>,
    /// Most names that members are to be told in one frame.
    #[prost(uint32, tag = "7")]
    pub sample_max: u32,
}

/// A stranger who has shown a good token, or needs none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Connect {
    /// The page's origin, or empty.
    #[prost(string, tag = "1")]
    pub origin: String,
    /// Path and query, without a token.
    #[prost(string, tag = "2")]
    pub path: String,
    /// The headers asked for.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<Pair>,
    /// Says whether two strangers are the same to the hook's cache; no secret can be told from it.
    #[prost(bytes = "bytes", tag = "4")]
    pub fingerprint: Bytes,
}

/// Answers to items, in any order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answers {
    /// The logic process.
    #[prost(fixed64, tag = "1")]
    pub logic: u64,
    /// The gateway epoch of the items; another one answers 409.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The answers.
    #[prost(message, repeated, tag = "3")]
    pub answers: Vec<Answer>,
}

/// What became of an item.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// The item's number.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// None: it was taken, and there is nothing to tell.
    #[prost(oneof = "answer::Outcome", tags = "2, 3, 4, 5")]
    pub outcome: Option<answer::Outcome>,
}

/// The kinds of [`Answer`].
pub mod answer {
    /// What became of it.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Outcome {
        /// It is where it was to go.
        #[prost(message, tag = "2")]
        Sent(super::Sent),
        /// It is not.
        #[prost(message, tag = "3")]
        Refused(super::Declined),
        /// What was asked for.
        #[prost(message, tag = "4")]
        Told(super::Told),
        /// Whether the stranger may come in.
        #[prost(message, boxed, tag = "5")]
        Verdict(Box<super::Verdict>),
    }
}

/// It is where it was to go: with its audience, or with the business service's sink.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sent {
    /// The message's id: the item's, or of a repeat that of the first.
    #[prost(string, tag = "1")]
    pub id: String,
    /// When it was taken, Unix milliseconds.
    #[prost(uint64, tag = "2")]
    pub time_ms: u64,
}

/// Why it is not.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Declined {
    /// Stable code for ERROR.
    #[prost(string, tag = "1")]
    pub code: String,
    /// A sentence for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Whether the same may succeed later.
    #[prost(bool, tag = "3")]
    pub retryable: bool,
    /// Not before; 0: no advice.
    #[prost(uint32, tag = "4")]
    pub retry_after_ms: u32,
}

/// What was asked for: the reply's `data`, a JSON object.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Told {
    /// The object's text.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
}

/// What a connect hook decided.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Verdict {
    /// 0: come in; else the status that refuses (401, 403, 429, 503).
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// Of a refusal: its code and sentence.
    #[prost(string, tag = "2")]
    pub code: String,
    /// See `code`.
    #[prost(string, tag = "3")]
    pub message: String,
    /// The user, when the hook names one; empty: as claimed.
    #[prost(string, tag = "4")]
    pub user: String,
    /// Rooms to be in from the start.
    #[prost(string, repeated, tag = "5")]
    pub join: Vec<String>,
    /// Patterns granted beside the token's, as the claims of the same names.
    #[prost(message, optional, tag = "6")]
    pub grant: Option<Grants>,
    /// Attributes beside the token's; these win.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<Pair>,
}

/// Patterns of what a connection may do, as the claims of the same names (docs/protocol.md).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Grants {
    /// Rooms it may join.
    #[prost(string, repeated, tag = "1")]
    pub rooms: Vec<String>,
    /// Rooms it may speak in.
    #[prost(string, repeated, tag = "2")]
    pub speak: Vec<String>,
    /// Rooms whose counts it may see.
    #[prost(string, repeated, tag = "3")]
    pub presence: Vec<String>,
    /// Rooms whose members it may list.
    #[prost(string, repeated, tag = "4")]
    pub members: Vec<String>,
    /// Users it may speak to.
    #[prost(string, repeated, tag = "5")]
    pub users: Vec<String>,
    /// Upstream routes it may use.
    #[prost(string, repeated, tag = "6")]
    pub routes: Vec<String>,
}
