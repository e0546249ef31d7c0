//! Does what webhooks' answers ask for, by the ways that everyone's pushes take: the same checks, limits and receipts.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_protocol::records::Lane;

use super::wishes::{Acting, Action, Actions};
use crate::push::envelope::{self, Bounds};
use crate::push::{Caller, Engine, Narrow, Push, To, Wait};
use crate::settings::Settings;

/// Pushes what is asked for.
pub struct Pushing {
    engine: Arc<Engine>,
    settings: Arc<Settings>,
}

impl Pushing {
    /// Pushes by this engine, within these limits.
    #[must_use]
    pub fn new(engine: Arc<Engine>, settings: Arc<Settings>) -> Self {
        Self { engine, settings }
    }

    async fn push(&self, action: Action) -> bool {
        let current = self.settings.now();
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
        let request = self.engine.request(Caller::SINKS);
        // Nobody there is an answer too; a gateway that is away is in the metrics of pushes.
        let _ = self.engine.submit(&request, push, None).outcome().await;
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
