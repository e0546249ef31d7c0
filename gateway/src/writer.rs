//! The one way bytes leave a gateway: handing them to a socket without ever waiting.
//! A trait, so that io_uring batches and the tests' sockets that stall and fail take the same path as `send`.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

/// Never wait, and no SIGPIPE for peers that left.
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Hands bytes to a connection's socket.
pub trait Writer {
    /// Writes what fits now; `EAGAIN` when nothing does. Several slices leave in one call.
    ///
    /// # Errors
    /// `EAGAIN` when the peer must read first, anything else when the connection is over.
    fn write(&self, fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> Result<usize, Errno>;
}

/// `send` for one slice, `sendmsg` for several.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelWriter;

impl Writer for KernelWriter {
    fn write(&self, fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        match parts {
            [] => Ok(0),
            [one] => rustix::net::send(fd, one, FLAGS),
            many => rustix::net::sendmsg(fd, many, &mut SendAncillaryBuffer::default(), FLAGS),
        }
    }
}
