//! The tide: pushes gather in their topic's window and leave together, encoded once, on the common tick. `window` decides when,
//! `topic` holds what has gathered, `batch` is what leaves; this file moves messages between them and hands batches to
//! `fanout`. Invariants: flushes are serialised by the flush lock, so batches of a topic reach every bucket in the order of
//! their numbers; numbers are given at the flush, so what expired before has none.

pub mod compressor;
pub mod ready;
#[cfg(test)]
mod tide_tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::SmallVec;
use tidegate_protocol::push::{self, Numbering};
use tidegate_protocol::records::Lane;
use tokio::sync::Notify;

use self::compressor::Compressor;
use crate::bucket::Bucket;
use crate::clock::{Millis, is_due, since};
use crate::counters::{Delta, DropReason, Totals};
use crate::deliver::fanout::Fanout;
use crate::key::ConnectionKey;
use crate::locks::{Mutex, rank};
use crate::topic::batch::{Audience, Batch, Fates, Narrow, Segment, Waiter};
use crate::topic::encoding::{Encoding, Frames};
use crate::topic::target::{Private, PrivateTopic, Target};
use crate::topic::window::{Bounds, Step, Window};
use crate::topic::{Gather, Item, Topic};

/// Messages with a time to live share a frame when theirs end within this time of each other; the frame keeps the earliest.
const EXPIRY_SPREAD_MS: u32 = 1_000;

/// Frames, and for each wait the frame its push became part of.
type Encoded = (SmallVec<[Segment; 1]>, Vec<(usize, Arc<Waiter>)>);

/// What holds for all messages of a push.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Their lane.
    pub lane: Lane,
    /// When they are worthless; 0: never.
    pub expires_at: Millis,
    /// Whom of the members they are for.
    pub narrow: Option<&'a Arc<Narrow>>,
    /// The publisher's wait, if it waits.
    pub waiter: Option<&'a Arc<Waiter>>,
}

impl Terms<'_> {
    /// For all members, for ever, and nobody waits.
    #[must_use]
    pub fn plain(lane: Lane) -> Self {
        Self { lane, expires_at: 0, narrow: None, waiter: None }
    }
}

/// Targets whose windows end at the coming ticks.
#[derive(Debug)]
struct Wheel {
    /// Time of the tick in the front slot.
    front: Millis,
    slots: std::collections::VecDeque<Vec<Target>>,
    watched: usize,
}

/// When a window ends early, and how long one is.
#[derive(Debug)]
struct Limits {
    bounds: Bounds,
    messages: usize,
    bytes: usize,
}

/// The windows that are open, and what waits in them.
#[derive(Debug)]
pub struct Windows {
    wheel: Mutex<Wheel, { rank::WHEEL }>,
    /// Told when the wheel turns from empty to not.
    pub watching: Notify,
    /// Messages that wait for their window, over all topics.
    pub gathered: AtomicUsize,
    /// Windows that are open.
    pub open: AtomicU32,
}

/// What gathers and flushes.
#[derive(Debug)]
pub struct Merger<S = OwnedFd> {
    limits: Limits,
    /// The windows that are open.
    pub windows: Windows,
    /// One flush at a time: from taking what has gathered until it is in the buckets' inboxes.
    flush_lock: Mutex<(), { rank::FLUSH }>,
    private: Mutex<HashMap<Private, Arc<PrivateTopic>, ahash::RandomState>, { rank::PRIVATE }>,
    /// Everyone.
    pub all: Target,
    buckets: Arc<[Bucket<S>]>,
    fanout: Arc<Fanout<S>>,
    totals: Arc<Totals>,
    /// Compresses what someone takes compressed; used under the flush lock alone.
    pub compressor: Compressor,
    epoch: Box<str>,
}

