//! Which dead letters there are, by whose they are and by age, so that one user's can be bounded and the oldest make room.
//! Only numbers; the letters are in the spool. Knows users by their shard. Invariant: `oldest` has each user's first letter.

use std::collections::{BTreeSet, VecDeque};

use ahash::RandomState;
use hashbrown::HashMap;

/// One letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grave {
    /// Its number in the spool.
    pub number: u64,
    /// Whose it is.
    pub shard: u32,
    /// What it counts against bounds.
    pub bytes: u64,
}

/// A user's letters.
#[derive(Debug, Default)]
struct Plot {
    bytes: u64,
    /// Number and bytes, by age.
    letters: VecDeque<(u64, u64)>,
}

/// All letters of a sink.
#[derive(Debug, Default)]
pub struct Graves {
    plots: HashMap<u32, Plot, RandomState>,
    /// (number, shard)
    oldest: BTreeSet<(u64, u32)>,
}

impl Graves {
    /// Bytes of a user's letters.
    #[must_use]
    pub fn bytes_of(&self, shard: u32) -> u64 {
        self.plots.get(&shard).map_or(0, |plot| plot.bytes)
    }

    /// A letter more.
    pub fn add(&mut self, grave: Grave) {
        let plot = self.plots.entry(grave.shard).or_default();
        // The youngest, unless something that was taken out comes back.
        let at = plot.letters.partition_point(|(number, _)| *number < grave.number);
        if at == 0 {
            if let Some((first, _)) = plot.letters.front() {
                self.oldest.remove(&(*first, grave.shard));
            }
            self.oldest.insert((grave.number, grave.shard));
        }
        plot.letters.insert(at, (grave.number, grave.bytes));
        plot.bytes += grave.bytes;
    }

    /// Takes a letter out; false: it is not here any more.
    pub fn remove(&mut self, number: u64, shard: u32) -> bool {
        let Some(plot) = self.plots.get_mut(&shard) else { return false };
        let Ok(at) = plot.letters.binary_search_by_key(&number, |(number, _)| *number) else { return false };
        let bytes = plot.letters.remove(at).map_or(0, |(_, bytes)| bytes);
        plot.bytes = plot.bytes.saturating_sub(bytes);
        if at == 0 {
            self.oldest.remove(&(number, shard));
            match plot.letters.front() {
                Some((next, _)) => drop(self.oldest.insert((*next, shard))),
                None => drop(self.plots.remove(&shard)),
            }
        }
        true
    }

    /// Takes out a user's oldest.
    pub fn pop_of(&mut self, shard: u32) -> Option<Grave> {
        let (number, bytes) = *self.plots.get(&shard)?.letters.front()?;
        self.remove(number, shard).then_some(Grave { number, shard, bytes })
    }

    /// Takes out the oldest of all.
    pub fn pop(&mut self) -> Option<Grave> {
        let (_, shard) = *self.oldest.first()?;
        self.pop_of(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Beside a plain list of letters.
        #[test]
        fn the_oldest_of_a_user_and_of_all_is_what_a_list_says(steps in proptest::collection::vec((0u8..4, 0u32..3), 1..200)) {
            let (mut graves, mut list, mut next) = (Graves::default(), Vec::<Grave>::new(), 1);
            for (what, shard) in steps {
                match what {
                    0 | 1 => {
                        let grave = Grave { number: next, shard, bytes: next % 7 + 1 };
                        next += 1;
                        graves.add(grave);
                        list.push(grave);
                    }
                    2 => {
                        let expected = list.iter().position(|grave| grave.shard == shard).map(|at| list.remove(at));
                        prop_assert_eq!(graves.pop_of(shard), expected);
                    }
                    _ if list.is_empty() => prop_assert_eq!(graves.pop(), None),
                    _ => {
                        let taken = graves.pop().expect("there is one");
                        prop_assert_eq!(taken, list.remove(0));
                        prop_assert!(!graves.remove(taken.number, taken.shard));
                        if taken.number % 2 == 0 {
                            graves.add(taken);
                            list.insert(0, taken);
                        }
                    }
                }
                let bytes: u64 = list.iter().filter(|grave| grave.shard == shard).map(|grave| grave.bytes).sum();
                prop_assert_eq!(graves.bytes_of(shard), bytes);
            }
        }
    }
}
