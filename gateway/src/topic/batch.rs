//! A batch: what one target's window gathered, encoded and framed, on its way to the members.
//! Made by `merge::flush`, walked by `bucket::walk`, immutable in between but for the count of walks left.
//! Invariant: every byte a member gets of a batch is one of its segments' frames, shared by all who take that encoding.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use smallvec::SmallVec;
use tidegate_protocol::records::Lane;

use super::encoding::Frames;
use super::target::Target;
use crate::clock::Millis;
use crate::counters::DropReason;
use crate::key::{ConnectionKey, SlotKey};
use crate::session::Named;

/// Who of a target's members a segment is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    /// Only these; empty: all. As long as the batch is on its way, their numbers stay their own.
    pub platforms: Vec<Named>,
    /// Whether platforms were named at all (those unknown here leave `platforms` empty).
    pub is_by_platform: bool,
    /// Not these, sorted.
    pub except_connections: Vec<ConnectionKey>,
    /// Not these users, sorted.
    pub except_users: Vec<String>,
    /// Only connections with all of these attributes.
    pub attributes: Vec<(String, String)>,
}

/// One message of a batch, with what must be known when a peer is too slow for it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its encodings.
    pub frames: Frames,
    /// Messages in it.
    pub messages: u32,
    /// Number of its first message; 0 outside the numbering.
    pub first: u64,
    /// Number of its last message; 0 outside the numbering.
    pub last: u64,
    /// What becomes of it at a bound.
    pub lane: Lane,
    /// Not to be sent from then on; 0: always good.
    pub expires_at: Millis,
    /// Whom of the members it is for; none: all.
    pub narrow: Option<Arc<Narrow>>,
}

/// Whose job a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every connection of every bucket.
    Everyone,
    /// The members of the room with this number, wherever they are.
    Room(u32),
    /// These of one bucket.
    Slots(u16, SmallVec<[SlotKey; 2]>),
}

/// What one target's window gathered.
#[derive(Debug)]
pub struct Batch {
    /// The target.
    pub target: Target,
    /// Whom it is for.
    pub audience: Audience,
    /// Its frames, in order.
    pub segments: SmallVec<[Segment; 1]>,
    /// Number of its last numbered message, for members that join while it is walked; 0: none.
    pub last: u64,
    /// When it was flushed.
    pub flushed: Instant,
    /// Bucket walks still to be done.
    pub walks_left: AtomicUsize,
    /// What became of each segment, kept while someone waits for it.
    pub fates: SmallVec<[Fates; 1]>,
    /// Pushes whose publisher waits for the walk, each with the segment it became part of.
    pub waiters: Vec<(usize, Arc<Waiter>)>,
}

impl Batch {
    /// Bytes of its frames.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.frames.bytes()).sum()
    }

    /// Whether any of its frames exists in another encoding than plain, so that it matters who takes which.
    #[must_use]
    pub fn has_encodings(&self) -> bool {
        self.segments.iter().any(|segment| segment.frames.count() > 1)
    }
}

/// What became of a segment's shares, one share per connection.
#[derive(Debug, Default)]
pub struct Fates {
    /// Taken whole by the kernel.
    pub written: AtomicU64,
    /// Behind a slow peer.
    pub pending: AtomicU64,
    /// Dropped, by reason, in the order of [`DropReason::ALL`].
    pub dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Fates {
    /// Of a message that ran out before it became part of a segment.
    #[must_use]
    pub fn expired(shares: u64) -> Self {
        let fates = Self::default();
        fates.dropped[DropReason::Expired as usize].store(shares, Ordering::Relaxed);
        fates
    }
}

/// A publisher's wait for its push to be written; shared by all batches the push became part of.
#[derive(Debug)]
pub struct Waiter {
    /// Batches not yet walked.
    pub left: AtomicUsize,
    /// Sums over the batches walked.
    pub fates: Fates,
    /// Told when `left` comes to 0.
    pub done: tokio::sync::Notify,
}

impl Waiter {
    /// A waiter for `targets` batches.
    #[must_use]
    pub fn new(targets: usize) -> Self {
        Self { left: AtomicUsize::new(targets), fates: Fates::default(), done: tokio::sync::Notify::new() }
    }

    /// One batch is done.
    pub fn finish(&self, fates: &Fates) {
        self.fates.written.fetch_add(fates.written.load(Ordering::Relaxed), Ordering::Relaxed);
        self.fates.pending.fetch_add(fates.pending.load(Ordering::Relaxed), Ordering::Relaxed);
        for (sum, dropped) in self.fates.dropped.iter().zip(&fates.dropped) {
            sum.fetch_add(dropped.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_waiters();
        }
    }

    /// Whether all batches have been walked.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }
}
