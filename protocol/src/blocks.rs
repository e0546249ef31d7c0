//! Which users are blocked, and until when: the same table on every gateway and every logic node, which tell each other.
//! A file of its own because both tiers must agree on what a change means: of two about the same user and room the later
//! one counts, so the tables come out alike in whatever order changes arrive. Pure: the time is an argument.
//! Invariants: `order` names every entry once, by the version of its last change; there are never more than `max` entries.

use std::collections::BTreeMap;

use crate::records::Block;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It counts from now on.
    Changed,
    /// Something later about the same is known, or it is over.
    Stale,
    /// There are as many blocks as there may be, and none of them is over.
    Full,
}

#[derive(Clone, Debug)]
struct Entry {
    block: Block,
    version: u64,
}

/// Blocks by user; a user has few.
#[derive(Clone, Debug)]
pub struct Blocks {
    users: BTreeMap<Box<str>, Vec<Entry>>,
    order: BTreeMap<u64, (Box<str>, Box<str>)>,
    version: u64,
    max: usize,
}

impl Blocks {
    /// No blocks yet, and never more than `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { users: BTreeMap::new(), order: BTreeMap::new(), version: 0, max }
    }

    /// Takes over a change.
    pub fn apply(&mut self, block: Block, now_ms: u64) -> Applied {
        if block.until_ms <= now_ms {
            return Applied::Stale;
        }
        let known =
            self.users.get(block.user.as_str()).and_then(|list| list.iter().find(|e| e.block.room == block.room));
        match known {
            // The same said twice changes nothing; of two of one moment the same one counts everywhere.
            Some(e) if rank(&e.block) >= rank(&block) => return Applied::Stale,
            Some(e) => {
                self.order.remove(&e.version);
            }
            None if self.order.len() >= self.max => {
                self.prune(now_ms);
                if self.order.len() >= self.max {
                    return Applied::Full;
                }
            }
            None => {}
        }
        self.version += 1;
        let version = self.version;
        self.order.insert(version, (block.user.as_str().into(), block.room.as_str().into()));
        let list = self.users.entry(block.user.as_str().into()).or_default();
        list.retain(|e| e.block.room != block.room);
        list.push(Entry { block, version });
        Applied::Changed
    }

    /// The block of a user in a room, or for everything (`room` empty), that is in force.
    #[must_use]
    pub fn find(&self, user: &str, room: &str, now_ms: u64) -> Option<&Block> {
        let is_meant = |e: &&Entry| e.block.room == room && is_in_force(&e.block, now_ms);
        self.users.get(user)?.iter().find(is_meant).map(|e| &e.block)
    }

    /// When what is known of a user and room was decided; 0: nothing is known.
    #[must_use]
    pub fn set_ms(&self, user: &str, room: &str) -> u64 {
        let known = self.users.get(user).and_then(|list| list.iter().find(|e| e.block.room == room));
        known.map_or(0, |e| e.block.set_ms)
    }

    /// Every block of a user that is in force.
    pub fn of(&self, user: &str, now_ms: u64) -> impl Iterator<Item = &Block> {
        let list = self.users.get(user).into_iter().flatten();
        list.map(|e| &e.block).filter(move |block| is_in_force(block, now_ms))
    }

    /// Up to `limit` blocks in force, by user, after that user; a user's blocks stay together.
    #[must_use]
    pub fn list(&self, after: &str, limit: usize, now_ms: u64) -> Vec<Block> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut out = Vec::new();
        for list in self.users.range::<str, _>((Excluded(after), Unbounded)).map(|(_, list)| list) {
            if out.len() >= limit {
                break;
            }
            out.extend(list.iter().map(|e| &e.block).filter(|b| is_in_force(b, now_ms)).cloned());
        }
        out
    }

    /// Up to `limit` entries that changed after `version`, lifted ones too, in that order; and the version reached.
    #[must_use]
    pub fn since(&self, version: u64, limit: usize) -> (Vec<Block>, u64) {
        let changed = self.order.range(version + 1..).take(limit);
        let mut reached = self.version;
        let mut out = Vec::new();
        for (&at, (user, room)) in changed {
            let list = self.users.get(user).into_iter().flatten();
            out.extend(list.filter(|e| *e.block.room == **room).map(|e| e.block.clone()));
            reached = at;
        }
        if out.len() < limit {
            reached = self.version;
        }
        (out, reached)
    }

    /// Forgets what is over.
    pub fn prune(&mut self, now_ms: u64) {
        let order = &mut self.order;
        self.users.retain(|_, list| {
            list.retain(|e| {
                let stays = e.block.until_ms > now_ms;
                if !stays {
                    order.remove(&e.version);
                }
                stays
            });
            !list.is_empty()
        });
        debug_assert_eq!(self.order.len(), self.users.values().map(Vec::len).sum::<usize>());
    }

    /// Counts changes.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Entries, lifted and overdue ones that are still remembered included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

