//! The one way bytes leave a gateway: handing them to a socket without ever waiting.
//! A trait over the socket's type, so that io_uring batches, connections in memory and the tests' sockets that stall and
//! fail take the same path as `send`.

pub mod ring;

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

/// Never wait, and no SIGPIPE for peers that left.
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Writes to several connections, handed over together.
#[derive(Debug)]
pub struct Writes<'a, S> {
    sockets: Vec<&'a S>,
    /// Where the parts of each socket end; they begin where the ones before it end.
    ends: Vec<usize>,
    parts: Vec<IoSlice<'a>>,
}

impl<'a, S> Writes<'a, S> {
    /// Room for so many sockets and parts.
    #[must_use]
    pub fn with_capacity(sockets: usize, parts: usize) -> Self {
        Self {
            sockets: Vec::with_capacity(sockets),
            ends: Vec::with_capacity(sockets),
            parts: Vec::with_capacity(parts),
        }
    }

    /// Adds one socket's write, at least one part.
    pub fn push(&mut self, socket: &'a S, parts: impl Iterator<Item = IoSlice<'a>>) {
        self.parts.extend(parts);
        self.sockets.push(socket);
        self.ends.push(self.parts.len());
    }

    /// How many sockets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Each socket with its parts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a S, &[IoSlice<'a>])> {
        let mut first = 0;
        self.sockets.iter().zip(&self.ends).map(move |(socket, &end)| {
            let parts = &self.parts[first..end];
            first = end;
            (*socket, parts)
        })
    }
}

/// Hands bytes to a connection's socket.
pub trait Writer<S> {
    /// Whether it is better given many writes at once ([`Writer::write_all`]) than one after the other.
    const IS_TOGETHER: bool = false;

    /// Writes what fits now; `EAGAIN` when nothing does. Several slices leave in one call.
    ///
    /// # Errors
    /// `EAGAIN` when the peer must read first, anything else when the connection is over.
    fn write(&self, socket: &S, parts: &[IoSlice<'_>]) -> Result<usize, Errno>;

    /// Writes to several sockets; completes `results`, which may hold those of the first ones, in order.
    fn write_all(&self, writes: &Writes<'_, S>, results: &mut Vec<Result<usize, Errno>>) {
        // A writer that gave up in the middle has the results of those it tried.
        let tried = results.len();
        results.extend(writes.iter().skip(tried).map(|(socket, parts)| self.write(socket, parts)));
    }

    /// Tells the peer that nothing follows; a peer that has gone is as good as told.
    fn finish(&self, socket: &S);
}

/// `send` for one slice, `sendmsg` for several.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelWriter;

impl Writer<OwnedFd> for KernelWriter {
    fn write(&self, socket: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        match parts {
            [] => Ok(0),
            [one] => rustix::net::send(socket.as_fd(), one, FLAGS),
            many => rustix::net::sendmsg(socket.as_fd(), many, &mut SendAncillaryBuffer::default(), FLAGS),
        }
    }

    fn finish(&self, socket: &OwnedFd) {
        let _ = rustix::net::shutdown(socket.as_fd(), rustix::net::Shutdown::Write);
    }
}
