//! How many are on their way in, and how fast more may come: what all acceptors share and the fleet is told of.

use std::sync::Arc;

use parking_lot::Mutex;

use super::admission::Admission;
use super::backlog::Backlog;
use crate::budget::Budget;
use crate::counters::Population;
use crate::lifecycle::Lifecycle;
use crate::uplink::mailbox::Mailbox;

/// The bounds that all acceptors keep together.
#[derive(Debug)]
pub(crate) struct Capacity {
    /// How fast strangers are let in.
    pub admission: Mutex<Admission>,
    /// Those the kernel holds for us meanwhile.
    pub backlog: Backlog,
    /// Pending handshakes, by acceptor.
    pub handshakes: Budget,
    /// Those who are let in but have not said who they are, by acceptor.
    pub unauthenticated: Budget,
    /// Those who are in.
    pub population: Arc<Population>,
    /// Where answers of the connect hook wait, one an acceptor.
    pub mailboxes: Arc<[Mailbox]>,
}

impl Capacity {
    /// Sockets of clients, whatever they have come to.
    pub fn sockets(&self) -> usize {
        self.population.connections() + self.handshakes.total() + self.unauthenticated.total()
    }

    /// Strangers a second at most, what of it is spare, and the lag in milliseconds that it follows.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates and lags are small and positive"
    )]
    pub fn admitting(&self, lifecycle: &Lifecycle) -> (u32, u32, u32) {
        let room = self.population.connections_max.saturating_sub(self.sockets());
        let room = if lifecycle.is_draining() { 0 } else { room };
        let admission = self.admission.lock();
        (admission.rate() as u32, admission.spare(room), admission.lag_ms() as u32)
    }
}
