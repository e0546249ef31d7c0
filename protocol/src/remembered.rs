//! What is remembered for a while and no more of it than is said: by key, each with its age, where the oldest makes room.
//! For nonces of answers, verdicts, arrivals and the like, whatever tier they are of. Pure: the time is an argument, in
//! milliseconds from wherever the caller counts, and never runs backwards.
//! Invariants: never more than `max` entries, none older than `ttl_ms` once a call has said what time it is; `order` has each
//! key of `entries` exactly once with its number, what else is in it is stale, and of that there is never more than
//! [`STALE_MAX`] and the entries themselves.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

/// Stale places that are not worth a walk.
const STALE_MAX: usize = 64;

/// A map that forgets the oldest.
#[derive(Clone, Debug)]
pub struct Remembered<K, V, S = RandomState> {
    entries: HashMap<K, Entry<V>, S>,
    /// By age. A place whose number is no longer its key's is stale.
    order: VecDeque<Place<K>>,
    next: u64,
    max: usize,
    ttl_ms: u64,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    number: u64,
    value: V,
}

#[derive(Clone, Debug)]
struct Place<K> {
    number: u64,
    since_ms: u64,
    key: K,
}

impl<K: Clone + Eq + Hash, V, S: BuildHasher + Default> Remembered<K, V, S> {
    /// Nothing yet, never more than `max`, each for `ttl_ms`; if one of them is 0 nothing is ever kept.
    #[must_use]
    pub fn new(max: usize, ttl_ms: u64) -> Self {
        Self { entries: HashMap::default(), order: VecDeque::new(), next: 0, max, ttl_ms }
    }

    /// The same for as long as there is room.
    #[must_use]
    pub fn without_end(max: usize) -> Self {
        Self::new(max, u64::MAX)
    }
}

impl<K: Clone + Eq + Hash, V, S: BuildHasher> Remembered<K, V, S> {
    /// Remembers this from now on, in place of what the key had; the oldest makes room.
    pub fn keep(&mut self, key: K, value: V, now_ms: u64) {
        self.forget(&key);
        self.expire(now_ms);
        if self.max == 0 || self.ttl_ms == 0 {
            return;
        }
        while self.entries.len() >= self.max {
            self.drop_oldest();
        }
        self.next += 1;
        self.order.push_back(Place { number: self.next, since_ms: now_ms, key: key.clone() });
        self.entries.insert(key, Entry { number: self.next, value });
    }

    /// What a key has, if it is not too old by now.
    pub fn find<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, now_ms: u64) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.expire(now_ms);
        self.peek(key)
    }

    /// What a key had when the time was last said.
    #[must_use]
    pub fn peek<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The same, to be changed; its age stays.
    pub fn peek_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Forgets a key and gives what it had.
    pub fn forget<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.remove(key)?;
        if self.order.len() > 2 * self.entries.len() + STALE_MAX {
            let entries = &self.entries;
            self.order.retain(|place| is_live(entries, place));
        }
        Some(entry.value)
    }

    /// Forgets what is too old by now.
    pub fn expire(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|oldest| now_ms.saturating_sub(oldest.since_ms) >= self.ttl_ms) {
            self.drop_oldest();
        }
    }

    /// All of it, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let live = self.order.iter().filter(|place| is_live(&self.entries, place));
        live.filter_map(|place| Some((&place.key, self.peek(&place.key)?)))
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the oldest place away, and the entry with it if it is not stale.
    fn drop_oldest(&mut self) {
        let Some(place) = self.order.pop_front() else { return };
        if is_live(&self.entries, &place) {
            self.entries.remove(&place.key);
        }
    }
}

fn is_live<K: Eq + Hash, V, S: BuildHasher>(entries: &HashMap<K, Entry<V>, S>, place: &Place<K>) -> bool {
    entries.get(&place.key).is_some_and(|entry| entry.number == place.number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Keep(u8),
        Find(u8),
        Forget(u8),
        Wait(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0..12u8).prop_map(Act::Keep),
            1 => (0..12u8).prop_map(Act::Find),
            2 => (0..12u8).prop_map(Act::Forget),
            1 => (0..40u64).prop_map(Act::Wait),
        ];
        prop::collection::vec(act, 0..600)
    }

    /// The same as a plain list: key, value, and since when.
    fn act(list: &mut Vec<(u8, usize, u64)>, act: &Act, value: usize, bounds: (usize, u64), now: u64) {
        let (max, ttl) = bounds;
        match act {
            Act::Keep(key) => {
                list.retain(|(k, _, since)| k != key && now - since < ttl);
                list.push((*key, value, now));
                list.drain(..list.len().saturating_sub(max));
                list.truncate(if ttl == 0 { 0 } else { max });
            }
            Act::Find(_) => list.retain(|(.., since)| now - since < ttl),
            Act::Forget(key) => list.retain(|(k, ..)| k != key),
            Act::Wait(_) => {}
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_plain_list_is(acts in acts(), max in 0..8usize, ttl in 0..100u64) {
            let mut remembered: Remembered<u8, usize> = Remembered::new(max, ttl);
            let (mut list, mut now) = (Vec::new(), 0);
            for (value, one) in acts.iter().enumerate() {
                act(&mut list, one, value, (max, ttl), now);
                match one {
                    Act::Keep(key) => remembered.keep(*key, value, now),
                    Act::Find(key) => {
                        let expected = list.iter().find(|(k, ..)| k == key).map(|(_, value, _)| value);
                        prop_assert_eq!(remembered.find(key, now), expected);
                    }
                    Act::Forget(key) => drop(remembered.forget(key)),
                    Act::Wait(ms) => now += ms,
                }
                let kept: Vec<_> = remembered.iter().map(|(key, value)| (*key, *value)).collect();
                let expected: Vec<_> = list.iter().map(|(key, value, _)| (*key, *value)).collect();
                prop_assert_eq!(&kept, &expected);
                prop_assert_eq!(remembered.len(), kept.len());
                prop_assert!(remembered.order.len() <= 2 * max + STALE_MAX + 1);
            }
        }
    }

    #[test]
    fn a_key_that_is_kept_again_and_again_takes_the_room_of_one() {
        let mut remembered: Remembered<&str, u64> = Remembered::without_end(10);

        for n in 0..10_000 {
            remembered.keep("same", n, n);
        }

        assert_eq!((remembered.len(), remembered.peek("same")), (1, Some(&9_999)));
        assert!(remembered.order.len() <= STALE_MAX + 2);
    }
}
