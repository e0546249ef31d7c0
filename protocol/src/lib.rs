//! What travels between clients, gateways and logic nodes: WebSocket frames, client messages, backplane
//! records, ids and limits. Bytes and values only: no sockets, no clock, no runtime, so that every rule can be
//! tested on a desk. Start at [`push`] for what a client receives, [`message`] for what it may say, [`schema`] for both as others read them,
//! [`records`] for what the tiers tell each other, [`ws`] and [`handshake`] for the wire.

pub mod blocks;
pub mod close;
pub mod command;
pub mod compat;
pub mod exposition;
pub mod handshake;
pub mod ids;
pub mod json;
pub mod limits;
pub mod message;
pub mod places;
pub mod proxy;
pub mod push;
pub mod records;
pub mod remembered;
pub mod reply;
pub mod schema;
pub mod ws;
