//! Time as the gateway counts it: milliseconds since its start, in 32 bits, so that a time fits beside a slot.
//! Everything that decides takes `now` as an argument; only the edges (tasks, threads) ask this clock.
//! Wraps after 49 days; differences are taken with [`since`], which is right across the wrap.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// The beat at which whatever is quiet looks again: a thread that is woken costs more than most looks.
pub const CALM_MS: u32 = 250;

/// Milliseconds since the gateway's start, modulo 2³².
pub type Millis = u32;

/// The gateway's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now. It starts at 1, because 0 means "never" in places.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the start.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
    pub fn now(&self) -> Millis {
        (self.start.elapsed().as_millis() as u32).wrapping_add(1)
    }

    /// A timer for what is done every `period_ms` and not at a moment that matters: it fires `phase_ms` after each multiple of
    /// the period since the start, so that timers of all tasks fall together and wake the runtime once. A beat that was missed
    /// is skipped.
    #[must_use]
    pub fn beats(&self, period_ms: u32, phase_ms: u32) -> Interval {
        let period_ms = period_ms.max(1);
        let past = self.start.elapsed().as_millis() / u128::from(period_ms);
        let next = Duration::from_millis(u64::from(period_ms)) * u32::try_from(past + 1).unwrap_or(u32::MAX);
        let first = self.start + next + Duration::from_millis(u64::from(phase_ms));
        let mut beats = interval_at(first.into(), Duration::from_millis(u64::from(period_ms)));
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        beats
    }
}

/// Milliseconds from `earlier` to `now`; 0 when `earlier` lies ahead.
#[must_use]
pub fn since(now: Millis, earlier: Millis) -> u32 {
    let d = now.wrapping_sub(earlier);
    if d > u32::MAX / 2 { 0 } else { d }
}

/// Whether `deadline` has come.
#[must_use]
pub fn is_due(now: Millis, deadline: Millis) -> bool {
    now.wrapping_sub(deadline) <= u32::MAX / 2
}

/// Unix time in milliseconds.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "fits until the year 584 million")]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Unix time in seconds, as tokens count it; ends in 2106.
#[must_use]
pub fn unix_s() -> u32 {
    u32::try_from(unix_ms() / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_hold_across_the_wrap() {
        assert_eq!(since(5, u32::MAX - 4), 10);
        assert_eq!(since(5, 9), 0);
        assert!(is_due(3, u32::MAX - 2));
        assert!(!is_due(u32::MAX - 2, 3));
        assert!(is_due(7, 7));
    }
}
