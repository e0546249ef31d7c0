//! A set of slots: the members of a room in one bucket, walked in slot order, or those who take compressed frames.
//! A file of its own because its two forms concern nobody else: a sorted list while that is the smaller one, one bit a slot of
//! the bucket when it is not. So joining and leaving cost the same in a room of ten and in one of everybody, where a
//! list alone would move half of itself each time.
//! Invariant: `count` is the number of bits set; a list is sorted and without doubles.

/// Below this a list is as good as anything.
const LIST_MIN: usize = 128;
/// A list of slots takes so many bits for each; a set of bits is smaller from there on.
const LIST_BITS: usize = 32;
/// How much smaller the other form must be before a set of bits turns back, so that it does not turn to and fro.
const BACK: usize = 4;

/// A set of slots of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotSet {
    /// Sorted.
    List(Vec<u32>),
    /// One bit a slot.
    Bits {
        /// Bit `slot % 64` of word `slot / 64`.
        words: Vec<u64>,
        /// Bits set.
        count: usize,
    },
}

impl Default for SlotSet {
    fn default() -> Self {
        Self::List(Vec::with_capacity(1))
    }
}

impl SlotSet {
    /// How many slots.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Bits { count, .. } => *count,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a slot; false when it was there.
    pub fn insert(&mut self, slot: u32) -> bool {
        match self {
            Self::List(list) => {
                let Err(at) = list.binary_search(&slot) else { return false };
                list.insert(at, slot);
                let highest = list.last().map_or(0, |s| *s as usize);
                if list.len() >= LIST_MIN && list.len() * LIST_BITS > highest {
                    *self = Self::bits(list, highest);
                }
                true
            }
            Self::Bits { words, count } => {
                let (word, bit) = place(slot);
                if word >= words.len() {
                    words.resize(word + 1, 0);
                }
                let is_new = words[word] & bit == 0;
                words[word] |= bit;
                *count += usize::from(is_new);
                is_new
            }
        }
    }

    /// Takes a slot out; false when it was not there.
    pub fn remove(&mut self, slot: u32) -> bool {
        match self {
            Self::List(list) => {
                let Ok(at) = list.binary_search(&slot) else { return false };
                list.remove(at);
                if list.capacity() > 64 && list.len() < list.capacity() / 4 {
                    list.shrink_to(list.len() * 2);
                }
                true
            }
            Self::Bits { words, count } => {
                let (word, bit) = place(slot);
                if words.get(word).is_none_or(|w| w & bit == 0) {
                    return false;
                }
                words[word] &= !bit;
                *count -= 1;
                if *count * LIST_BITS * BACK < words.len() * 64 {
                    *self = Self::List(self.iter().collect());
                }
                true
            }
        }
    }

    /// Whether a slot is in it.
    #[must_use]
    #[inline]
    pub fn contains(&self, slot: u32) -> bool {
        match self {
            Self::List(list) => list.binary_search(&slot).is_ok(),
            Self::Bits { words, .. } => {
                let (word, bit) = place(slot);
                words.get(word).is_some_and(|w| w & bit != 0)
            }
        }
    }

    /// The slots, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (list, words): (&[u32], &[u64]) = match self {
            Self::List(list) => (list, &[]),
            Self::Bits { words, .. } => (&[], words),
        };
        list.iter().copied().chain((0u32..).zip(words).flat_map(|(word, &bits)| {
            let mut left = bits;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.checked_sub(1)?;
                Some(word * 64 + bit)
            })
        }))
    }

    fn bits(list: &[u32], highest: usize) -> Self {
        let mut words = vec![0; highest / 64 + 1];
        for &slot in list {
            let (word, bit) = place(slot);
            words[word] |= bit;
        }
        Self::Bits { words, count: list.len() }
    }
}

fn place(slot: u32) -> (usize, u64) {
    (slot as usize / 64, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Dense, sparse and turning from one into the other: always what a plain set would be.
        #[test]
        fn it_is_a_set_in_slot_order(
            steps in proptest::collection::vec((any::<bool>(), 0u32..1_500), 0..3_000),
            begin in 0u32..1_200,
        ) {
            let mut set = SlotSet::default();
            let mut plain = BTreeSet::new();
            for slot in 0..begin {
                set.insert(slot);
                plain.insert(slot);
            }
            for (is_joining, slot) in steps {
                let changed = if is_joining { set.insert(slot) } else { set.remove(slot) };
                prop_assert_eq!(changed, if is_joining { plain.insert(slot) } else { plain.remove(&slot) });
                prop_assert_eq!(set.len(), plain.len());
            }
            prop_assert!((0..1_600).all(|slot| set.contains(slot) == plain.contains(&slot)));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), plain.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_room_of_everybody_takes_a_bit_each_and_a_small_one_a_number() {
        let mut set = SlotSet::default();
        assert!((0..16_384).all(|slot| set.insert(slot)));
        assert!(matches!(&set, SlotSet::Bits { words, .. } if words.len() == 256));

        assert!((0..16_384).filter(|slot| slot % 500 != 0).all(|slot| set.remove(slot)));

        assert!(matches!(&set, SlotSet::List(list) if list.len() == 33), "{set:?}");
    }

    #[test]
    fn a_sparse_room_stays_a_list() {
        let mut set = SlotSet::default();
        (0..300u32).for_each(|n| assert!(set.insert(n * 50)));

        assert!(matches!(set, SlotSet::List(_)));
    }
}
