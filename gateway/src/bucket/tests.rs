//! Walks and pending queues against sockets that stall, take half a frame, or fail: what is written, what waits, what is
//! dropped and told, and that the counters balance to the last message.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use smallvec::SmallVec;
use tidegate_protocol::push::{Numbering, Whom, encode};
use tidegate_protocol::records::Lane;

use super::Bucket;
use super::outbox::{drain, send_last};
use super::pending::{Pending, Queued, Waiting};
use super::walk::{Scratch, Walk};
use crate::clock::Clock;
use crate::counters::{Delta, DropReason};
use crate::rooms::Rooms;
use crate::rooms::interest::Interest;
use crate::session::Platform;
use crate::topic::batch::{Audience, Batch, Fates, Segment};
use crate::topic::encoding::{Encoding, Frames};
use crate::topic::target::Target;
use crate::writer::Writer;

pub(super) const BYTES_MAX: usize = 8_192;

/// What the next write does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Take(usize),
    Fail(Errno),
}

/// A socket that does as it is told; takes everything once the list is done.
#[derive(Debug, Default)]
pub(super) struct Script {
    acts: Mutex<VecDeque<Act>>,
    pub(super) taken: Mutex<Vec<u8>>,
    pub(super) calls: Mutex<usize>,
}

impl Script {
    pub(super) fn of(acts: &[Act]) -> Self {
        Self { acts: Mutex::new(acts.iter().copied().collect()), ..Self::default() }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.taken.lock()).into_owned()
    }
}

impl Writer<OwnedFd> for Script {
    fn write(&self, _: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        *self.calls.lock() += 1;
        let all: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        let n = match self.acts.lock().pop_front() {
            None => all.len(),
            Some(Act::Take(n)) => n.min(all.len()),
            Some(Act::Fail(errno)) => return Err(errno),
        };
        self.taken.lock().extend_from_slice(&all[..n]);
        Ok(n)
    }

    fn finish(&self, _: &OwnedFd) {
        self.taken.lock().extend_from_slice(b"FIN");
    }
}

/// The same socket, given all writes of a chunk at once.
struct Together<'a>(&'a Script);

impl Writer<OwnedFd> for Together<'_> {
    const IS_TOGETHER: bool = true;

    fn write(&self, socket: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        self.0.write(socket, parts)
    }

    fn finish(&self, socket: &OwnedFd) {
        self.0.finish(socket);
    }
}

fn fd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("a file")
}

pub(super) fn all() -> Target {
    Target::everyone("e")
}

pub(super) fn segment(first: u64, last: u64, size: usize, lane: Lane) -> Segment {
    let body = format!("\"{}\"", "x".repeat(size));
    let items: Vec<Bytes> = (first..=last).map(|_| Bytes::from(body.clone())).collect();
    let numbering = Some(Numbering { epoch: "e", first, last });
    Segment {
        frames: Frames::new(encode(&Whom::All, numbering, &items)),
        messages: u32::try_from(items.len()).expect("few"),
        first,
        last,
        lane,
        expires_at: 0,
        narrow: None,
    }
}

pub(super) fn batch(target: &Target, audience: Audience, segments: Vec<Segment>) -> Arc<Batch> {
    let last = segments.last().map_or(0, |s| s.last);
    Arc::new(Batch {
        target: target.clone(),
        audience,
        fates: segments.iter().map(|_| Fates::default()).collect(),
        segments: SmallVec::from_vec(segments),
        last,
        flushed: Instant::now(),
        walks_left: AtomicUsize::new(1),
        waiters: Vec::new(),
    })
}

pub(super) fn bucket_of(n: usize) -> Bucket {
    let bucket = Bucket::new(0).expect("a bucket");
    for _ in 0..n {
        bucket.table.write().insert(fd(), Platform::default(), 1);
    }
    bucket
}

