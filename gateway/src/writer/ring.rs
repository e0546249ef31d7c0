//! The writer that hands a chunk's sends to the kernel in one system call, by io_uring.
//! The only unsafe code of Tidegate, because entries of a submission queue are addresses that the compiler cannot follow.
//! One ring a fan-out thread, used by that thread alone. What is submitted is reaped before `write_all` returns, while the
//! caller holds the table's read lock and the outboxes: no socket is closed, no frame freed and no one else writes meanwhile.
//! Invariants: every entry's completion is looked at (a short send is a result like any other); nothing is in flight between
//! calls; a ring that fails is given up for good and `send` takes its place.
#![expect(unsafe_code, reason = "submission queue entries hold raw addresses; each block says why they are valid")]

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

use super::{KernelWriter, Writer, Writes};

/// Entries of a submission queue: a chunk of a walk. The completion queue has twice as many, so it cannot overflow.
const ENTRIES: u32 = 256;
/// Tries to enter the kernel that find it short of memory before the ring is given up.
const TRIES_MAX: u32 = 64;
/// What the probe waits for a completion that should be there at once.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// More than a socket pair's buffers hold.
const PROBE_BYTES: usize = 4 << 20;
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Batches of sends by io_uring; single writes and writes after a failure go by `send`.
pub struct RingWriter {
    ring: RefCell<Option<Ring>>,
    /// Threads that have a ring that works.
    working: Arc<AtomicUsize>,
}

impl std::fmt::Debug for RingWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingWriter").finish_non_exhaustive()
    }
}

impl RingWriter {
    /// A writer for the calling thread, counted in `working`. Without a ring it writes by `send`; [`probe`] tells in advance.
    #[must_use]
    pub fn new(working: Arc<AtomicUsize>) -> Self {
        let ring = Ring::new().inspect_err(|error| tracing::warn!(%error, "no io_uring for this thread; using send"));
        working.fetch_add(usize::from(ring.is_ok()), Ordering::Relaxed);
        Self { ring: RefCell::new(ring.ok()), working }
    }
}

impl Writer<OwnedFd> for RingWriter {
    const IS_TOGETHER: bool = true;

    fn write(&self, socket: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        KernelWriter.write(socket, parts)
    }

