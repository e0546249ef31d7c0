//! go-push's two calls, `POST /push/all` and `POST /push/room`, with forms: the same walk as `POST /v1/push`, real
//! status codes, the same receipt.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tidegate_protocol::records::Lane;

use super::body::{self, Unread};
use super::push::answer;
use super::query::Pairs;
use super::response::Answer;
use crate::problem::Refusal;
use crate::push::envelope;
use crate::push::{Caller, Engine, Narrow, Push, To, Wait};

const FORM: &str = "application/x-www-form-urlencoded";

/// Answers `POST /push/all`.
pub async fn all(engine: &Engine, caller: Caller, headers: &HeaderMap, body: Unread) -> Result<Answer, Refusal> {
    push(engine, caller, headers, body, |_| Ok(To::All)).await
}

/// Answers `POST /push/room`.
pub async fn room(engine: &Engine, caller: Caller, headers: &HeaderMap, body: Unread) -> Result<Answer, Refusal> {
    let to = |form: &mut Pairs| match form.take_name("room")? {
        Some(room) => Ok(To::Rooms(vec![room])),
        None => Err(Refusal::BadForm { detail: "the form needs room=<name>".into() }),
    };
    push(engine, caller, headers, body, to).await
}

async fn push(
    engine: &Engine,
    caller: Caller,
    headers: &HeaderMap,
    body: Unread,
    to: impl FnOnce(&mut Pairs) -> Result<To, Refusal>,
) -> Result<Answer, Refusal> {
    body::media_type(headers, &[FORM], FORM)?;
    let now = Arc::clone(&body.now);
    let body = body.read().await?;
    let mut form = Pairs::of_form(&body.bytes)?;
    let to = to(&mut form)?;
    let needs = || Refusal::BadForm { detail: "the form needs items=<JSON array>".into() };
    let items = Bytes::from(form.take("items").ok_or_else(needs)?);
    form.finish()?;
    let messages = envelope::items(&items, &now.limits)?;
    let push = Push {
        to,
        narrow: Narrow::default(),
        messages,
        lane: Lane::Normal,
        ttl_ms: 0,
        dedupe: None,
        wait: Wait::Accepted,
    };
    Ok(answer(&engine.submit(&engine.request(caller), push, None).outcome().await?))
}
