//! How many strangers a second the gateway takes from the kernel: a token bucket whose rate gives way to scheduling lag.
//! A pure state machine: it is told the time, the lag and the length of the accept queue, and has no socket or clock
//! (docs/adr/0016). The acceptor asks [`Admission::take`] before it accepts, and [`Admission::excess`] when it got nothing.
//! Invariants: `rate_min <= rate <= rate_max`; `0 <= tokens <= rate` × [`BURST_MS`], or one token where that is less;
//! without a known queue nobody is made to wait.

use crate::clock::{Millis, since};

/// Strangers a second that one core is taken to serve when the operator names no rate. Above what a core reaches with the
/// cheapest clients beside it (20,000 here, at 15 µs a handshake), so that only lag, and not this, holds anybody back.
pub const RATE_A_CORE: u32 = 30_000;
/// Time between two looks at the lag while strangers come.
pub const LOOK_MS: u32 = 50;
/// What a look over the lag bound leaves of the rate. At 20 looks a second the rate halves in 100 ms.
const FALL: f64 = 0.7;
/// Looks from nothing to the full rate: two seconds.
const RISE_LOOKS: f64 = 40.0;
/// The rate never falls below this part of its maximum: a gateway that lags for other reasons still lets strangers in.
const FLOOR: f64 = 0.005;
/// What may be taken at once after a pause, as time at the present rate.
const BURST_MS: f64 = 100.0;
/// Longest that a stranger should wait in the kernel's queue at the present rate; below every client's patience.
const WAIT_S: f64 = 2.0;
/// The part of the kernel's queue that may fill before strangers are refused. The rest takes what comes until the next look.
const QUEUE_PART: f64 = 0.5;
/// Refused strangers are told to come back after 1 to this many whole seconds.
pub const RETRY_AFTER_MAX_S: u32 = 8;

/// The listener's accept queue as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Connections that wait to be accepted.
    pub length: u32,
    /// Where the kernel starts to drop them.
    pub length_max: u32,
}

/// Who is let in, and how fast.
#[derive(Debug)]
pub struct Admission {
    rate_max: f64,
    rate_min: f64,
    /// Strangers a second now.
    rate: f64,
    tokens: f64,
    refilled: Millis,
    lag_max_ms: u32,
    /// The latest lag, or a worse one not long ago; for the metric alone.
    lag_ms: f64,
    looked: Millis,
    /// Strangers taken since the last look.
    taken: u32,
    /// And a second, over about the last second.
    taken_per_s: f64,
    /// The refused who are yet to come back, as if they came at the present rate.
    owed: f64,
}

impl Admission {
    /// Starts at the full rate.
    #[must_use]
    pub fn new(rate_max: u32, lag_max_ms: u32, now: Millis) -> Self {
        let rate_max = f64::from(rate_max.max(1));
        let rate_min = (rate_max * FLOOR).max(1.0);
        let mut admission = Self {
            rate_max,
            rate_min,
            rate: rate_max,
            tokens: 0.0,
            refilled: now,
            lag_max_ms,
            lag_ms: 0.0,
            looked: now,
            taken: 0,
            taken_per_s: 0.0,
            owed: 0.0,
        };
        admission.tokens = admission.burst();
        admission
    }

    /// Leave to accept up to `wanted` strangers; what is not used goes back by [`Admission::give_back`].
    pub fn take(&mut self, wanted: u32, now: Millis) -> u32 {
        let passed = since(now, self.refilled);
        if passed > 0 {
            self.refilled = now;
            self.tokens = (self.tokens + self.rate * f64::from(passed) / 1000.0).min(self.burst());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the burst")]
        let granted = (self.tokens as u32).min(wanted);
        self.tokens -= f64::from(granted);
        self.taken += granted;
        granted
    }

    /// Returns what was not used of the last grant.
    pub fn give_back(&mut self, unused: u32) {
        self.tokens = (self.tokens + f64::from(unused)).min(self.burst());
        self.taken = self.taken.saturating_sub(unused);
    }

    /// How many of those in the queue must be refused now; the others may wait there. Called when `take` gave nothing.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a queue's length")]
    pub fn excess(&self, queue: Option<Queue>) -> u32 {
        let Some(queue) = queue else { return u32::MAX };
        let may_wait = (f64::from(queue.length_max) * QUEUE_PART).min(self.rate * WAIT_S).max(1.0);
        queue.length.saturating_sub(may_wait as u32)
    }

    /// Counts a refusal and says after how many seconds (1 to [`RETRY_AFTER_MAX_S`]) to come back: in the first second for
    /// which no more have been told to come than the present rate can take, or in turns when all of them are full.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds at a rate")]
    pub fn refuse(&mut self) -> u32 {
        let second = (self.owed / self.rate) as u32;
        self.owed += 1.0;
        1 + second % RETRY_AFTER_MAX_S
    }

    /// Follows the lag: call every [`LOOK_MS`], or later while it is quiet, with how late the caller's timer was.
    pub fn look(&mut self, lag_ms: u32, now: Millis) {
        let passed = f64::from(since(now, self.looked).max(1));
        self.looked = now;
        // Also when no stranger comes for weeks: half the clock's round later, the time since the last refill reads as none.
        self.take(0, now);
        let weight = (passed / 1000.0).min(1.0);
        let taken_now = f64::from(std::mem::take(&mut self.taken)) * 1000.0 / passed;
        self.taken_per_s += (taken_now - self.taken_per_s) * weight;
        self.owed = (self.owed - self.rate * passed / 1000.0).max(0.0);
        self.lag_ms = f64::from(lag_ms).max(self.lag_ms * 0.9);
        self.rate = if lag_ms > self.lag_max_ms {
            // A rate far above what is taken brakes nothing, so the fall begins not far above that.
            self.rate.min(2.0 * taken_now.max(self.taken_per_s)) * FALL
        } else {
            self.rate + self.rate_max / RISE_LOOKS * passed / f64::from(LOOK_MS)
        };
        self.rate = self.rate.clamp(self.rate_min, self.rate_max);
        self.tokens = self.tokens.min(self.burst());
    }

    /// Whether nobody comes, nobody is owed a place and nothing is held back: the next look may be a later one.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.taken == 0 && self.taken_per_s < 1.0 && self.owed <= 0.0 && self.rate >= self.rate_max
    }

    /// Strangers a second that could still come, while there is `room` for so many connections.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a rate")]
    pub fn spare(&self, room: usize) -> u32 {
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        ((self.rate - self.taken_per_s).max(0.0) as u32).min(room)
    }

    /// Strangers a second now, at most.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The worst lag of the last second or so.
    #[must_use]
    pub fn lag_ms(&self) -> f64 {
        self.lag_ms
    }

    fn burst(&self) -> f64 {
        (self.rate * BURST_MS / 1000.0).max(1.0)
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
