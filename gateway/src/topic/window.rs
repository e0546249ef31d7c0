//! The tide: when what a target has gathered leaves. A pure state machine; time comes in as an argument.
//!
//! ```text
//!            push: flush now                tick at the end, something gathered: flush
//!   Slack ───────────────────▶ Open{ends} ──────────────────────────────────────┐
//!     ▲                          │  ▲                                           │
//!     └──────────────────────────┘  └───────────────────────────────────────────┘
//!        tick at the end, nothing gathered, and again a tick later
//! ```
//!
//! The window's length adapts: about twice what the last fan-out took, between two bounds, in whole ticks. Equal bounds
//! give a fixed interval. Windows end on the common tick, so that the rooms of one connection leave in one write: the
//! first window of a target is therefore cut short by up to a tick, the following ones begin and end on it. One that ends
//! empty stays open for one tick of grace, so that a hot target that missed a tick does not flush off it (ADR 17).
//! Invariant: no message waits longer than `max` for its window.

use crate::clock::{Millis, is_due, since};

/// Bounds of every window, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Shortest window, and the tick.
    pub min_ms: u32,
    /// Longest window.
    pub max_ms: u32,
}

/// One target's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// Nothing happened lately: the next message leaves at once.
    #[default]
    Slack,
    /// Gathering.
    Open {
        /// When it opened: nothing it holds is older.
        opened: Millis,
        /// When what has gathered leaves.
        ends: Millis,
        /// It has ended empty once.
        is_grace: bool,
    },
}

/// What a push or a tick means for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Flush what has gathered, and look again at the given time.
    Flush(Millis),
    /// Leave it; the window's end is already being watched.
    Wait,
    /// Nothing gathered: the window has closed and needs no more looking at.
    Close,
}

impl Window {
    /// A message has arrived.
    pub fn push(&mut self, now: Millis, length_ms: u32, bounds: Bounds) -> Step {
        match *self {
            Self::Slack => self.reopen(now, length_ms, bounds),
            Self::Open { .. } => Step::Wait,
        }
    }

    /// A common tick.
    pub fn tick(&mut self, now: Millis, length_ms: u32, bounds: Bounds, has_gathered: bool) -> Step {
        match *self {
            Self::Slack => Step::Close,
            Self::Open { ends, .. } if !is_due(now, ends) => Step::Wait,
            Self::Open { .. } if has_gathered => self.reopen(now, length_ms, bounds),
            Self::Open { is_grace: false, .. } => {
                // Nothing it holds is older than now: it holds nothing. It ends on the common tick, however late this one came.
                *self = Self::Open { opened: now, ends: bounds.end_of(now, bounds.tick_ms()), is_grace: true };
                Step::Wait
            }
            Self::Open { is_grace: true, .. } => {
                *self = Self::Slack;
                Step::Close
            }
        }
    }

    fn reopen(&mut self, now: Millis, length_ms: u32, bounds: Bounds) -> Step {
        let ends = bounds.end_of(now, length_ms);
        *self = Self::Open { opened: now, ends, is_grace: false };
        Step::Flush(ends)
    }

    /// Whether a window that is due at the tick `now` may gather on until the next one, because its last batch is still on
    /// its way: as long as what came right after it opened does not wait longer than `max` for that.
    #[must_use]
    pub fn may_wait(&self, now: Millis, bounds: Bounds) -> bool {
        match *self {
            Self::Slack => false,
            Self::Open { opened, .. } => since(now, opened) + bounds.tick_ms() <= bounds.max_ms,
        }
    }
}

impl Bounds {
    /// The common tick, in milliseconds.
    #[must_use]
    pub fn tick_ms(&self) -> u32 {
        self.min_ms
    }

    /// Length of the next window after a fan-out that took `fanout_us`: twice that, in whole ticks, within the bounds.
    #[must_use]
    pub fn length_ms(&self, fanout_us: u32) -> u32 {
        let tick = self.tick_ms();
        let whole = (fanout_us / 500 + tick / 2) / tick * tick;
        whole.clamp(self.min_ms, self.max_ms)
    }

