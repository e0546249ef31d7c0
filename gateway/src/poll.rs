//! An epoll set that a tokio task can await: sets nest, so the runtime's reactor watches ours as one file.
//! Shared by buckets and acceptors; what the events mean is theirs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a duplicate of `set`, so that both owners may end in any order.
///
/// # Errors
/// The system's, when it has no more files.
pub(crate) fn watch(set: impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let set = rustix::io::fcntl_dupfd_cloexec(set, 0)?;
    #[expect(deprecated, reason = "its successor is an unsafe fn; what it must be promised holds for an OwnedFd")]
    AsyncFd::with_interest(set, Interest::READABLE)
}
