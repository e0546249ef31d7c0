//! Connections that are told to go: what they are told, how often, and what becomes of messages for them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use rustix::io::Errno;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::records::Lane;

use super::Command;
use super::outbox::{drain, send_last};
use super::tests::{Act, BYTES_MAX, Script, all, batch, bucket_of, segment, walk};
use crate::counters::Delta;
use crate::key::SlotKey;
use crate::topic::batch::{Audience, Batch, Waiter};

/// The kernel answers a telling with an event, and the event calls `drain`.
#[test]
fn the_end_is_told_once_however_often_the_socket_is_ready() {
    let (bucket, writer) = (bucket_of(1), Script::default());
    let mut d = Delta::default();
    send_last(&writer, &bucket.table.read().hot[0], Bytes::from_static(b"CLOSE"), 1, &mut d);

    for _ in 0..10 {
        assert!(drain(&writer, &bucket.table.read().hot[0], 2, &mut d));
    }

    assert_eq!((writer.text().as_str(), *writer.calls.lock()), ("CLOSEFIN", 1));
}

/// The first connection of a slot.
const FIRST: SlotKey = SlotKey { slot: 0, generation: 0 };

#[test]
fn at_most_one_close_of_a_connection_waits_and_the_first_counts() {
    let bucket = bucket_of(2);
    for reason in [CloseReason::Draining, CloseReason::Kicked, CloseReason::Draining] {
        bucket.close(FIRST, reason, None);
    }
    bucket.close(SlotKey { slot: 1, ..FIRST }, CloseReason::Draining, None);

    let closes: Vec<(u32, u16)> = bucket
        .take_commands()
        .into_iter()
        .filter_map(|c| if let Command::Close { key, code, .. } = c { Some((key.slot, code)) } else { None })
        .collect();

    assert_eq!(closes, [(0, 3000), (1, 3000)]);
    bucket.close(FIRST, CloseReason::Kicked, None);
    assert_eq!(bucket.take_commands().len(), 1, "what was taken may be asked for again");
}

/// A batch that a publisher waits for.
fn waited_for(size: usize) -> Arc<Batch> {
    let mut one = batch(&all(), Audience::Everyone, vec![segment(1, 1, size, Lane::Bulk)]);
    Arc::get_mut(&mut one).expect("nobody else has it yet").waiters.push((0, Arc::new(Waiter::new(1))));
    one
}

/// What a receipt says of the connections that a message did not reach: slow, expired, closed.
fn dropped(batch: &Batch) -> [u64; 3] {
    [0, 1, 2].map(|reason| batch.fates[0].dropped[reason].load(Relaxed))
}

#[test]
fn a_receipt_says_why_a_connection_got_nothing() {
    let (closed, gone, slow) = (bucket_of(1), bucket_of(1), bucket_of(1));
    let writer = Script::default();
    send_last(&writer, &closed.table.read().hot[0], Bytes::new(), 1, &mut Delta::default());
    walk(&slow, &Script::of(&[Act::Fail(Errno::AGAIN)]), &[waited_for(BYTES_MAX - 500)]);

    let [to_closed, to_gone, to_slow] = [waited_for(10), waited_for(10), waited_for(BYTES_MAX)];
    walk(&closed, &writer, &[Arc::clone(&to_closed)]);
    walk(&gone, &Script::of(&[Act::Fail(Errno::PIPE)]), &[Arc::clone(&to_gone)]);
    walk(&slow, &writer, &[Arc::clone(&to_slow)]);

    assert_eq!(dropped(&to_closed), [0, 0, 1], "its close has been said");
    assert_eq!(dropped(&to_gone), [0, 0, 1], "the peer is gone");
    assert_eq!(dropped(&to_slow), [1, 0, 0], "it does not read");
}
