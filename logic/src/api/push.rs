//! `POST /v1/push`: the start of a push's walk. Body → [`crate::push::Push`] (`envelope`), which the push engine takes on.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;

use super::body;
use super::response::{Answer, json};
use crate::node::Node;
use crate::problem::Refusal;
use crate::push::Caller;
use crate::push::envelope::{self, Bounds};
use crate::push::receipt::Receipt;

/// Answers `POST /v1/push`.
pub async fn one(node: &Arc<Node>, caller: Caller, headers: &HeaderMap, incoming: Incoming) -> Result<Answer, Refusal> {
    body::must_be_json(headers)?;
    let current = node.settings.now();
    let body = body::read(incoming, &node.budget, &current.limits, &current.http).await?;
    let push = envelope::read(&body.bytes, Bounds::of(&current))?;
    let receipt = node.engine.submit(&node.engine.request(caller), push, None).outcome().await?;
    Ok(answer(&receipt))
}

/// 202, or 200 when the push was waited for.
pub fn answer(receipt: &Receipt) -> Answer {
    json(if receipt.written.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED }, receipt)
}
