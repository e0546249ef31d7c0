//! Whose connection it is when a proxy stands in between: the PROXY protocol (HAProxy's specification, versions 1 and 2)
//! before the request, and `X-Forwarded-For` inside it. Bytes in, addresses out; whom to believe is decided by [`Networks`].
//! Invariants: a prefix of a header is [`Header::Incomplete`], never an error; nothing past [`V2_BYTES_MAX`] is looked at;
//! no address is taken from a hop that is not trusted.

mod forwarded;
mod networks;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use forwarded::client;
pub use networks::{NetworkError, Networks};
pub use v2::BYTES_MAX as V2_BYTES_MAX;

/// What the bytes at the start of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A header may be coming; more bytes are needed.
    Incomplete,
    /// A whole header of so many bytes. `source` is the client; none when the proxy speaks for itself (a health check)
    /// or does not know it.
    Complete {
        /// The client's address.
        source: Option<SocketAddr>,
        /// Bytes of the header; what follows them is the client's.
        bytes: usize,
    },
}

/// Why the start of a connection is no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It begins with something else.
    #[error("there is no PROXY protocol header")]
    Absent,
    /// It begins like one.
    #[error("the PROXY protocol header has {0}")]
    Malformed(&'static str),
}

/// Reads the header at the start of `input`, of either version.
///
/// # Errors
/// [`HeaderError::Absent`] as soon as the first bytes are of no header.
pub fn header(input: &[u8]) -> Result<Header, HeaderError> {
    if starts_like(input, v2::SIGNATURE) {
        return v2::read(input);
    }
    if starts_like(input, v1::PREFIX) {
        return v1::read(input);
    }
    Err(HeaderError::Absent)
}

/// Whether `input` begins with a header's mark, whole; for those who may not send one.
#[must_use]
pub fn is_header(input: &[u8]) -> bool {
    input.starts_with(v2::SIGNATURE) || input.starts_with(v1::PREFIX)
}

/// How many bytes an incomplete header lacks at least: reading so many never takes a byte of what follows it.
#[must_use]
pub fn missing(input: &[u8]) -> usize {
    let whole = if input.starts_with(v2::SIGNATURE) { v2::length(input) } else { v1::SHORTEST };
    whole.saturating_sub(input.len()).max(1)
}

/// Whether the two agree as far as both go.
fn starts_like(input: &[u8], mark: &[u8]) -> bool {
    let both = input.len().min(mark.len());
    input[..both] == mark[..both]
}
