//! What few connections of a bucket have at a time, by slot: an unfinished message, an end that has begun, a pause, what was asked
//! lately. One table beside the other, so that whoever leaves is forgotten whole, and nothing of it is found by the slot's next owner.
//! Invariants: an entry with nothing in it is gone after the next [`RareStates::tidy`]; who is closing has a deadline.

use hashbrown::HashMap;
use tidegate_protocol::ws::Decoder;

use super::rate::{Level, give_back};
use crate::clock::{Millis, is_due};
use crate::config::settings::RatesInForce;

/// The moments that a connection can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// When a connection that was told to go is cut off.
    Closing,
    /// When the first byte came of what is unfinished. How long that may take can be reloaded, so it is no deadline.
    Message,
}

/// The moments that a connection has, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    at: [Millis; 2],
    set: [bool; 2],
}

impl Timers {
    /// The moment, if there is one.
    pub fn get(&self, timer: Timer) -> Option<Millis> {
        self.set[timer as usize].then_some(self.at[timer as usize])
    }

    /// From now on this moment.
    pub fn set(&mut self, timer: Timer, at: Millis) {
        self.at[timer as usize] = at;
        self.set[timer as usize] = true;
    }

    /// No moment any more; the one there was.
    pub fn stop(&mut self, timer: Timer) -> Option<Millis> {
        let at = self.get(timer);
        self.set[timer as usize] = false;
        at
    }
}

/// What one connection has.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// A frame or message cut off in the middle.
    pub partial: Option<Decoder>,
    /// With which code it ends, once that is known.
    pub close_code: Option<u16>,
    /// It is not listened to until its answers have left; whether the end of its stream has been seen.
    pub paused: Option<bool>,
    /// Control frames in this second.
    pub control_frames: u32,
    /// Malformed messages in a row (rule E-1).
    pub bad_json: u8,
    /// What it may still ask for; none: all of it.
    pub requests: Option<Level>,
    /// How many commands it may still answer; none: all of them.
    pub replies: Option<Level>,
    /// Its moments.
    pub timers: Timers,
}

// Every client that has asked for something within a second or so has one.
const _: () = assert!(size_of::<Rare>() <= 96);

impl Rare {
    fn is_closing(&self) -> bool {
        self.timers.get(Timer::Closing).is_some()
    }

    /// Whether there is nothing in it.
    fn is_idle(&self) -> bool {
        let Self { partial, close_code, paused, control_frames, bad_json, requests, replies, timers } = self;
        partial.is_none()
            && close_code.is_none()
            && paused.is_none()
            && (*control_frames, *bad_json) == (0, 0)
            && requests.is_none()
            && replies.is_none()
            && timers.set == [false; 2]
    }
}

/// What the connections of a bucket have.
#[derive(Debug, Default)]
pub(super) struct RareStates {
    by_slot: HashMap<u32, Rare, ahash::RandomState>,
}

impl RareStates {
    /// What a connection has.
    pub fn get(&self, slot: u32) -> Option<&Rare> {
        self.by_slot.get(&slot)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Rare> {
        self.by_slot.get_mut(&slot)
    }

    /// The same, made where there is nothing.
    pub fn of(&mut self, slot: u32) -> &mut Rare {
        self.by_slot.entry(slot).or_default()
    }

    /// Whether a connection was told to go.
    pub fn is_closing(&self, slot: u32) -> bool {
        self.get(slot).is_some_and(Rare::is_closing)
    }

    /// A connection is gone: what it had.
    pub fn remove(&mut self, slot: u32) -> Option<Rare> {
        self.by_slot.remove(&slot)
    }

    /// All that have something.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Rare)> {
        self.by_slot.iter().map(|(slot, rare)| (*slot, rare))
    }

    /// Those whose deadline has come.
    pub fn over(&self, now: Millis) -> Vec<u32> {
        let is_over = |rare: &Rare| rare.timers.get(Timer::Closing).is_some_and(|at| is_due(now, at));
        self.iter().filter(|(_, rare)| is_over(rare)).map(|(slot, _)| slot).collect()
    }

    /// A second is over: forgets what was counted in it, what has filled up again, and who has nothing left.
    pub fn tidy(&mut self, now: Millis, rates: &RatesInForce) {
        self.by_slot.retain(|_, rare| {
            rare.control_frames = 0;
            rare.requests = rare.requests.filter(|level| !level.is_full(rates.requests, now));
            rare.replies = rare.replies.filter(|level| !level.is_full(rates.replies, now));
            !rare.is_idle()
        });
        give_back(&mut self.by_slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Rate;

    const RATES: RatesInForce = RatesInForce {
        requests: Rate { per_s: 10, burst: 3 },
        replies: Rate { per_s: 10, burst: 3 },
        user_sends: Rate { per_s: 10, burst: 3 },
    };

    #[test]
    fn nothing_is_kept_of_who_has_nothing() {
        let mut rare = RareStates::default();
        rare.of(1).control_frames = 7;
        rare.of(2).bad_json = 1;
        let _ = Level::take(&mut rare.of(3).requests, RATES.requests, 0);
        rare.of(4).timers.set(Timer::Message, 5);
        rare.of(5).paused = Some(false);

        rare.tidy(99, &RATES);
        let mut left: Vec<u32> = rare.iter().map(|(slot, _)| slot).collect();
        left.sort_unstable();
        assert_eq!(left, [2, 3, 4, 5]);

        rare.tidy(100, &RATES);
        assert!(rare.get(3).is_none(), "its bucket is full again");
        rare.of(4).timers.stop(Timer::Message);
        rare.tidy(100, &RATES);
        assert!(rare.get(4).is_none());
    }

    #[test]
    fn a_crowd_that_asked_at_once_leaves_no_room_behind() {
        let mut rare = RareStates::default();
        (0..50_000).for_each(|slot| rare.of(slot).control_frames = 1);
        rare.of(7).bad_json = 1;

        rare.tidy(1_000, &RATES);

        assert_eq!(rare.iter().count(), 1);
        assert!(rare.by_slot.capacity() <= 256, "{} places for one", rare.by_slot.capacity());
    }

    #[test]
    fn who_was_told_to_go_is_over_at_its_deadline() {
        let mut rare = RareStates::default();
        rare.of(1).timers.set(Timer::Closing, 100);
        rare.of(2).timers.set(Timer::Message, 50);

        assert!(rare.is_closing(1) && !rare.is_closing(2));
        assert_eq!((rare.over(99), rare.over(100)), (vec![], vec![1]));
        assert!(rare.remove(1).is_some() && !rare.is_closing(1), "its slot's next owner is told nothing of it");
    }
}
