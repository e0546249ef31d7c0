//! The address of a client: the socket's own peer, unless a proxy or this process stands between.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// The socket's own peer.
pub(crate) fn peer_of(fd: &OwnedFd) -> Option<SocketAddr> {
    rustix::net::getpeername(fd).ok().flatten().and_then(|address| SocketAddr::try_from(address).ok())
}

/// An address as lists show it; a header that named no port shows none.
pub(crate) fn shown(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}
