//! Messages that are ready made (COMMAND, PRESENCE, …): a frame of its own for each, past the window and the numbering.
//! They share the flush lock and the walk with everything else, so the accounting, slow connections and waits are the same.
//! Invariant: no window opens for them, so a topic made for one of them is not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use smallvec::smallvec;
use tidegate_protocol::ws::{self, OpCode};

use super::{Merger, Terms};
use crate::topic::batch::{Batch, Fates, Segment};
use crate::topic::encoding::Frames;
use crate::topic::target::Target;

/// Frames a ready-made message.
#[must_use]
pub fn frame(text: &[u8]) -> Bytes {
    ws::frame(OpCode::Text, text)
}

impl<S: Send + Sync + 'static> Merger<S> {
    /// Sends a ready-made message at once: `frame` is one whole WebSocket frame, shared by all targets. What has gathered for the target stays where it is.
    pub fn send_ready(&self, target: &Target, frame: &Bytes, terms: &Terms<'_>) {
        let topic = target.topic();
        let _flushing = self.flush_lock.lock();
        let (audience, buckets, ..) = self.address(target, &mut target.gather(), 0);
        topic.in_flight.fetch_add(1, Ordering::AcqRel);
        self.totals.ticks.fetch_add(1, Ordering::Relaxed);
        self.totals.batches.fetch_add(1, Ordering::Relaxed);
        self.totals.frames_encoded.fetch_add(1, Ordering::Relaxed);
        let segment = Segment {
            frames: Frames::new(frame.clone()),
            messages: 1,
            first: 0,
            last: 0,
            lane: terms.lane,
            expires_at: terms.expires_at,
            narrow: terms.narrow.cloned(),
        };
        let batch = Arc::new(Batch {
            target: target.clone(),
            audience,
            fates: smallvec![Fates::default()],
            segments: smallvec![segment],
            last: 0,
            flushed: Instant::now(),
            walks_left: AtomicUsize::new(buckets.len()),
            waiters: terms.waiter.map(|w| (0, Arc::clone(w))).into_iter().collect(),
        });
        self.fanout.deliver(&[(batch, buckets)]);
    }
}
