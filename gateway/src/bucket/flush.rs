//! The walk: one bucket's share of a tick. Gathers (slot, frame) pairs, sorts them by slot, and writes each connection once.
//! Runs on a fan-out thread under the bucket's read lock, let go every [`CHUNK`] writes so that joins and leaves get in.
//! Hot path: logs nothing, allocates only when a peer is slow (the scratch space lives with the thread).
//! Invariants: batches of one topic are walked in the order they were flushed; every share of a batch is counted
//! exactly once as written, pending or dropped.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLockReadGuard;
use rustix::io::Errno;
use smallvec::SmallVec;

use super::pending::{Pending, Queued, SLICES_MAX};
use super::table::{Hot, Table};
use super::{Bucket, Command};
use crate::clock::{Clock, Millis};
use crate::counters::{Delta, DropReason};
use crate::merge::batch::{Audience, Batch, Segment, Tally};
use crate::merge::topic::Topic;
use crate::writer::Writer;

/// Writes under one hold of the read lock: about a millisecond.
const CHUNK: usize = 256;

/// What a fan-out thread keeps between walks.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Who gets what: slot, generation, index of the batch.
    pairs: Vec<(u32, u32, u32)>,
}

/// A share of one connection: which segments of which batches.
struct Share<'a> {
    topic: &'a Arc<Topic>,
    segment: &'a Segment,
    tally: Option<&'a Tally>,
}

impl Share<'_> {
    /// Tells whoever waits for it what became of it.
    fn settle(&self, fate: Fate) {
        let Some(tally) = self.tally else { return };
        match fate {
            Fate::Written => &tally.written,
            Fate::Pending => &tally.pending,
            Fate::Dropped => &tally.dropped,
        }
        .fetch_add(1, Ordering::Relaxed);
    }
}

/// The table as it stood when the pairs were gathered: what may have changed while the lock was let go.
struct Stand {
    removals: u64,
    departures: u64,
    /// Some slots were named by someone else, before the pairs were gathered.
    is_named: bool,
}

impl Stand {
    /// Whether the slot still is who it was.
    fn is_same(&self, table: &Table, slot: u32, generation: u32) -> bool {
        (!self.is_named && table.removals == self.removals) || table.find(slot, generation).is_some()
    }

    /// Whether a member has left the room since; if it is back, JOINED has told it where the numbering stands.
    fn has_left(&self, table: &Table, slot: u32, audience: &Audience) -> bool {
        table.departures != self.departures
            && matches!(audience, Audience::Room(id) if table.has_left_since(self.departures, slot, *id))
    }
}

/// Surroundings of a walk.
pub struct Walk<'a, W> {
    /// The bucket.
    pub bucket: &'a Bucket,
    /// How bytes leave.
    pub writer: &'a W,
    /// The gateway's clock.
    pub clock: &'a Clock,
    /// Most bytes that may wait for one connection.
    pub pending_bytes_max: usize,
}

/// What became of one connection's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    Pending,
    Dropped,
}

