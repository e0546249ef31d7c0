//! When those who are not connected any more were last seen, in memory and bounded: the oldest make room.
//! Fed by the interest table: a user that no gateway has any more has just left. Pure: the time is an argument.
//! Invariant: `order` and `users` have the same entries.

use std::collections::BTreeMap;

use ahash::RandomState;
use hashbrown::HashMap;

/// Users who have left, by when.
#[derive(Debug)]
pub struct Seen {
    users: HashMap<Box<str>, (u64, u64), RandomState>,
    order: BTreeMap<u64, Box<str>>,
    next: u64,
    max: usize,
}

impl Seen {
    /// Nobody yet, and never more than `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { users: HashMap::default(), order: BTreeMap::new(), next: 0, max }
    }

    /// A user has left.
    pub fn left(&mut self, user: &str, now_ms: u64) {
        self.back(user);
        if self.users.len() >= self.max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.users.remove(&oldest);
        }
        if self.max == 0 {
            return;
        }
        self.next += 1;
        self.users.insert(user.into(), (now_ms, self.next));
        self.order.insert(self.next, user.into());
        debug_assert_eq!(self.users.len(), self.order.len());
    }

    /// A user is back.
    pub fn back(&mut self, user: &str) {
        if let Some((_, number)) = self.users.remove(user) {
            self.order.remove(&number);
        }
    }

    /// When a user was last seen, Unix milliseconds.
    #[must_use]
    pub fn at(&self, user: &str) -> Option<u64> {
        self.users.get(user).map(|(at, _)| *at)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gone_makes_room() {
        let mut seen = Seen::new(2);
        seen.left("ann", 1);
        seen.left("bob", 2);
        seen.left("ann", 3);

        seen.left("eve", 4);

        assert_eq!((seen.at("ann"), seen.at("bob"), seen.at("eve"), seen.len()), (Some(3), None, Some(4), 2));
    }

    #[test]
    fn who_is_back_is_not_gone() {
        let mut seen = Seen::new(2);
        seen.left("ann", 1);

        seen.back("ann");
        seen.back("nobody");

        assert_eq!((seen.at("ann"), seen.len()), (None, 0));
    }
}
