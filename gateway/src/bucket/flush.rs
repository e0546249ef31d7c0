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

use super::Bucket;
use super::pending::{Pending, Queued};
use super::table::{Hot, Table};
use crate::clock::{Clock, Millis};
use crate::counters::{Delta, DropReason};
use crate::merge::batch::{Audience, Batch, Segment};
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
        let removals = table.removals;
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
                let is_same = (!is_named && table.removals == removals) || table.find(slot, generation).is_some();
                self.serve(&table, slot, is_same, mine, batches, &mut shares, now, &mut d);
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
        slot: u32,
        is_same: bool,
        mine: &[(u32, u32, u32)],
        batches: &'b [Arc<Batch>],
        shares: &mut Vec<Share<'b>>,
        now: Millis,
        d: &mut Delta,
    ) {
        shares.clear();
        for &(_, _, i) in mine {
            let batch = &batches[i as usize];
            for segment in &batch.segments {
                if segment.narrow.is_none() || is_meant(table, self.bucket.index, slot, segment) {
                    d.queued += u64::from(segment.messages);
                    shares.push(Share { topic: &batch.topic, segment });
                }
            }
        }
        let fate = if !is_same {
            for share in shares.iter() {
                d.drop_messages(DropReason::Closed, u64::from(share.segment.messages));
            }
            Fate::Dropped
        } else if shares.is_empty() {
            return;
        } else {
            self.hand_over(&table.hot[slot as usize], slot, shares, now, d)
        };
        for &(_, _, i) in mine {
            let tally = &batches[i as usize].tally;
            match fate {
                Fate::Written => &tally.written,
                Fate::Pending => &tally.pending,
                Fate::Dropped => &tally.dropped,
            }
            .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what fits; the rest waits. The outbox lock makes this the only writer.
    fn hand_over(&self, hot: &Hot, slot: u32, shares: &[Share<'_>], now: Millis, d: &mut Delta) -> Fate {
        let Some(fd) = &hot.fd else { return Fate::Dropped };
        let mut outbox = hot.outbox.lock();
        if let Some(pending) = outbox.as_mut().filter(|p| !p.is_empty()) {
            return self.queue(pending, shares, now, d);
        }
        d.writes += 1;
        let result = match shares {
            [one] => self.writer.write(fd.as_fd(), &[IoSlice::new(&one.segment.frame)]),
            many => {
                let parts: Vec<IoSlice<'_>> =
                    many.iter().take(super::pending::SLICES_MAX).map(|s| IoSlice::new(&s.segment.frame)).collect();
                self.writer.write(fd.as_fd(), &parts)
            }
        };
        let mut taken = match result {
            Ok(n) => n,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                // The peer is gone; the bucket's task hears of it from epoll and removes the connection.
                for share in shares {
                    d.drop_messages(DropReason::Closed, u64::from(share.segment.messages));
                }
                return Fate::Dropped;
            }
        };
        d.bytes += taken as u64;
        if taken > 0 {
            hot.wrote.store(now, Ordering::Relaxed);
        }
        for (i, share) in shares.iter().enumerate() {
            let len = share.segment.frame.len();
            if taken >= len {
                taken -= len;
                d.written += u64::from(share.segment.messages);
                d.frames += 1;
                continue;
            }
            let mut pending = Box::new(Pending::new(now));
            let mut rest = &shares[i..];
            if taken > 0 {
                pending.push_rest(share.topic, share.segment, taken, now, d);
                rest = &rest[1..];
            }
            d.stalls += 1;
            let fate = self.queue(&mut pending, rest, now, d);
            *outbox = Some(pending);
            if fate == Fate::Dropped {
                self.bucket.tell_slow(slot, hot.generation);
            }
            return Fate::Pending;
        }
        Fate::Written
    }

    fn queue(&self, pending: &mut Pending, shares: &[Share<'_>], now: Millis, d: &mut Delta) -> Fate {
        let mut fate = Fate::Pending;
        for share in shares {
            match pending.push_segment(share.topic, share.segment, self.pending_bytes_max, now, d) {
                Queued::Waits => {}
                Queued::Dropped | Queued::Close => fate = Fate::Dropped,
            }
        }
        fate
    }
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
