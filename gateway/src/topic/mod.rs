//! A topic: one target as the merger sees it – everyone, a room, a user or a connection – with what it has gathered,
//! its window and its numbering. Rooms' topics live as long as the room has members; users' and connections' only
//! while a window is open. Who the members are is the buckets' business.

pub mod batch;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_protocol::push::Subject as PushSubject;
use tidegate_protocol::records::Lane;
use tidegate_protocol::reply::GapSubject;

use self::batch::{Narrow, Waiter};
use self::window::Window;
use crate::clock::{Millis, is_due};
use crate::key::ConnectionKey;

/// One target with its window.
#[derive(Debug)]
pub struct Topic {
    /// Which target.
    pub subject: Subject,
    /// What has gathered; the lock under which numbers are given.
    pub gather: Mutex<Gather>,
    /// How long the last fan-out took, in microseconds; written by the last walker, read when a window opens.
    pub fanout_us: AtomicU32,
    /// Batches on their way; while there is one, a due window may wait a little longer.
    pub in_flight: AtomicU32,
}

/// Which target a topic is.
#[derive(Debug)]
pub enum Subject {
    /// Every connection.
    All {
        /// Life of the numbering: the gateway's.
        epoch: Box<str>,
    },
    /// A room.
    Room(RoomSubject),
    /// A user; its numbering lives in its bucket.
    User(Arc<str>),
    /// A connection; not numbered.
    Connection(ConnectionKey),
}

/// A room as all buckets see it.
#[derive(Debug)]
pub struct RoomSubject {
    /// Number that stands for the name inside this process, never reused.
    pub id: u32,
    /// The name.
    pub name: Arc<str>,
    /// Interest version at which the room was announced to logic.
    pub announced: u64,
    /// Life of the numbering: this room's, from its first member to its last.
    pub epoch: Box<str>,
    /// One bit a bucket: has members. Set and cleared under that bucket's write lock.
    pub buckets: Box<[AtomicU64]>,
    /// Members in all buckets. Changed under the registry's shard lock.
    pub members: AtomicU64,
    /// Different users among them; connections without a user are none. Changed under the write lock of the user's bucket.
    pub users: AtomicU64,
    /// Who came and went since the last presence tick, where members are told (`presence`).
    pub changes: Option<Box<Mutex<Changes>>>,
}

/// Comings and goings of a room since the last presence tick.
#[derive(Debug, Default)]
pub struct Changes {
    /// Connections that came.
    pub joined: u64,
    /// Connections that went.
    pub left: u64,
    /// Connections here, of the same moment as the two.
    pub online: u64,
    /// Connections and different users here, of the moment that was told last.
    pub told: (u64, u64),
    /// A few of the users who came.
    pub sample: Vec<Arc<str>>,
    /// Whether the room is on the list of the coming tick.
    pub is_listed: bool,
}

impl RoomSubject {
    /// Says whether bucket `index` has members.
    pub fn mark(&self, index: u16, has_members: bool) {
        let (word, bit) = (usize::from(index) / 64, 1u64 << (index % 64));
        if has_members {
            self.buckets[word].fetch_or(bit, Ordering::SeqCst);
        } else {
            self.buckets[word].fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// The buckets that have members.
    pub fn marked(&self) -> impl Iterator<Item = u16> + '_ {
        self.buckets.iter().enumerate().flat_map(|(word, bits)| {
            let mut left = bits.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                if left == 0 {
                    return None;
                }
                left &= left - 1;
                u16::try_from(word * 64 + bit as usize).ok()
            })
        })
    }
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

impl Topic {
    /// A topic that has seen nothing yet.
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        Self { subject, gather: Mutex::default(), fanout_us: AtomicU32::new(0), in_flight: AtomicU32::new(0) }
    }

    /// How the PUSH frame names it.
    #[must_use]
    pub fn push_subject(&self) -> PushSubject<'_> {
        match &self.subject {
            Subject::All { .. } => PushSubject::All,
            Subject::Room(room) => PushSubject::Room(&room.name),
            Subject::User(_) => PushSubject::User,
            Subject::Connection(..) => PushSubject::Connection,
        }
    }

    /// How the GAP frame names it.
    #[must_use]
    pub fn gap_subject(&self) -> GapSubject<'_> {
        match &self.subject {
            Subject::All { .. } => GapSubject::All,
            Subject::Room(room) => GapSubject::Room(&room.name),
            Subject::User(_) => GapSubject::User,
            Subject::Connection(..) => GapSubject::Connection,
        }
    }

    /// Whether both stand for one target of one connection. Topics of users and connections are made anew after a pause, and
    /// a connection has but one of each.
    #[must_use]
    pub fn is_same_target(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other)
            || matches!(
                (&self.subject, &other.subject),
                (Subject::User(_), Subject::User(_)) | (Subject::Connection(..), Subject::Connection(..))
            )
    }

    /// The room, when it is one.
    #[must_use]
    pub fn room(&self) -> Option<&RoomSubject> {
        match &self.subject {
            Subject::Room(room) => Some(room),
            Subject::All { .. } | Subject::User(_) | Subject::Connection(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_buckets_are_those_with_members() {
        let words = (0..3).map(|_| AtomicU64::new(0)).collect();
        let room = RoomSubject {
            id: 1,
            name: "r".into(),
            announced: 0,
            epoch: "e".into(),
            buckets: words,
            members: AtomicU64::new(0),
            users: AtomicU64::new(0),
            changes: None,
        };
        for index in [0, 63, 64, 130] {
            room.mark(index, true);
        }
        room.mark(63, false);

        assert_eq!(room.marked().collect::<Vec<_>>(), [0, 64, 130]);
    }
}
