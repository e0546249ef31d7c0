//! By when pending handshakes must have gone on, by what is awaited of them. Whoever goes on or leaves stays listed until its turn
//! comes; whether it is still there is asked then, so that leaving costs nothing here.
//! Invariant: each list is in order of deadlines.

use std::collections::VecDeque;

use crate::clock::{Millis, is_due};
use crate::key::PendingKey;

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// A request head, from the client.
    Head,
    /// AUTH, from the client.
    Auth,
    /// The connect hook's word.
    Hook,
}

impl Awaited {
    const COUNT: usize = 3;
}

/// The deadlines of one acceptor.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by: [VecDeque<(Millis, PendingKey)>; Awaited::COUNT],
}

impl Deadlines {
    /// Adds one. Nearly all come in order; those whose TLS handshakes took differently long find their place near the end.
    pub fn add(&mut self, awaited: Awaited, deadline: Millis, key: PendingKey) {
        let list = &mut self.by[awaited as usize];
        let at = list.iter().rposition(|&(other, _)| is_due(deadline, other)).map_or(0, |before| before + 1);
        list.insert(at, (deadline, key));
    }

    /// Takes out the next whose time is over; who is not here any more is taken out on the way.
    pub fn next_due(
        &mut self,
        awaited: Awaited,
        now: Millis,
        mut is_here: impl FnMut(PendingKey) -> bool,
    ) -> Option<PendingKey> {
        let list = &mut self.by[awaited as usize];
        while let Some(&(deadline, key)) = list.front() {
            let is_here = is_here(key);
            if is_here && !is_due(now, deadline) {
                return None;
            }
            list.pop_front();
            if is_here {
                return Some(key);
            }
        }
        None
    }

    /// Takes out the first who is still here.
    pub fn oldest(&mut self, awaited: Awaited, mut is_here: impl FnMut(PendingKey) -> bool) -> Option<PendingKey> {
        let list = &mut self.by[awaited as usize];
        while let Some((_, key)) = list.pop_front() {
            if is_here(key) {
                return Some(key);
            }
        }
        None
    }

    pub fn is_empty(&self) -> bool {
        self.by.iter().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(slot: u32) -> PendingKey {
        PendingKey { slot, number: 7 }
    }

    #[test]
    fn each_kind_has_its_own_order_whoever_came_late() {
        let mut deadlines = Deadlines::default();
        for (awaited, deadline, slot) in
            [(Awaited::Head, 20, 0), (Awaited::Head, 30, 1), (Awaited::Head, 25, 2), (Awaited::Auth, 10, 3)]
        {
            deadlines.add(awaited, deadline, key(slot));
        }

        assert_eq!(deadlines.next_due(Awaited::Head, 19, |_| true), None);
        let due: Vec<_> = std::iter::from_fn(|| deadlines.next_due(Awaited::Head, 30, |_| true)).collect();
        assert_eq!(due, [key(0), key(2), key(1)]);
        assert!(!deadlines.is_empty());
        assert_eq!(deadlines.oldest(Awaited::Auth, |_| true), Some(key(3)));
        assert!(deadlines.is_empty());
    }

    #[test]
    fn who_has_left_is_passed_over() {
        let mut deadlines = Deadlines::default();
        for slot in 0..4 {
            deadlines.add(Awaited::Hook, 10 + slot, key(slot));
        }

        assert_eq!(deadlines.next_due(Awaited::Hook, 10, |key| key.slot != 0), None);
        assert_eq!(deadlines.oldest(Awaited::Hook, |key| key.slot > 1), Some(key(2)));
        assert_eq!(deadlines.next_due(Awaited::Hook, 13, |_| true), Some(key(3)));
    }
}
