//! What waits for one connection whose peer reads too slowly, and what is dropped when it is too much.
//! Knows nothing of sockets (see `writer`) or of slots (see `bucket::walk`). Exists only while something waits.
//! Invariants: `bytes` is the sum of what is left of the entries; the front entry alone may be partly sent; a GAP stands
//! where what it names would have stood; counters balance through the [`Delta`] of each call.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use tidegate_protocol::records::Lane;
use tidegate_protocol::reply::{self, Missing};
use tidegate_protocol::ws;

use crate::clock::{Millis, is_due};
use crate::counters::{Delta, DropReason};
use crate::topic::batch::Segment;
use crate::topic::encoding::Encoding;
use crate::topic::target::Target;

/// Accounted size of a GAP that waits.
const GAP_BYTES: usize = 96;
/// Most GAPs that wait. One per target and kind is the rule, because neighbours join; more means a peer that reads just
/// enough to stay while losing nearly everything.
const GAPS_MAX: usize = 256;
/// Most slices handed to the kernel at once.
pub const SLICES_MAX: usize = 64;

/// One thing that waits.
#[derive(Debug)]
enum Entry {
    /// A reply, ping, pong or close: never dropped.
    Control(Bytes),
    /// A pong: a newer one takes its place.
    Pong(Bytes),
    /// Messages.
    Push(Target, Waiting),
    /// Messages that will not come.
    Gap { target: Target, missing: Missing, reason: DropReason },
}

/// Messages as one connection takes them: what is left to know of a segment while it waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The one frame that is kept and counted.
    frame: Bytes,
    messages: u32,
    first: u64,
    last: u64,
    lane: Lane,
    expires_at: Millis,
}

impl Waiting {
    /// A segment for a connection that takes this encoding.
    #[must_use]
    pub fn new(segment: &Segment, encoding: Encoding) -> Self {
        let Segment { frames, messages, first, last, lane, expires_at, .. } = segment;
        let frame = frames.of(encoding).clone();
        Self { frame, messages: *messages, first: *first, last: *last, lane: *lane, expires_at: *expires_at }
    }
}

impl Entry {
    fn len(&self) -> usize {
        match self {
            Self::Control(b) | Self::Pong(b) => b.len(),
            Self::Push(_, s) => s.frame.len(),
            Self::Gap { .. } => GAP_BYTES,
        }
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits, perhaps at the cost of others.
    Waits,
    /// It was dropped; for a slow peer a GAP says so.
    Dropped(DropReason),
    /// It must not be dropped and does not fit: the connection has to end.
    Close,
}

/// What waits for one connection.
#[derive(Debug, Default)]
pub struct Pending {
    entries: VecDeque<Entry>,
    /// Bytes of the front entry already sent.
    sent: usize,
    bytes: usize,
    /// When the front last moved.
    since: Millis,
    /// Nothing is sent until the interest of this version is acknowledged; 0: no such wait.
    barrier: u64,
    /// The connection is to be given up; only used between finding out and removal.
    is_broken: bool,
    /// GAP entries.
    gaps: usize,
    /// A Close frame is the last entry, or has left: nothing may follow it (RFC 6455 section 5.5.1).
    is_last: bool,
    /// The peer has been told that nothing follows.
    is_finished: bool,
    /// The socket did not take all it was given.
    is_stalled: bool,
}

impl Pending {
    /// Nothing yet; the clock of its age starts now.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self { since: now, ..Self::default() }
    }

