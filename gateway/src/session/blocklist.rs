//! Users who are not to be let in for a time, or not into one room: this gateway's copy of the fleet's blocks.
//! What a change means is `tidegate_protocol::blocks`; what follows from one for those who are here is admin `commands`.
//! Asked at every handshake and JOIN, so it costs one load while there are no blocks.
//! Invariant: `entries` is 0 only while the table is empty, and is raised before anyone looks for connections of the blocked.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tidegate_protocol::blocks::{Applied, Blocks};
use tidegate_protocol::limits::BLOCKS_MAX;
use tidegate_protocol::records::Block;

use crate::clock::unix_ms;

/// The blocks.
#[derive(Debug)]
pub struct Blocklist {
    blocks: Mutex<Blocks>,
    entries: AtomicUsize,
    version: AtomicU64,
    /// Blocks that did not fit.
    pub refused: AtomicU64,
}

impl Default for Blocklist {
    fn default() -> Self {
        Self::of(BLOCKS_MAX)
    }
}

impl Blocklist {
    /// No blocks yet, and never more than `max`.
    #[must_use]
    pub fn of(max: usize) -> Self {
        Self {
            blocks: Mutex::new(Blocks::new(max)),
            entries: AtomicUsize::new(0),
            version: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes over a change; true when it counts.
    pub fn apply(&self, block: &Block) -> bool {
        let mut blocks = self.blocks.lock();
        let applied = blocks.apply(block.clone(), unix_ms());
        self.publish(&blocks);
        if applied == Applied::Full {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        applied == Applied::Changed
    }

    fn publish(&self, blocks: &Blocks) {
        self.entries.store(blocks.len(), Ordering::SeqCst);
        self.version.store(blocks.version(), Ordering::Release);
    }

    /// Whether a user is not to be let in at all.
    #[must_use]
    pub fn is_blocked(&self, user: &str) -> bool {
        self.is_blocked_from(user, "")
    }

    /// Whether a user is not to be let into a room.
    #[must_use]
    pub fn is_blocked_from(&self, user: &str, room: &str) -> bool {
        self.entries.load(Ordering::SeqCst) > 0 && self.blocks.lock().find(user, room, unix_ms()).is_some()
    }

    /// What changed after a version, and the version reached.
    #[must_use]
    pub fn since(&self, version: u64, limit: usize) -> (Vec<Block>, u64) {
        self.blocks.lock().since(version, limit)
    }

    /// Forgets what is over.
    pub fn prune(&self) {
        let mut blocks = self.blocks.lock();
        blocks.prune(unix_ms());
        self.publish(&blocks);
    }

    /// Grows with each change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Entries, lifted ones that are remembered included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(user: &str, room: &str) -> Block {
        let now = unix_ms();
        Block { user: user.into(), room: room.into(), until_ms: now + 60_000, set_ms: now, ..Block::default() }
    }

    #[test]
    fn a_block_of_a_room_leaves_the_door_open() {
        let blocklist = Blocklist::default();

        assert!(blocklist.apply(&block("ann", "r")));

        assert!(blocklist.is_blocked_from("ann", "r"));
        assert!(!blocklist.is_blocked("ann") && !blocklist.is_blocked_from("bob", "r"));
    }

    #[test]
    fn blocks_beyond_the_bound_are_refused_and_counted() {
        let blocklist = Blocklist::of(1);

        assert!(blocklist.apply(&block("ann", "")));
        assert!(!blocklist.apply(&block("bob", "")));

        assert_eq!((blocklist.refused.load(Ordering::Relaxed), blocklist.len()), (1, 1));
        assert!(!blocklist.is_blocked("bob"));
    }
}
