//! Messages that are ready made (COMMAND, PRESENCE, …): a frame of its own for each, past the window and the numbering.
//! They share the flush lock and the walk with everything else, so the accounting, slow connections and waits are the same.
//! Invariant: no window opens for them, so a topic made for one of them is not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use smallvec::smallvec;
use tidegate_protocol::records::Lane;
use tidegate_protocol::ws::{self, OpCode};

use super::Merger;
use crate::clock::Millis;
use crate::topic::batch::{Batch, Fates, Narrow, Segment, Waiter};
use crate::topic::encoding::Frames;
use crate::topic::target::Target;

/// A ready-made message.
#[derive(Debug)]
pub struct Ready<'a> {
    /// One whole WebSocket frame, shared by all targets.
    pub frame: &'a Bytes,
    /// What becomes of it at a slow connection's bound.
    pub lane: Lane,
    /// When it is worthless; 0: never.
    pub expires_at: Millis,
    /// Whom of the members it is for.
    pub narrow: Option<&'a Arc<Narrow>>,
    /// The publisher's wait, if it waits.
    pub waiter: Option<&'a Arc<Waiter>>,
}

/// Frames a ready-made message.
#[must_use]
pub fn frame(text: &[u8]) -> Bytes {
    ws::frame(OpCode::Text, text)
}

impl<S: Send + Sync + 'static> Merger<S> {
    /// Sends a ready-made message at once. What has gathered for the target stays where it is.
    pub fn send_ready(&self, target: &Target, ready: &Ready<'_>) {
        let topic = target.topic();
        let _flushing = self.flush_lock.lock();
        let (audience, buckets, ..) = self.address(target, &mut topic.gather.lock(), 0);
        topic.in_flight.fetch_add(1, Ordering::AcqRel);
        self.totals.ticks.fetch_add(1, Ordering::Relaxed);
        self.totals.batches.fetch_add(1, Ordering::Relaxed);
        self.totals.frames_encoded.fetch_add(1, Ordering::Relaxed);
        let segment = Segment {
            frames: Frames::new(ready.frame.clone()),
            messages: 1,
            first: 0,
            last: 0,
            lane: ready.lane,
            expires_at: ready.expires_at,
            narrow: ready.narrow.cloned(),
        };
        let batch = Arc::new(Batch {
            target: target.clone(),
            audience,
            fates: smallvec![Fates::default()],
            segments: smallvec![segment],
            last: 0,
            flushed: Instant::now(),
            walks_left: AtomicUsize::new(buckets.len()),
            waiters: ready.waiter.map(|w| (0, Arc::clone(w))).into_iter().collect(),
        });
        self.fanout.deliver(&[(batch, buckets)]);
    }
}
