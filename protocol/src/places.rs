//! Places at a listener, and whose is given to a newcomer when all are taken: that of a holder who is not served at the
//! moment, first of those who have never asked for anything, the oldest of them. So sockets that are opened and held
//! keep nobody out, whatever addresses they come from.
//! Knows nothing of sockets: a holder is whatever ends its connection by being dropped.
//! Invariant: at most `max` places are held; one that is being served is never taken away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of one listener.
#[derive(Debug)]
pub struct Places<H> {
    inner: Mutex<Inner<H>>,
    max: usize,
}

#[derive(Debug)]
struct Inner<H> {
    held: HashMap<u64, Held<H>>,
    /// Counts everything that happens, and so gives numbers and ages.
    turn: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Held<H> {
    holder: H,
    /// When it was last served, or came.
    since: u64,
    has_asked: bool,
    /// Requests of it that are being served.
    served: u32,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Place<H> {
    places: Arc<Places<H>>,
    number: u64,
}

/// A request that is being served; its place is safe until this is dropped.
#[derive(Debug)]
pub struct Served<H>(Arc<Place<H>>);

impl<H> Places<H> {
    /// So many places, all free.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        let inner = Inner { held: HashMap::new(), turn: 0, evicted: 0 };
        Arc::new(Self { inner: Mutex::new(inner), max })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<H>> {
        // Whoever panics with it ends the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, if need be another's; none when all holders are being served.
    #[must_use]
    pub fn take(self: &Arc<Self>, holder: H) -> Option<Arc<Place<H>>> {
        let (place, evicted) = {
            let mut inner = self.lock();
            let evicted = if inner.held.len() >= self.max { Some(inner.evict()?) } else { None };
            inner.turn += 1;
            let number = inner.turn;
            inner.held.insert(number, Held { holder, since: number, has_asked: false, served: 0 });
            (Place { places: Arc::clone(self), number }, evicted)
        };
        // What ends a connection may run anything, so not under the lock.
        drop(evicted);
        Some(Arc::new(place))
    }

    /// Takes a place away; false when all holders are being served.
    pub fn make_room(&self) -> bool {
        let evicted = self.lock().evict();
        evicted.is_some()
    }

    /// Places held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// Holders whose places were given to others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.lock().evicted
    }
}

impl<H> Inner<H> {
    fn evict(&mut self) -> Option<H> {
        let idle = self.held.iter().filter(|(_, held)| held.served == 0);
        let (&number, _) = idle.min_by_key(|(_, held)| (held.has_asked, held.since))?;
        self.evicted += 1;
        self.held.remove(&number).map(|held| held.holder)
    }
}

impl<H> Place<H> {
    /// The holder is being served from now on.
    #[must_use]
    pub fn serve(self: &Arc<Self>) -> Served<H> {
        if let Some(held) = self.places.lock().held.get_mut(&self.number) {
            held.served += 1;
            held.has_asked = true;
        }
        Served(Arc::clone(self))
    }
}

impl<H> Drop for Served<H> {
    fn drop(&mut self) {
        let mut inner = self.0.places.lock();
        inner.turn += 1;
        let turn = inner.turn;
        if let Some(held) = inner.held.get_mut(&self.0.number) {
            held.served -= 1;
            held.since = turn;
        }
    }
}

impl<H> Drop for Place<H> {
    fn drop(&mut self) {
        let gone = self.places.lock().held.remove(&self.number);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_gone(holder: &Arc<()>) -> bool {
        Arc::strong_count(holder) == 1
    }

    #[test]
    fn the_oldest_who_never_asked_makes_room() {
        let places = Places::new(3);
        let holders: Vec<Arc<()>> = (0..5).map(|_| Arc::default()).collect();
        let held: Vec<_> = holders[..3].iter().map(|h| places.take(Arc::clone(h)).expect("a free place")).collect();
        drop(held[0].serve());

        let fourth = places.take(Arc::clone(&holders[3]));
        assert!(!is_gone(&holders[0]) && is_gone(&holders[1]) && !is_gone(&holders[2]), "the first has asked");
        let fifth = places.take(Arc::clone(&holders[4]));

        assert!(!is_gone(&holders[0]) && is_gone(&holders[2]));
        assert!(fourth.is_some() && fifth.is_some());
        assert_eq!((places.held(), places.evicted()), (3, 2));
    }

    #[test]
    fn whoever_is_being_served_keeps_its_place() {
        let places = Places::new(1);
        let place = places.take(()).expect("a free place");
        let (first, second) = (place.serve(), place.serve());

        assert!(places.take(()).is_none() && !places.make_room());
        drop(first);
        assert!(places.take(()).is_none());
        drop(second);
        assert!(places.take(()).is_some());
    }

    #[test]
    fn a_place_is_given_back_once() {
        let places = Places::new(1);
        let first = places.take(()).expect("a free place");
        let second = places.take(()).expect("the first's place");
        drop(first);

        assert_eq!(places.held(), 1);
        drop(second);
        assert_eq!(places.held(), 0);
    }
}
