//! A user's connections at several gateways, of which one may stay: a newcomer's claim is taken to the other gateways that
//! have the user, which close who loses against it; if someone there wins, the newcomer is told to go.
//! Who wins is the gateways' to say, by a rank that all of them see alike (docs/adr/0027); nothing is decided here.
//! Invariant: of two claims of one user that come here, the later one finds the earlier one's gateway, also before interest
//! has told of it. So of two newcomers at the same moment at least one is compared with the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tidegate_protocol::records::{Claim, CommandRequest, DeviceRule, Newcomer, Sender};
use tokio::time::Instant;

use crate::fleet::interest::{GatewayIndex, GatewaySet};
use crate::fleet::tracker::Ticket;
use crate::fleet::{Fleet, Link};

/// How long it is remembered where a user has come: far longer than interest takes to tell of it.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most arrivals remembered; the oldest makes room. Six thousand a second for ten seconds, some 12 MiB.
const REMEMBERED_MAX: usize = 65_536;

/// Where users have come lately.
pub struct Devices {
    recent: Mutex<Recent>,
    fleet: Arc<Fleet>,
}

#[derive(Default)]
struct Recent {
    gateways: HashMap<Arc<str>, (u64, GatewaySet), ahash::RandomState>,
    /// By age: when, the arrival's number, and whose.
    arrivals: VecDeque<(Instant, u64, Arc<str>)>,
    number: u64,
}

impl Devices {
    /// Nobody has come yet.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { recent: Mutex::default(), fleet }
    }

    /// A user has come at a gateway; gives where else it has come lately.
    fn note(&self, user: &str, gateway: GatewayIndex, now: Instant) -> GatewaySet {
        let mut recent = self.recent.lock();
        recent.forget(now);
        recent.number += 1;
        let number = recent.number;
        let user: Arc<str> = user.into();
        recent.arrivals.push_back((now, number, Arc::clone(&user)));
        let (last, gateways) = recent.gateways.entry(user).or_default();
        let before = *gateways;
        *last = number;
        gateways.insert(gateway);
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

    /// Arrivals remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.recent.lock().arrivals.len()
    }
}

impl Recent {
    /// Makes room for one, and forgets what is over. A user who has come again meanwhile is kept.
    fn forget(&mut self, now: Instant) {
        while let Some((at, ..)) = self.arrivals.front() {
            if now.duration_since(*at) < REMEMBERED && self.arrivals.len() < REMEMBERED_MAX {
                break;
            }
            let Some((_, number, user)) = self.arrivals.pop_front() else { break };
            if self.gateways.get(&user).is_some_and(|(last, _)| *last == number) {
                self.gateways.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        let now = Instant::now();

        assert!(devices.note("ann", gateway(0), now).is_empty());
        assert_eq!(places(devices.note("ann", gateway(1), now)), [0]);
        assert!(devices.note("bob", gateway(1), now).is_empty());
        let later = now + REMEMBERED / 2;
        assert_eq!(places(devices.note("ann", gateway(2), later)), [0, 1]);
        let over = now + REMEMBERED;
        assert_eq!(places(devices.note("ann", gateway(3), over)), [0, 1, 2], "the last arrival counts");
        assert_eq!(devices.remembered(), 2);
        assert!(devices.note("bob", gateway(2), over + REMEMBERED).is_empty());
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
        assert_eq!(devices.recent.lock().gateways.len(), REMEMBERED_MAX - 1, "one of them came twice");
    }
}
