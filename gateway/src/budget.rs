//! A pool that all clients draw from, divided among the tasks that look after them: unfinished messages by bucket, pending
//! handshakes by acceptor. When it is full, room is made where most is held, whoever asked: a newcomer is not refused because
//! others came first. Decides only whose turn it is; which of its holders a task lets go, and what it tells them, is the task's
//! own. Each task writes its own count and the sum, so that nobody waits for anybody while there is room.
//! Invariants: `total` is the sum of the parts at rest; it passes `max` by an eighth and one a part at most, and only until
//! the task that was told has had its turn.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

/// What one task holds of a pool.
#[derive(Debug, Default)]
struct Part {
    held: AtomicUsize,
    /// It is to make room with its next turn.
    is_told: AtomicBool,
}

/// A divided pool.
#[derive(Debug)]
pub struct Budget {
    total: AtomicUsize,
    parts: Box<[CachePadded<Part>]>,
    evicted: AtomicU64,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Evict {
    /// There is room.
    Nobody,
    /// Whoever asked makes room itself.
    Own,
    /// Another part holds most and has been told; it is to be woken.
    Of(usize),
}

impl Budget {
    /// Nothing held yet.
    #[must_use]
    pub fn new(parts: usize) -> Self {
        let parts = (0..parts).map(|_| CachePadded::default()).collect();
        Self { total: AtomicUsize::new(0), parts, evicted: AtomicU64::new(0) }
    }

    /// Takes `n` of the pool for `part`, whatever is held already; gives who has to make room then.
    pub fn hold(&self, part: usize, n: usize, max: usize) -> Evict {
        self.parts[part].held.fetch_add(n, Relaxed);
        self.total.fetch_add(n, Relaxed);
        self.turn(part, max)
    }

    /// Gives `n` back.
    pub fn let_go(&self, part: usize, n: usize) {
        self.parts[part].held.fetch_sub(n, Relaxed);
        self.total.fetch_sub(n, Relaxed);
    }

    /// Who has to make room now, asked by `part`.
    pub fn turn(&self, part: usize, max: usize) -> Evict {
        let total = self.total.load(Relaxed);
        if total <= max {
            return Evict::Nobody;
        }
        let held = |part: &CachePadded<Part>| part.held.load(Relaxed);
        let own = held(&self.parts[part]);
        let fullest = self.parts.iter().map(held).enumerate().max_by_key(|&(_, held)| held);
        match fullest {
            Some((other, most)) if most > own && total <= max + max / 8 + self.parts.len() => {
                self.parts[other].is_told.store(true, Relaxed);
                Evict::Of(other)
            }
            _ => Evict::Own,
        }
    }

    /// Whether `part` was told to make room, and still has to.
    pub fn is_told(&self, part: usize, max: usize) -> bool {
        let told = &self.parts[part].is_told;
        told.load(Relaxed) && told.swap(false, Relaxed) && self.total() > max
    }

    /// Counts a holder that had to make room.
    pub fn count_evicted(&self) {
        self.evicted.fetch_add(1, Relaxed);
    }

    /// Holders that had to make room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Held by all parts.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Relaxed)
    }

    /// Held by one part.
    #[must_use]
    pub fn of(&self, part: usize) -> usize {
        self.parts[part].held.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_there_is_room_nobody_makes_any() {
        let budget = Budget::new(2);

        assert_eq!([budget.hold(0, 60, 100), budget.hold(1, 40, 100)], [Evict::Nobody; 2]);
        assert!(!budget.is_told(0, 100) && !budget.is_told(1, 100));
    }

    #[test]
    fn the_fullest_part_makes_room_whoever_comes_last() {
        let budget = Budget::new(3);
        let _ = budget.hold(0, 90, 100);
        let _ = budget.hold(1, 10, 100);

        assert_eq!(budget.hold(2, 1, 100), Evict::Of(0));
        assert!(budget.is_told(0, 100));
        assert!(!budget.is_told(0, 100), "once");
        assert_eq!(budget.hold(0, 1, 100), Evict::Own);
    }

    #[test]
    fn beyond_an_eighth_too_much_everyone_makes_room_for_itself() {
        let budget = Budget::new(2);
        let _ = budget.hold(0, 100, 100);

        assert_eq!(budget.hold(1, 14, 100), Evict::Of(0));
        assert_eq!(budget.hold(1, 1, 100), Evict::Own);
    }

    #[test]
    fn one_who_was_told_too_late_lets_nobody_go() {
        let budget = Budget::new(2);
        let _ = budget.hold(0, 100, 100);
        let _ = budget.hold(1, 1, 100);
        budget.let_go(1, 1);

        assert!(!budget.is_told(0, 100));
        assert_eq!((budget.total(), budget.of(0)), (100, 100));
    }
}
