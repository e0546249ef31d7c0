//! Permits of API requests at a gateway: a request whose pushes wait for a gateway's answer holds one there, however many
//! pushes it has. Bound: half of all requests, so that one slow gateway cannot have `limits.in_flight` to itself and
//! make the healthy ones answer 503. Invariant: a permit is free again once all its pushes are answered (`queue::Reply`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::roster::GatewaySlot;

/// One request's permit at one gateway, shared by its pushes; none for what needs none.
pub(super) type Permit = Option<Arc<OwnedSemaphorePermit>>;

/// The permits of one request. Does not hold them: its unanswered pushes do.
#[derive(Default)]
pub struct Permits {
    taken: Mutex<Vec<(GatewaySlot, Weak<OwnedSemaphorePermit>)>>,
    is_exempt: bool,
}

/// How many requests may wait for one gateway. A gateway that is the only one has nobody to leave room for.
#[derive(Debug)]
pub(super) struct Bound {
    free: Arc<Semaphore>,
    requests: usize,
    allowed: AtomicUsize,
}

impl Bound {
    /// For a node with at most so many requests in progress.
    pub fn new(requests: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(requests)), requests, allowed: AtomicUsize::new(requests) }
    }

    /// There are so many gateways now. Permits that were taken stay.
    pub fn share(&self, gateways: usize) {
        let allowed = if gateways < 2 { self.requests } else { (self.requests / 2).max(1) };
        self.allowed.store(allowed, Ordering::Relaxed);
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let taken = self.requests - self.free.available_permits();
        (taken <= self.allowed.load(Ordering::Relaxed)).then_some(permit)
    }
}

impl Permits {
    /// For what is not one of the requests in progress and has a bound of its own: commands (`logic.agents.commands`) and
    /// presence (one sending a tick).
    #[must_use]
    pub fn exempt() -> Self {
        Self { is_exempt: true, ..Self::default() }
    }

    /// The request's permit at a gateway, if it has one or one is free.
    pub(super) fn take(&self, gateway: GatewaySlot, bound: &Bound) -> Option<Permit> {
        if self.is_exempt {
            return Some(None);
        }
        let mut permits = self.taken.lock();
        let known = permits.iter_mut().find(|(slot, _)| *slot == gateway);
        if let Some(permit) = known.as_ref().and_then(|(_, permit)| permit.upgrade()) {
            return Some(Some(permit));
        }
        let permit = Arc::new(bound.take()?);
        match known {
            Some((_, old)) => *old = Arc::downgrade(&permit),
            // At most one a gateway.
            None => permits.push((gateway, Arc::downgrade(&permit))),
        }
        Some(Some(permit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_halves_what_may_wait_for_the_first_and_its_end_gives_it_back() {
        let bound = Bound::new(4);
        bound.share(1);
        let mut taken: Vec<_> = std::iter::from_fn(|| bound.take()).collect();
        assert_eq!(taken.len(), 4);

        bound.share(2);
        taken.truncate(2);
        assert!(bound.take().is_none(), "two wait already");
        taken.truncate(1);
        taken.extend(bound.take());
        assert_eq!(taken.len(), 2);

        bound.share(1);
        taken.extend(std::iter::from_fn(|| bound.take()));
        assert_eq!(taken.len(), 4);
    }
}
