//! `POST /v1/push/batch`: many pushes in one request, as one JSON document or as NDJSON read line by line.
//! One bad push fails alone: the answer has, in order, a receipt or a problem for each. Invariant: at most
//! [`WINDOW`] pushes of one NDJSON body are on their way, so a long body is slowed by its gateways, not queued.

use std::collections::VecDeque;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{self, Unread};
use super::response::{Answer, json, with_type};
use crate::json::{self as syntax, Object};
use crate::metrics::api::{ApiMetrics, RefusalLabels};
use crate::problem::{Problem, Refusal};
use crate::push::envelope::{self, Bounds};
use crate::push::receipt::Receipt;
use crate::push::{Caller, Engine, Outcome, Push, Request, Walking};

/// Pushes of one NDJSON body on their way at once: enough to fill batches, small beside `backplane.queue_pushes`.
const WINDOW: usize = 1_024;

/// One push's part of the answer.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Item {
    Receipt(Receipt),
    Problem(Problem),
}

/// The answer to a batch.
#[derive(Serialize, ToSchema)]
pub struct Receipts {
    /// In the order of the pushes.
    receipts: Vec<Item>,
}

/// Answers `POST /v1/push/batch`.
pub async fn many(
    engine: &Engine,
    metrics: &ApiMetrics,
    caller: Caller,
    headers: &HeaderMap,
    body: Unread,
) -> Result<Answer, Refusal> {
    let request = engine.request(caller);
    let walker = Walker { engine, metrics, request };
    let wanted = [body::JSON, "application/x-ndjson"];
    match body::media_type(headers, &wanted, "application/json or application/x-ndjson")? {
        body::JSON => walker.document(body).await,
        _ => walker.lines(body).await,
    }
}

/// The pushes of one request on their way.
struct Walker<'a> {
    engine: &'a Engine,
    metrics: &'a ApiMetrics,
    request: Request,
}

impl Walker<'_> {
    fn submit(&self, push: Push) -> Walking {
        self.engine.submit(&self.request, push, None)
    }

    async fn document(&self, body: Unread) -> Result<Answer, Refusal> {
        let now = Arc::clone(&body.now);
        let limits = &now.limits;
        let body = body.read().await?;
        // Two levels stand above each push.
        let text = syntax::text(&body.bytes, limits.json_depth + 2)?;
        let mut object = Object::read(text, "")?;
        let Some(list) = object.take("pushes") else {
            object.only(&["pushes"])?;
            return Err(Refusal::MissingField { pointer: String::new(), name: "pushes" });
        };
        object.finish(&["pushes"])?;
        let raws = list
            .list(limits.batch_pushes, "a list of pushes")?
            .ok_or(Refusal::TooManyPushes { limit: limits.batch_pushes })?;
        let mut walks = Vec::with_capacity(raws.len());
        for (i, raw) in raws.into_iter().enumerate() {
            let push = envelope::read_text(raw.get(), &format!("/pushes/{i}"), &body.bytes, Bounds::of(&now));
            walks.push(push.map(|push| self.submit(push)));
        }
        let mut receipts = Vec::with_capacity(walks.len());
        for walk in walks {
            receipts.push(self.item(walk).await);
        }
        Ok(json(StatusCode::ACCEPTED, &Receipts { receipts }))
    }

    async fn lines(&self, body: Unread) -> Result<Answer, Refusal> {
        let now = Arc::clone(&body.now);
        let limits = &now.limits;
        let mut lines = body.lines();
        let mut walks: VecDeque<Result<Walking, Refusal>> = VecDeque::new();
        let mut answer = Vec::new();
        let mut count = 0;
        let broken = loop {
            let line = match lines.next().await {
                Ok(Some(_)) if count == limits.batch_pushes => break Some(Refusal::TooManyPushes { limit: count }),
                Ok(Some(line)) => line,
                Ok(None) => break None,
                Err(refusal) => break Some(refusal),
            };
            count += 1;
            walks.push_back(envelope::read(&line, Bounds::of(&now)).map(|push| self.submit(push)));
            if walks.len() > WINDOW
                && let Some(walk) = walks.pop_front()
            {
                write(&mut answer, &self.item(walk).await);
            }
        };
        if count == 0
            && let Some(refusal) = broken
        {
            return Err(refusal);
        }
        for walk in walks {
            write(&mut answer, &self.item(walk).await);
        }
        let is_broken = broken.is_some();
        if let Some(refusal) = broken {
            // What came before has been sent; the last line says why there is no more.
            write(&mut answer, &self.item(Err(refusal)).await);
        }
        let mut response = with_type(StatusCode::ACCEPTED, "application/x-ndjson", answer);
        if is_broken {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn item(&self, walk: Result<Walking, Refusal>) -> Item {
        let outcome: Outcome = match walk {
            Ok(walk) => walk.outcome().await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(receipt) => Item::Receipt(receipt),
            Err(refusal) => {
                self.metrics.refusals.get_or_create(&RefusalLabels { code: refusal.rules().code }).inc();
                Item::Problem(refusal.document())
            }
        }
    }
}

fn write(answer: &mut Vec<u8>, item: &Item) {
    // Writing a struct of strings and numbers to memory cannot fail.
    let _ = serde_json::to_writer(&mut *answer, item);
    answer.push(b'\n');
}
