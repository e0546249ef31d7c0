//! Time as the gateway counts it: milliseconds since its start, in 32 bits, so that a time fits beside a slot, and in 64 for
//! what lasts.
//! Everything that decides takes `now` as an argument; only the edges (tasks, threads) ask this clock.
//! The short one wraps after 49 days; differences are taken with [`since`], which is right across the wrap. A time that may be
//! older than that is a [`Moment`], or kept from growing old ([`age_of`]).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// The beat at which whatever is quiet looks again: a thread that is woken costs more than most looks.
pub const CALM_MS: u32 = 250;

/// Milliseconds since the gateway's start, modulo 2³².
pub type Millis = u32;

/// Milliseconds since the gateway's start; its lower half is [`Millis`].
pub type Moment = u64;

/// A [`Moment`] in units of [`COARSE_MS`], where 32 bits have to do for what may be old.
pub type Coarse = u32;

/// Small beside the shortest silence after which a peer is pinged.
const COARSE_MS: u64 = 64;

/// How far ahead a time may lie and still be told from one that is very old.
const AHEAD_MAX_MS: u32 = 60_000;
/// Twelve days: what is older is as old as that. Longer than any wait, and far from where the clock begins anew.
const OLD_MS: u32 = 1 << 30;

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

    /// The same clock as it would be if it had been started so much earlier.
    #[must_use]
    pub fn started_earlier(self, by: Duration) -> Self {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let start = self.start.checked_sub(Duration::from_millis(by_ms)).unwrap_or(self.start);
        Self { start, unix_start_ms: self.unix_start_ms.saturating_sub(by_ms) }
    }

    /// Milliseconds since the start.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
    pub fn now(&self) -> Millis {
        self.moment() as Millis
    }

    /// The same without an end.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "nothing runs for 2^64 ms")]
    pub fn moment(&self) -> Moment {
        self.start.elapsed().as_millis() as u64 + 1
    }

    /// A time of this clock as Unix milliseconds by the wall clock as it was at the start: the same whenever it is asked. The
    /// wall clock being set meanwhile changes nothing.
    #[must_use]
    pub fn unix_ms_of(&self, at: Moment) -> u64 {
        (self.unix_start_ms + at).saturating_sub(1)
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

/// Milliseconds from `earlier` to `now`; 0 when `earlier` lies ahead, which it does by a minute at most.
#[must_use]
pub fn since(now: Millis, earlier: Millis) -> u32 {
    if earlier.wrapping_sub(now) <= AHEAD_MAX_MS { 0 } else { now.wrapping_sub(earlier) }
}

/// A moment in 32 bits that last for eight years.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
pub fn coarse(at: Moment) -> Coarse {
    (at / COARSE_MS) as Coarse
}

/// Milliseconds from a coarse time to `now`, up to [`COARSE_MS`] too many.
#[must_use]
pub fn since_coarse(now: Moment, earlier: Coarse) -> u64 {
    u64::from(coarse(now).wrapping_sub(earlier)) * COARSE_MS + now % COARSE_MS
}

/// How long ago a time was that stays where it is for as long as nothing happens; whoever asks regularly keeps it from growing
/// so old that it looks new. At most [`OLD_MS`].
pub fn age_of(time: &AtomicU32, now: Millis) -> u32 {
    let at = time.load(Ordering::Relaxed);
    let age = since(now, at);
    if age <= OLD_MS {
        return age;
    }
    // Whoever has written another meanwhile is right.
    let _ = time.compare_exchange(at, now.wrapping_sub(OLD_MS), Ordering::Relaxed, Ordering::Relaxed);
    OLD_MS
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

    const DAY_MS: u32 = 24 * 60 * 60 * 1_000;

    #[test]
    fn what_was_25_days_ago_does_not_look_as_if_it_lay_ahead() {
        for days in [1, 24, 25, 49] {
            assert_eq!(since((days * DAY_MS).wrapping_add(7), 7), days * DAY_MS, "{days} days");
        }
    }

    #[test]
    fn a_time_that_is_asked_for_regularly_never_looks_new_again() {
        let time = AtomicU32::new(5);
        for hours in 1..=24 * 100_u32 {
            let now = 5_u32.wrapping_add(hours.wrapping_mul(DAY_MS / 24));
            assert_eq!(age_of(&time, now), (u64::from(hours) * u64::from(DAY_MS / 24)).min(u64::from(OLD_MS)) as u32);
        }
    }

    #[test]
    fn a_coarse_time_is_told_apart_after_any_time_that_a_gateway_runs() {
        let pinged = coarse(5_000);
        for days in [0, 25, 50, 100, 1_000] {
            let later = days * u64::from(DAY_MS) + 15_000;
            assert!((later - 5_000..=later - 5_000 + COARSE_MS).contains(&since_coarse(later, pinged)), "{days} days");
        }
    }

    #[test]
    fn a_moment_is_counted_on_for_as_long_as_the_gateway_runs() {
        let clock = Clock::start();
        let opened = clock.moment();
        for days in [25, 50, 100] {
            let days_ms = days * u64::from(DAY_MS);
            let later = clock.started_earlier(Duration::from_millis(days_ms));

            let age = later.moment() - opened;

            assert!((days_ms..days_ms + 60_000).contains(&age), "{age} after {days} days");
            assert_eq!(later.now(), later.moment() as u32, "the short time is the end of the long one");
        }
    }

    #[test]
    fn a_time_is_the_same_in_unix_milliseconds_whenever_it_is_asked() {
        let clock = Clock::start();
        let before = unix_ms();
        let now = clock.moment();
        let (first, ahead) = (clock.unix_ms_of(now), clock.unix_ms_of(now + 3));
        // Until the clock has passed both.
        while clock.moment() < now + 5 {
            std::hint::spin_loop();
        }

        assert_eq!((clock.unix_ms_of(now), clock.unix_ms_of(now + 3)), (first, ahead));
        assert_eq!(ahead, first + 3);
        assert!((before.saturating_sub(1)..=unix_ms()).contains(&first), "{before} {first}");
    }
}