impl<W: Writer> Walk<'_, W> {
    /// Walks `batches`, in order, over this bucket's members.
    pub fn run(&self, batches: &[Arc<Batch>], scratch: &mut Scratch) {
        let mut table = self.bucket.table.read();
        scratch.pairs.clear();
        for (i, batch) in batches.iter().enumerate() {
            collect(&table, self.bucket.index, batch, i, &mut scratch.pairs);
        }
        if batches.len() > 1 {
            // Stable by connection: batches stay in flush order for each.
            scratch.pairs.sort_by_key(|p| (p.0, p.1));
        }
        // Slots named by someone else may have changed hands before the pairs were gathered, all others only after.
        let is_named = batches.iter().any(|b| matches!(b.audience, Audience::Slots(..)));
        let stand = Stand { removals: table.removals, departures: table.departures, is_named };
        let mut shares: Vec<Share<'_>> = Vec::with_capacity(batches.len());
        let mut rest = scratch.pairs.as_slice();
        while !rest.is_empty() {
            let now = self.clock.now();
            let mut d = Delta::default();
            for _ in 0..CHUNK {
                let Some(&(slot, generation, _)) = rest.first() else { break };
                let n = rest.iter().take_while(|p| (p.0, p.1) == (slot, generation)).count();
                let (mine, others) = rest.split_at(n);
                rest = others;
                self.serve(&table, &stand, mine, batches, &mut shares, now, &mut d);
            }
            self.bucket.counters.add(&d);
            if !rest.is_empty() {
                RwLockReadGuard::bump(&mut table);
            }
        }
    }

    /// Writes one connection's share of all batches, in one write.
    #[expect(clippy::too_many_arguments, reason = "the walk's state, passed by parts so that borrows stay apart")]
    fn serve<'b>(
        &self,
        table: &Table,
        stand: &Stand,
        mine: &[(u32, u32, u32)],
        batches: &'b [Arc<Batch>],
        shares: &mut Vec<Share<'b>>,
        now: Millis,
        d: &mut Delta,
    ) {
        let (slot, generation) = (mine[0].0, mine[0].1);
        shares.clear();
        for &(_, _, i) in mine {
            let batch = &batches[i as usize];
            if stand.has_left(table, slot, &batch.audience) {
                continue;
            }
            for (segment, tally) in batch.segments.iter().zip(&batch.tallies) {
                if segment.narrow.is_none() || is_meant(table, self.bucket.index, slot, segment) {
                    d.queued += u64::from(segment.messages);
                    // Tallies are shared by all threads: only touched when a publisher waits for them.
                    let tally = (!batch.waiters.is_empty()).then_some(tally);
                    shares.push(Share { topic: &batch.topic, segment, tally });
                }
            }
        }
        if shares.is_empty() {
            return;
        }
        if stand.is_same(table, slot, generation) {
            self.hand_over(&table.hot[slot as usize], slot, shares, now, d);
        } else {
            drop_closed(shares, d);
        }
    }

    /// Writes what fits; the rest waits. The outbox lock makes this the only writer.
    fn hand_over(&self, hot: &Hot, slot: u32, shares: &[Share<'_>], now: Millis, d: &mut Delta) {
        let Some(fd) = &hot.fd else { return drop_closed(shares, d) };
        let mut outbox = hot.outbox.lock();
        if let Some(pending) = outbox.as_mut().filter(|p| !p.is_empty()) {
            return self.queue(pending, shares, slot, hot.generation, now, d);
        }
        for (chunk, first) in shares.chunks(SLICES_MAX).zip((0..).step_by(SLICES_MAX)) {
            d.writes += 1;
            let result = match chunk {
                [one] => self.writer.write(fd.as_fd(), &[IoSlice::new(&one.segment.frame)]),
                many => {
                    let parts: SmallVec<[IoSlice<'_>; 8]> =
                        many.iter().map(|s| IoSlice::new(&s.segment.frame)).collect();
                    self.writer.write(fd.as_fd(), &parts)
                }
            };
            let taken = match result {
                Ok(n) => n,
                Err(Errno::AGAIN) => 0,
                Err(_) => {
                    // The peer is gone; the bucket's task hears of it from epoll and removes the connection.
                    return drop_closed(&shares[first..], d);
                }
            };
            d.bytes += taken as u64;
            if taken > 0 {
                hot.wrote.store(now, Ordering::Relaxed);
            }
            let (whole, rest) = count_whole(chunk, taken, d);
            if whole < chunk.len() {
                let mut pending = Box::new(Pending::new(now));
                let mut waiting = &shares[first + whole..];
                if rest > 0 {
                    pending.push_rest(waiting[0].topic, waiting[0].segment, rest, now, d);
                    waiting[0].settle(Fate::Pending);
                    waiting = &waiting[1..];
                }
                d.stalls += 1;
                self.queue(&mut pending, waiting, slot, hot.generation, now, d);
                *outbox = Some(pending);
                return;
            }
        }
    }

    fn queue(
        &self,
        pending: &mut Pending,
        shares: &[Share<'_>],
        slot: u32,
        generation: u32,
        now: Millis,
        d: &mut Delta,
    ) {
        for share in shares {
            match pending.push_segment(share.topic, share.segment, self.pending_bytes_max, now, d) {
                Queued::Waits => share.settle(Fate::Pending),
                Queued::Dropped => share.settle(Fate::Dropped),
                Queued::Close => {
                    share.settle(Fate::Dropped);
                    self.bucket.command(Command::Cut { slot, generation });
                }
            }
        }
    }
}

/// The connection is over: nobody gets these.
fn drop_closed(shares: &[Share<'_>], d: &mut Delta) {
    for share in shares {
        d.drop_messages(DropReason::Closed, u64::from(share.segment.messages));
        share.settle(Fate::Dropped);
    }
}

/// Counts the frames that `taken` bytes hold whole; gives their number, and the bytes of the next one.
fn count_whole(chunk: &[Share<'_>], mut taken: usize, d: &mut Delta) -> (usize, usize) {
    for (i, share) in chunk.iter().enumerate() {
        let len = share.segment.frame.len();
        if taken < len {
            return (i, taken);
        }
        taken -= len;
        d.written += u64::from(share.segment.messages);
        d.frames += 1;
        share.settle(Fate::Written);
    }
    (chunk.len(), 0)
}

/// Adds the pairs of one batch, in slot order; says that the bucket has been walked for it.
#[expect(clippy::cast_possible_truncation, reason = "batches of a tick and slots of a bucket are far fewer than 2^32")]
fn collect(table: &Table, index: u16, batch: &Batch, i: usize, pairs: &mut Vec<(u32, u32, u32)>) {
    match &batch.audience {
        Audience::Everyone => {
            pairs.extend(
                table
                    .hot
                    .iter()
                    .enumerate()
                    .filter(|(_, h)| h.fd.is_some())
                    .map(|(slot, h)| (slot as u32, h.generation, i as u32)),
            );
        }
        Audience::Room(id) => {
            let Some(members) = table.rooms.get(id) else { return };
            if batch.last != 0 {
                if members.seq.load(Ordering::Acquire) >= batch.last {
                    // Flushed before the first member here joined: JOINED has told it so.
                    return;
                }
                members.seq.store(batch.last, Ordering::Release);
            }
            pairs.extend(members.slots.iter().map(|&s| (s, table.hot[s as usize].generation, i as u32)));
        }
        Audience::Slots(bucket, slots) => {
            debug_assert_eq!(*bucket, index, "a private batch goes to its own bucket");
            pairs.extend(slots.iter().map(|&(s, g)| (s, g, i as u32)));
        }
    }
}

fn is_meant(table: &Table, index: u16, slot: u32, segment: &Segment) -> bool {
    let Some(narrow) = &segment.narrow else { return true };
    let (Some(hot), Some(cold)) = (table.hot.get(slot as usize), table.cold.get(slot as usize)) else { return false };
    narrow.admits(index, slot, hot.generation, cold.user.as_deref(), cold.platform)
}

/// Sends what waits for a connection, as far as the peer lets. False when the connection is over.
pub fn drain<W: Writer>(writer: &W, hot: &Hot, now: Millis, d: &mut Delta) -> bool {
    let Some(fd) = &hot.fd else { return false };
    let mut outbox = hot.outbox.lock();
    let Some(pending) = outbox.as_mut() else { return true };
    loop {
        if pending.is_empty() {
            *outbox = None;
            return true;
        }
        if pending.is_flushed() && pending.is_last() {
            half_close(fd.as_fd());
            return true;
        }
        let mut slices = Vec::new();
        pending.slices(now, d, &mut slices);
        if slices.is_empty() {
            return !pending.is_broken();
        }
        d.writes += 1;
        match writer.write(fd.as_fd(), &slices) {
            Ok(n) => {
                drop(slices);
                d.bytes += n as u64;
                hot.wrote.store(now, Ordering::Relaxed);
                pending.advance(n, now, d);
            }
            Err(Errno::AGAIN) => return true,
            Err(_) => {
                drop(slices);
                pending.set_broken(d);
                return false;
            }
        }
    }
}

/// Sends one control frame at once, or queues it behind what waits.
pub fn send_control<W: Writer>(
    writer: &W,
    hot: &Hot,
    frame: bytes::Bytes,
    is_pong: bool,
    pending_bytes_max: usize,
    now: Millis,
    d: &mut Delta,
) -> Queued {
    let Some(fd) = &hot.fd else { return Queued::Dropped };
    let mut outbox = hot.outbox.lock();
    if let Some(pending) = outbox.as_mut().filter(|p| !p.is_empty()) {
        return if is_pong {
            pending.push_pong(frame, pending_bytes_max, now, d)
        } else {
            pending.push_control(frame, pending_bytes_max, now, d)
        };
    }
    d.writes += 1;
    match writer.write(fd.as_fd(), &[IoSlice::new(&frame)]) {
        Ok(n) => {
            d.bytes += n as u64;
            hot.wrote.store(now, Ordering::Relaxed);
            if n < frame.len() {
                let mut pending = Box::new(Pending::new(now));
                pending.push_control_rest(frame, n, now, d);
                d.stalls += 1;
                *outbox = Some(pending);
            }
            Queued::Waits
        }
        Err(Errno::AGAIN) => {
            let mut pending = Box::new(Pending::new(now));
            let queued = pending.push_control(frame, pending_bytes_max, now, d);
            d.stalls += 1;
            *outbox = Some(pending);
            queued
        }
        Err(_) => Queued::Dropped,
    }
}

/// Sends the last frame of a connection, or queues it; nothing follows it either way. `is_hopeless`: what waits before it
/// is dropped.
pub fn send_last<W: Writer>(writer: &W, hot: &Hot, frame: bytes::Bytes, is_hopeless: bool, now: Millis, d: &mut Delta) {
    {
        let mut outbox = hot.outbox.lock();
        let pending = outbox.get_or_insert_with(|| Box::new(Pending::new(now)));
        if is_hopeless {
            pending.give_up(frame, now, d);
        } else {
            pending.push_last(frame, now, d);
        }
    }
    // A connection that is over is found by its bucket's task.
    let _ = drain(writer, hot, now, d);
}

/// Tells the peer that nothing follows; a peer that has gone is as good as told.
fn half_close(fd: std::os::fd::BorrowedFd<'_>) {
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
}
