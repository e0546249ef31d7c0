//! A user's connections at several gateways, of which one may stay: a newcomer's claim is taken to the other gateways that
//! have the user, which close who loses against it; if someone there wins, the newcomer is told to go.
//! Who wins is the gateways' to say, by a rank that all of them see alike (docs/adr/0027); nothing is decided here.
//! Invariant: of two claims of one user that come here, the later one finds the earlier one's gateway, also before interest
//! has told of it. So of two newcomers at the same moment at least one is compared with the other.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_protocol::records::{Claim, CommandRequest, DeviceRule, Newcomer, Sender};
use tidegate_protocol::remembered::Remembered;
use tokio::time::Instant;

use crate::fleet::interest::{GatewayIndex, GatewaySet};
use crate::fleet::tracker::Ticket;
use crate::fleet::{Fleet, Link};

/// How long it is remembered where a user has come: far longer than interest takes to tell of it.
const REMEMBERED_MS: u64 = 10_000;
/// Most users remembered; the oldest makes room. Six thousand a second for ten seconds, some 12 MiB.
const REMEMBERED_MAX: usize = 65_536;

/// Where users have come lately.
pub struct Devices {
    recent: Mutex<Remembered<Arc<str>, GatewaySet, ahash::RandomState>>,
    born: Instant,
    fleet: Arc<Fleet>,
}

impl Devices {
    /// Nobody has come yet.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { recent: Mutex::new(Remembered::new(REMEMBERED_MAX, REMEMBERED_MS)), born: Instant::now(), fleet }
    }

    /// A user has come at a gateway; gives where else it has come lately.
    fn note(&self, user: &str, gateway: GatewayIndex, now: Instant) -> GatewaySet {
        let now_ms = u64::try_from(now.duration_since(self.born).as_millis()).unwrap_or(u64::MAX);
        let mut recent = self.recent.lock();
        let before = recent.find(user, now_ms).copied().unwrap_or_default();
        let mut gateways = before;
        gateways.insert(gateway);
        recent.keep(user.into(), gateways, now_ms);
        before
    }

    /// Takes a newcomer's claim to the other gateways, beside everything else.
    pub fn carry(&self, link: &Link, from: Sender, claim: Claim, ticket: Ticket) {
        let lately = self.note(&from.user, link.slot.index, Instant::now());
        let mut others = self.fleet.interest().view().user(&from.user).union(lately);
        others.remove(link.slot.index);
        let rule = DeviceRule::try_from(claim.rule);
        let (false, Ok(rule)) = (others.is_empty(), rule) else { return ticket.done() };
        let Sender { connection, user, platform, device, .. } = from;
        let newcomer = Some(Newcomer { connection, user, platform, device, claim: Some(claim) });
        let fleet = Arc::clone(&self.fleet);
        tokio::spawn(async move {
            let told = fleet.tell(others, &CommandRequest { newcomer, ..CommandRequest::default() }).await;
            if told.reply.stronger > 0 {
                ticket.refuse(rule.word(), "the user is connected at another gateway", false);
            } else {
                ticket.done();
            }
        });
    }

    /// Users remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.recent.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gateway(n: usize) -> GatewayIndex {
        GatewayIndex::new(n).expect("few")
    }

    fn places(set: GatewaySet) -> Vec<usize> {
        set.iter().map(GatewayIndex::get).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_arrival_finds_the_first_for_a_while() {
        let devices = Devices::new(Fleet::of_none());
        let (now, remembered) = (Instant::now(), Duration::from_millis(REMEMBERED_MS));

        assert!(devices.note("ann", gateway(0), now).is_empty());
        assert_eq!(places(devices.note("ann", gateway(1), now)), [0]);
        assert!(devices.note("bob", gateway(1), now).is_empty());
        let later = now + remembered / 2;
        assert_eq!(places(devices.note("ann", gateway(2), later)), [0, 1]);
        let over = now + remembered;
        assert_eq!(places(devices.note("ann", gateway(3), over)), [0, 1, 2], "the last arrival counts");
        assert_eq!(devices.remembered(), 1, "bob is forgotten");
        assert!(devices.note("bob", gateway(2), over + remembered).is_empty());
        assert_eq!(devices.remembered(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_are_bounded_and_the_oldest_makes_room() {
        let devices = Devices::new(Fleet::of_none());
        let now = Instant::now();
        devices.note("ann", gateway(0), now);
        for n in 0..REMEMBERED_MAX {
            devices.note(&n.to_string(), gateway(0), now);
        }

        assert_eq!(devices.remembered(), REMEMBERED_MAX);
        assert!(devices.note("ann", gateway(1), now).is_empty(), "forgotten");
        assert_eq!(places(devices.note("9", gateway(1), now)), [0]);
    }
}