pub(super) fn walk(bucket: &Bucket, writer: &Script, batches: &[Arc<Batch>]) -> Delta {
    let clock = Clock::start();
    Walk { bucket, writer, clock: &clock, pending_bytes_max: BYTES_MAX }.run(batches, &mut Scratch::default());
    balanced(bucket)
}

/// The counters, having checked that they balance.
pub(super) fn balanced(bucket: &Bucket) -> Delta {
    let d = bucket.counters.read();
    let pending = u64::try_from(d.pending).expect("not below nothing");
    assert_eq!(d.queued, d.written + d.dropped.iter().sum::<u64>() + pending, "{d:?}");
    d
}

#[test]
fn every_connection_gets_one_write() {
    let (bucket, writer) = (bucket_of(600), Script::default());
    let topic = all();
    let batches = [1, 2, 3].map(|n| batch(&topic, Audience::Everyone, vec![segment(n, n, 10, Lane::Normal)]));

    let d = walk(&bucket, &writer, &batches);

    assert_eq!((*writer.calls.lock(), d.written, d.frames), (600, 1_800, 1_800));
}

#[test]
fn a_half_written_frame_is_finished_before_the_next_begins() {
    let (bucket, topic) = (bucket_of(1), all());
    let writer = Script::of(&[Act::Take(5), Act::Fail(Errno::AGAIN), Act::Take(7), Act::Take(20)]);
    let first = segment(1, 1, 30, Lane::Normal);
    let second = segment(2, 2, 30, Lane::Normal);
    walk(&bucket, &writer, &[batch(&topic, Audience::Everyone, vec![first.clone()])]);
    walk(&bucket, &writer, &[batch(&topic, Audience::Everyone, vec![second.clone()])]);
    assert_eq!(balanced(&bucket).pending, 2);

    let table = bucket.table.read();
    for _ in 0..2 {
        let mut d = Delta::default();
        assert!(drain(&writer, &table.hot[0], 1, &mut d));
        bucket.counters.add(&d);
    }

    let d = balanced(&bucket);
    assert_eq!((d.pending, d.pending_bytes, d.written), (0, 0, 2));
    assert_eq!(
        *writer.taken.lock(),
        [first, second].map(|segment| segment.frames.of(Encoding::Plain).clone()).concat()
    );
    assert!(table.hot[0].outbox.lock().is_none(), "a healthy connection holds nothing");
}

#[test]
fn a_peer_that_is_gone_costs_only_its_own_share() {
    let (bucket, topic) = (bucket_of(3), all());
    let writer = Script::of(&[Act::Take(9_999), Act::Fail(Errno::PIPE)]);

    let d = walk(&bucket, &writer, &[batch(&topic, Audience::Everyone, vec![segment(1, 4, 10, Lane::Normal)])]);

    assert_eq!((d.queued, d.written, d.dropped), (12, 8, [0, 0, 4]));
}

