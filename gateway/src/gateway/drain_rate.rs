//! How fast a gateway that leaves closes its connections: as fast as the rest of the fleet can take them, within bounds. A pure
//! state machine over time; `drain` closes, logic says what the others can spare (`backplane::spare` keeps its last word).
//! Invariants: never faster than all within `spread_ms`; everyone is due by `spread_max_ms`; without a word from logic the
//! closes are spread evenly over `spread_ms`.

use crate::clock::{Millis, since};

/// The part of what the others can spare that is used. The rest is for their own comings; and as what is used is missing in
/// their next word, a part of one half or less settles, however late that word is (at a third of the whole).
const PART: f64 = 0.5;

/// The speed of one drain.
#[derive(Debug)]
pub struct DrainRate {
    total: f64,
    /// Closes a second, at most: all within `spread_ms`.
    fastest: f64,
    /// Since the start: when everyone is due.
    end_ms: u32,
    started: Millis,
    at: Millis,
    /// Connections that should have left by `at`.
    due: f64,
    per_s: f64,
}

impl DrainRate {
    /// For `total` connections, from now on.
    #[must_use]
    pub fn new(total: usize, spread_ms: u32, spread_max_ms: u32, others: Option<u32>, now: Millis) -> Self {
        let total = total as f64;
        let fastest = total * 1000.0 / f64::from(spread_ms.max(1));
        let end_ms = spread_max_ms.max(spread_ms).max(1);
        let mut rate = Self { total, fastest, end_ms, started: now, at: now, due: 0.0, per_s: fastest };
        rate.hear(others);
        rate
    }

    /// Takes the latest word on the rest of the fleet; without one the speed stays.
    pub fn hear(&mut self, others: Option<u32>) {
        if let Some(others) = others {
            self.per_s = f64::from(others) * PART;
        }
        let left_s = f64::from(self.end_ms.saturating_sub(since(self.at, self.started)).max(1)) / 1000.0;
        let slowest = (self.total - self.due).max(0.0) / left_s;
        self.per_s = self.per_s.max(slowest).min(self.fastest.max(slowest));
    }

    /// How many should have left by now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a count")]
    pub fn due(&mut self, now: Millis) -> usize {
        self.due = (self.due + self.per_s * f64::from(since(now, self.at)) / 1000.0).min(self.total);
        self.at = now;
        if since(now, self.started) >= self.end_ms {
            self.due = self.total;
        }
        // A sum of steps may end a hair below what it stands for.
        (self.due + 1e-6) as usize
    }

    /// Closes a second now.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        self.per_s
    }

    /// How long the whole takes at the present speed.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by end_ms")]
    pub fn expected_ms(&self) -> u32 {
        let ms = if self.per_s > 0.0 { self.total * 1000.0 / self.per_s } else { 0.0 };
        ms.min(f64::from(self.end_ms)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a drain in rounds of 20 ms; gives how many were due after each second, until all were.
    fn seconds(rate: &mut DrainRate, mut others: impl FnMut(u32) -> Option<u32>) -> Vec<usize> {
        let mut due = Vec::new();
        for now in (20..=100_000).step_by(20) {
            rate.hear(others(now));
            let n = rate.due(now);
            let is_over = n == rate.total as usize;
            if now % 1_000 == 0 || is_over {
                due.push(n);
            }
            if is_over {
                break;
            }
        }
        due
    }

    #[test]
    fn without_a_word_the_closes_are_spread_evenly_over_the_spread() {
        let mut rate = DrainRate::new(1_000, 4_000, 60_000, None, 0);

        assert_eq!(rate.expected_ms(), 4_000);
        assert_eq!(seconds(&mut rate, |_| None), [250, 500, 750, 1_000]);
    }

    #[test]
    fn a_fleet_with_little_to_spare_slows_it_to_half_of_that() {
        let mut rate = DrainRate::new(1_000, 1_000, 60_000, Some(400), 0);

        assert_eq!(rate.expected_ms(), 5_000);
        assert_eq!(seconds(&mut rate, |_| Some(400)), [200, 400, 600, 800, 1_000]);
    }

    #[test]
    fn a_fleet_with_much_to_spare_does_not_make_it_faster_than_the_spread() {
        let mut rate = DrainRate::new(1_000, 2_000, 60_000, Some(1_000_000), 0);

        assert_eq!(seconds(&mut rate, |_| Some(1_000_000)), [500, 1_000]);
    }

    #[test]
    fn a_fleet_that_can_take_nothing_holds_it_until_the_longest_spread_and_no_longer() {
        let mut rate = DrainRate::new(1_000, 1_000, 10_000, Some(0), 0);

        let due = seconds(&mut rate, |_| Some(0));

        assert_eq!((due.len(), due.last()), (10, Some(&1_000)));
        assert_eq!(due[4], 500, "evenly, and not all at the end");
    }

    #[test]
    fn it_follows_the_word_up_and_down_and_keeps_the_last_one() {
        let mut rate = DrainRate::new(10_000, 1_000, 60_000, Some(1_000), 0);

        let due = seconds(&mut rate, |now| match now {
            ..=1_000 => Some(1_000),
            1_001..=2_000 => Some(4_000),
            2_001..=3_000 => None,
            _ => Some(20_000),
        });

        assert_eq!(due[..3], [500, 2_500, 4_500]);
        assert_eq!(due.len(), 4, "{due:?}");
    }

    /// What the others take from this drain is missing in what they can spare, a second late.
    #[test]
    fn it_settles_although_its_own_clients_use_up_what_is_spare() {
        let mut rate = DrainRate::new(100_000, 0, 600_000, Some(3_000), 0);
        let mut speeds = std::collections::VecDeque::from([0.0; 50]);

        let due = seconds(&mut rate, |now| {
            speeds.push_back(if now < 100 { 0.0 } else { 1_000.0 });
            let late = speeds.pop_front().expect("fifty are kept");
            Some((3_000.0 - late) as u32)
        });

        assert_eq!(due[9] - due[8], 1_000, "a third of the whole: {due:?}");
    }

    #[test]
    fn nobody_to_close_takes_no_time() {
        let mut rate = DrainRate::new(0, 10_000, 60_000, Some(0), 0);

        assert_eq!((rate.due(20), rate.expected_ms()), (0, 0));
    }
}