impl<S: Send + Sync + 'static> Merger<S> {
    /// A merger over `buckets`. `epoch` is the gateway's.
    #[must_use]
    pub fn new(
        config: &crate::config::MergeConfig,
        compressor: Compressor,
        epoch: &str,
        buckets: Arc<[Bucket<S>]>,
        fanout: Arc<Fanout<S>>,
        totals: Arc<Totals>,
    ) -> Self {
        let bounds = Bounds { min_ms: config.min_ms, max_ms: config.max_ms };
        let slots = config.max_ms / bounds.tick_ms() + 2;
        Self {
            limits: Limits { bounds, messages: config.messages, bytes: config.bytes },
            windows: Windows {
                wheel: Mutex::new(Wheel { front: 0, slots: (0..slots).map(|_| Vec::new()).collect(), watched: 0 }),
                watching: Notify::new(),
                gathered: AtomicUsize::new(0),
                open: AtomicU32::new(0),
            },
            flush_lock: Mutex::new(()),
            private: Mutex::default(),
            all: Target::everyone(epoch),
            buckets,
            fanout,
            totals,
            compressor,
            epoch: epoch.into(),
        }
    }

    /// The common tick.
    #[must_use]
    pub fn tick_ms(&self) -> u32 {
        self.limits.bounds.tick_ms()
    }

    /// Length of the window of "everyone" if it opened now.
    #[must_use]
    pub fn window_ms(&self) -> u32 {
        self.limits.bounds.length_ms(self.all.topic().fanout_us.load(Ordering::Relaxed))
    }

    /// A user or connection, kept while its window is open.
    pub fn private(&self, whom: Private) -> Target {
        let mut private = self.private.lock();
        let new = |whom: &Private| Arc::new(PrivateTopic { whom: whom.clone(), topic: Topic::default() });
        let kept = private.entry(whom).or_insert_with_key(new);
        Target::Private(Arc::clone(kept))
    }

    /// Takes the messages of a push: they leave now, at the window's end, or when a bound is reached.
    pub fn push(&self, target: &Target, messages: &[Bytes], terms: &Terms<'_>, now: Millis) {
        let topic = target.topic();
        let must_flush = {
            let mut gather = target.gather();
            let last = messages.len() - 1;
            for (i, message) in messages.iter().enumerate() {
                gather.bytes += message.len();
                gather.items.push(Item {
                    message: message.clone(),
                    lane: terms.lane,
                    expires_at: terms.expires_at,
                    narrow: terms.narrow.cloned(),
                    waiter: terms.waiter.filter(|_| i == last).cloned(),
                });
            }
            self.windows.gathered.fetch_add(messages.len(), Ordering::Relaxed);
            let length = self.limits.bounds.length_ms(topic.fanout_us.load(Ordering::Relaxed));
            let step = gather.window.push(now, length, self.limits.bounds);
            if let Step::Flush(ends) = step {
                self.windows.open.fetch_add(1, Ordering::Relaxed);
                self.watch(target, ends, now);
            }
            matches!(step, Step::Flush(_))
                || terms.lane == Lane::Urgent
                || gather.items.len() >= self.limits.messages
                || gather.bytes >= self.limits.bytes
        };
        if must_flush {
            self.flush(std::slice::from_ref(target), now);
        }
    }

    /// The common tick: flushes every topic whose window ends. Returns whether any window is still open.
    pub fn tick(&self, now: Millis) -> bool {
        let (due, is_watching) = self.windows.wheel.lock().turn(now, self.limits.bounds.tick_ms());
        let mut leaving = Vec::with_capacity(due.len());
        for target in due {
            let step = {
                let topic = target.topic();
                let mut gather = target.gather();
                let length = self.limits.bounds.length_ms(topic.fanout_us.load(Ordering::Relaxed));
                // The last batch is still on its way: gather on, as long as no message waits longer than allowed.
                if topic.in_flight.load(Ordering::Acquire) > 0 && gather.window.may_wait(now, self.limits.bounds) {
                    Step::Wait
                } else {
                    let has_gathered = !gather.items.is_empty();
                    gather.window.tick(now, length, self.limits.bounds, has_gathered)
                }
            };
            match step {
                Step::Flush(ends) => {
                    self.watch(&target, ends, now);
                    leaving.push(target);
                }
                Step::Wait => self.watch(&target, now.wrapping_add(self.limits.bounds.tick_ms()), now),
                Step::Close => {
                    self.windows.open.fetch_sub(1, Ordering::Relaxed);
                    self.forget(&target);
                }
            }
        }
        if !leaving.is_empty() {
            self.flush(&leaving, now);
        }
        is_watching || !leaving.is_empty()
    }

    /// Flushes everything that has gathered, because the gateway leaves.
    pub fn flush_all(&self, now: Millis) {
        let targets: Vec<Target> = self.windows.wheel.lock().slots.iter().flatten().cloned().collect();
        self.flush(&targets, now);
    }

    fn watch(&self, target: &Target, ends: Millis, now: Millis) {
        if self.windows.wheel.lock().watch(target.clone(), ends, now, self.limits.bounds.tick_ms()) {
            self.windows.watching.notify_one();
        }
    }

    /// Drops the topic of a user or connection whose window has closed.
    fn forget(&self, target: &Target) {
        let Target::Private(topic) = target else { return };
        let mut private = self.private.lock();
        let gather = target.gather();
        let is_idle = gather.items.is_empty() && gather.window == Window::Slack;
        if is_idle && private.get(&topic.whom).is_some_and(|kept| Arc::ptr_eq(kept, topic)) {
            private.remove(&topic.whom);
        }
    }

    fn flush(&self, targets: &[Target], now: Millis) {
        let _flushing = self.flush_lock.lock();
        let batches: Vec<(Arc<Batch>, Vec<u16>)> = targets.iter().filter_map(|target| self.seal(target, now)).collect();
        if batches.is_empty() {
            return;
        }
        self.totals.ticks.fetch_add(1, Ordering::Relaxed);
        self.totals.batches.fetch_add(batches.len() as u64, Ordering::Relaxed);
        self.fanout.deliver(&batches);
    }

    /// Takes what a topic has gathered, numbers and encodes it, and finds the buckets that have members.
    fn seal(&self, target: &Target, now: Millis) -> Option<(Arc<Batch>, Vec<u16>)> {
        let topic = target.topic();
        let mut gather = target.gather();
        if gather.items.is_empty() {
            return None;
        }
        let mut items = std::mem::take(&mut gather.items);
        gather.bytes = 0;
        self.windows.gathered.fetch_sub(items.len(), Ordering::Relaxed);
        self.drop_expired(target, &mut items, now);
        let is_numbered = |i: &&Item| i.narrow.is_none() && target.is_numbered();
        let numbered = items.iter().filter(is_numbered).count() as u64;
        let (audience, buckets, epoch, seq) = self.address(target, &mut gather, numbered);
        // Counted before others may push again: they see a batch on its way while it is still encoded and compressed.
        topic.in_flight.fetch_add(1, Ordering::AcqRel);
        drop(gather);
        let (mut segments, waiters) = self.encode(target, &items, &epoch, seq, now);
        debug_assert_eq!(
            segments.iter().map(|s| s.last).max().unwrap_or(0),
            if numbered > 0 { seq + numbered } else { 0 }
        );
        for encoding in Encoding::OTHERS.into_iter().filter(|e| self.is_taken(*e, &audience, &buckets)) {
            segments.iter_mut().for_each(|segment| self.encode_in(encoding, &mut segment.frames));
        }
        let frames = segments.iter().map(|segment| segment.frames.count() as u64).sum();
        self.totals.frames_encoded.fetch_add(frames, Ordering::Relaxed);
        let batch = Arc::new(Batch {
            target: target.clone(),
            audience,
            fates: segments.iter().map(|_| Fates::default()).collect(),
            segments,
            last: if numbered > 0 { seq + numbered } else { 0 },
            flushed: Instant::now(),
            walks_left: AtomicUsize::new(buckets.len()),
            waiters,
        });
        Some((batch, buckets))
    }

    /// Whom a topic's batch is for, which buckets hold them, and which number its numbered messages begin after; they are
    /// taken from the numbering in the same breath.
    fn address(&self, target: &Target, gather: &mut Gather, numbered: u64) -> (Audience, Vec<u16>, Box<str>, u64) {
        let seq = gather.seq;
        match target {
            Target::Everyone(everyone) => {
                gather.seq += numbered;
                let live = self.buckets.iter().filter(|b| b.live() > 0).map(|b| b.index).collect();
                (Audience::Everyone, live, everyone.epoch.clone(), seq)
            }
            Target::Room(room) => {
                gather.seq += numbered;
                (Audience::Room(room.id), room.marked().collect(), room.epoch.clone(), seq)
            }
            Target::Private(topic) => match &topic.whom {
                Private::User(user) => self.address_user(user, numbered),
                Private::Connection(ConnectionKey { bucket, at }) => {
                    (Audience::Slots(*bucket, SmallVec::from_slice(&[*at])), vec![*bucket], "".into(), 0)
                }
            },
        }
    }

    fn address_user(&self, user: &str, numbered: u64) -> (Audience, Vec<u16>, Box<str>, u64) {
        let bucket = crate::bucket::of_user(user, self.buckets.len());
        let table = self.buckets[usize::from(bucket)].table.read();
        let Some((entry, slots)) = table.user_slots(user) else {
            return (Audience::Slots(bucket, SmallVec::new()), Vec::new(), "".into(), 0);
        };
        let epoch = format!("{}u{:x}", self.epoch, entry.life).into();
        let seq = entry.seq.fetch_add(numbered, Ordering::Relaxed);
        (Audience::Slots(bucket, slots), vec![bucket], epoch, seq)
    }

    /// Makes another encoding of a frame, where that is of use.
    fn encode_in(&self, encoding: Encoding, frames: &mut Frames) {
        let frame = match encoding {
            Encoding::Plain => None,
            Encoding::Deflated => self.compressor.compress(frames.of(Encoding::Plain)),
        };
        frames.set(encoding, frame);
    }

    /// Whether anyone a batch is for may take it in this encoding: exact for users and connections, by buckets for the others.
    fn is_taken(&self, encoding: Encoding, audience: &Audience, buckets: &[u16]) -> bool {
        let mut takers = buckets.iter().map(|b| &self.buckets[usize::from(*b)]).filter(|b| b.takers(encoding) > 0);
        match audience {
            Audience::Everyone | Audience::Room(_) => takers.next().is_some(),
            Audience::Slots(_, slots) => takers.any(|bucket| {
                let table = bucket.table.read();
                slots.iter().any(|key| table.encoding_of(key.slot) == encoding)
            }),
        }
    }

    /// Takes out what ran out before its window ended; whoever waits for it waits no longer.
    fn drop_expired(&self, target: &Target, items: &mut Vec<Item>, now: Millis) {
        let before = items.len();
        let mut members = None;
        items.retain(|item| {
            if !item.is_expired(now) {
                return true;
            }
            let members = *members.get_or_insert_with(|| self.members_of(target));
            if let Some(waiter) = &item.waiter {
                // How many of them a narrowed message was for is not looked up for one that nobody gets.
                waiter.finish(&Fates::expired(if item.narrow.is_none() { members } else { 0 }));
            }
            false
        });
        if let Some(members) = members {
            // Once for each connection of their target.
            let n = members * (before - items.len()) as u64;
            let mut d = Delta { queued: n, ..Delta::default() };
            d.drop_messages(DropReason::Expired, n);
            self.buckets[0].counters.add(&d);
        }
    }

    /// Connections of a target now.
    fn members_of(&self, target: &Target) -> u64 {
        let members = match target {
            Target::Everyone(_) => self.buckets.iter().map(Bucket::live).sum(),
            Target::Room(room) => return room.members.load(Ordering::Relaxed),
            Target::Private(topic) => match &topic.whom {
                Private::User(user) => {
                    let bucket = &self.buckets[usize::from(crate::bucket::of_user(user, self.buckets.len()))];
                    bucket.table.read().users.get(user).map_or(0, |entry| entry.slots.len())
                }
                Private::Connection(_) => 1,
            },
        };
        members as u64
    }

    /// Cuts items into runs that share lane, narrowing and time to live and stay within the bounds of a frame, and encodes
    /// each run as one frame.
    fn encode(&self, target: &Target, items: &[Item], epoch: &str, mut seq: u64, now: Millis) -> Encoded {
        let is_numbered = target.is_numbered();
        let (mut segments, mut waiters) = (SmallVec::new(), Vec::new());
        let mut rest = items;
        while let Some(head) = rest.first() {
            let mut bytes = 0;
            let fits = |i: &&Item| {
                bytes += i.message.len();
                belongs(head, i) && (bytes <= self.limits.bytes || std::ptr::eq(*i, head))
            };
            let n = rest.iter().take_while(fits).take(self.limits.messages).count();
            let (run, others) = rest.split_at(n);
            rest = others;
            waiters.extend(run.iter().filter_map(|i| i.waiter.clone()).map(|w| (segments.len(), w)));
            let bodies: Vec<Bytes> = run.iter().map(|i| i.message.clone()).collect();
            let numbering = (is_numbered && head.narrow.is_none()).then(|| {
                let first = seq + 1;
                seq += n as u64;
                Numbering { epoch, first, last: seq }
            });
            #[expect(clippy::cast_possible_truncation, reason = "bounded by merge.messages")]
            segments.push(Segment {
                frames: Frames::new(push::encode(&target.whom(), numbering, &bodies)),
                messages: n as u32,
                first: numbering.map_or(0, |n| n.first),
                last: numbering.map_or(0, |n| n.last),
                lane: head.lane,
                expires_at: run.iter().map(|i| i.expires_at).min_by_key(|e| since(*e, now)).unwrap_or(0),
                narrow: head.narrow.clone(),
            });
        }
        (segments, waiters)
    }
}

