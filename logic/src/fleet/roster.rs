//! Which gateways are linked: a place for each, which another gateway may have later. Plain values; what opens and closes links
//! is the [`Fleet`](super::Fleet). Invariant: a place rests between two owners for longer than anything outside the interest table
//! remembers an index; what remembers for longer keeps a [`GatewaySlot`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::interest::{GatewayIndex, GatewaySet};
use super::share::Identity;
use super::{Link, LinkState};
use crate::config::GATEWAYS_MAX;

/// How long a place stays free: sets of gateways in requests (35 s) and of device claims (10 s) are forgotten by then.
const REST: Duration = Duration::from_secs(60);

/// A gateway's place, and which of its owners is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatewaySlot {
    /// The place.
    pub index: GatewayIndex,
    /// How often it was taken before.
    pub generation: u32,
}

/// The links at one moment, by place.
#[derive(Clone, Default)]
pub struct Roster(Vec<Option<Arc<Link>>>);

impl Roster {
    /// The links, in order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.0.iter().flatten()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The link in a place.
    #[must_use]
    pub fn at(&self, place: GatewayIndex) -> Option<&Arc<Link>> {
        self.0.get(place.get())?.as_ref()
    }

    /// Whether the owner of a place is still the one meant.
    #[must_use]
    pub fn has(&self, slot: GatewaySlot) -> bool {
        self.at(slot.index).is_some_and(|link| link.slot == slot)
    }

    /// The first link in this place or a later one.
    #[must_use]
    pub fn from(&self, place: usize) -> Option<&Arc<Link>> {
        self.0.get(place..)?.iter().flatten().next()
    }

    /// The places.
    #[must_use]
    pub fn set(&self) -> GatewaySet {
        let mut set = GatewaySet::default();
        self.iter().for_each(|link| set.insert(link.slot.index));
        set
    }

    /// Which connection ids each gateway gives out. A gateway that is down may give out others of its own by now.
    #[must_use]
    pub fn identities(&self) -> Vec<(GatewayIndex, Identity)> {
        self.iter().map(|link| (link.slot.index, link.identity())).collect()
    }

    /// Whether none is up.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.iter().all(|link| link.state() != LinkState::Up)
    }

    pub(super) fn put(&mut self, link: Arc<Link>) {
        let place = link.slot.index.get();
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        self.0[place] = Some(link);
    }

    pub(super) fn take(&mut self, slot: GatewaySlot) {
        if let Some(place) = self.0.get_mut(slot.index.get()) {
            *place = None;
        }
    }
}

/// A place that nobody has.
#[derive(Clone, Copy)]
struct Free {
    generation: u32,
    since: Option<Instant>,
}

/// The places; each is free or somebody's.
pub(super) struct Slots(Vec<Option<Free>>);

impl Default for Slots {
    fn default() -> Self {
        Self(vec![Some(Free { generation: 0, since: None }); GATEWAYS_MAX])
    }
}

impl Slots {
    /// The first place that has rested.
    pub fn take(&mut self, now: Instant) -> Option<GatewaySlot> {
        let place = self.0.iter().position(|free| free.is_some_and(|free| free.is_rested(now)))?;
        let free = self.0[place].take()?;
        Some(GatewaySlot { index: GatewayIndex::new(place)?, generation: free.generation })
    }

    /// Its owner has gone.
    pub fn give_back(&mut self, slot: GatewaySlot, now: Instant) {
        self.0[slot.index.get()] = Some(Free { generation: slot.generation.wrapping_add(1), since: Some(now) });
    }

    /// Places that somebody could have, and those that rest.
    pub fn count(&self, now: Instant) -> (usize, usize) {
        let free = self.0.iter().flatten();
        let rested = free.clone().filter(|free| free.is_rested(now)).count();
        (rested, free.count() - rested)
    }
}

impl Free {
    fn is_rested(self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.duration_since(since) >= REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_rests_before_its_next_owner_who_is_told_apart() {
        let (mut slots, now) = (Slots::default(), Instant::now());
        let first = slots.take(now).expect("all are free");
        let second = slots.take(now).expect("all but one are free");
        slots.give_back(first, now);

        let meanwhile = slots.take(now + REST / 2).expect("many are free");
        assert_eq!((second.index.get(), meanwhile.index.get()), (1, 2));
        let again = slots.take(now + REST).expect("the first has rested");
        assert_eq!((again.index, again.generation), (first.index, 1));
        assert_ne!(again, first);
    }

    #[test]
    fn coming_and_going_for_long_runs_out_of_no_place() {
        let (mut slots, mut now) = (Slots::default(), Instant::now());
        for _ in 0..10_000 {
            let slot = slots.take(now).expect("one place in use, the others rested");
            slots.give_back(slot, now);
            now += REST / 100;
        }
        assert_eq!(slots.count(now + REST), (GATEWAYS_MAX, 0));
    }

    #[test]
    fn as_many_as_there_may_be_and_no_more() {
        let (mut slots, now) = (Slots::default(), Instant::now());
        let all: Vec<_> = std::iter::from_fn(|| slots.take(now)).collect();
        assert_eq!((all.len(), slots.count(now)), (GATEWAYS_MAX, (0, 0)));
    }
}
