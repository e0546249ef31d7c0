//! The walk: one bucket's share of a tick. Gathers (slot, frame) pairs, sorts them by slot, and writes each connection once.
//! Runs on a fan-out thread under the bucket's read lock, let go every [`CHUNK`] writes so that joins and leaves get in.
//! A writer that hands many writes over together gets a chunk's in one go, its outboxes held until all are settled.
//! Hot path: logs nothing, allocates once a chunk and where a peer is slow (the pairs live with the thread).
//! Invariants: batches of one topic are walked in the order they were flushed; every share of a batch is counted
//! exactly once as written, pending or dropped.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::Errno;
use smallvec::SmallVec;

use super::pending::{Pending, Queued, SLICES_MAX, Waiting};
use super::table::{Hot, Table};
use super::{Bucket, Command};
use crate::clock::{Clock, Millis};
use crate::counters::{Delta, DropReason};
use crate::key::{ConnectionKey, SlotKey};
use crate::locks::MutexGuard;
use crate::topic::batch::{Audience, Batch, Fates, Segment};
use crate::topic::encoding::Encoding;
use crate::topic::target::Target;
use crate::writer::{Writer, Writes};

/// Writes under one hold of the read lock: about a millisecond.
const CHUNK: usize = 256;

/// What a fan-out thread keeps between walks.
#[derive(Debug, Default)]
pub struct Scratch {
    pairs: Vec<Pair>,
}

/// Who gets what.
#[derive(Clone, Copy, Debug)]
struct Pair {
    key: SlotKey,
    /// Index of the batch.
    batch: u32,
}

/// A share of one connection: which segments of which batches.
struct Share<'a> {
    target: &'a Target,
    segment: &'a Segment,
    /// What this connection takes, and the segment's frame in it.
    encoding: Encoding,
    frame: &'a Bytes,
    fates: Option<&'a Fates>,
}

impl Share<'_> {
    /// As it waits for a slow peer.
    fn waiting(&self) -> Waiting {
        Waiting::new(self.segment, self.encoding)
    }

    /// Tells whoever waits for it what became of it.
    fn settle(&self, fate: Fate) {
        let Some(fates) = self.fates else { return };
        match fate {
            Fate::Written => &fates.written,
            Fate::Pending => &fates.pending,
            Fate::Dropped(reason) => &fates.dropped[reason as usize],
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
    /// Some of the batches exist in several encodings, so it matters who takes which.
    has_encodings: bool,
}

impl Stand {
    /// Whether the slot still is who it was.
    fn is_same<S>(&self, table: &Table<S>, key: SlotKey) -> bool {
        (!self.is_named && table.removals == self.removals) || table.find(key).is_some()
    }

    /// Whether a member has left the room since; if it is back, JOINED has told it where the numbering stands.
    #[inline] // Once a delivery: left to chance, other code's shape moved 14 instructions of 390.
    fn has_left<S>(&self, table: &Table<S>, slot: u32, audience: &Audience) -> bool {
        table.departures != self.departures
            && matches!(audience, Audience::Room(id) if table.has_left_since(self.departures, slot, *id))
    }
}

/// Surroundings of a walk.
pub struct Walk<'a, S, W> {
    /// The bucket.
    pub bucket: &'a Bucket<S>,
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
    Dropped(DropReason),
}

/// What happens under one hold of the read lock.
struct Round<'t, 'b, S> {
    now: Millis,
    d: Delta,
    /// Shares of the connection in hand; of all that are staged, when the writer takes them together.
    shares: Vec<Share<'b>>,
    staged: Vec<Staged<'t, S>>,
}

/// A connection whose write is handed over with others', and the right to write to it.
struct Staged<'t, S> {
    to: Receiver<'t, S>,
    outbox: MutexGuard<'t, Option<Box<Pending>>>,
    /// Its shares end here; they begin where the ones before it end.
    end: usize,
}

/// One connection of a walk.
struct Receiver<'t, S> {
    key: SlotKey,
    hot: &'t Hot<S>,
    socket: &'t S,
}

