//! Values that many connections have alike, kept once: grants of a role, attributes of a language and a tier.
//! A file of its own because what is shared and when it is let go concerns nobody else.
//! Invariants: at most `max` values are kept; one that nobody holds any more goes with the next sweep. Beyond the bound a
//! value is simply not shared, which costs memory and nothing else.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashSet;
use parking_lot::Mutex;

/// Sweeps begin here; the next one is due when as many new values have come as the last one left.
const SWEEP_MIN: usize = 64;

/// A set of shared values.
#[derive(Debug)]
pub struct Interner<T> {
    kept: Mutex<Kept<T>>,
    max: usize,
}

#[derive(Debug)]
struct Kept<T> {
    values: HashSet<Arc<T>, ahash::RandomState>,
    /// New values until the next sweep is due. Counted, and not told from the size: at the bound the size stands still,
    /// and a sweep a value would make each newcomer pay for all.
    until_sweep: usize,
}

impl<T: Eq + Hash> Interner<T> {
    /// An empty pool of at most `max` values.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { kept: Mutex::new(Kept { values: HashSet::default(), until_sweep: SWEEP_MIN }), max }
    }

    /// The shared one of values equal to this.
    pub fn share(&self, value: T) -> Arc<T> {
        let mut kept = self.kept.lock();
        if let Some(found) = kept.values.get(&value) {
            return Arc::clone(found);
        }
        let value = Arc::new(value);
        if kept.until_sweep == 0 {
            kept.values.retain(|v| Arc::strong_count(v) > 1);
            kept.until_sweep = kept.values.len().max(SWEEP_MIN);
        }
        kept.until_sweep -= 1;
        if kept.values.len() < self.max {
            kept.values.insert(Arc::clone(&value));
        }
        value
    }

    /// Values kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.lock().values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let interner = Interner::new(10);

        let (one, other, different) = (interner.share("a"), interner.share("a"), interner.share("b"));

        assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &different));
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn what_nobody_holds_makes_room() {
        let interner = Interner::new(1_000);
        for n in 0..100_000 {
            interner.share(n);
        }

        assert!(interner.len() <= 2 * SWEEP_MIN, "{}", interner.len());
    }

    #[test]
    fn beyond_the_bound_values_are_not_shared_and_nothing_else_happens() {
        let interner = Interner::new(100);
        let held: Vec<Arc<u32>> = (0..300).map(|n| interner.share(n)).collect();

        assert_eq!(interner.len(), 100);
        assert!(Arc::ptr_eq(&held[7], &interner.share(7)), "those within it still are");
        assert_eq!(*interner.share(299), 299);
        drop(held);
        for n in 1_000..1_200 {
            interner.share(n);
        }
        assert!(!interner.kept.lock().values.contains(&7), "and the bound is no grave");
    }
}
