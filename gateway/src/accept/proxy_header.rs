//! Whom a stranger stands for. A proxy says it before the request (PROXY protocol) or in it (`X-Forwarded-For`); it is
//! believed when its own address is in `gateway.proxy.trusted`, and nobody else is.
//! Decides over bytes that others have read. Invariant: without `trusted` no address is ever asked for.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tidegate_protocol::handshake::Refusal;
use tidegate_protocol::proxy::{self, Header, HeaderError, Networks};

use crate::config::{ProxyConfig, ProxyProtocol};
use crate::session::address::peer_of;

const MISSING: &str = "this proxy is in gateway.proxy.trusted and must send one";
const UNEXPECTED: &str = "this peer is not in gateway.proxy.trusted, or gateway.proxy.protocol is off";

/// A socket and what is known of who is behind it.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub fd: OwnedFd,
    /// The address, when the socket's own peer is not it: TLS ended elsewhere in this process, and what a PROXY header
    /// before it said is in here.
    pub address: Option<SocketAddr>,
}

/// The proxies in front of a gateway.
#[derive(Debug)]
pub(crate) struct Proxies {
    trusted: Networks,
    protocol: ProxyProtocol,
    is_forwarded: bool,
}

/// What was said before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    /// More bytes are needed.
    Incomplete,
    /// The request begins behind so many bytes.
    Over {
        /// Whose it is, if that was of interest.
        address: Option<SocketAddr>,
        /// What the header took.
        bytes: usize,
    },
}

impl Proxies {
    /// As configured; what cannot be read was refused before.
    pub fn new(config: &ProxyConfig) -> Self {
        let trusted = Networks::parse(&config.trusted).unwrap_or_default();
        Self { trusted, protocol: config.protocol, is_forwarded: config.forwarded }
    }

    /// Whether a connection from this peer begins with a PROXY header.
    pub fn is_announced(&self, peer: SocketAddr) -> bool {
        self.protocol == ProxyProtocol::V1V2 && self.trusted.contain(peer.ip())
    }

    /// Reads what comes before the request.
    pub fn read_header(&self, stranger: &Stranger, input: &[u8]) -> Result<ProxyHeader, Refusal> {
        if let Some(address) = stranger.address {
            return Ok(ProxyHeader::Over { address: Some(address), bytes: 0 });
        }
        if self.trusted.is_empty() {
            return Ok(ProxyHeader::Over { address: None, bytes: 0 });
        }
        let Some(peer) = peer_of(&stranger.fd) else {
            return Ok(ProxyHeader::Over { address: None, bytes: 0 });
        };
        if !self.is_announced(peer) {
            return Ok(ProxyHeader::Over { address: Some(peer), bytes: 0 });
        }
        match proxy::header(input) {
            Ok(Header::Incomplete) => Ok(ProxyHeader::Incomplete),
            Ok(Header::Complete { source, bytes }) => {
                Ok(ProxyHeader::Over { address: Some(source.unwrap_or(peer)), bytes })
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// The client behind a request from `address`.
    pub fn client(&self, head: &[u8], address: SocketAddr) -> SocketAddr {
        if self.is_forwarded { proxy::client(head, address, &self.trusted) } else { address }
    }
}

/// What to say to a proxy that does not introduce its client.
pub(crate) fn refusal(error: HeaderError) -> Refusal {
    match error {
        HeaderError::Absent => Refusal::ProxyHeader { what: MISSING },
        HeaderError::Malformed(what) => Refusal::ProxyHeader { what },
    }
}

/// The refusal of a request that cannot be read: by its true cause, when it began with a header nobody asked for.
pub(super) fn cause(head: &[u8], refusal: Refusal) -> Refusal {
    if proxy::is_header(head) { Refusal::ProxyHeader { what: UNEXPECTED } } else { refusal }
}
