//! SEND from client to client (rule S-1): the gateway has checked that the sender may; here it becomes a push with the
//! sender's name on it, and its receipt the sender's SENT. A `nonce` is a dedupe key of the sender's own, so a retry sends
//! nothing and gets the first SENT.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::{Item, Lane, Send, Sender, target};

use super::Arrived;
use crate::fleet::tracker::Ticket;
use crate::problem::Refusal;
use crate::push::{Engine, Key, Narrow, Outcome, Push, Request, To, Wait};

/// What the audience gets as an item of PUSH.
#[derive(Serialize)]
struct Said<'a> {
    /// The sender's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    /// An anonymous sender's connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    id: &'a str,
    time_ms: u64,
    data: &'a RawValue,
}

/// Sends it on its way, in order; the sender is told later.
pub fn carry(engine: &Engine, request: &Request, arrived: Arrived<'_>, send: Send, ticket: Ticket) {
    let Arrived { item, from, .. } = arrived;
    let Some((to, is_for_one)) = audience(&send) else {
        return ticket.refuse("bad_data", "no recipient", false);
    };
    let Some(message) = message(item, &from, &send.data) else {
        return ticket.refuse("bad_data", "data is not JSON", false);
    };
    let sender = ConnectionId::from_slice(&from.connection);
    let except_connections = if send.skip_self { sender.into_iter().collect() } else { Vec::new() };
    let push = Push {
        to,
        narrow: Narrow { except_connections, ..Narrow::default() },
        messages: vec![message],
        lane: Lane::Normal,
        ttl_ms: 0,
        dedupe: (!send.nonce.is_empty()).then(|| key_of(&from, &send.nonce)),
        wait: Wait::Accepted,
    };
    let walking = engine.submit(request, push, Some(&item.id));
    let time_ms = item.time_ms;
    tokio::spawn(async move {
        let outcome = walking.outcome().await;
        tell(ticket, outcome, is_for_one, time_ms);
    });
}

fn tell(ticket: Ticket, outcome: Outcome, is_for_one: bool, time_ms: u64) {
    match outcome {
        // A receipt of nobody, though gateways were asked or none had to be: they are not there.
        Ok(receipt) if is_for_one && receipt.matched == 0 && receipt.gateways.failed.is_empty() => {
            ticket.refuse("offline", "the recipient is not connected", true);
        }
        Ok(receipt) => ticket.sent(receipt.id, time_ms),
        Err(Refusal::QueuesFull { .. }) => ticket.refuse("overloaded", "the gateways' queues are full", true),
        Err(_) => ticket.refuse("unavailable", "no gateway took the message", true),
    }
}

fn audience(send: &Send) -> Option<(To, bool)> {
    match send.to.as_ref()?.to.as_ref()? {
        target::To::Room(room) => Some((To::Rooms(vec![room.clone()]), false)),
        target::To::User(user) => Some((To::Users(vec![user.clone()]), true)),
        target::To::Connection(id) => Some((To::Connections(vec![ConnectionId::from_slice(id)?]), true)),
        target::To::All(_) => None,
    }
}

fn message(item: &Item, from: &Sender, data: &[u8]) -> Option<Bytes> {
    let is_anonymous = from.user.is_empty();
    let said = Said {
        from: (!is_anonymous).then_some(from.user.as_str()),
        connection: is_anonymous.then(|| ConnectionId::from_slice(&from.connection).map(|id| id.to_string())).flatten(),
        id: &item.id,
        time_ms: item.time_ms,
        data: tidegate_protocol::json::from_slice(data).ok()?,
    };
    serde_json::to_vec(&said).ok().map(Bytes::from)
}

/// A user's nonces hold on all its connections, so that it may retry from a new one.
fn key_of(from: &Sender, nonce: &str) -> Key {
    let owner = match from.user.as_str() {
        "" => format!("c\0{}", ConnectionId::from_slice(&from.connection).unwrap_or_default()),
        user => format!("u\0{user}"),
    };
    Key { owner: Some(owner), name: nonce.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_belongs_to_its_sender_whatever_is_in_it() {
        let from = |user: &str| Sender { user: user.into(), ..Sender::default() };

        let keys = ["1", "a\0b", ""].map(|nonce| key_of(&from("alice"), nonce));

        assert!(keys.iter().all(|key| key.owner.as_deref() == Some("u\0alice")), "{keys:?}");
        assert_ne!(key_of(&from(""), "1").owner, keys[0].owner);
    }
}
