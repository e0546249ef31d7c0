//! What waits to be walked in one bucket. The fan-out fills and empties it; it lies with the bucket, whose it is.
//! Invariant: `is_scheduled` as long as the bucket is in the fan-out's queue or walked, so that it is there once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::locks::{Mutex, rank};
use crate::topic::batch::Batch;

/// The batches that wait for one bucket. Bounded through `Fanout::ready`, which counts their bytes.
#[derive(Debug, Default)]
pub struct Inbox {
    batches: Mutex<Vec<Arc<Batch>>, { rank::INBOX }>,
    is_scheduled: AtomicBool,
}

impl Inbox {
    /// Adds batches; true when the bucket must be scheduled.
    pub(crate) fn put(&self, batches: &[Arc<Batch>]) -> bool {
        if batches.is_empty() {
            return false;
        }
        let mut inbox = self.batches.lock();
        inbox.extend_from_slice(batches);
        !self.is_scheduled.swap(true, Ordering::AcqRel)
    }

    /// Everything that waits.
    pub(crate) fn take(&self) -> Vec<Arc<Batch>> {
        std::mem::take(&mut *self.batches.lock())
    }

    /// The walk is over; true when more has come in and the bucket must be scheduled again.
    pub(crate) fn release(&self) -> bool {
        let inbox = self.batches.lock();
        let has_more = !inbox.is_empty();
        self.is_scheduled.store(has_more, Ordering::Release);
        has_more
    }
}
