//! What goes to one gateway, and which gateway gave out a connection's id. Plain values.

use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records;

use super::interest::{GatewayIndex, GatewaySet};

/// Which connection ids a gateway gives out: (gateway part, epoch part); `None` until it has said so.
pub type Identity = Option<(u16, Option<u32>)>;

/// What goes to one gateway.
#[derive(Debug, PartialEq)]
pub struct Share {
    /// Which gateway.
    pub gateway: GatewayIndex,
    /// The record for it.
    pub push: records::Push,
}

/// Gateways that gave out a connection id, or have not said which ones they give out.
#[must_use]
pub fn holders(id: ConnectionId, identities: &[(GatewayIndex, Identity)]) -> GatewaySet {
    let mut set = GatewaySet::default();
    for (index, identity) in identities {
        let is_holder =
            |(gateway, epoch): (u16, Option<u32>)| gateway == id.gateway && epoch.is_none_or(|e| e == id.epoch);
        if identity.is_none_or(is_holder) {
            set.insert(*index);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_down_may_have_any_connection_of_its_own() {
        let at = |i| GatewayIndex::new(i).expect("small");
        let ids = [(at(0), Some((1, None))), (at(1), Some((2, Some(20))))];
        let id = |gateway, epoch| ConnectionId { gateway, epoch, bucket: 0, slot: 0, generation: 0 };
        let named = |id| holders(id, &ids).iter().map(GatewayIndex::get).collect::<Vec<_>>();

        assert_eq!(named(id(1, 99)), [0]);
        assert_eq!(named(id(2, 99)), Vec::<usize>::new());
        assert_eq!(named(id(2, 20)), [1]);
    }
}
