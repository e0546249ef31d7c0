//! The gateway's news: interest deltas, snapshots, its account of itself, fetched one held request after another.
//! Invariant: a reply is applied before the next request leaves, because that request acknowledges it and the gateway
//! answers JOINED only then; so a push sent after JOINED finds the interest.

use std::time::Duration;

use tidegate_protocol::records::{EventsReply, EventsRequest, path};

use super::client::{CallError, Client};
use super::{Link, Shared};

/// Where we are in one gateway's news; outlives a connection.
#[derive(Default)]
pub(super) struct Position {
    epoch: u64,
    cursor: u64,
    page: String,
}

impl Position {
    /// A new connection: a snapshot that was half told starts over, for its pages may have been the old connection's.
    pub fn begin(&mut self) {
        if !self.page.is_empty() {
            *self = Self::default();
        }
    }

    /// Asks once, applies the answer, and returns the gateway's epoch.
    pub async fn step(
        &mut self,
        shared: &Shared,
        link: &Link,
        client: &Client,
        hold: Duration,
    ) -> Result<u64, CallError> {
        let request = EventsRequest {
            logic: shared.logic,
            epoch: self.epoch,
            cursor: self.cursor,
            page: self.page.clone(),
            hold_ms: u32::try_from(hold.as_millis()).unwrap_or(u32::MAX),
            rest: shared.spare.rest(link.slot.index),
        };
        let deadline = hold + Duration::from_millis(u64::from(shared.config.request_ms));
        let reply: EventsReply = client.call(path::EVENTS, &request, deadline).await?;
        let epoch = reply.epoch;
        if epoch != self.epoch && !reply.is_snapshot {
            // News of an epoch whose beginning we have not seen: start over with a snapshot.
            *self = Self { epoch, ..Self::default() };
            shared.interest.doubt(link.slot.index);
            return Ok(epoch);
        }
        shared.interest.apply(link.slot.index, &reply);
        link.metrics.events.inc_by(reply.interest.len() as u64);
        let mut account = link.account.lock();
        if account.epoch != epoch {
            *account = super::link::Account { epoch, info: None };
        }
        if let Some(info) = &reply.gateway {
            shared.spare.note(link.slot.index, info);
            account.info = reply.gateway;
        }
        *self = Self { epoch, cursor: reply.cursor, page: reply.page };
        Ok(epoch)
    }
}
