//! `POST /v1/push`: the start of a push's walk. Body → [`crate::push::Push`] (`envelope`), which the push engine takes on.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::body::{Unread, must_be_json};
use super::response::{Answer, json};
use crate::problem::Refusal;
use crate::push::envelope::{self, Bounds};
use crate::push::receipt::Receipt;
use crate::push::{Caller, Engine};

/// Answers `POST /v1/push`.
pub async fn one(engine: &Engine, caller: Caller, headers: &HeaderMap, body: Unread) -> Result<Answer, Refusal> {
    must_be_json(headers)?;
    let now = Arc::clone(&body.now);
    let body = body.read().await?;
    let push = envelope::read(&body.bytes, Bounds::of(&now))?;
    let receipt = engine.submit(&engine.request(caller), push, None).outcome().await?;
    Ok(answer(&receipt))
}

/// 202, or 200 when the push was waited for.
pub fn answer(receipt: &Receipt) -> Answer {
    json(if receipt.written.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED }, receipt)
}