/// Rule M-3: urgent and normal displace the oldest, and a GAP stands where it stood.
#[test]
fn the_oldest_gives_way_and_a_gap_says_so() {
    let (bucket, topic) = (bucket_of(1), all());
    let stuck = [Act::Fail(Errno::AGAIN); 1];
    let writer = Script::of(&stuck);
    for n in 1..=20 {
        let one = batch(&topic, Audience::Everyone, vec![segment(n, n, 1_000, Lane::Normal)]);
        walk(&bucket, &writer, &[one]);
    }
    assert!(balanced(&bucket).pending_bytes <= BYTES_MAX as i64);

    let table = bucket.table.read();
    let mut d = Delta::default();
    assert!(drain(&writer, &table.hot[0], 1, &mut d));
    bucket.counters.add(&d);

    let text = writer.text();
    let d = balanced(&bucket);
    let kept = d.written;
    assert_eq!((d.dropped[0], d.gaps), (20 - kept, 1));
    let gap = format!(r#"{{"type":"GAP","data":{{"from":1,"to":{},"reason":"slow"}}}}"#, 20 - kept);
    assert!(text.find(&gap).is_some_and(|at| at < 10), "the GAP comes first: {gap}");
    assert!(text.contains(r#""seq":[20,20]"#));
}

/// Rule M-3: bulk gives way itself.
#[test]
fn the_newest_of_a_bulk_lane_gives_way() {
    let topic = all();
    let mut pending = Pending::new(1);
    let mut d = Delta::default();
    for n in 1..=20 {
        push(&mut pending, &topic, &segment(n, n, 1_000, Lane::Bulk), &mut d);
    }
    let kept = u64::try_from(d.pending).expect("some");

    let text = sent(&mut pending, &mut d);

    assert_eq!(d.dropped[0], 20 - kept);
    let gap = format!(r#""from":{},"to":20,"reason":"slow""#, kept + 1);
    assert!(text.contains(&gap), "{gap}");
    assert!(text.find(r#""seq":[1,1]"#) < text.find("GAP"));
}

#[test]
fn a_lane_never_displaces_a_better_one() {
    let topic = all();
    let mut pending = Pending::new(1);
    let mut d = Delta::default();
    while pending.bytes() < BYTES_MAX - 2_000 {
        push(&mut pending, &topic, &segment(1, 1, 1_000, Lane::Urgent), &mut d);
    }
    push(&mut pending, &topic, &segment(2, 2, 1_000, Lane::Bulk), &mut d);
    let full = d.pending;

    let normal = push(&mut pending, &topic, &segment(3, 3, 1_500, Lane::Normal), &mut d);
    let more = push(&mut pending, &topic, &segment(4, 4, 1_500, Lane::Normal), &mut d);

    assert_eq!(normal, Queued::Waits, "bulk made room");
    assert_eq!(more, Queued::Waits, "normal made room for normal");
    assert_eq!((d.pending, d.dropped[0]), (full, 2), "urgent all stayed");
}

#[test]
fn a_control_frame_that_does_not_fit_ends_the_connection() {
    let mut pending = Pending::new(1);
    let mut d = Delta::default();
    let mut queued = Queued::Waits;
    for _ in 0..20 {
        queued = pending.push_control(Bytes::from(vec![0; 1_000]), BYTES_MAX, 1, &mut d);
    }
    assert_eq!(queued, Queued::Close);
    assert!(pending.bytes() <= BYTES_MAX + BYTES_MAX / 4);
}

#[test]
fn only_the_latest_pong_waits() {
    let mut pending = Pending::new(1);
    let mut d = Delta::default();
    for n in 0..100_000u32 {
        pending.push_pong(Bytes::copy_from_slice(&n.to_be_bytes()), BYTES_MAX, 1, &mut d);
    }
    assert_eq!(pending.bytes(), 4);
}

#[test]
fn expired_messages_leave_as_a_gap() {
    let topic = all();
    let mut pending = Pending::new(1);
    let mut d = Delta { queued: 2, ..Delta::default() };
    let mut stale = segment(1, 1, 10, Lane::Normal);
    stale.expires_at = 50;
    push(&mut pending, &topic, &stale, &mut d);
    push(&mut pending, &topic, &segment(2, 2, 10, Lane::Normal), &mut d);

    let mut slices = Vec::new();
    pending.slices(60, &mut d, &mut slices);
    let text: String = slices.iter().map(|s| String::from_utf8_lossy(s)).collect();

    assert!(text.contains(r#""from":1,"to":1,"reason":"expired""#), "{text}");
    assert_eq!((d.dropped, d.pending), ([0, 1, 0], 1));
}

/// Rule R-4: a batch flushed before the first member of this bucket joined is not for it.
#[test]
fn a_batch_older_than_the_join_is_skipped() {
    let (bucket, interest) = (bucket_of(2), Interest::new(10));
    let rooms = Rooms::new(64, 10, "e");
    let room = rooms.enter("r", &interest).expect("a room").room;
    let (id, topic) = (room.id, Target::from(Arc::clone(&room)));
    assert!(bucket.table.write().join(1, &room, 0, || 5));
    let writer = Script::default();

    walk(&bucket, &writer, &[batch(&topic, Audience::Room(id), vec![segment(4, 5, 10, Lane::Normal)])]);
    assert_eq!(*writer.calls.lock(), 0);
    walk(&bucket, &writer, &[batch(&topic, Audience::Room(id), vec![segment(6, 7, 10, Lane::Normal)])]);

    assert_eq!(*writer.calls.lock(), 1);
    assert_eq!(bucket.table.read().room_seq(id), 7);
}

#[test]
fn a_held_connection_gets_nothing_until_it_is_released() {
    let (bucket, topic, writer) = (bucket_of(1), all(), Script::default());
    let mut d = Delta::default();
    let mut pending = Box::new(Pending::new(1));
    pending.hold(7);
    pending.push_control(Bytes::from_static(b"HELLO"), BYTES_MAX, 1, &mut d);
    *bucket.table.read().hot[0].outbox.lock() = Some(pending);
    walk(&bucket, &writer, &[batch(&topic, Audience::Everyone, vec![segment(1, 1, 3, Lane::Normal)])]);
    assert_eq!(*writer.calls.lock(), 0);

    let table = bucket.table.read();
    if let Some(pending) = table.hot[0].outbox.lock().as_mut() {
        assert!(!pending.release(6, 1));
        assert!(pending.release(7, 1));
    }
    assert!(drain(&writer, &table.hot[0], 1, &mut d));

    assert!(writer.text().starts_with("HELLO"));
    assert!(writer.text().contains("PUSH"));
}

#[test]
fn a_slot_that_changed_hands_gets_nothing_of_its_former_owner() {
    let (bucket, topic, writer) = (bucket_of(2), all(), Script::default());
    let before = bucket.table.read().key(0);
    let stale = Audience::Slots(0, SmallVec::from_slice(&[before]));
    bucket.table.write().remove(0).expect("was there");
    bucket.table.write().insert(fd(), Platform::default(), 1);

    let d = walk(&bucket, &writer, &[batch(&topic, stale, vec![segment(1, 1, 3, Lane::Normal)])]);

    assert_eq!((*writer.calls.lock(), d.dropped), (0, [0, 0, 1]));
}

/// Queues a segment with its plain frame.
fn push(pending: &mut Pending, target: &Target, segment: &Segment, d: &mut Delta) -> Queued {
    pending.push(target, Waiting::new(segment, Encoding::Plain), BYTES_MAX, 1, d)
}

fn sent(pending: &mut Pending, d: &mut Delta) -> String {
    let mut text = String::new();
    while !pending.is_empty() {
        let mut slices = Vec::new();
        pending.slices(1, d, &mut slices);
        let n: usize = slices.iter().map(|s| s.len()).sum();
        text.extend(slices.iter().map(|s| String::from_utf8_lossy(s).into_owned()));
        drop(slices);
        pending.advance(n, 1, d);
    }
    text
}

/// Rule M-3: numbered and other losses of one target stay two GAPs, however they alternate.
#[test]
fn gaps_of_a_full_queue_do_not_grow_with_what_is_lost() {
    let topic = all();
    let mut pending = Pending::new(1);
    let mut d = Delta::default();
    for n in 1..=20_000u64 {
        let mut one = segment(n.div_ceil(2), n.div_ceil(2), 3_000, Lane::Bulk);
        if n % 2 == 0 {
            (one.first, one.last) = (0, 0);
        }
        push(&mut pending, &topic, &one, &mut d);
    }

    assert!(pending.bytes() <= BYTES_MAX + 2 * 128, "{}", pending.bytes());
    let kept = u64::try_from(d.pending).expect("some");
    assert_eq!(kept + d.dropped[0], 20_000);
}

#[test]
fn a_frame_that_cannot_fit_displaces_nothing() {
    let topic = all();
    let mut pending = Pending::new(1);
    let mut d = Delta::default();
    push(&mut pending, &topic, &segment(1, 1, 1_000, Lane::Normal), &mut d);

    let queued = push(&mut pending, &topic, &segment(2, 2, 2 * BYTES_MAX, Lane::Normal), &mut d);

    assert_eq!((queued, d.pending, d.dropped[0]), (Queued::Dropped(DropReason::Slow), 1, 1));
}

#[test]
fn more_frames_than_one_call_takes_all_leave() {
    let (bucket, topic, writer) = (bucket_of(1), all(), Script::default());
    let segments = (1..=200).map(|n| segment(n, n, 10, Lane::Normal)).collect();

    let d = walk(&bucket, &writer, &[batch(&topic, Audience::Everyone, segments)]);

    assert_eq!((d.written, d.pending), (200, 0));
    assert!(bucket.table.read().hot[0].outbox.lock().is_none());
}

/// Rule M-2: who leaves and comes back while a batch is walked has been told the number it stands at.
#[test]
fn a_departure_is_remembered_for_the_walk_it_concerns() {
    let (bucket, interest) = (bucket_of(2), Interest::new(10));
    let rooms = Rooms::new(64, 10, "e");
    let room = rooms.enter("r", &interest).expect("a room").room;
    let id = room.id;
    let mut table = bucket.table.write();
    table.join(0, &room, 0, || 0);
    table.join(1, &room, 0, || 0);
    let before = table.departures;

    table.leave(1, id, 0);
    table.join(1, &room, 0, || 0);

    assert!(table.has_left_since(before, 1, id));
    assert!(!table.has_left_since(before, 0, id));
    assert!(!table.has_left_since(table.departures, 1, id));
}

#[test]
fn nothing_follows_the_last_word() {
    let (bucket, topic, writer) = (bucket_of(1), all(), Script::default());
    let mut d = Delta::default();
    send_last(&writer, &bucket.table.read().hot[0], Bytes::from_static(b"CLOSE"), 1, &mut d);

    let d = walk(&bucket, &writer, &[batch(&topic, Audience::Everyone, vec![segment(1, 1, 3, Lane::Normal)])]);

    assert_eq!((writer.text().as_str(), d.dropped), ("CLOSEFIN", [0, 0, 1]));
}

/// A writer that takes many writes at once must lead to what one write after the other leads to.
#[test]
fn writes_handed_over_together_end_as_those_one_by_one() {
    let (topic, room) = (all(), all());
    let acts = [Act::Take(40), Act::Fail(Errno::AGAIN), Act::Take(0), Act::Fail(Errno::PIPE), Act::Take(1_000)];
    let batches = || {
        vec![
            batch(&topic, Audience::Everyone, vec![segment(1, 2, 100, Lane::Normal)]),
            batch(&room, Audience::Everyone, vec![segment(1, 1, 50, Lane::Urgent), segment(2, 2, 10, Lane::Bulk)]),
        ]
    };
    let run = |is_together: bool| {
        let (bucket, script, clock) = (bucket_of(700), Script::of(&acts), Clock::start());
        let mut scratch = Scratch::default();
        for _ in 0..2 {
            if is_together {
                let writer = &Together(&script);
                Walk { bucket: &bucket, writer, clock: &clock, pending_bytes_max: BYTES_MAX }
                    .run(&batches(), &mut scratch);
            } else {
                Walk { bucket: &bucket, writer: &script, clock: &clock, pending_bytes_max: BYTES_MAX }
                    .run(&batches(), &mut scratch);
            }
        }
        let waiting: Vec<usize> =
            bucket.table.read().hot.iter().map(|h| h.outbox.lock().as_ref().map_or(0, |p| p.bytes())).collect();
        (balanced(&bucket), waiting, script.text())
    };

    let (one_by_one, together) = (run(false), run(true));

    assert_eq!(one_by_one.0, together.0, "counters");
    assert_eq!(one_by_one.1, together.1, "what waits for each");
    assert_eq!(one_by_one.2, together.2, "bytes, in order");
    assert!(one_by_one.1.iter().filter(|n| **n > 0).count() >= 3, "some did wait");
}