impl Wheel {
    /// Notes that a target is to be looked at when `ends` comes; true when nothing was watched before.
    fn watch(&mut self, target: Target, ends: Millis, now: Millis, tick: u32) -> bool {
        if self.watched == 0 {
            self.front = now - now % tick + tick;
        }
        let ahead = since(ends, self.front) / tick;
        let slot = (ahead as usize).min(self.slots.len() - 1);
        self.slots[slot].push(target);
        self.watched += 1;
        self.watched == 1
    }

    /// Takes the targets of every tick that has come; and whether any are left.
    fn turn(&mut self, now: Millis, tick: u32) -> (Vec<Target>, bool) {
        let mut due = Vec::new();
        let mut turns = 0;
        while self.watched > 0 && is_due(now, self.front) && turns < self.slots.len() {
            if let Some(mut slot) = self.slots.pop_front() {
                self.watched -= slot.len();
                due.append(&mut slot);
                self.slots.push_back(slot);
            }
            self.front = self.front.wrapping_add(tick);
            turns += 1;
        }
        if turns == self.slots.len() {
            self.front = now - now % tick + tick;
        }
        (due, self.watched > 0)
    }
}

fn belongs(head: &Item, item: &Item) -> bool {
    let is_near = |a: Millis, b: Millis| since(a, b).max(since(b, a)) <= EXPIRY_SPREAD_MS;
    head.lane == item.lane
        && (head.expires_at == 0) == (item.expires_at == 0)
        && is_near(head.expires_at, item.expires_at)
        && match (&head.narrow, &item.narrow) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
}
