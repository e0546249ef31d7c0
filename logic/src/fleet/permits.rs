//! Seats of API requests at a gateway: a request whose pushes wait for a gateway's answer holds one there, however many
//! pushes it has. Bound: half of all requests, so that one slow gateway cannot have `limits.in_flight` to itself and
//! make the healthy ones answer 503. Invariant: a seat is free again once all its pushes are answered (`queue::Reply`).

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::interest::GatewayIndex;

/// One request's seat at one gateway, shared by its pushes; none for what needs none.
pub(super) type Seat = Option<Arc<OwnedSemaphorePermit>>;

/// The seats of one request. Does not hold them: its unanswered pushes do.
#[derive(Default)]
pub struct Seats {
    taken: Mutex<Vec<(GatewayIndex, Weak<OwnedSemaphorePermit>)>>,
    is_exempt: bool,
}

/// Seats of each gateway. A gateway that is the only one has nobody to leave room for.
pub(super) fn count(requests: usize, gateways: usize) -> usize {
    if gateways < 2 { requests } else { (requests / 2).max(1) }
}

impl Seats {
    /// For what is not one of the requests in progress and has a bound of its own: commands (`logic.agents.commands`) and
    /// presence (one sending a tick).
    #[must_use]
    pub fn exempt() -> Self {
        Self { is_exempt: true, ..Self::default() }
    }

    /// The request's seat at a gateway, if it has one or one is free.
    pub(super) fn take(&self, gateway: GatewayIndex, free: &Arc<Semaphore>) -> Option<Seat> {
        if self.is_exempt {
            return Some(None);
        }
        let mut seats = self.taken.lock();
        let known = seats.iter_mut().find(|(index, _)| *index == gateway);
        if let Some(seat) = known.as_ref().and_then(|(_, seat)| seat.upgrade()) {
            return Some(Some(seat));
        }
        let seat = Arc::new(Arc::clone(free).try_acquire_owned().ok()?);
        match known {
            Some((_, old)) => *old = Arc::downgrade(&seat),
            // At most one a gateway.
            None => seats.push((gateway, Arc::downgrade(&seat))),
        }
        Some(Some(seat))
    }
}