    fn write_all(&self, writes: &Writes<'_, OwnedFd>, results: &mut Vec<Result<usize, Errno>>) {
        let mut ring = self.ring.borrow_mut();
        if let Some(works) = ring.as_mut()
            && writes.len() > 1
        {
            match works.write_all(writes, results) {
                Ok(()) => return redo(writes, results),
                Err(error) => {
                    tracing::warn!(%error, "io_uring failed; this thread uses send from now on");
                    *ring = None;
                    self.working.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        KernelWriter.write_all(writes, results);
    }

    fn finish(&self, socket: &OwnedFd) {
        KernelWriter.finish(socket);
    }
}

/// A ring and the structures its entries point to.
struct Ring {
    ring: IoUring,
    /// One for each entry of several parts; never grows while entries point into it.
    heads: Vec<libc::msghdr>,
}

impl Ring {
    fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        // One thread submits, and completions are taken where it waits: no interrupts of other work (Linux 6.1).
        let ring = builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().dontfork().build(ENTRIES)?;
        Ok(Self { ring, heads: Vec::new() })
    }

    /// Adds the result of each write to `results`, in order.
    ///
    /// # Errors
    /// The system's, when the ring is of no use any more: `results` then holds those of the first writes only, each of
    /// which has been tried; the others have not been and will not be.
    fn write_all(&mut self, writes: &Writes<'_, OwnedFd>, results: &mut Vec<Result<usize, Errno>>) -> io::Result<()> {
        let mut all = writes.iter().peekable();
        while all.peek().is_some() {
            let first = results.len();
            self.heads.clear();
            self.heads.reserve(ENTRIES as usize);
            for (socket, parts) in all.by_ref().take(ENTRIES as usize) {
                let entry = self.entry(socket, parts).user_data((results.len() - first) as u64);
                // SAFETY: the entry points to a socket and to parts that `writes` borrows, and to a head in `heads`, which has
                // room for a whole queue and is not touched until `reap` has seen every completion of these entries.
                let pushed = unsafe { self.ring.submission().push(&entry) };
                pushed.map_err(|_| io::Error::other("the submission queue is full though it has been reaped"))?;
                results.push(Err(Errno::CANCELED));
            }
            self.reap(first, results)?;
        }
        Ok(())
    }

    fn entry(&mut self, socket: &OwnedFd, parts: &[IoSlice<'_>]) -> squeue::Entry {
        let fd = Fd(socket.as_raw_fd());
        if let [one] = parts {
            // A frame of 4 GiB or more would be sent in part, and its rest as every rest.
            let len = u32::try_from(one.len()).unwrap_or(u32::MAX);
            return opcode::Send::new(fd, one.as_ptr(), len).flags(FLAGS).build();
        }
        debug_assert!(self.heads.len() < self.heads.capacity(), "entries point into it");
        // SAFETY: a msghdr is a plain C structure for which zeros are a valid value: no name, no control data.
        let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
        // The kernel only reads it. IoSlice has the layout of iovec on Unix, as its documentation promises.
        head.msg_iov = parts.as_ptr().cast::<libc::iovec>().cast_mut();
        #[expect(clippy::useless_conversion, reason = "the field's type differs between C libraries")]
        {
            head.msg_iovlen = parts.len().try_into().unwrap_or(0);
        }
        self.heads.push(head);
        let head: *const libc::msghdr = &raw const self.heads[self.heads.len() - 1];
        opcode::SendMsg::new(fd, head).flags(FLAGS.cast_unsigned()).build()
    }

    /// Submits what has been pushed and notes every completion in `results[first..]`.
    fn reap(&mut self, first: usize, results: &mut Vec<Result<usize, Errno>>) -> io::Result<()> {
        let count = results.len() - first;
        let (mut reaped, mut tries) = (0, 0);
        while reaped < count {
            let entered = self.ring.submit_and_wait(count - reaped);
            for completion in self.ring.completion() {
                let at = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                results[first + at] = outcome(completion.result());
                reaped += 1;
            }
            let Err(error) = entered else { continue };
            tries += 1;
            if error.raw_os_error() == Some(libc::EINTR) || tries < TRIES_MAX {
                continue;
            }
            // What the kernel has taken from the queue it has also completed, for no send here waits: entries are taken in
            // order, so those left in the queue are the last ones, and with the ring they are gone.
            let left = self.ring.submission().len();
            assert!(
                left + reaped == count,
                "io_uring keeps {} sends that must not wait: {error}",
                count - reaped - left
            );
            results.truncate(first + reaped);
            return Err(error);
        }
        Ok(())
    }
}

/// Writes by `send` what the ring could not even try: the kernel had no memory for the entry, which says nothing of the
/// peer. Taken for the socket's own error it would be a hole in the stream of a connection that lives on.
fn redo(writes: &Writes<'_, OwnedFd>, results: &mut [Result<usize, Errno>]) {
    let is_untried =
        |r: &Result<usize, Errno>| matches!(r, Err(Errno::NOMEM | Errno::NOBUFS | Errno::INTR | Errno::CANCELED));
    if !results.iter().any(is_untried) {
        return;
    }
    for ((socket, parts), result) in writes.iter().zip(results).filter(|(_, result)| is_untried(result)) {
        *result = KernelWriter.write(socket, parts);
    }
}

/// A completion's result in the terms of `send`.
fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

/// Whether sends by io_uring work here and behave as `send` does: one that fits is taken, one that does not fit is taken in
/// part or answered with `EAGAIN` at once.
///
/// # Errors
/// What does not work, in words for the log.
pub fn probe() -> Result<(), String> {
    let bytes = vec![0; PROBE_BYTES];
    // A send that was not completed may still read them.
    probe_with(&bytes).inspect_err(|_| std::mem::forget(bytes))
}

fn probe_with(bytes: &[u8]) -> Result<(), String> {
    let mut ring = Ring::new().map_err(|error| format!("cannot set up a ring: {error}"))?;
    let (near, _far) = UnixStream::pair().map_err(|error| format!("no sockets for the probe: {error}"))?;
    let taken = ring.probe_one(&near, &bytes[..1])?;
    if taken != Ok(1) {
        return Err(format!("a send of one byte gave {taken:?}"));
    }
    let mut left = bytes.len();
    loop {
        match ring.probe_one(&near, &bytes[..left])? {
            Ok(n) if n > 0 && n < left => left -= n,
            Err(Errno::AGAIN) => return Ok(()),
            other => return Err(format!("a send to a full socket gave {other:?}")),
        }
    }
}

impl Ring {
    /// One send that is given up on after a while: on a kernel where it waits, `reap` would wait for ever.
    fn probe_one(&mut self, socket: &UnixStream, bytes: &[u8]) -> Result<Result<usize, Errno>, String> {
        let len = u32::try_from(bytes.len()).map_err(|e| e.to_string())?;
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), len).flags(FLAGS).build();
        // SAFETY: `probe` keeps the bytes until the completion has been seen, and for ever when it has not; the kernel holds
        // the socket's file from submission on.
        unsafe { self.ring.submission().push(&entry) }.map_err(|error| error.to_string())?;
        let timeout = Timespec::from(PROBE_WAIT);
        let args = SubmitArgs::new().timespec(&timeout);
        let entered = self.ring.submitter().submit_with_args(1, &args);
        match self.ring.completion().next() {
            Some(completion) => Ok(outcome(completion.result())),
            None => Err(format!("a send was not completed at once: {entered:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Skips, aloud, where the kernel or its policy has no io_uring; `send` is then all there is.
    fn ring() -> Option<RingWriter> {
        probe().inspect_err(|why| eprintln!("skipped: {why}")).ok().map(|()| RingWriter::new(Arc::default()))
    }

    fn pair() -> (OwnedFd, UnixStream) {
        let (near, far) = UnixStream::pair().expect("sockets");
        (near.into(), far)
    }

    #[test]
    fn each_socket_gets_its_own_parts_in_order() {
        let Some(writer) = ring() else { return };
        // More than the queue has entries, so that it is used twice.
        let pairs: Vec<(OwnedFd, UnixStream)> = (0..ENTRIES as usize + 44).map(|_| pair()).collect();
        let texts: Vec<[String; 3]> =
            (0..pairs.len()).map(|i| [format!("<{i}"), format!("|{i}|"), format!("{i}>")]).collect();
        let mut writes = Writes::with_capacity(0, 0);
        for (i, ((near, _), text)) in pairs.iter().zip(&texts).enumerate() {
            writes.push(near, text.iter().take(1 + i % 3).map(|t| IoSlice::new(t.as_bytes())));
        }

        let mut results = Vec::new();
        writer.write_all(&writes, &mut results);

        for (i, ((_, far), text)) in pairs.iter().zip(&texts).enumerate() {
            let mut far = far;
            let expected = text[..=i % 3].concat();
            assert_eq!(results[i], Ok(expected.len()), "write {i}");
            let mut got = vec![0; expected.len()];
            far.read_exact(&mut got).expect("it was sent");
            assert_eq!(String::from_utf8_lossy(&got), expected);
        }
    }

    #[test]
    fn short_full_and_broken_sockets_are_told_apart() {
        let Some(writer) = ring() else { return };
        let (short, _reader) = pair();
        let (full, _other) = pair();
        let (broken, gone) = pair();
        let (healthy, mut far) = pair();
        drop(gone);
        while KernelWriter.write(&full, &[IoSlice::new(&[0; 4_096])]).is_ok() {}
        let large = vec![7; PROBE_BYTES];
        let mut writes = Writes::with_capacity(4, 4);
        writes.push(&short, std::iter::once(IoSlice::new(&large)));
        writes.push(&full, std::iter::once(IoSlice::new(b"x")));
        writes.push(&broken, std::iter::once(IoSlice::new(b"x")));
        writes.push(&healthy, std::iter::once(IoSlice::new(b"well")));

        let mut results = Vec::new();
        writer.write_all(&writes, &mut results);

        assert!(matches!(results[0], Ok(n) if n > 0 && n < large.len()), "{:?}", results[0]);
        assert_eq!(results[1..], [Err(Errno::AGAIN), Err(Errno::PIPE), Ok(4)]);
        let mut got = [0; 4];
        far.read_exact(&mut got).expect("it was sent");
        assert_eq!(&got, b"well");
    }

    #[test]
    fn what_the_ring_could_not_try_is_sent_after_all() {
        let (near, mut far) = pair();
        let (other, _far) = pair();
        let mut writes = Writes::with_capacity(2, 2);
        writes.push(&near, std::iter::once(IoSlice::new(b"again")));
        writes.push(&other, std::iter::once(IoSlice::new(b"not this")));
        let mut results = [Err(Errno::NOMEM), Err(Errno::PIPE)];

        redo(&writes, &mut results);

        assert_eq!(results, [Ok(5), Err(Errno::PIPE)]);
        let mut got = [0; 5];
        far.read_exact(&mut got).expect("it was sent");
        assert_eq!(&got, b"again");
    }

    #[test]
    fn a_thread_without_a_ring_writes_all_the_same() {
        let writer = RingWriter { ring: RefCell::new(None), working: Arc::default() };
        let (near, mut far) = pair();
        let (other, _far) = pair();
        let mut writes = Writes::with_capacity(2, 2);
        writes.push(&near, std::iter::once(IoSlice::new(b"plain")));
        writes.push(&other, std::iter::once(IoSlice::new(b"send")));

        let mut results = Vec::new();
        writer.write_all(&writes, &mut results);

        assert_eq!(results, [Ok(5), Ok(4)]);
        let mut got = [0; 5];
        far.read_exact(&mut got).expect("it was sent");
        assert_eq!(&got, b"plain");
    }
}
