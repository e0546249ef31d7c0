//! Time as the gateway counts it: milliseconds since its start, in 32 bits, so that a time fits beside a slot.
//! Everything that decides takes `now` as an argument; only the edges (tasks, threads) ask this clock.
//! Wraps after 49 days; differences are taken with [`since`], which is right across the wrap.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// The beat at which whatever is quiet looks again: a thread that is woken costs more than most looks.
pub const CALM_MS: u32 = 250;

/// Milliseconds since the gateway's start, modulo 2³².
pub type Millis = u32;

/// How far ahead a time may lie and still be told from one that is very old.
const AHEAD_MAX_MS: u32 = 60_000;

/// The gateway's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The wall clock at `start`, where it had a whole millisecond.
    unix_start_ms: u64,
}

impl Clock {
    /// A clock that starts now. It starts at 1, because 0 means "never" in places.
    #[must_use]
    pub fn start() -> Self {
        let (now, unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        // Milliseconds of all gateways on clocks that agree begin together, so that their times can be compared.
        let begun = Duration::from_nanos(u64::from(unix.subsec_nanos()) % 1_000_000);
        Self { start: now.checked_sub(begun).unwrap_or(now), unix_start_ms: unix.as_millis() as u64 }
    }

    /// Milliseconds since the start.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
    pub fn now(&self) -> Millis {
        (self.start.elapsed().as_millis() as u32).wrapping_add(1)
    }

    /// A time of this clock, or one a little ahead of it, as Unix milliseconds by the wall clock as it was at the start: the same
    /// whenever it is asked, until the time is [`Millis`]' range ago. The wall clock being set meanwhile changes nothing.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "nothing runs for 2^64 ms, and the rest wraps by design")]
    pub fn unix_ms_of(&self, at: Millis) -> u64 {
        let elapsed = self.start.elapsed().as_millis() as u64;
        let ahead = at.wrapping_sub((elapsed as u32).wrapping_add(1));
        let from_start = if ahead < AHEAD_MAX_MS {
            elapsed + u64::from(ahead)
        } else {
            elapsed.saturating_sub(u64::from(ahead.wrapping_neg()))
        };
        self.unix_start_ms + from_start
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

    #[test]
    fn a_time_is_the_same_in_unix_milliseconds_whenever_it_is_asked() {
        let clock = Clock::start();
        let before = unix_ms();
        let now = clock.now();
        let (first, ahead) = (clock.unix_ms_of(now), clock.unix_ms_of(now.wrapping_add(3)));
        // Until the clock has passed both.
        while since(clock.now(), now) < 5 {
            std::hint::spin_loop();
        }

        assert_eq!((clock.unix_ms_of(now), clock.unix_ms_of(now.wrapping_add(3))), (first, ahead));
        assert_eq!(ahead, first + 3);
        assert!((before.saturating_sub(1)..=unix_ms()).contains(&first), "{before} {first}");
    }
}
