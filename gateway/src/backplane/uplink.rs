//! A logic node's requests of the uplink: what clients have said, and the answers to it.

use std::time::Duration;

use tidegate_protocol::records::{Answers, UplinkReply, UplinkRequest};

use super::Refused;
use crate::gateway::node::Node;

/// Longest a request is held.
const HOLD_MS_MAX: u32 = 30_000;

/// Answers when something has been said, or when the hold is over.
pub(super) async fn listen(node: &Node, owner: u64, request: UplinkRequest) -> UplinkReply {
    // Numbers of another epoch say nothing here; the logic node learns ours and asks again.
    let taken = if request.epoch == node.instance.epoch { request.taken } else { 0 };
    let hold = Duration::from_millis(u64::from(request.hold_ms.min(HOLD_MS_MAX)));
    let wants = request.wants.unwrap_or_default();
    let (items, token) = node.uplink.listen(request.logic, owner, wants, taken, hold).await;
    node.uplink.answered(request.logic, token, node.clock.now());
    UplinkReply { epoch: node.instance.epoch, items }
}

/// Takes answers in.
pub(super) fn answers(node: &Node, answers: Answers) -> Result<(), Refused> {
    if answers.epoch != node.instance.epoch {
        return Err(Refused::Conflict("this gateway has another epoch: it has restarted"));
    }
    super::answers::settle(node, answers.logic, answers.answers);
    Ok(())
}
