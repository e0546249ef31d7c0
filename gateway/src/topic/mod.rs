//! A topic: what has gathered for one target, its window and its numbering. Which targets there are is in [`target`] and [`room`]:
//! rooms live as long as they have members, topics of users and connections only while a window is open.

pub mod batch;
pub mod encoding;
pub mod room;
pub mod target;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use tidegate_protocol::records::Lane;

use self::batch::{Narrow, Waiter};
use self::window::Window;
use crate::clock::{Millis, is_due};
use crate::locks::RankedByOwner;

/// One target's window.
#[derive(Debug, Default)]
pub struct Topic {
    /// What has gathered; the lock under which numbers are given.
    pub gather: RankedByOwner<Gather>,
    /// How long the last fan-out took, in microseconds; written by the last walker, read when a window opens.
    pub fanout_us: AtomicU32,
    /// Batches on their way; while there is one, a due window may wait a little longer.
    pub in_flight: AtomicU32,
}

/// What has gathered since the last flush.
#[derive(Debug, Default)]
pub struct Gather {
    /// The window.
    pub window: Window,
    /// Messages in order of arrival.
    pub items: Vec<Item>,
    /// Their bytes.
    pub bytes: usize,
    /// Number of the last message flushed.
    pub seq: u64,
}

/// One message that waits for its window.
#[derive(Clone, Debug)]
pub struct Item {
    /// The publisher's JSON value.
    pub message: Bytes,
    /// Its lane.
    pub lane: Lane,
    /// When it is worthless; 0: never.
    pub expires_at: Millis,
    /// Whom it is for among the members.
    pub narrow: Option<Arc<Narrow>>,
    /// The publisher's wait, on the last message of its push.
    pub waiter: Option<Arc<Waiter>>,
}

impl Item {
    /// Whether it is worthless by now.
    #[must_use]
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at != 0 && is_due(now, self.expires_at)
    }
}
