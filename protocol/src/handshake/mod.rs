//! The opening handshake (RFC 6455 section 4.2): one request head becomes an upgrade, or a refusal that says what to do (rules C-1 to C-3).
//! Reads no socket, keeps no deadline and knows no tokens: `authorization` and `query` are handed on as the client wrote them.
//! Invariant: an [`Upgrade`] exists only for a request that passed every check here (threat row 17).

mod extensions;
mod head;
mod origin;
mod query;
mod refusal;
mod request;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

pub use extensions::Deflate;
pub use head::{header, without_token};
pub use origin::{OriginError, Origins};
pub use query::{query_has_duplicates, query_value};
pub use refusal::{Refusal, refusal_of_others};
pub use request::parse;

/// The WebSocket subprotocol (rule C-2).
pub const SUBPROTOCOL: &str = "tidegate.v1.json";
/// Most header fields in a request; browsers send about 15, proxies add a few.
pub const HEADERS_MAX: usize = 64;
/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Base 64 of 20 bytes of SHA-1.
const ACCEPT_BYTES: usize = 28;

/// What a listener accepts.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Paths of the WebSocket, such as `/ws` and `/connect`.
    pub paths: &'a [&'a str],
    /// Who may connect from a browser.
    pub origins: &'a Origins,
    /// Largest request head in bytes, the empty line included.
    pub head_bytes_max: usize,
    /// Whether permessage-deflate is accepted from those who offer it.
    pub deflate: bool,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// No fault yet; more bytes are needed.
    Incomplete,
    /// A whole, admissible request and the bytes of its head; what follows them is the client's first frames.
    Upgrade(Upgrade<'a>, usize),
}

/// A request that may become a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// Base 64 of 16 bytes; 24 characters.
    pub key: &'a str,
    /// The client offered [`SUBPROTOCOL`].
    pub subprotocol: bool,
    /// One of the policy's paths.
    pub path: &'a str,
    /// What follows `?`, undecoded; empty without one. See [`query_value`].
    pub query: &'a str,
    /// Value of the only `Authorization` header.
    pub authorization: Option<&'a str>,
    /// permessage-deflate, if it was offered in a form that can be accepted and the policy accepts it.
    pub deflate: Option<Deflate>,
}

/// Appends the 101 that makes `upgrade` a session; the next byte after it is a frame.
pub fn accept_response(upgrade: &Upgrade<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_value(upgrade.key));
    if upgrade.subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(SUBPROTOCOL.as_bytes());
    }
    if let Some(deflate) = upgrade.deflate {
        deflate.answer(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
pub fn accept_value(key: &str) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    let mut out = [0u8; ACCEPT_BYTES];
    let written = STANDARD.encode_slice(digest, &mut out);
    debug_assert_eq!(written, Ok(ACCEPT_BYTES), "20 bytes are 28 characters");
    out
}
