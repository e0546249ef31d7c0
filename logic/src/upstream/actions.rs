//! Does what webhooks' answers ask for, by the ways that everyone's pushes take: the same checks, limits and receipts.

use std::sync::{OnceLock, Weak};

use bytes::Bytes;
use tidegate_protocol::records::Lane;

use super::wishes::{Acting, Action, Actions};
use crate::node::Node;
use crate::push::Caller;
use crate::push::envelope::{self, Bounds};
use crate::push::{Narrow, Push, To, Wait};

/// Pushes through the node, once there is one.
#[derive(Default)]
pub struct Pushing {
    node: OnceLock<Weak<Node>>,
}

impl Pushing {
    /// Now there is one.
    pub fn through(&self, node: Weak<Node>) {
        // Set once, by the start.
        let _ = self.node.set(node);
    }

    async fn push(&self, action: Action) -> bool {
        let Some(node) = self.node.get().and_then(Weak::upgrade) else { return false };
        let current = node.settings.now();
        let push = match action {
            Action::Reply { to, to_id, data } => {
                if data.len() > current.limits.message_bytes {
                    return false;
                }
                reply(to, &to_id, &data)
            }
            Action::Push(body) => match envelope::read(&body, Bounds::of(&current)) {
                Ok(push) => push,
                Err(_) => return false,
            },
        };
        let request = node.engine.request(Caller::SINKS);
        // Nobody there is an answer too; a gateway that is away is in the metrics of pushes.
        let _ = node.engine.submit(&request, push, None).outcome().await;
        true
    }
}

impl Actions for Pushing {
    fn act(&self, action: Action) -> Acting<'_> {
        Box::pin(self.push(action))
    }
}

/// What the sender of a message gets: `{"reply_to": id, "data": …}`.
fn reply(to: tidegate_protocol::ids::ConnectionId, to_id: &str, data: &[u8]) -> Push {
    let mut message = Vec::with_capacity(data.len() + 64);
    message.extend_from_slice(b"{\"reply_to\":");
    // A string serialises without fail.
    let _ = serde_json::to_writer(&mut message, to_id);
    message.extend_from_slice(b",\"data\":");
    message.extend_from_slice(data);
    message.push(b'}');
    Push {
        to: To::Connections(vec![to]),
        narrow: Narrow::default(),
        messages: vec![Bytes::from(message)],
        lane: Lane::Normal,
        ttl_ms: 0,
        dedupe: None,
        wait: Wait::Accepted,
    }
}