fn rank(block: &Block) -> (u64, bool, u64) {
    (block.set_ms, block.is_lifted, block.until_ms)
}

fn is_in_force(block: &Block, now_ms: u64) -> bool {
    !block.is_lifted && block.until_ms > now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(user: &str, room: &str, set_ms: u64, until_ms: u64) -> Block {
        Block { user: user.into(), room: room.into(), until_ms, set_ms, ..Block::default() }
    }

    #[test]
    fn the_later_of_two_changes_counts_in_whatever_order_they_come() {
        let set = block("ann", "", 10, 500);
        let lifted = Block { is_lifted: true, ..block("ann", "", 20, 500) };
        let (mut one, mut other) = (Blocks::new(10), Blocks::new(10));

        assert_eq!(one.apply(set.clone(), 0), Applied::Changed);
        assert!(one.find("ann", "", 100).is_some());
        assert_eq!(one.apply(lifted.clone(), 0), Applied::Changed);
        assert_eq!(other.apply(lifted, 0), Applied::Changed);
        assert_eq!(other.apply(set, 0), Applied::Stale);

        assert!(one.find("ann", "", 100).is_none() && other.find("ann", "", 100).is_none());
        assert_eq!((one.len(), other.len()), (1, 1));
    }

    #[test]
    fn a_block_ends_at_its_time_and_is_then_forgotten() {
        let mut blocks = Blocks::new(2);
        blocks.apply(block("ann", "", 1, 100), 0);
        blocks.apply(block("ann", "r", 1, 200), 0);

        assert_eq!(blocks.find("ann", "", 99).map(|b| b.until_ms), Some(100));
        assert!(blocks.find("ann", "", 100).is_none());
        assert!(blocks.find("ann", "r", 100).is_some() && blocks.find("ann", "other", 100).is_none());
        blocks.prune(150);

        assert_eq!((blocks.len(), blocks.of("ann", 150).count()), (1, 1));
    }

    #[test]
    fn a_full_table_takes_no_more_until_one_is_over() {
        let mut blocks = Blocks::new(1);
        assert_eq!(blocks.apply(block("ann", "", 1, 100), 0), Applied::Changed);

        assert_eq!(blocks.apply(block("bob", "", 2, 300), 50), Applied::Full);
        assert_eq!(blocks.apply(block("bob", "", 2, 300), 100), Applied::Changed);

        assert_eq!(blocks.list("", 10, 100).iter().map(|b| b.user.as_str()).collect::<Vec<_>>(), ["bob"]);
    }

    #[test]
    fn changes_are_told_in_pages_and_each_entry_once() {
        let mut blocks = Blocks::new(10);
        for (n, user) in ["a", "b", "c"].into_iter().enumerate() {
            blocks.apply(block(user, "", n as u64 + 1, 100), 0);
        }
        blocks.apply(block("a", "", 9, 100), 0);

        let (first, at) = blocks.since(0, 2);
        let (rest, end) = blocks.since(at, 2);

        let users = |list: &[Block]| list.iter().map(|b| b.user.clone()).collect::<Vec<_>>().join("");
        assert_eq!((users(&first).as_str(), users(&rest).as_str(), end), ("bc", "a", blocks.version()));
        assert!(blocks.since(end, 2).0.is_empty());
    }
}
