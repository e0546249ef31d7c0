//! A logic node's requests of the uplink: what clients have said, and the answers to it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_protocol::records::{self, UplinkReply, UplinkRequest};

use super::Refused;
use super::answers::Answers;
use crate::clock::Clock;
use crate::key::Instance;
use crate::uplink::Uplink;

/// Longest a request is held.
const HOLD_MS_MAX: u32 = 30_000;

/// Carries what clients say up, and what is answered down.
#[derive(Debug)]
pub(crate) struct Upward {
    pub instance: Arc<Instance>,
    pub uplink: Arc<Uplink>,
    pub answers: Arc<Answers>,
    pub clock: Clock,
}

impl Upward {
    /// Answers when something has been said, or when the hold is over.
    pub async fn listen(&self, owner: u64, request: UplinkRequest) -> UplinkReply {
        // Numbers of another epoch say nothing here; the logic node learns ours and asks again.
        let taken = if request.epoch == self.instance.epoch { request.taken } else { 0 };
        let hold = Duration::from_millis(u64::from(request.hold_ms.min(HOLD_MS_MAX)));
        let wants = request.wants.unwrap_or_default();
        let (items, token) = self.uplink.listen(request.logic, owner, wants, taken, hold).await;
        self.uplink.answered(request.logic, token, self.clock.now());
        UplinkReply { epoch: self.instance.epoch, items }
    }

    /// Takes answers in.
    pub fn answers(&self, answers: records::Answers) -> Result<(), Refused> {
        if answers.epoch != self.instance.epoch {
            return Err(Refused::Conflict("this gateway has another epoch: it has restarted"));
        }
        self.answers.settle(answers.logic, answers.answers);
        Ok(())
    }

    /// A link has ended: what its logic node had not answered goes to another one.
    pub fn hang_up(&self, owner: u64) {
        self.uplink.hang_up(owner, self.clock.now());
    }
}
