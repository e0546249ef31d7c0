//! When connections' tokens run out: a heap of times for each bucket, looked at by its sweep; no timer a connection.
//! Entries are never searched for: one that no longer says what its connection's claims say (refreshed, or gone) is passed
//! over when its time comes. Times are Unix seconds, so expiry follows the wall clock, as tokens do.
//! Invariant: at most twice as many entries as connections and [`SPARE`] more, however often they are refreshed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::key::SlotKey;

/// Entries beyond which those that say nothing any more are thrown out.
const SPARE: usize = 64;

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Unix seconds.
    pub at_s: u32,
    /// Whose token.
    pub key: SlotKey,
}

/// The ends of one bucket's tokens.
#[derive(Debug, Default)]
pub struct Expiries {
    heap: BinaryHeap<Reverse<End>>,
}

impl Expiries {
    /// Notes an end. `live` is how many connections there are, `is_so` whether an entry still holds.
    pub fn note(&mut self, end: End, live: usize, is_so: impl Fn(End) -> bool) {
        if self.heap.len() >= 2 * live + SPARE {
            self.heap.retain(|Reverse(entry)| is_so(*entry));
        }
        self.heap.push(Reverse(end));
    }

    /// Whether any end may have come.
    #[must_use]
    pub fn is_any_due(&self, now_s: u32) -> bool {
        self.heap.peek().is_some_and(|Reverse(end)| end.at_s <= now_s)
    }

    /// Takes the ends that have come and still hold.
    pub fn take_due(&mut self, now_s: u32, is_so: impl Fn(End) -> bool) -> Vec<SlotKey> {
        let mut due = Vec::new();
        while self.is_any_due(now_s) {
            let Some(Reverse(end)) = self.heap.pop() else { break };
            if is_so(end) {
                due.push(end.key);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SlotKey {
        SlotKey { slot, generation: 0 }
    }

    fn end(at_s: u32, slot: u32) -> End {
        End { at_s, key: key(slot) }
    }

    #[test]
    fn ends_come_in_time_and_those_that_changed_are_passed_over() {
        let mut expiries = Expiries::default();
        for (slot, at) in [(1, 300), (2, 100), (3, 200), (2, 400)] {
            expiries.note(end(at, slot), 3, |_| true);
        }
        let is_refreshed = |it: End| it != end(100, 2);

        assert!(!expiries.is_any_due(99) && expiries.is_any_due(100));
        assert_eq!(expiries.take_due(250, is_refreshed), [key(3)]);
        assert_eq!(expiries.take_due(999, is_refreshed), [key(1), key(2)]);
    }

    #[test]
    fn many_refreshes_of_few_connections_leave_few_entries() {
        let mut expiries = Expiries::default();
        for at in 1_000..100_000 {
            expiries.note(end(at, 1), 1, |it| it.at_s == at - 1);
        }

        assert!(expiries.heap.len() <= 2 + SPARE, "{}", expiries.heap.len());
        assert_eq!(expiries.take_due(u32::MAX, |it| it.at_s == 99_999), [key(1)]);
    }
}
