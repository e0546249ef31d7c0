//! What each gateway says it could take, and the sum of it over the others, told to each: a gateway that leaves goes at the
//! rate at which the rest of the fleet can take its clients (docs/adr/0016). Knows nothing of links; they note and ask.
//! Invariant: a gateway that is unlinked, leaving or silent on the matter is in nobody's sum.

use parking_lot::Mutex;
use tidegate_protocol::records::{GatewayInfo, Rest};

use super::interest::GatewayIndex;
use crate::config::GATEWAYS_MAX;

/// What one gateway said last.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    accept_spare: Option<u32>,
    is_draining: bool,
}

/// The latest word of each gateway, by its place.
#[derive(Debug)]
pub(super) struct Spare(Mutex<Vec<Said>>);

impl Default for Spare {
    /// Room for as many gateways as there may be.
    fn default() -> Self {
        Self(Mutex::new(vec![Said::default(); GATEWAYS_MAX]))
    }
}

impl Spare {
    /// A gateway's account of itself.
    pub fn note(&self, gateway: GatewayIndex, info: &GatewayInfo) {
        self.set(gateway, Said { accept_spare: info.accept_spare, is_draining: info.is_draining });
    }

    /// Its link is lost: what it could take is not known any more.
    pub fn forget(&self, gateway: GatewayIndex) {
        self.set(gateway, Said::default());
    }

    fn set(&self, gateway: GatewayIndex, said: Said) {
        if let Some(place) = self.0.lock().get_mut(gateway.get()) {
            *place = said;
        }
    }

    /// What the others can take from this one, if any of them has said. Two that leave together share it.
    pub fn rest(&self, gateway: GatewayIndex) -> Option<Rest> {
        let all = self.0.lock();
        let stays = |(index, said): &(usize, &Said)| *index != gateway.get() && !said.is_draining;
        let spare = all.iter().enumerate().filter(stays).filter_map(|(_, said)| said.accept_spare);
        let (gateways, sum) = spare.fold((0, 0_u32), |(n, sum), spare| (n + 1, sum.saturating_add(spare)));
        let leaving = u32::try_from(all.iter().filter(|said| said.is_draining).count()).unwrap_or(u32::MAX).max(1);
        (gateways > 0).then_some(Rest { accept_spare: sum / leaving, gateways })
    }

    /// Whether a gateway is leaving, by its own word.
    pub fn is_draining(&self, gateway: GatewayIndex) -> bool {
        self.0.lock().get(gateway.get()).is_some_and(|said| said.is_draining)
    }

    /// Whether any gateway is leaving, so that news should be fresh.
    pub fn is_any_draining(&self) -> bool {
        self.0.lock().iter().any(|said| said.is_draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: usize) -> GatewayIndex {
        GatewayIndex::new(index).expect("a small fleet")
    }

    fn says(accept_spare: Option<u32>, is_draining: bool) -> GatewayInfo {
        GatewayInfo { accept_spare, is_draining, ..GatewayInfo::default() }
    }

    fn fleet(of: &[(Option<u32>, bool)]) -> Spare {
        let spare = Spare::default();
        of.iter().enumerate().for_each(|(i, (rate, is_draining))| spare.note(at(i), &says(*rate, *is_draining)));
        spare
    }

    #[test]
    fn a_gateway_hears_the_sum_of_the_others() {
        let spare = fleet(&[(Some(100), false), (Some(20), false), (Some(3), false)]);

        assert_eq!(spare.rest(at(0)), Some(Rest { accept_spare: 23, gateways: 2 }));
        assert_eq!(spare.rest(at(2)), Some(Rest { accept_spare: 120, gateways: 2 }));
    }

    #[test]
    fn the_lost_the_leaving_and_the_silent_are_in_no_sum() {
        let spare = fleet(&[(Some(100), false), (Some(20), true), (None, false), (Some(3), false)]);
        spare.forget(at(3));

        assert_eq!(spare.rest(at(1)), Some(Rest { accept_spare: 100, gateways: 1 }));
        assert_eq!(spare.rest(at(0)), None, "nobody else is known to take anything");
    }

    #[test]
    fn those_who_leave_together_share_what_the_rest_can_take() {
        let spare = fleet(&[(Some(100), false), (Some(0), true), (Some(0), true)]);

        assert_eq!(spare.rest(at(1)), Some(Rest { accept_spare: 50, gateways: 1 }));
        assert!(spare.is_any_draining());
    }

    #[test]
    fn a_full_fleet_can_take_nothing_and_says_so() {
        let spare = fleet(&[(Some(0), false), (Some(9), true)]);

        assert_eq!(spare.rest(at(1)), Some(Rest { accept_spare: 0, gateways: 1 }));
    }
}
