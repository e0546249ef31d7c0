//! Permits of API requests at a gateway: a request whose pushes wait for a gateway's answer holds one there, however many
//! pushes it has. Bound: half of all requests, so that one slow gateway cannot have `limits.in_flight` to itself and
//! make the healthy ones answer 503. Invariant: a permit is free again once all its pushes are answered (`queue::Reply`).

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::interest::GatewayIndex;

/// One request's permit at one gateway, shared by its pushes; none for what needs none.
pub(super) type Permit = Option<Arc<OwnedSemaphorePermit>>;

/// The permits of one request. Does not hold them: its unanswered pushes do.
#[derive(Default)]
pub struct Permits {
    taken: Mutex<Vec<(GatewayIndex, Weak<OwnedSemaphorePermit>)>>,
    is_exempt: bool,
}

/// Permits of each gateway. A gateway that is the only one has nobody to leave room for.
pub(super) fn count(requests: usize, gateways: usize) -> usize {
    if gateways < 2 { requests } else { (requests / 2).max(1) }
}

impl Permits {
    /// For what is not one of the requests in progress and has a bound of its own: commands (`logic.agents.commands`) and
    /// presence (one sending a tick).
    #[must_use]
    pub fn exempt() -> Self {
        Self { is_exempt: true, ..Self::default() }
    }

    /// The request's permit at a gateway, if it has one or one is free.
    pub(super) fn take(&self, gateway: GatewayIndex, free: &Arc<Semaphore>) -> Option<Permit> {
        if self.is_exempt {
            return Some(None);
        }
        let mut permits = self.taken.lock();
        let known = permits.iter_mut().find(|(index, _)| *index == gateway);
        if let Some(permit) = known.as_ref().and_then(|(_, permit)| permit.upgrade()) {
            return Some(Some(permit));
        }
        let permit = Arc::new(Arc::clone(free).try_acquire_owned().ok()?);
        match known {
            Some((_, old)) => *old = Arc::downgrade(&permit),
            // At most one a gateway.
            None => permits.push((gateway, Arc::downgrade(&permit))),
        }
        Some(Some(permit))
    }
}
