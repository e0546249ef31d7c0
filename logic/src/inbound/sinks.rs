//! From the way up to the sinks: a client's SEND to a route, and events, as gateways hand them on.

use bytes::Bytes;
use serde_json::{Map, Value};
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::{Event, Route};

use super::Arrived;
use crate::fleet::tracker::Ticket;
use crate::upstream::{Events, Outcome, Upstream, UpstreamItem, What};

/// Takes a message, in order; the client is told when it is on the disk.
pub fn route(upstream: &Upstream, arrived: Arrived<'_>, route: Route, ticket: Ticket) {
    let what = What::Message { route: route.route, nonce: route.nonce };
    let item = upstream_item(arrived, what, route.data);
    let outcome = upstream.submit(&item);
    tokio::spawn(async move {
        match outcome.await {
            Ok(Outcome::Sent { time_ms }) => ticket.sent(item.id, time_ms),
            Ok(Outcome::Refused { code, message, retryable }) => ticket.refuse(code, &message, retryable),
            // The node leaves; the dropped ticket says that a retry can help.
            Err(_) => drop(ticket),
        }
    });
}

/// Takes an event.
pub fn event(events: &Events, arrived: Arrived<'_>, event: Event) {
    let (data, gateway) = (data_of(&event), arrived.link.slot.index);
    let mut item = upstream_item(arrived, What::Event { kind: event.kind.clone() }, data);
    if event.kind.starts_with("user_") {
        // Of all their connections, whichever was the first.
        (item.connection, item.platform, item.device) = (None, String::new(), String::new());
    }
    events.happened(Some(gateway), item);
}

fn upstream_item(arrived: Arrived<'_>, what: What, data: Bytes) -> UpstreamItem {
    let Arrived { item, from, link } = arrived;
    let gateway = link.account().1.map(|info| info.name).filter(|name| !name.is_empty());
    UpstreamItem {
        id: item.id.clone(),
        what,
        user: from.user,
        connection: ConnectionId::from_slice(&from.connection),
        platform: from.platform,
        device: from.device,
        gateway: gateway.unwrap_or_else(|| link.name.clone()),
        time_ms: item.time_ms,
        data,
    }
}

/// What an event says beyond whose it is.
fn data_of(event: &Event) -> Bytes {
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| drop(data.insert(name.into(), value));
    match event.kind.as_str() {
        "joined" => put("room", event.room.as_str().into()),
        "left" => {
            put("room", event.room.as_str().into());
            if !event.reason.is_empty() {
                put("reason", event.reason.as_str().into());
            }
        }
        "disconnected" => {
            put("code", event.code.into());
            put("reason", event.reason.as_str().into());
            put("duration_ms", event.duration_ms.into());
        }
        _ => {}
    }
    Bytes::from(Value::Object(data).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_belongs_to_its_kind() {
        let event = |kind: &str| Event {
            kind: kind.into(),
            room: "lobby".into(),
            code: 1006,
            reason: "gone".into(),
            duration_ms: 12,
        };

        assert_eq!(data_of(&event("connected")), "{}");
        assert_eq!(data_of(&event("joined")), r#"{"room":"lobby"}"#);
        assert_eq!(data_of(&event("left")), r#"{"reason":"gone","room":"lobby"}"#);
        assert_eq!(data_of(&event("disconnected")), r#"{"code":1006,"duration_ms":12,"reason":"gone"}"#);
    }
}
