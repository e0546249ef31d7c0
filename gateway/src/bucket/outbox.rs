//! Sends to one connection outside a walk: what has waited, control frames, the last word.
//! A file of its own because these are the bucket task's and not the fan-out's; both go through the outbox lock.
//! Invariants: whoever holds the outbox is the only writer, and a frame that has begun is finished before another begins; the
//! end of a connection is told once, because telling it raises the event that calls [`drain`].

use std::io::IoSlice;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::pending::{Pending, Queued};
use super::table::Hot;
use crate::clock::Millis;
use crate::counters::{Delta, DropReason};
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
pub fn send_control<S, W: Writer<S>>(
    writer: &W,
    hot: &Hot<S>,
    frame: bytes::Bytes,
    is_pong: bool,
    pending_bytes_max: usize,
    now: Millis,
    d: &mut Delta,
) -> Queued {
    let Some(fd) = &hot.fd else { return Queued::Dropped(DropReason::Closed) };
    let mut outbox = hot.outbox.lock();
    if let Some(pending) = outbox.as_mut().filter(|p| !p.is_empty()) {
        return if is_pong {
            pending.push_pong(frame, pending_bytes_max, now, d)
        } else {
            pending.push_control(frame, pending_bytes_max, now, d)
        };
    }
    d.writes += 1;
    match writer.write(fd, &[IoSlice::new(&frame)]) {
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
        Err(_) => Queued::Dropped(DropReason::Closed),
    }
}

/// Sends the last frame of a connection, or queues it; nothing follows it either way. `is_hopeless`: what waits before it
/// is dropped.
pub fn send_last<S, W: Writer<S>>(
    writer: &W,
    hot: &Hot<S>,
    frame: bytes::Bytes,
    is_hopeless: bool,
    now: Millis,
    d: &mut Delta,
) {
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
