//! Counters of the hot path: one set a bucket, on its own cache lines, summed when someone asks.
//! Invariant at rest: `queued == written + Σ dropped + pending`, in messages × connections.
//! A pass adds its sums once a chunk, so a reader in the middle of a pass may see the sum off by that chunk.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tidegate_protocol::handshake::Refusal;

/// Why messages were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The connection's pending bytes were at their bound.
    Slow,
    /// Their time to live ran out.
    Expired,
    /// The connection ended first.
    Closed,
}

impl DropReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 3] = [Self::Slow, Self::Expired, Self::Closed];

    /// The metric label, also used in receipts and GAP frames.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Expired => "expired",
            Self::Closed => "closed",
        }
    }
}

/// Sums of one pass or one event, added to [`BucketCounters`] in one go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Messages accepted for a connection.
    pub queued: u64,
    /// Messages the kernel took whole.
    pub written: u64,
    /// Messages dropped, by reason.
    pub dropped: [u64; 3],
    /// Change of messages waiting behind slow peers.
    pub pending: i64,
    /// Change of bytes waiting behind slow peers.
    pub pending_bytes: i64,
    /// PUSH frames the kernel took whole.
    pub frames: u64,
    /// Writes to a connection: a send, a sendmsg or an entry of io_uring each.
    pub writes: u64,
    /// Bytes the kernel took.
    pub bytes: u64,
    /// Connections found slow: their pending went from nothing to something.
    pub stalls: u64,
    /// GAP frames written.
    pub gaps: u64,
}

impl Delta {
    /// Counts `n` messages dropped for `reason`.
    pub fn drop_messages(&mut self, reason: DropReason, n: u64) {
        self.dropped[reason as usize] += n;
    }
}

/// One bucket's counters.
#[derive(Debug, Default)]
pub struct BucketCounters {
    queued: AtomicU64,
    written: AtomicU64,
    dropped: [AtomicU64; 3],
    pending: AtomicI64,
    pending_bytes: AtomicI64,
    frames: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
    stalls: AtomicU64,
    gaps: AtomicU64,
}

impl BucketCounters {
    /// Adds a pass's sums.
    pub fn add(&self, d: &Delta) {
        self.queued.fetch_add(d.queued, Relaxed);
        self.written.fetch_add(d.written, Relaxed);
        for (counter, n) in self.dropped.iter().zip(d.dropped) {
            if n != 0 {
                counter.fetch_add(n, Relaxed);
            }
        }
        if d.pending != 0 || d.pending_bytes != 0 {
            self.pending.fetch_add(d.pending, Relaxed);
            self.pending_bytes.fetch_add(d.pending_bytes, Relaxed);
        }
        self.frames.fetch_add(d.frames, Relaxed);
        self.writes.fetch_add(d.writes, Relaxed);
        self.bytes.fetch_add(d.bytes, Relaxed);
        if d.stalls != 0 || d.gaps != 0 {
            self.stalls.fetch_add(d.stalls, Relaxed);
            self.gaps.fetch_add(d.gaps, Relaxed);
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn read(&self) -> Delta {
        Delta {
            queued: self.queued.load(Relaxed),
            written: self.written.load(Relaxed),
            dropped: [0, 1, 2].map(|i| self.dropped[i].load(Relaxed)),
            pending: self.pending.load(Relaxed),
            pending_bytes: self.pending_bytes.load(Relaxed),
            frames: self.frames.load(Relaxed),
            writes: self.writes.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            stalls: self.stalls.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
        }
    }
}

/// Sums the counters of all buckets.
pub fn sum<'a>(counters: impl Iterator<Item = &'a CachePadded<BucketCounters>>) -> Delta {
    counters.map(|c| c.read()).fold(Delta::default(), |mut sum, d| {
        sum.queued += d.queued;
        sum.written += d.written;
        for (s, n) in sum.dropped.iter_mut().zip(d.dropped) {
            *s += n;
        }
        sum.pending += d.pending;
        sum.pending_bytes += d.pending_bytes;
        sum.frames += d.frames;
        sum.writes += d.writes;
        sum.bytes += d.bytes;
        sum.stalls += d.stalls;
        sum.gaps += d.gaps;
        sum
    })
}

/// How many are here.
#[derive(Debug)]
pub struct Population {
    /// Open connections: the sum of the buckets' live ones.
    pub connections: AtomicUsize,
    /// Users with connections.
    pub users: AtomicU64,
    /// Most connections.
    pub connections_max: usize,
}

impl Population {
    /// Nobody yet.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self { connections: AtomicUsize::new(0), users: AtomicU64::new(0), connections_max }
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// Counters of rare events, shared by all buckets and acceptors.
#[derive(Debug, Default)]
pub struct Totals {
    /// Connections accepted by the kernel and taken from it.
    pub accepted: AtomicU64,
    /// Handshakes that ended in a connection.
    pub opened: AtomicU64,
    /// Handshakes refused.
    pub refused: AtomicU64,
    /// The same by code.
    pub refusals: Mutex<HashMap<&'static str, u64>>,
    /// Strangers refused before their request was looked at, because more came than the rate lets in.
    pub turned_away: AtomicU64,
    /// Connections that ended.
    pub closed: AtomicU64,
    /// Batches encoded, segments and encodings counted one by one.
    pub frames_encoded: AtomicU64,
    /// Moments at which at least one target was flushed.
    pub ticks: AtomicU64,
    /// Flushes of targets.
    pub batches: AtomicU64,
    /// Pushes applied.
    pub pushes: AtomicU64,
    /// Pushes that found nobody.
    pub pushes_unmatched: AtomicU64,
    /// Messages received from clients.
    pub received: AtomicU64,
    /// Connections closed for not reading.
    pub slow_closed: AtomicU64,
    /// Requests of clients refused because of their rate.
    pub rate_refused: AtomicU64,
    /// Connections closed for silence.
    pub idle_closed: AtomicU64,
    /// Connections closed because their tokens ran out.
    pub expired_closed: AtomicU64,
    /// Connections closed for violating RFC 6455.
    pub violations: AtomicU64,
    /// Pings sent to silent peers.
    pub pings: AtomicU64,
    /// Replies released although a logic node had not acknowledged the interest.
    pub interest_late: AtomicU64,
    /// Times accept ran out of files or memory.
    pub accept_errors: AtomicU64,
    /// PRESENCE frames to the members of a room, however many they were.
    pub presence_frames: AtomicU64,
    /// Connections put into rooms and taken out of them by order of the business.
    pub moved: AtomicU64,
}

impl Totals {
    /// Counts a refused handshake.
    pub fn refuse(&self, refusal: Refusal) {
        self.refused.fetch_add(1, Relaxed);
        *self.refusals.lock().entry(refusal.code()).or_insert(0) += 1;
    }
}