impl<S, W: Writer<S>> Walk<'_, S, W> {
    /// Walks `batches`, in order, over this bucket's members.
    pub fn run(&self, batches: &[Arc<Batch>], scratch: &mut Scratch) {
        let mut table = self.bucket.table.read();
        scratch.pairs.clear();
        for (i, batch) in batches.iter().enumerate() {
            collect(&table, self.bucket.index, batch, i, &mut scratch.pairs);
        }
        if batches.len() > 1 {
            // Stable by connection: batches stay in flush order for each.
            scratch.pairs.sort_by_key(|pair| pair.key);
        }
        // Slots named by someone else may have changed hands before the pairs were gathered, all others only after.
        let is_named = batches.iter().any(|b| matches!(b.audience, Audience::Slots(..)));
        let has_encodings = batches.iter().any(|batch| batch.has_encodings());
        let stand = Stand { removals: table.removals, departures: table.departures, is_named, has_encodings };
        let mut rest = scratch.pairs.as_slice();
        while !rest.is_empty() {
            rest = self.round(&table, &stand, rest, batches);
            if !rest.is_empty() {
                table.bump();
            }
        }
    }

    /// Serves the next connections of `rest`; gives those that are left.
    fn round<'p>(&self, table: &Table<S>, stand: &Stand, mut rest: &'p [Pair], batches: &[Arc<Batch>]) -> &'p [Pair] {
        let mut round = Round { now: self.clock.now(), d: Delta::default(), shares: Vec::new(), staged: Vec::new() };
        for _ in 0..CHUNK {
            let Some(&Pair { key, .. }) = rest.first() else { break };
            let n = rest.iter().take_while(|pair| pair.key == key).count();
            let (mine, others) = rest.split_at(n);
            rest = others;
            self.serve(table, stand, mine, batches, &mut round);
        }
        if !round.staged.is_empty() {
            self.write_staged(&mut round);
        }
        self.bucket.counters.add(&round.d);
        rest
    }

    /// Gives one connection its share of all batches: in one write, now or with those of the others.
    fn serve<'t, 'b>(
        &self,
        table: &'t Table<S>,
        stand: &Stand,
        mine: &[Pair],
        batches: &'b [Arc<Batch>],
        round: &mut Round<'t, 'b, S>,
    ) {
        let key = mine[0].key;
        let first = round.shares.len();
        let encoding = if stand.has_encodings { table.encoding_of(key.slot) } else { Encoding::Plain };
        for pair in mine {
            let batch = &batches[pair.batch as usize];
            if stand.has_left(table, key.slot, &batch.audience) {
                continue;
            }
            for (segment, fates) in batch.segments.iter().zip(&batch.fates) {
                if segment.narrow.is_none() || is_meant(table, self.bucket.at(key), segment) {
                    round.d.queued += u64::from(segment.messages);
                    // Tallies are shared by all threads: only touched when a publisher waits for them.
                    let fates = (!batch.waiters.is_empty()).then_some(fates);
                    let frame = segment.frames.of(encoding);
                    round.shares.push(Share { target: &batch.target, segment, encoding, frame, fates });
                }
            }
        }
        if round.shares.len() == first {
            return;
        }
        let hot = stand.is_same(table, key).then(|| &table.hot[key.slot as usize]);
        match hot.and_then(|hot| Some(Receiver { key, hot, socket: hot.fd.as_ref()? })) {
            Some(to) => self.hand_over(to, first, round),
            None => {
                drop_closed(&round.shares[first..], &mut round.d);
                round.shares.truncate(first);
            }
        }
    }

    /// Writes what fits, or stages it; the rest waits. The outbox lock makes this the only writer.
    fn hand_over<'t>(&self, to: Receiver<'t, S>, first: usize, round: &mut Round<'t, '_, S>) {
        let mut outbox = to.hot.outbox.lock();
        let shares = &round.shares[first..];
        if let Some(pending) = outbox.as_mut().filter(|p| !p.is_empty()) {
            self.queue(pending, shares, &to, round.now, &mut round.d);
        } else if W::IS_TOGETHER && shares.len() <= SLICES_MAX {
            round.staged.push(Staged { to, outbox, end: round.shares.len() });
            return;
        } else {
            for (chunk, at) in shares.chunks(SLICES_MAX).zip((0..).step_by(SLICES_MAX)) {
                let result = match chunk {
                    [one] => self.writer.write(to.socket, &[IoSlice::new(one.frame)]),
                    many => {
                        let parts: SmallVec<[IoSlice<'_>; 8]> = many.iter().map(|s| IoSlice::new(s.frame)).collect();
                        self.writer.write(to.socket, &parts)
                    }
                };
                let after = &shares[at + chunk.len()..];
                if !self.settle(&to, &mut outbox, chunk, after, result, round.now, &mut round.d) {
                    break;
                }
            }
        }
        round.shares.truncate(first);
    }

    /// Hands over what a round has staged. The outboxes are let go one by one as their writes are settled.
    fn write_staged(&self, round: &mut Round<'_, '_, S>) {
        let mut writes = Writes::with_capacity(round.staged.len(), round.shares.len());
        let mut first = 0;
        for staged in &round.staged {
            let parts = round.shares[first..staged.end].iter().map(|s| IoSlice::new(s.frame));
            writes.push(staged.to.socket, parts);
            first = staged.end;
        }
        let mut results = Vec::with_capacity(round.staged.len());
        self.writer.write_all(&writes, &mut results);
        debug_assert_eq!(results.len(), round.staged.len(), "each write has its result");
        let mut first = 0;
        for (mut staged, result) in round.staged.drain(..).zip(results) {
            let shares = &round.shares[first..staged.end];
            self.settle(&staged.to, &mut staged.outbox, shares, &[], result, round.now, &mut round.d);
            first = staged.end;
        }
    }

    /// Counts what a write of `chunk` came to, and queues the rest and what was to come `after`. False: no more now.
    #[expect(clippy::too_many_arguments, reason = "the walk's state, passed by parts so that borrows stay apart")]
    fn settle(
        &self,
        to: &Receiver<'_, S>,
        outbox: &mut Option<Box<Pending>>,
        chunk: &[Share<'_>],
        after: &[Share<'_>],
        result: Result<usize, Errno>,
        now: Millis,
        d: &mut Delta,
    ) -> bool {
        d.writes += 1;
        let taken = match result {
            Ok(n) => n,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                // The peer is gone; the bucket's task hears of it from epoll and removes the connection.
                drop_closed(chunk, d);
                drop_closed(after, d);
                return false;
            }
        };
        d.bytes += taken as u64;
        if taken > 0 {
            to.hot.wrote.store(now, Ordering::Relaxed);
        }
        let (whole, rest) = count_whole(chunk, taken, d);
        if whole == chunk.len() {
            return true;
        }
        let mut pending = Box::new(Pending::new(now));
        let mut waiting = &chunk[whole..];
        if rest > 0 {
            pending.push_rest(waiting[0].target, waiting[0].waiting(), rest, now, d);
            waiting[0].settle(Fate::Pending);
            waiting = &waiting[1..];
        }
        pending.set_stalled();
        d.stalls += 1;
        self.queue(&mut pending, waiting, to, now, d);
        self.queue(&mut pending, after, to, now, d);
        *outbox = Some(pending);
        false
    }

    fn queue(&self, pending: &mut Pending, shares: &[Share<'_>], to: &Receiver<'_, S>, now: Millis, d: &mut Delta) {
        for share in shares {
            match pending.push(share.target, share.waiting(), self.pending_bytes_max, now, d) {
                Queued::Waits => share.settle(Fate::Pending),
                Queued::Dropped(reason) => share.settle(Fate::Dropped(reason)),
                Queued::Close => {
                    share.settle(Fate::Dropped(DropReason::Slow));
                    self.bucket.command(Command::Cut(to.key));
                }
            }
        }
    }
}

/// The connection is over: nobody gets these.
fn drop_closed(shares: &[Share<'_>], d: &mut Delta) {
    for share in shares {
        d.drop_messages(DropReason::Closed, u64::from(share.segment.messages));
        share.settle(Fate::Dropped(DropReason::Closed));
    }
}

/// Counts the frames that `taken` bytes hold whole; gives their number, and the bytes of the next one.
fn count_whole(chunk: &[Share<'_>], mut taken: usize, d: &mut Delta) -> (usize, usize) {
    for (i, share) in chunk.iter().enumerate() {
        let len = share.frame.len();
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
fn collect<S>(table: &Table<S>, index: u16, batch: &Batch, i: usize, pairs: &mut Vec<Pair>) {
    let pair = |key| Pair { key, batch: i as u32 };
    match &batch.audience {
        Audience::Everyone => {
            pairs.extend(
                table
                    .hot
                    .iter()
                    .enumerate()
                    .filter(|(_, h)| h.fd.is_some())
                    .map(|(slot, h)| pair(SlotKey { slot: slot as u32, generation: h.generation })),
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
            pairs.extend(members.slots.iter().map(|slot| pair(table.key(slot))));
        }
        Audience::Slots(bucket, slots) => {
            debug_assert_eq!(*bucket, index, "a private batch goes to its own bucket");
            pairs.extend(slots.iter().copied().map(pair));
        }
    }
}

fn is_meant<S>(table: &Table<S>, key: ConnectionKey, segment: &Segment) -> bool {
    let Some(narrow) = &segment.narrow else { return true };
    table.cold.get(key.at.slot as usize).is_some_and(|cold| cold.is_meant(key, narrow))
}
