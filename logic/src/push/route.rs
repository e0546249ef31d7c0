//! From a push to the gateways that have its targets: one record for each, with only the targets that may be there.
//! Pure: reads the interest table and the gateways' identities, sends nothing (`fleet` does). A gateway that is not
//! known, or whose link is down, may have everything, so that a dead gateway is named in the receipt.

use bytes::Bytes;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::{self, Target, target};

use crate::fleet::interest::{GatewayIndex, GatewaySet, Interest};
use crate::fleet::{Identity, Share, holders};
use crate::push::{Narrow, Push, To, Wait};

/// Splits a push into the gateways' shares; none when nobody has its targets.
/// `identities` has one element per gateway.
#[must_use]
pub fn route(push: &Push, interest: &Interest, identities: &[(GatewayIndex, Identity)]) -> Vec<Share> {
    let width = identities.iter().map(|(index, _)| index.get() + 1).max().unwrap_or(0);
    let mut targets: Vec<Vec<Target>> = vec![Vec::new(); width];
    let mut add = |set: GatewaySet, to: &dyn Fn() -> target::To| {
        // One that has been let go in this moment has no place any more.
        for g in set.iter() {
            let targets = targets.get_mut(g.get());
            targets.into_iter().for_each(|targets| targets.push(Target { to: Some(to()) }));
        }
    };
    match &push.to {
        To::All => add(every(identities), &|| target::To::All(true)),
        To::Rooms(rooms) => {
            let view = interest.view();
            rooms.iter().for_each(|r| add(view.room(r), &|| target::To::Room(r.clone())));
        }
        To::Users(users) => {
            let view = interest.view();
            users.iter().for_each(|u| add(view.user(u), &|| target::To::User(u.clone())));
        }
        To::Connections(ids) => {
            for id in ids {
                add(holders(*id, identities), &|| target::To::Connection(id_bytes(*id)));
            }
        }
    }
    let narrow = narrow_record(&push.narrow);
    let shares = targets.into_iter().enumerate().filter(|(_, targets)| !targets.is_empty());
    shares
        .filter_map(|(i, targets)| {
            let push = record(push, targets, narrow.clone());
            Some(Share { gateway: GatewayIndex::new(i)?, push })
        })
        .collect()
}

fn id_bytes(id: ConnectionId) -> Bytes {
    Bytes::copy_from_slice(&id.to_bytes())
}

fn every(gateways: &[(GatewayIndex, Identity)]) -> GatewaySet {
    let mut set = GatewaySet::default();
    gateways.iter().for_each(|(index, _)| set.insert(*index));
    set
}

fn record(push: &Push, targets: Vec<Target>, narrow: Option<records::Narrow>) -> records::Push {
    records::Push {
        targets,
        messages: push.messages.clone(),
        lane: push.lane.into(),
        ttl_ms: push.ttl_ms,
        narrow,
        wait_written: matches!(push.wait, Wait::Written { .. }),
        control: Bytes::new(),
    }
}

fn narrow_record(narrow: &Narrow) -> Option<records::Narrow> {
    (*narrow != Narrow::default()).then(|| records::Narrow {
        platforms: narrow.platforms.clone(),
        except_connections: narrow.except_connections.iter().map(|id| id_bytes(*id)).collect(),
        except_users: narrow.except_users.clone(),
        attributes: narrow
            .attributes
            .iter()
            .map(|(name, value)| records::Pair { name: name.clone(), value: value.clone() })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_protocol::records::{EventsReply, InterestKind, Lane};

    fn push(to: To) -> Push {
        Push {
            to,
            narrow: Narrow::default(),
            messages: vec![Bytes::from_static(b"1")],
            lane: Lane::Normal,
            ttl_ms: 0,
            dedupe: None,
            wait: Wait::Accepted,
        }
    }

    /// Gateway 0 has rooms a and b, gateway 1 has room b and user u; both are known.
    fn interest() -> Interest {
        let told = |names: &[(InterestKind, &str)]| EventsReply {
            is_snapshot: true,
            interest: names
                .iter()
                .map(|&(kind, name)| records::Interest { kind: kind.into(), name: name.into(), is_present: true })
                .collect(),
            ..EventsReply::default()
        };
        let table = Interest::new(2, 10);
        let at = |i| GatewayIndex::new(i).expect("small");
        table.apply(at(0), &told(&[(InterestKind::Room, "a"), (InterestKind::Room, "b")]));
        table.apply(at(1), &told(&[(InterestKind::Room, "b"), (InterestKind::User, "u")]));
        table
    }

    const IDS: [Identity; 2] = [Some((1, Some(10))), Some((2, Some(20)))];

    fn walk(to: To, interest: &Interest, ids: &[Identity]) -> Vec<(usize, Vec<target::To>)> {
        let ids: Vec<_> = ids.iter().enumerate().map(|(i, id)| (GatewayIndex::new(i).expect("small"), *id)).collect();
        let shares = route(&push(to), interest, &ids);
        shares
            .into_iter()
            .map(|s| (s.gateway.get(), s.push.targets.into_iter().filter_map(|t| t.to).collect()))
            .collect()
    }

    #[test]
    fn a_room_push_goes_only_where_the_room_has_members() {
        let to = To::Rooms(vec!["a".into(), "b".into(), "nobody".into()]);

        let shares = walk(to, &interest(), &IDS);

        let room = |r: &str| target::To::Room(r.into());
        assert_eq!(shares, [(0, vec![room("a"), room("b")]), (1, vec![room("b")])]);
    }

    #[test]
    fn a_push_to_nobody_has_no_share() {
        assert!(walk(To::Users(vec!["nobody".into()]), &interest(), &IDS).is_empty());
        assert_eq!(walk(To::Users(vec!["u".into()]), &interest(), &IDS).len(), 1);
    }

    #[test]
    fn a_connection_push_goes_to_the_gateway_and_epoch_of_its_id() {
        let id = |gateway, epoch| ConnectionId { gateway, epoch, bucket: 0, slot: 0, generation: 0 };

        let to = To::Connections(vec![id(2, 20), id(2, 19), id(3, 20)]);
        let shares = walk(to.clone(), &interest(), &IDS);
        assert_eq!(shares, [(1, vec![target::To::Connection(id_bytes(id(2, 20)))])]);

        let shares = walk(to, &interest(), &[None, IDS[1]]);
        assert_eq!(shares[0].1.len(), 3, "a gateway that has not said who it is may have all of them");
    }

    #[test]
    fn everyone_is_every_gateway() {
        assert_eq!(walk(To::All, &interest(), &IDS).len(), 2);
    }
}
