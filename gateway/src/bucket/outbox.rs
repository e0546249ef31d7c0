//! Sends to one connection outside a walk what has waited, and its last word; control frames are [`super::control`]'s.
//! A file of its own because these are the bucket task's and not the fan-out's; both go through the outbox lock.
//! Invariants: whoever holds the outbox is the only writer, and a frame that has begun is finished before another begins; the
//! end of a connection is told once, because telling it raises the event that calls [`drain`].

use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::Errno;

use super::pending::Pending;
use super::table::Hot;
use crate::clock::Millis;
use crate::counters::Delta;
use crate::writer::Writer;

/// Sends what waits for a connection, as far as the peer lets. False when the connection is over.
pub fn drain<S, W: Writer<S>>(writer: &W, hot: &Hot<S>, now: Millis, d: &mut Delta) -> bool {
    let Some(fd) = &hot.fd else { return false };
    let mut outbox = hot.outbox.lock();
    let Some(pending) = outbox.as_mut() else { return true };
    loop {
        if pending.is_empty() {
            *outbox = None;
            return true;
        }
        if pending.is_flushed() && pending.is_last() {
            if pending.is_to_finish() {
                writer.finish(fd);
            }
            return true;
        }
        let mut slices = Vec::new();
        pending.slices(now, d, &mut slices);
        if slices.is_empty() {
            return !pending.is_broken();
        }
        d.writes += 1;
        match writer.write(fd, &slices) {
            Ok(n) => {
                drop(slices);
                d.bytes += n as u64;
                hot.wrote.store(now, Ordering::Relaxed);
                pending.advance(n, now, d);
            }
            Err(Errno::AGAIN) => {
                drop(slices);
                pending.set_stalled();
                return true;
            }
            Err(_) => {
                drop(slices);
                pending.set_broken(d);
                return false;
            }
        }
    }
}

/// Sends the last frame of a connection after what waits for it, or queues it; nothing follows it either way.
pub fn send_last<S, W: Writer<S>>(writer: &W, hot: &Hot<S>, frame: Bytes, now: Millis, d: &mut Delta) {
    hot.outbox.lock().get_or_insert_with(|| Box::new(Pending::new(now))).push_last(frame, now, d);
    // A connection that is over is found by its bucket's task.
    let _ = drain(writer, hot, now, d);
}

/// The same in place of what waits, which is dropped.
pub fn send_instead<S, W: Writer<S>>(writer: &W, hot: &Hot<S>, frame: Bytes, now: Millis, d: &mut Delta) {
    hot.outbox.lock().get_or_insert_with(|| Box::new(Pending::new(now))).give_up(frame, now, d);
    let _ = drain(writer, hot, now, d);
}