    /// Whether nothing waits and nothing holds it back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_flushed() && !self.is_broken && !self.is_last
    }

    /// Whether everything has been handed to the kernel.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.entries.is_empty() && self.barrier == 0
    }

    /// Notes that the socket did not take all it was given.
    pub fn set_stalled(&mut self) {
        self.is_stalled = true;
    }

    /// Whether the socket was full, and not only something awaited.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Whether the last word has been queued.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// True the first time it is asked once the last word has left: the end is then to be told. Once and no more, because the
    /// kernel answers each telling with an event of the socket, and the event leads back here.
    pub fn is_to_finish(&mut self) -> bool {
        let is_over = self.is_last && self.is_flushed();
        is_over && !std::mem::replace(&mut self.is_finished, true)
    }

    /// Queues the last word; nothing is taken after it.
    pub fn push_last(&mut self, close: Bytes, now: Millis, d: &mut Delta) {
        if !self.is_last && !self.is_broken {
            self.append(Entry::Control(close), now, d);
            self.is_last = true;
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the front last moved, while something waits for the peer.
    #[must_use]
    pub fn stuck_since(&self) -> Option<Millis> {
        (!self.entries.is_empty() && self.barrier == 0).then_some(self.since)
    }

    /// Holds everything back until the interest of `version` is acknowledged.
    pub fn hold(&mut self, version: u64) {
        self.barrier = self.barrier.max(version);
    }

    /// Whether it may be sent; releases a barrier at or below `version`.
    pub fn release(&mut self, version: u64, now: Millis) -> bool {
        if self.barrier != 0 && self.barrier <= version {
            self.barrier = 0;
            self.since = now;
        }
        self.barrier == 0
    }

    /// Whether a barrier holds it back.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.barrier != 0
    }

    /// Marks the connection as over: nothing more is taken or sent.
    pub fn set_broken(&mut self, d: &mut Delta) {
        self.clear(d);
        self.is_broken = true;
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Queues a frame that must not be dropped.
    pub fn push_control(&mut self, frame: Bytes, bytes_max: usize, now: Millis, d: &mut Delta) -> Queued {
        if self.is_last || self.is_broken {
            return Queued::Dropped(DropReason::Closed);
        }
        // Control frames may use a quarter more, so that a queue full of messages can still be closed politely.
        if self.bytes + frame.len() > bytes_max + bytes_max / 4 {
            return Queued::Close;
        }
        self.append(Entry::Control(frame), now, d);
        Queued::Waits
    }

    /// Queues a pong; one that has not begun to leave is replaced, because only the latest ping needs an answer
    /// (RFC 6455 section 5.5.3).
    pub fn push_pong(&mut self, frame: Bytes, bytes_max: usize, now: Millis, d: &mut Delta) -> Queued {
        if self.is_last || self.is_broken {
            return Queued::Dropped(DropReason::Closed);
        }
        let begun = usize::from(self.sent > 0);
        if let Some(Entry::Pong(waiting)) = self.entries.iter_mut().skip(begun).find(|e| matches!(e, Entry::Pong(_))) {
            let before = std::mem::replace(waiting, frame);
            let after = waiting.len();
            self.account(after as i64 - before.len() as i64, d);
            return Queued::Waits;
        }
        if self.bytes + frame.len() > bytes_max + bytes_max / 4 {
            return Queued::Close;
        }
        self.append(Entry::Pong(frame), now, d);
        Queued::Waits
    }

    /// Queues what is left of a frame the kernel took in part: always accepted, always first.
    pub fn push_rest(&mut self, target: &Target, waiting: Waiting, sent: usize, now: Millis, d: &mut Delta) {
        debug_assert!(self.entries.is_empty(), "only a frame that began at once can be half sent");
        self.append(Entry::Push(target.clone(), waiting), now, d);
        self.sent = sent;
        self.account(-(sent as i64), d);
    }

    /// The same for a control frame.
    pub fn push_control_rest(&mut self, frame: Bytes, sent: usize, now: Millis, d: &mut Delta) {
        self.append(Entry::Control(frame), now, d);
        self.sent = sent;
        self.account(-(sent as i64), d);
    }

    /// Queues messages by their lane: urgent and normal displace the oldest, bulk gives way itself.
    pub fn push(&mut self, target: &Target, waiting: Waiting, bytes_max: usize, now: Millis, d: &mut Delta) -> Queued {
        if self.is_broken || self.is_last {
            d.drop_messages(DropReason::Closed, u64::from(waiting.messages));
            return Queued::Dropped(DropReason::Closed);
        }
        let need = waiting.frame.len();
        if self.bytes + need > bytes_max {
            let fits = waiting.lane != Lane::Bulk && self.evict(need, bytes_max, waiting.lane, d);
            if !fits {
                d.drop_messages(DropReason::Slow, u64::from(waiting.messages));
                if self.gaps > GAPS_MAX {
                    // Its end has been asked for, and a queue that is cut names nothing more.
                    return Queued::Dropped(DropReason::Slow);
                }
                self.append_gap(target, missing(&waiting), DropReason::Slow, now, d);
                return if self.gaps > GAPS_MAX { Queued::Close } else { Queued::Dropped(DropReason::Slow) };
            }
        }
        self.append(Entry::Push(target.clone(), waiting), now, d);
        Queued::Waits
    }

    /// What may be sent now, as slices for the kernel; expired messages make way for a GAP first.
    pub fn slices<'a>(&'a mut self, now: Millis, d: &mut Delta, out: &mut Vec<IoSlice<'a>>) {
        if self.barrier != 0 || self.is_broken {
            return;
        }
        let n = self.entries.len().min(SLICES_MAX);
        for i in 0..n {
            self.ripen(i, now, d);
        }
        for (i, entry) in self.entries.iter().take(n).enumerate() {
            let bytes: &[u8] = match entry {
                Entry::Control(b) | Entry::Pong(b) => b,
                Entry::Push(_, s) => &s.frame,
                Entry::Gap { .. } => break,
            };
            out.push(IoSlice::new(if i == 0 { &bytes[self.sent..] } else { bytes }));
        }
    }

    /// The kernel took `n` bytes of the slices.
    pub fn advance(&mut self, mut n: usize, now: Millis, d: &mut Delta) {
        self.account(-(n as i64), d);
        if n > 0 {
            self.since = now;
        }
        while let Some(front) = self.entries.front() {
            let left = front.len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            self.sent = 0;
            if let Some(Entry::Push(_, s)) = self.entries.pop_front() {
                d.pending -= i64::from(s.messages);
                d.written += u64::from(s.messages);
                d.frames += 1;
            }
        }
        debug_assert_eq!(n, 0, "the kernel takes no more than it was given");
    }

    /// Gives up everything, because the connection ends.
    pub fn clear(&mut self, d: &mut Delta) {
        for entry in self.entries.drain(..) {
            if let Entry::Push(_, s) = entry {
                d.pending -= i64::from(s.messages);
                d.drop_messages(DropReason::Closed, u64::from(s.messages));
            }
        }
        (self.sent, self.gaps) = (0, 0);
        let bytes = self.bytes;
        self.account(-(bytes as i64), d);
    }

    /// Drops everything but what has begun to leave, for the last word.
    pub fn give_up(&mut self, close: Bytes, now: Millis, d: &mut Delta) {
        if self.is_last || self.is_broken {
            return;
        }
        let begun = usize::from(self.sent > 0);
        let dropped: Vec<Entry> = self.entries.drain(begun..).collect();
        for entry in dropped {
            self.account(-(entry.len() as i64), d);
            self.gaps -= usize::from(matches!(entry, Entry::Gap { .. }));
            if let Entry::Push(_, s) = entry {
                d.pending -= i64::from(s.messages);
                d.drop_messages(DropReason::Slow, u64::from(s.messages));
            }
        }
        self.barrier = 0;
        self.push_last(close, now, d);
    }

    fn append(&mut self, entry: Entry, now: Millis, d: &mut Delta) {
        if self.entries.is_empty() {
            self.since = now;
        }
        if let Entry::Push(_, s) = &entry {
            d.pending += i64::from(s.messages);
        }
        self.account(entry.len() as i64, d);
        self.entries.push_back(entry);
    }

    #[expect(clippy::cast_sign_loss, reason = "the sum never goes below nothing; checked in debug builds")]
    fn account(&mut self, change: i64, d: &mut Delta) {
        debug_assert!(self.bytes as i64 + change >= 0, "bytes are the sum of the entries");
        self.bytes = (self.bytes as i64 + change) as usize;
        d.pending_bytes += change;
    }

    /// Drops the oldest messages, least important lane first, until `need` fits. A lane never displaces a better one.
    fn evict(&mut self, need: usize, bytes_max: usize, lane: Lane, d: &mut Delta) -> bool {
        let begun = usize::from(self.sent > 0);
        let may_go = |entry: &Entry, lane: Lane| matches!(entry, Entry::Push(_, s) if s.lane <= lane);
        let spare: usize = self.entries.iter().skip(begun).filter(|e| may_go(e, lane)).map(Entry::len).sum();
        if self.bytes + need > bytes_max + spare {
            // It would not fit even then: nothing is sacrificed for it.
            return false;
        }
        for victim in Lane::ALL.into_iter().take_while(|victim| *victim <= lane) {
            let mut i = begun;
            while i < self.entries.len() && self.bytes + need > bytes_max {
                if matches!(&self.entries[i], Entry::Push(_, s) if s.lane == victim) {
                    self.turn_into_gap(i, DropReason::Slow, d);
                    // The GAP may have joined another and left this place to the next entry.
                    continue;
                }
                i += 1;
            }
        }
        self.bytes + need <= bytes_max
    }

    /// Replaces the messages at `i` by a GAP, joined with the one before for the same target when nothing lies between.
    fn turn_into_gap(&mut self, i: usize, reason: DropReason, d: &mut Delta) {
        let Some(Entry::Push(target, waiting)) = self.entries.remove(i) else { return };
        d.pending -= i64::from(waiting.messages);
        d.drop_messages(reason, u64::from(waiting.messages));
        self.account(-(waiting.frame.len() as i64), d);
        let lost = missing(&waiting);
        if self.join_gap(i, &target, lost, reason) || self.join_gap_after(i, &target, lost, reason) {
            return;
        }
        self.account(GAP_BYTES as i64, d);
        self.gaps += 1;
        self.entries.insert(i, Entry::Gap { target, missing: lost, reason });
    }

    fn append_gap(&mut self, target: &Target, lost: Missing, reason: DropReason, now: Millis, d: &mut Delta) {
        let end = self.entries.len();
        if !self.join_gap(end, target, lost, reason) {
            self.gaps += 1;
            self.append(Entry::Gap { target: target.clone(), missing: lost, reason }, now, d);
        }
    }

    /// Adds `lost` to a GAP of `target` before place `i`, when no messages of that target lie between.
    fn join_gap(&mut self, i: usize, target: &Target, lost: Missing, why: DropReason) -> bool {
        for entry in self.entries.range_mut(..i).rev() {
            match entry {
                Entry::Push(t, _) if t.is_same(target) => return false,
                Entry::Gap { target: t, missing, reason } if t.is_same(target) && *reason == why => {
                    let is_joined = join(missing, lost);
                    if is_joined {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// The same for a GAP that stands at or after place `i`: it grows downwards.
    fn join_gap_after(&mut self, i: usize, target: &Target, lost: Missing, why: DropReason) -> bool {
        for entry in self.entries.range_mut(i..) {
            match entry {
                Entry::Push(t, _) if t.is_same(target) => return false,
                Entry::Gap { target: t, missing, reason } if t.is_same(target) && *reason == why => {
                    let mut whole = lost;
                    if join(&mut whole, *missing) {
                        *missing = whole;
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// Makes the entry at `i` fit to be sent: expired messages become a GAP, a GAP becomes its bytes.
    fn ripen(&mut self, i: usize, now: Millis, d: &mut Delta) {
        let has_begun = i == 0 && self.sent > 0;
        match &self.entries[i] {
            Entry::Push(_, s) if !has_begun && s.expires_at != 0 && is_due(now, s.expires_at) => {
                let Entry::Push(target, s) = std::mem::replace(&mut self.entries[i], Entry::Control(Bytes::new()))
                else {
                    return;
                };
                d.pending -= i64::from(s.messages);
                d.drop_messages(DropReason::Expired, u64::from(s.messages));
                self.account(-(s.frame.len() as i64), d);
                self.render_gap(i, &target, missing(&s), DropReason::Expired, d);
            }
            Entry::Gap { target, missing, reason } => {
                let (target, missing, reason) = (target.clone(), *missing, *reason);
                self.gaps -= 1;
                self.account(-(GAP_BYTES as i64), d);
                self.render_gap(i, &target, missing, reason, d);
            }
            _ => {}
        }
    }

    fn render_gap(&mut self, i: usize, target: &Target, missing: Missing, reason: DropReason, d: &mut Delta) {
        let mut text = Vec::with_capacity(GAP_BYTES);
        reply::gap(&mut text, target.whom(), missing, reason.label());
        let frame = ws::frame(ws::OpCode::Text, &text);
        self.account(frame.len() as i64, d);
        d.gaps += 1;
        self.entries[i] = Entry::Control(frame);
    }
}

fn missing(s: &Waiting) -> Missing {
    if s.last == 0 { Missing::Count(u64::from(s.messages)) } else { Missing::Range { from: s.first, to: s.last } }
}

/// Adds one account of what is missing to another; false when they are not of one piece.
fn join(into: &mut Missing, more: Missing) -> bool {
    match (into, more) {
        (Missing::Count(n), Missing::Count(m)) => {
            *n += m;
            true
        }
        (Missing::Range { to, .. }, Missing::Range { from, to: end }) if from == *to + 1 => {
            *to = end;
            true
        }
        _ => false,
    }
}
