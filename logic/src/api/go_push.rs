//! go-push's two calls, `POST /push/all` and `POST /push/room`, with forms: the same walk as `POST /v1/push`, real
//! status codes, the same receipt.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::Incoming;
use tidegate_protocol::records::Lane;

use super::body;
use super::push::answer;
use super::query::Pairs;
use super::response::Answer;
use crate::node::Node;
use crate::problem::Refusal;
use crate::push::Caller;
use crate::push::envelope;
use crate::push::{Narrow, Push, To, Wait};

const FORM: &str = "application/x-www-form-urlencoded";

/// Answers `POST /push/all`.
pub async fn all(node: &Arc<Node>, caller: Caller, headers: &HeaderMap, incoming: Incoming) -> Result<Answer, Refusal> {
    push(node, caller, headers, incoming, |_| Ok(To::All)).await
}

/// Answers `POST /push/room`.
pub async fn room(
    node: &Arc<Node>,
    caller: Caller,
    headers: &HeaderMap,
    incoming: Incoming,
) -> Result<Answer, Refusal> {
    let to = |form: &mut Pairs| match form.take_name("room")? {
        Some(room) => Ok(To::Rooms(vec![room])),
        None => Err(Refusal::BadForm { detail: "the form needs room=<name>".into() }),
    };
    push(node, caller, headers, incoming, to).await
}

async fn push(
    node: &Arc<Node>,
    caller: Caller,
    headers: &HeaderMap,
    incoming: Incoming,
    to: impl FnOnce(&mut Pairs) -> Result<To, Refusal>,
) -> Result<Answer, Refusal> {
    body::media_type(headers, &[FORM], FORM)?;
    let current = node.settings.now();
    let body = body::read(incoming, &node.budget, &current.limits, &current.http).await?;
    let mut form = Pairs::of_form(&body.bytes)?;
    let to = to(&mut form)?;
    let needs = || Refusal::BadForm { detail: "the form needs items=<JSON array>".into() };
    let items = Bytes::from(form.take("items").ok_or_else(needs)?);
    form.finish()?;
    let messages = envelope::items(&items, &current.limits)?;
    let push = Push {
        to,
        narrow: Narrow::default(),
        messages,
        lane: Lane::Normal,
        ttl_ms: 0,
        dedupe: None,
        wait: Wait::Accepted,
    };
    Ok(answer(&node.engine.submit(&node.engine.request(caller), push, None).outcome().await?))
}
