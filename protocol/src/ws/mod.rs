//! WebSocket frames of a server (RFC 6455): bytes of a client become events, payloads become frames.
//! Does no I/O and answers nothing by itself (pongs and the closing handshake are the caller's). The one extension is
//! permessage-deflate (RFC 7692) without context takeover: [`Inflater`] and [`Deflater`] belong to a thread, never to a connection.
//! Invariants: whatever a client sends ends in events or in one [`Violation`], the same however the bytes were cut into reads;
//! memory grows with payload that arrived, never with a length that was merely claimed.

mod close;
mod decoder;
mod deflate;
mod encode;
mod head;
mod inflate;
mod mask;
mod partial;
mod text;
mod violation;

#[cfg(test)]
mod compressed_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use deflate::Deflater;
pub use encode::{HEAD_BYTES_MAX, Head, close_frame, frame, head, payload};
pub use head::OpCode;
pub use inflate::Inflater;
pub use mask::unmask;
pub use violation::Violation;

/// What one connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest message in bytes of payload, over all its fragments; larger closes 1009.
    pub message_bytes: usize,
    /// Most frames that one message may be cut into, empty ones included; more closes 1008.
    pub fragments: u32,
    /// Most bytes that one byte of a compressed message may become, beyond a small allowance; more closes 1008.
    pub inflate_ratio: u32,
}

/// What a client sent. Control frames arrive between the fragments of a message, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload (at most 125 bytes).
    Ping(&'a [u8]),
    /// Answer to a ping, or unsolicited, which is allowed.
    Pong(&'a [u8]),
    /// The client ends the connection; nothing it sends after this counts.
    Close {
        /// Valid on the wire when present (RFC 6455 section 7.4); `None` for an empty close frame.
        code: Option<u16>,
        /// At most 123 bytes; empty without a code.
        reason: &'a str,
    },
}
