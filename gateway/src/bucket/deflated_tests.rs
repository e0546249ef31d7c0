//! Walks over mixed audiences: who takes compressed frames gets those and nobody else, and what waits is what was chosen.

use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tidegate_protocol::handshake::{self, Deflate, Origins, Parsed, Policy};
use tidegate_protocol::records::Lane;
use tidegate_protocol::ws::{self, Deflater, Inflater, Limits, OpCode};

use super::outbox::drain;
use super::pending::{Pending, Queued, Waiting};
use super::tests::{Act, BYTES_MAX, Script, all, balanced, batch, bucket_of, segment, walk};
use crate::counters::Delta;
use crate::topic::batch::{Audience, Batch, Segment};
use crate::topic::encoding::Encoding;

/// What the handshake makes of an offer.
fn negotiated(offer: &str) -> Deflate {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"
    );
    let policy = Policy { paths: &["/ws"], origins: &Origins::default(), head_bytes_max: 4_096, deflate: true };
    match handshake::parse(request.as_bytes(), &policy) {
        Ok(Parsed::Upgrade(upgrade, _)) => upgrade.deflate.expect("an offer that is taken up"),
        other => panic!("{other:?}"),
    }
}

/// A batch of one segment that exists compressed too.
fn pressed(segment: &Segment) -> Arc<Batch> {
    let mut segment = segment.clone();
    let deflated = Deflater::new(6).frame(OpCode::Text, ws::payload(plain(&segment)));
    segment.frames.set(Encoding::Deflated, Some(deflated.expect("compressible")));
    batch(&all(), Audience::Everyone, vec![segment])
}

fn deflated(batch: &Batch) -> Bytes {
    batch.segments[0].frames.of(Encoding::Deflated).clone()
}

fn plain(segment: &Segment) -> &Bytes {
    segment.frames.of(Encoding::Plain)
}

/// Rule M-5.
#[test]
fn each_connection_gets_the_frame_it_takes_and_all_the_same_message() {
    let (bucket, writer) = (bucket_of(4), Script::default());
    bucket.admit_deflate(&mut bucket.table.write(), 1, negotiated("permessage-deflate"));
    // A limited window may lean on less than the shared frame does.
    bucket.admit_deflate(&mut bucket.table.write(), 2, negotiated("permessage-deflate; server_max_window_bits=9"));
    let segment = segment(1, 3, 300, Lane::Normal);
    let batch = pressed(&segment);

    let d = walk(&bucket, &writer, &[Arc::clone(&batch)]);

    let (plain, small) = (plain(&segment).clone(), deflated(&batch));
    assert_eq!(bucket.takers(Encoding::Deflated), 1);
    assert_eq!(*writer.taken.lock(), [&plain[..], &small, &plain, &plain].concat());
    assert_eq!((d.written, d.frames, d.bytes), (12, 4, (3 * plain.len() + small.len()) as u64));
    let limits = Limits { message_bytes: 1 << 20, fragments: 1, inflate_ratio: 1_000 };
    assert_eq!(Inflater::default().inflate(ws::payload(&small), &limits), Ok(ws::payload(&plain)));
    assert_eq!(batch.bytes(), plain.len() + small.len());
}

#[test]
fn a_slot_that_changes_hands_takes_plain_frames_again() {
    let (bucket, writer) = (bucket_of(1), Script::default());
    bucket.admit_deflate(&mut bucket.table.write(), 0, negotiated("permessage-deflate"));
    let removed = bucket.table.write().remove(0).expect("was there").0;
    bucket.dismiss_deflate(removed.cold.deflate);
    bucket.table.write().insert(removed.fd, removed.cold.platform, 1);
    let segment = segment(1, 1, 300, Lane::Normal);

    walk(&bucket, &writer, &[pressed(&segment)]);

    let taken = writer.taken.lock().clone();
    assert_eq!((bucket.takers(Encoding::Deflated), taken), (0, plain(&segment).to_vec()));
}

/// Cut at every byte: the rest of the compressed frame waits, and neither more nor less is counted.
#[test]
fn a_half_written_compressed_frame_is_finished_in_its_own_bytes() {
    let segment = segment(1, 2, 300, Lane::Normal);
    let small = deflated(&pressed(&segment));
    for cut in 1..small.len() {
        let (bucket, writer) = (bucket_of(1), Script::of(&[Act::Take(cut)]));
        bucket.admit_deflate(&mut bucket.table.write(), 0, negotiated("permessage-deflate"));

        let d = walk(&bucket, &writer, &[pressed(&segment), pressed(&segment)]);
        assert_eq!((d.pending, d.pending_bytes), (4, (2 * small.len() - cut) as i64), "cut at {cut}");
        let mut d = Delta::default();
        assert!(drain(&writer, &bucket.table.read().hot[0], 1, &mut d));
        bucket.counters.add(&d);

        let d = balanced(&bucket);
        assert_eq!((d.pending, d.pending_bytes, d.written), (0, 0, 4), "cut at {cut}");
        assert_eq!(*writer.taken.lock(), [&small[..], &small].concat(), "cut at {cut}");
    }
}

/// Rule M-3: the bound is over what is really queued, so a slow peer that takes compressed frames keeps more messages.
#[test]
fn what_waits_is_counted_as_it_will_be_sent() {
    let kept = |takes_deflated: bool| {
        let (bucket, writer) = (bucket_of(1), Script::of(&[Act::Fail(Errno::AGAIN)]));
        if takes_deflated {
            bucket.admit_deflate(&mut bucket.table.write(), 0, negotiated("permessage-deflate"));
        }
        for n in 1..=40 {
            walk(&bucket, &writer, &[pressed(&segment(n, n, 1_000, Lane::Normal))]);
        }
        let before = balanced(&bucket);
        assert!(before.pending_bytes <= BYTES_MAX as i64, "{before:?}");
        let mut d = Delta::default();
        assert!(drain(&writer, &bucket.table.read().hot[0], 1, &mut d));
        bucket.counters.add(&d);
        let after = balanced(&bucket);
        assert_eq!((after.pending, after.pending_bytes), (0, 0));
        assert_eq!(after.bytes as usize, writer.taken.lock().len(), "what was counted left");
        after.written
    };

    assert_eq!(kept(true), 40, "none had to give way");
    assert!(kept(false) < 10);
}

#[test]
fn evicting_a_compressed_frame_makes_room_for_its_own_size() {
    let target = all();
    let mut pending = Pending::new(1);
    let mut d = Delta { queued: 400, ..Delta::default() };
    for n in 1..=400 {
        let batch = pressed(&segment(n, n, 1_000, Lane::Normal));
        let waiting = Waiting::new(&batch.segments[0], Encoding::Deflated);
        let queued = pending.push(&target, waiting, BYTES_MAX, 1, &mut d);
        assert_eq!(queued, Queued::Waits);
        assert!(pending.bytes() <= BYTES_MAX);
    }

    pending.clear(&mut d);

    assert_eq!((d.pending, d.pending_bytes, pending.bytes()), (0, 0, 0));
    assert_eq!(d.dropped.iter().sum::<u64>(), 400);
    assert!(d.dropped[0] > 0, "some gave way");
}
