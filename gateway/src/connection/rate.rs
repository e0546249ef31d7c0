//! Token buckets: how much someone may ask for, in the long run and at once. Kept only for those who have asked lately; a
//! bucket that is full again is as good as none.
//! Invariants: a bucket holds at most its burst; the map holds nobody whose bucket has been full for a sweep.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashMap;

use crate::clock::{Millis, since};
use crate::config::settings::Rate;

/// What is left of one bucket, in thousandths of a request, so that a millisecond at one a second is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    left: u64,
    at: Millis,
}

/// Who may stay in a map whose room is not worth giving back.
const KEPT: usize = 64;

/// Gives back the room of those who are gone: an audience that has asked all at once is as large as the bucket.
pub(super) fn give_back<K: Hash + Eq, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    let wanted = map.len().max(KEPT);
    if map.capacity() > 4 * wanted {
        map.shrink_to(2 * wanted);
    }
}

fn full(rate: Rate) -> u64 {
    u64::from(rate.burst.max(1)) * 1_000
}

impl Level {
    /// Takes one out of a bucket, which is full where there is none.
    ///
    /// # Errors
    /// Milliseconds until there is one again.
    pub fn take(level: &mut Option<Self>, rate: Rate, now: Millis) -> Result<(), u32> {
        if rate.per_s == 0 {
            return Ok(());
        }
        level.get_or_insert(Self { left: full(rate), at: now }).take_one(rate, now)
    }

    fn take_one(&mut self, rate: Rate, now: Millis) -> Result<(), u32> {
        self.left = full(rate).min(self.left + self.gained(rate, now));
        self.at = now;
        if self.left >= 1_000 {
            self.left -= 1_000;
            return Ok(());
        }
        Err(u32::try_from((1_000 - self.left).div_ceil(u64::from(rate.per_s))).unwrap_or(u32::MAX))
    }

    fn gained(&self, rate: Rate, now: Millis) -> u64 {
        u64::from(since(now, self.at)) * u64::from(rate.per_s)
    }

    /// Whether it is as good as none.
    pub fn is_full(&self, rate: Rate, now: Millis) -> bool {
        rate.per_s == 0 || self.left + self.gained(rate, now) >= full(rate)
    }
}

/// The buckets of those who have asked lately.
#[derive(Debug)]
pub struct Rates<K> {
    levels: HashMap<K, Level, ahash::RandomState>,
    rate: Rate,
}

impl<K: Hash + Eq> Rates<K> {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { levels: HashMap::default(), rate }
    }

    /// Another rate from now on; who has more left than its burst keeps that much.
    pub fn set(&mut self, rate: Rate) {
        self.rate = rate;
        if rate.per_s == 0 {
            self.levels.clear();
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// Milliseconds until there is one again.
    pub fn take(&mut self, who: K, now: Millis) -> Result<(), u32> {
        if self.rate.per_s == 0 {
            return Ok(());
        }
        let new = Level { left: full(self.rate), at: now };
        self.levels.entry(who).or_insert(new).take_one(self.rate, now)
    }

    /// Forgets those whose bucket is full again.
    pub fn sweep(&mut self, now: Millis) {
        let rate = self.rate;
        self.levels.retain(|_, level| !level.is_full(rate, now));
        give_back(&mut self.levels);
    }

    #[cfg(test)]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.levels.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_at_once_and_the_rest_at_the_rate() {
        let mut rates = Rates::new(Rate { per_s: 10, burst: 3 });
        for _ in 0..3 {
            assert_eq!(rates.take(1, 5_000), Ok(()));
        }
        assert_eq!(rates.take(1, 5_000), Err(100));
        assert_eq!(rates.take(2, 5_000), Ok(()), "others are not concerned");
        assert_eq!(rates.take(1, 5_099), Err(1));
        assert_eq!(rates.take(1, 5_100), Ok(()));

        let granted = (0..100_000).filter(|ms| rates.take(1, 5_101 + ms) == Ok(())).count();
        assert!((999..=1_001).contains(&granted), "{granted} in 100 s at 10 a second");
    }

    #[test]
    fn who_has_been_silent_is_forgotten() {
        let mut rates = Rates::new(Rate { per_s: 10, burst: 3 });
        assert_eq!(rates.take(1, 0), Ok(()));
        rates.sweep(99);
        assert_eq!(rates.len(), 1);
        rates.sweep(100);
        assert_eq!(rates.len(), 0);
    }

    #[test]
    fn a_crowd_that_asked_at_once_leaves_no_room_behind() {
        let mut rates = Rates::new(Rate { per_s: 10, burst: 3 });
        assert!((0..50_000).all(|who| rates.take(who, 0).is_ok()));
        rates.sweep(99);
        assert_eq!(rates.len(), 50_000);

        rates.sweep(100);
        assert!(rates.levels.capacity() <= 4 * KEPT, "{} places for nobody", rates.levels.capacity());
    }

    #[test]
    fn a_rate_of_zero_limits_nobody() {
        let mut rates = Rates::new(Rate { per_s: 0, burst: 0 });
        assert!((0..1_000).all(|_| rates.take(1, 0).is_ok()));
        assert_eq!(rates.len(), 0);
    }
}
