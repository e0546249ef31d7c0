//! The listener that all accepting tasks share, with what every accepted socket inherits of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::sockopt;

/// Binds the listener all acceptors share.
///
/// # Errors
/// The system's, for example when the address is in use.
pub fn bind(address: SocketAddr, user_timeout_ms: u32, unsent_bytes: u32) -> io::Result<OwnedFd> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking().cloexec(),
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Inherited by every accepted socket. Frames leave at once, they were merged before; a peer that does not acknowledge
    // what was written, or whose window stays shut, ends after this time (rule L-3).
    socket.set_tcp_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&socket, user_timeout_ms)?;
    // What a slow peer leaves unsent in the kernel is bounded too; beyond it the bytes wait in `Pending`, where lanes rule.
    socket.set_tcp_notsent_lowat(unsent_bytes)?;
    socket.bind(&address.into())?;
    // The kernel cuts this to somaxconn; `tidegate doctor` says when that is too small.
    socket.listen(65_535)?;
    Ok(socket.into())
}
