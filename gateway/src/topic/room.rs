//! A room as all buckets see it: its topic, its name and number, and how many are in it. The registry of rooms is `rooms`; who the
//! members are each bucket knows of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_protocol::records::ToldRoom;

use super::{Gather, Topic};
use crate::locks::{Mutex, MutexGuard, rank};

/// A room with members.
#[derive(Debug)]
pub struct Room {
    /// What has gathered for its members.
    pub topic: Topic,
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
    pub changes: Option<Box<Mutex<Changes, { rank::CHANGES }>>>,
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
    /// Connections and different users here, of the moment that was told last, and by which item.
    pub told: ToldRoom,
    /// A few of the users who came.
    pub sample: Vec<Arc<str>>,
    /// Whether the room is on the list of the coming tick.
    pub is_listed: bool,
}

impl Room {
    /// What has gathered for its members.
    pub fn gather(&self) -> MutexGuard<'_, Gather> {
        self.topic.gather.lock(rank::GATHER_SHARED)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_buckets_are_those_with_members() {
        let words = (0..3).map(|_| AtomicU64::new(0)).collect();
        let room = Room {
            topic: Topic::default(),
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