    /// The tick at which a window of `length_ms` that opens `now` ends: the last one within it, but not `now` itself.
    fn end_of(&self, now: Millis, length_ms: u32) -> Millis {
        let tick = self.tick_ms();
        let next = now - now % tick + tick;
        let last = now.wrapping_add(length_ms);
        let last = last - last % tick;
        if is_due(last, next) { last } else { next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min_ms: 20, max_ms: 1_000 };

    #[test]
    fn a_lonely_message_leaves_at_once() {
        let mut window = Window::default();
        assert_eq!(window.push(1_000, 20, BOUNDS), Step::Flush(1_020));
        assert_eq!(window.tick(1_020, 20, BOUNDS, false), Step::Wait);
        assert_eq!(window.tick(1_040, 20, BOUNDS, false), Step::Close);
        assert_eq!(window, Window::Slack);
        assert_eq!(window.push(5_000, 20, BOUNDS), Step::Flush(5_020));
    }

    #[test]
    fn a_late_tick_does_not_make_the_grace_end_late() {
        const SECOND: Bounds = Bounds { min_ms: 1_000, max_ms: 1_000 };
        let mut window = Window::default();
        window.push(1_500, 1_000, SECOND);

        assert_eq!(window.tick(2_003, 1_000, SECOND, false), Step::Wait, "ended empty, three milliseconds late");
        window.push(2_004, 1_000, SECOND);

        assert_eq!(window.tick(3_000, 1_000, SECOND, true), Step::Flush(4_000), "a second and not two");
    }

    #[test]
    fn what_arrives_inside_a_window_leaves_at_its_end() {
        let mut window = Window::default();
        window.push(0, 20, BOUNDS);
        assert_eq!(window.push(3, 20, BOUNDS), Step::Wait);
        assert_eq!(window.push(19, 20, BOUNDS), Step::Wait);
        assert_eq!(window.tick(19, 20, BOUNDS, true), Step::Wait);
        assert_eq!(window.tick(20, 40, BOUNDS, true), Step::Flush(60));
    }

    #[test]
    fn what_arrives_a_tick_late_still_leaves_on_a_tick() {
        let mut window = Window::default();
        window.push(0, 400, BOUNDS);
        assert_eq!(window.tick(400, 400, BOUNDS, false), Step::Wait);
        assert_eq!(window.push(403, 400, BOUNDS), Step::Wait);
        assert_eq!(window.tick(420, 400, BOUNDS, true), Step::Flush(820), "after a tick, not after another window");
    }

    #[test]
    fn windows_opened_at_any_moment_end_on_the_common_tick() {
        for now in 1..200u32 {
            for length in [20, 40, 60, 1_000] {
                let mut window = Window::default();
                let Step::Flush(ends) = window.push(now, length, BOUNDS) else { panic!("flushes") };
                assert_eq!(ends % 20, 0);
                assert!(ends > now && ends - now <= length, "{now} {length} {ends}");
            }
        }
    }

    #[test]
    fn the_window_is_twice_the_last_fanout_within_its_bounds() {
        assert_eq!(BOUNDS.length_ms(0), 20);
        assert_eq!(BOUNDS.length_ms(40_000), 80);
        assert_eq!(BOUNDS.length_ms(36_000), 80);
        assert_eq!(BOUNDS.length_ms(5_000_000), 1_000);
        assert_eq!(Bounds { min_ms: 1_000, max_ms: 1_000 }.length_ms(7), 1_000);
    }

    /// Simulated: a publisher every 3 ms for 10 s, a fan-out of 36 ms.
    #[test]
    fn a_hot_target_settles_at_twice_its_fanout() {
        let (flushes, left) = simulate(BOUNDS, 10_000, 3, 36_000);
        let gaps: Vec<u32> = flushes.windows(2).skip(2).map(|w| w[1].0 - w[0].0).collect();
        assert!(gaps.iter().all(|&g| g == 80), "{gaps:?}");
        assert_eq!(flushes.iter().map(|f| f.1).sum::<u32>() + left, 3_334);
    }

    #[test]
    fn a_fixed_interval_is_exact() {
        let (flushes, _) = simulate(Bounds { min_ms: 1_000, max_ms: 1_000 }, 10_500, 3, 900_000);
        let gaps: Vec<u32> = flushes.windows(2).map(|w| w[1].0 - w[0].0).collect();
        assert_eq!(gaps, vec![1_000; 10]);
    }

    /// Flushes as (time, messages), and what is left at the end.
    fn simulate(bounds: Bounds, until: u32, period: u32, fanout: u32) -> (Vec<(u32, u32)>, u32) {
        let mut window = Window::default();
        let (mut gathered, mut flushes, mut fanout_us) = (0, Vec::new(), 0);
        for now in 0..until {
            if now % bounds.tick_ms() == 0
                && let Step::Flush(_) = window.tick(now, bounds.length_ms(fanout_us), bounds, gathered > 0)
            {
                flushes.push((now, gathered));
                gathered = 0;
            }
            if now % period == 0 {
                gathered += 1;
                if let Step::Flush(_) = window.push(now, bounds.length_ms(fanout_us), bounds) {
                    flushes.push((now, gathered));
                    (gathered, fanout_us) = (0, fanout);
                }
            }
        }
        (flushes, gathered)
    }
}
